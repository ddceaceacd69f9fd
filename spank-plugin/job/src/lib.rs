/*!
The hooks of a job's prolog and epilog, in an object of their own.

slurmd asks only whether some plugin has these hooks, not whether it wants them: where one does, slurmd starts
a process of its own for every job on every node, before and after it (about 4 ms each). So they are not in
`spank_inquest.so`, and an admin who wants them adds a second line to plugstack.conf and starts slurmd again,
which looks for these hooks only then (before 23.11).

What they add is what only Slurm's environment of a prolog or epilog says: the job on a node before its first
step and after its last one, its account, comment, files of output as they were asked for, which attempt
begins, and the exit code that Slurm itself gives it.

The modules are those of the recorder, from the same files. Here is no state: the process lives for one hook.
`spank_job_control_getenv` and its kin are never called, because in this context they end the process, and
with it the node's turn to run jobs; everything comes from the environment of the process, which Slurm makes
from its own words. What a user can set there has `SPANK_` before its name.
*/

// Each is used in part.
#[allow(dead_code)]
#[path = "../../src/abi.rs"]
mod abi;
#[allow(dead_code)]
#[path = "../../src/args.rs"]
mod args;
#[allow(dead_code)]
#[path = "../../src/facts.rs"]
mod facts;
#[allow(dead_code)]
#[path = "../../src/small.rs"]
mod small;
#[path = "../../src/version.rs"]
mod version;

use std::ffi::{CStr, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};

use inquest_journal::{
    Body, Identity, JobEnded, JobId, JobStarted, Severity, Source, Stamp, Timestamp, Via, Writer,
};

use crate::abi::*;
use crate::args::{Config, Sync};
use crate::facts::{End, own_env};
use crate::small::{number, text};

/// The name in Slurm's messages.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)]
#[used]
static plugin_name: [u8; 12] = *b"inquest-job\0";

/// What kind of plugin Slurm loads this as.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)]
#[used]
static plugin_type: [u8; 6] = *b"spank\0";

/// A job is about to have this node.
#[unsafe(no_mangle)]
extern "C" fn slurm_spank_job_prolog(handle: spk_handle, argc: c_int, argv: *mut *mut c_char) -> c_int {
    hook(handle, argc, argv, "job_prolog", |owner| (Severity::Info, started(owner).into()))
}

/// A job has left this node.
#[unsafe(no_mangle)]
extern "C" fn slurm_spank_job_epilog(handle: spk_handle, argc: c_int, argv: *mut *mut c_char) -> c_int {
    hook(handle, argc, argv, "job_epilog", |_| {
        let body = ended();
        let failed = body.signal.is_some() || body.exit_code.is_some_and(|code| code != 0);
        (if failed { Severity::Error } else { Severity::Info }, body.into())
    })
}

/// Whose job it is, from Slurm and not from the environment.
struct Owner {
    uid: Option<u32>,
    gid: Option<u32>,
}

/// Writes one event. Whatever happens, the job goes on: what a prolog returns can drain its node.
fn hook(
    handle: spk_handle,
    argc: c_int,
    argv: *mut *mut c_char,
    name: &str,
    body: fn(&Owner) -> (Severity, Body),
) -> c_int {
    std::panic::set_hook(Box::new(|_| {}));
    let result = catch_unwind(AssertUnwindSafe(|| {
        let host = Host::find();
        let spank = Spank { host: &host, handle };
        if host.context() != SPK_CTX_JOB_SCRIPT {
            return;
        }
        // SAFETY: Slurm passes argc arguments.
        match Config::parse(unsafe { arguments(argc, argv) }) {
            Ok(config) => {
                inject(&config, name);
                record(&spank, &config, body);
            }
            Err(e) => host.info(&format!("inquest-job: {e}; nothing is recorded until it is corrected")),
        }
    }));
    if let Err(payload) = result {
        // A payload may panic once more when it is dropped.
        std::mem::forget(payload);
    }
    0
}

fn record(spank: &Spank<'_>, config: &Config, body: fn(&Owner) -> (Severity, Body)) {
    let Some(job) = spank.u32(SPK_JOB_ID).map(JobId) else { return };
    if config.opt_out && string(c"SPANK__SLURM_SPANK_OPTION_inquest_inquest").as_deref() == Some("off") {
        return;
    }
    let owner = Owner { uid: spank.u32(SPK_JOB_UID), gid: spank.u32(SPK_JOB_GID) };
    let cluster = config.cluster.clone().or_else(facts::cluster_of_slurm_conf);
    let began = Stamp::now();
    let identity = Identity::new(
        cluster.as_deref().unwrap_or("unknown"),
        &facts::node_name(),
        &facts::boot_id(),
        std::process::id(),
        began.mono_us,
    );
    let mut writer = match Writer::open(&config.journal, identity, Source::Plugin) {
        Ok((writer, None)) => writer,
        Ok((writer, Some(e))) => {
            let journal = config.journal.display();
            spank.host.info(&format!("inquest-job: {e}, below {journal}. The job is not affected."));
            writer
        }
        Err(e) => {
            return spank
                .host
                .info(&format!("inquest-job: {e}: {}; nothing is recorded", config.journal.display()));
        }
    };
    let (severity, body) = body(&owner);
    writer.write_at(began, severity, Some(job), None, None, &body);
    if config.sync == Sync::Always {
        writer.sync();
    }
}

/// In builds for tests: panics where the arguments say so.
#[cfg(feature = "inject-faults")]
fn inject(config: &Config, hook: &str) {
    if config.inject.as_deref() == Some(hook) {
        panic!("injected into {hook}");
    }
}

#[cfg(not(feature = "inject-faults"))]
fn inject(_: &Config, _: &str) {}

/// What Slurm tells a prolog.
fn started(owner: &Owner) -> JobStarted {
    JobStarted {
        via: Some(Via::Prolog),
        uid: owner.uid,
        gid: owner.gid,
        account: string(c"SLURM_JOB_ACCOUNT"),
        partition: string(c"SLURM_JOB_PARTITION"),
        qos: string(c"SLURM_JOB_QOS"),
        comment: string(c"SLURM_JOB_COMMENT"),
        work_dir: string(c"SLURM_JOB_WORK_DIR"),
        stdout: string(c"SLURM_JOB_STDOUT"),
        stderr: string(c"SLURM_JOB_STDERR"),
        node_list: string(c"SLURM_JOB_NODELIST").or_else(|| string(c"SLURM_NODELIST")),
        node_count: count(c"SLURM_JOB_NUM_NODES"),
        het_job_id: count(c"SLURM_HET_JOB_ID").map(JobId),
        restart: count(c"SLURM_JOB_RESTART_COUNT"),
        end_limit: time(c"SLURM_JOB_END_TIME"),
        run: string(c"SPANK__SLURM_SPANK_OPTION_inquest_inquest_run"),
        ..JobStarted::default()
    }
}

/// What Slurm tells an epilog. The exit code is a raw wait status, with 125 as a signal for a job that Slurm
/// itself calls OUT_OF_MEMORY: that is none.
fn ended() -> JobEnded {
    const SIGNALS: u8 = 64;
    let end = count(c"SLURM_JOB_EXIT_CODE").and_then(|n| i32::try_from(n).ok()).map(End::from_status);
    let derived = count(c"SLURM_JOB_DERIVED_EC").and_then(|n| i32::try_from(n).ok()).map(End::from_status);
    JobEnded {
        via: Some(Via::Epilog),
        exit_code: end.and_then(|e| e.exit_code),
        signal: end.and_then(|e| e.signal).filter(|&n| n <= SIGNALS),
        derived_exit_code: derived.and_then(|e| e.exit_code),
        // When a job is put back into the queue, Slurm counts that before the epilog: what is not 0 may be
        // this attempt's number or the next one's.
        restart: count(c"SLURM_JOB_RESTART_COUNT").filter(|&n| n == 0),
        ..JobEnded::default()
    }
}

/// A variable that Slurm has set. Some values are a user's; the journal bounds and escapes them.
fn string(name: &CStr) -> Option<String> {
    let value = own_env(name)?;
    (!value.is_empty() && value != b"(null)").then(|| text(&value))
}

fn count(name: &CStr) -> Option<u32> {
    number(&own_env(name)?).and_then(|n| u32::try_from(n).ok())
}

fn time(name: &CStr) -> Option<Timestamp> {
    let seconds = number(&own_env(name)?).filter(|&s| s > 0)?;
    i64::try_from(seconds).ok()?.checked_mul(1_000_000).map(Timestamp)
}

/// # Safety
///
/// `argv` holds `argc` pointers to strings that outlive the hook.
unsafe fn arguments<'a>(argc: c_int, argv: *mut *mut c_char) -> impl Iterator<Item = &'a [u8]> {
    let argc = if argv.is_null() { 0 } else { usize::try_from(argc).unwrap_or(0) };
    (0..argc).filter_map(move |i| {
        // SAFETY: i is below argc.
        let arg = unsafe { *argv.add(i) };
        // SAFETY: arguments are NUL-terminated.
        (!arg.is_null()).then(|| unsafe { CStr::from_ptr(arg) }.to_bytes())
    })
}
