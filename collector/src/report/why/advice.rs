//! What to do about a cause that only a log told.

use crate::logs::Cause;

/// The next step of somebody who knows this kind of failure; nothing where
/// the quoted line says it better.
pub(super) fn advice(cause: Cause) -> Option<&'static str> {
    Some(match cause {
        Cause::Oom => "ask for more memory with --mem, or let the program use less of it",
        Cause::GpuOom => {
            "the memory of the accelerator was full, --mem does not change it: smaller batches, or another kind \
             of GPU"
        }
        Cause::Timeout => "ask for more time with --time, or write checkpoints and continue from them",
        Cause::NodeFail => "run it again on another node: --exclude=NODE",
        Cause::Mpi => "see whether other jobs fail on the same nodes (inquest errors), and run it elsewhere",
        Cause::GpuHw => "have the GPU of this node checked, and run it elsewhere: --exclude=NODE",
        Cause::Env => {
            "load the same modules and environment inside the job script, and try there what is missing"
        }
        Cause::Filesystem => {
            "see whether the path is right and whether this node has that file system: ls it in a job"
        }
        Cause::DiskFull => "make room, or look at your quota; a retry fails the same way until then",
        Cause::Permission => "the job's user may not do that: look at owner and mode of what it names",
        Cause::RateLimit => "start fewer at once (--array=...%8), and try again later",
        Cause::Network => {
            "try again later; if it comes back, see whether nodes of this partition may go out at all"
        }
        Cause::Billing => "the account at the service has no credit: top it up before running this again",
        Cause::License => {
            "no licence was free: ask Slurm for one with --licenses, so that the job waits for it"
        }
        Cause::Launch => {
            "look at the options of the job and the step: Slurm could not start what was asked for"
        }
        Cause::Validation => "mend the input that the message names; a retry fails the same way",
        Cause::Hang => "see which rank said nothing (inquest logs): the one that is missing is the culprit",
        Cause::Container => "try to start the image on a node of this partition by hand",
        _ => return None,
    })
}
