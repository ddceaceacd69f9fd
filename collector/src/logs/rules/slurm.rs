//! Slurm's own words, and those of other batch systems, for limits, kills,
//! cancellation and launch. Texts as in slurmstepd, srun, salloc and sbatch
//! from 18.08 to 26.05.

use super::{Rule, Strength::*, rule};
use crate::logs::finding::Cause::*;

pub(super) const RULES: &[Rule] = &[
    // Memory. The counter's report first: it names the step.
    rule("slurm_oom_kill", Oom, Verdict, r"(?i)detected \d+ oom[-_ ]kill event"),
    rule("slurm_oom_killed", Oom, Verdict, r"have been (?:OOM Killed|killed by the cgroup out-of-memory handler)"),
    rule("slurm_memory_limit", Oom, Verdict, r"(?i)exceeded (?:job|step|virtual|its)? ?(?:virtual )?memory limit"),
    rule("slurm_task_oom", Oom, Verdict, r"^\s*(?:srun|slurmstepd): error: .*\btasks? [\d,\-]+: Out Of Memory"),
    rule("slurm_state_oom", Oom, Verdict, r"\b(?:State\s*[=:]\s*|Job state: ?)?OUT_OF_ME(?:MORY|\+)"),
    rule("lsf_memlimit", Oom, Verdict, r"TERM_MEMLIMIT"),
    rule("pbs_mem", Oom, Verdict, r"PBS: job killed: (?:v?mem|pmem) \S+ exceeded limit"),
    // Wall time.
    rule("slurm_time_limit", Timeout, Verdict, r"(?i)DUE TO TIME LIMIT"),
    rule("slurm_alloc_time_limit", Timeout, Verdict, r"has exceeded its time limit and its allocation has been revoked"),
    rule("slurm_state_timeout", Timeout, Verdict, r"\b(?:JobState|State|state)\s*[=:]\s*TIMEOUT\b"),
    rule("pbs_walltime", Timeout, Verdict, r"PBS: job killed: (?:walltime|cput) \S+ exceeded limit"),
    rule("lsf_runlimit", Timeout, Verdict, r"TERM_RUNLIMIT|TERM_CPULIMIT"),
    rule("job_exceeded_walltime", Timeout, Verdict, r"(?i)\bjob\b.*\b(?:exceeded|hit|reached) (?:its |the )?(?:requested |maximum )?(?:wall ?-?(?:clock )?time|time limit)"),
    // Preemption and requeue.
    rule("slurm_preemption", Preempted, Verdict, r"(?i)DUE TO (?:PREEMPTION|JOB REQUEUE)"),
    rule("slurm_preempted", Preempted, Verdict, r"(?i)\bjob\b.{0,60}\b(?:has been |was |been )(?:preempted|requeued)|\bTERM_PREEMPT\b|\b(?:JobState|State|state)\s*[=:]\s*PREEMPTED\b"),
    rule("spot_reclaimed", Preempted, Verdict, r"(?i)(?:spot|preemptible|pre-emptible) (?:instance|vm|node|machine)s? .{0,40}(?:reclaimed|interrupted|interruption|terminated|preempted)"),
    // Nodes.
    rule("slurm_node_failure", NodeFail, Verdict, r"(?:error: Node failure on |DUE TO NODE FAILURE)"),
    rule("slurm_state_node_fail", NodeFail, Verdict, r"\b(?:NODE_FAIL|BOOT_FAIL)\b"),
    rule("slurm_node_boot", NodeFail, Verdict, r"Something is wrong with the boot of the nodes|^(?:srun|salloc): error: Nodes \S+ are still not ready"),
    rule("node_down", NodeFail, Verdict, r"(?i)\b(?:node|host) \S+ (?:has (?:gone|been set) down|is down or unreachable|unexpectedly rebooted|rebooted unexpectedly)|Node unexpectedly rebooted|\bnodes? \S+ not responding, setting DOWN"),
    rule("srun_no_response", NodeFail, Verdict, r"^srun: error: (?:Node \S+ is down|.*[Tt]imed out waiting for (?:node|job step) .*nodes? down)"),
    // Launch.
    rule("slurm_munge", Launch, Fatal, r"\bMunge (?:encode|decode) failed").infra(true).lang("shell"),
    rule("slurm_execve_permission", Permission, Fatal, r"execve\(\): .*: Permission denied").lang("shell"),
    rule("slurm_execve_missing", Env, Fatal, r"execve\(\): .*: (?:No such file or directory|Exec format error|bad interpreter)").lang("shell"),
    rule("slurm_launch_socket", Launch, Fatal, r"(?:Task launch for |Unable to create step|Unable to (?:allocate|confirm)).*(?:Socket timed out|find an address|Communication connection failure|Zero Bytes|Connection refused|Unable to contact|Transport endpoint|[Ll]aunch failed due to)").infra(true).lang("shell"),
    rule("slurm_prolog", Launch, Fatal, r"(?i)\b(?:prolog|job_prolog|task_prolog|TaskProlog|spank)\b.{0,60}\b(?:fail(?:ed|ure)|error|exited)|Job launch failed due to prolog").infra(true).lang("shell"),
    rule("slurm_task_launch", Launch, Fatal, r"Task launch for (?:StepId=|\d).*failed|error: task \d+ launch failed").lang("shell"),
    rule("slurm_create_step", Launch, Fatal, r"Unable to create (?:job )?step").lang("shell"),
    rule("slurm_allocate", Launch, Fatal, r"(?:Unable to allocate resources|Job submit/allocate failed|Batch job submission failed|Unable to confirm allocation for job|allocation failure)(?:: |$)").lang("shell"),
    rule("slurm_bad_request", Launch, Error, r"^(?:sbatch|srun|salloc): (?:error|fatal): .*(?:[Ii]nvalid|[Uu]nable to|[Rr]equested|[Uu]nrecognized|not a valid|[Cc]annot|[Cc]an't|not supported|violates|exceeds?|must|conflict|[Ii]ncompatible|not permitted|denied|not found|No such)").lang("shell"),
    rule("slurm_usage", Launch, Fatal, r"^(?:sbatch|srun|salloc): (?:unrecognized option|invalid option|option .* requires|ambiguous option)").lang("shell"),
    rule("slurm_policy", Launch, Fatal, r"Job violates accounting/QOS policy|Invalid account or account/partition combination|Requested node configuration is not available|invalid partition specified|(?:QOS|Assoc)(?:Max|Grp)\w+(?:Limit|PerUser|PerJob)|More processors requested than permitted|Requested time limit is invalid").lang("shell"),
    rule("slurm_held", Launch, Fatal, r"(?i)launch[ _]failed[ _]requeued[ _]held|Job prolog failed").infra(true).lang("shell"),
    rule("slurm_cpu_bind", Launch, Error, r"CPU binding outside of job step allocation|Unable to satisfy cpu bind request").lang("shell"),
    rule("slurm_mpi_plugin", Launch, Error, r"(?:[Cc]ouldn't find|cannot find|[Ii]nvalid) .{0,30}(?:mpi plugin|MPI type)").lang("shell"),
    rule("slurm_gres", Launch, Error, r"Invalid generic resource \(gres\) specification|Requested gres").lang("shell"),
    rule("slurm_chdir", Filesystem, Soft, r"(?:slurmstepd|srun): error: couldn't chdir to").lang("shell"),
    rule("slurm_open_output", Filesystem, Fatal, r"^(?:slurmstepd|srun|slurmd): error: (?:Could not open (?:stdout|stderr|stdin) file|Unable to open file)").lang("shell"),
    rule("slurm_config", Launch, Fatal, r"^(?:srun|sbatch|salloc): (?:error|fatal): (?:fetch_config|_establish_config_source|Could not establish a configuration source|.*slurm\.conf)").lang("shell"),
    rule("slurm_config_dns", Launch, Soft, r"^(?:srun|sbatch|salloc): error: resolve_ctls_from_dns_srv").lang("shell"),
    rule("slurm_fatal", Launch, Fatal, r"^(?:srun|sbatch|salloc): fatal: ").lang("shell"),
    rule("slurm_launch_aftermath", Launch, Aftermath, r"Application launch failed").lang("shell"),
    rule("pbs_qsub", Launch, Fatal, r"^(?:qsub|bsub|sge_execd): .*(?:error|[Ii]llegal|[Ii]nvalid|[Uu]nknown|rejected|exceeds|violates|not accepted|[Uu]nauthorized)").lang("shell"),
    rule("lsf_rejected", Launch, Fatal, r"Request aborted by esub|Job not submitted").lang("shell"),
    rule("slurm_task_failure", EngineWrapper, Wrapper, r"DUE TO TASK FAILURE"),
    // Cancellation, with no reason beside it.
    rule("slurm_cancelled", Cancelled, Cancel, r"\*\*\* (?:JOB|STEP) \S+ (?:ON|on) .*CANCELLED AT|\*\*\* (?:JOB|STEP) \S+ CANCELLED AT|\bJob \S+ (?:has been|was) (?:cancelled|canceled) by"),
    rule("keyboard_interrupt", Cancelled, Cancel, r"^\s*\^C\w*KeyboardInterrupt|^\s*\^C\s*$"),
    rule("slurm_state_cancelled", Cancelled, Cancel, r"\b(?:JobState|State|state)\s*[=:]\s*CANCELLED\b|\bTERM_OWNER\b"),
    rule("srun_interrupt", Cancelled, Cancel, r"^srun: (?:interrupt|sending Ctrl-C to)|^salloc: Job allocation \d+ has been revoked by"),
    rule("slurm_step_failed", EngineWrapper, Wrapper, r"\*\*\* (?:JOB|STEP) \S+ ON \S+ FAILED \("),
    // Signals as srun names them.
    rule("srun_crash", Crash, Kill, r"^(?:srun|slurmstepd\S*): (?:error: )?.*\btasks? [\d,\-\[\]]+: (?:Segmentation fault|Bus error|Aborted|Illegal instruction|Floating point exception|Trace/breakpoint trap)"),
    rule("srun_killed", Oom, Kill, r"^(?:srun|slurmstepd\S*): (?:error: )?.*\btasks? [\d,\-\[\]]+: (?:Killed|Exited with exit code 137)"),
    rule("srun_abnormal", EngineWrapper, Wrapper, r"^srun: (?:\S+ )?tasks? [\d,\-]+: exited abnormally"),
    rule("srun_exit", EngineWrapper, Wrapper, r"^(?:srun|slurmstepd\S*): (?:error: )?.*\btasks? [\d,\-\[\]]+: Exited with exit code [1-9]"),
    rule("srun_terminated", EngineWrapper, Aftermath, r"^\s*(?:srun|slurmstepd\S*): (?:error: )?.*(?:: Terminated$|Job step aborted|[Ff]orce Terminated|Terminating (?:StepId|job step)|forcing job termination)"),
];
