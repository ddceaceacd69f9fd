/*!
The SPANK plugin: a flight recorder inside slurmstepd.

Slurm calls the exported functions at the points of a step's life that spank(7)
describes. Each takes facts from Slurm (items), the kernel (/proc, cgroups) and
the job's environment, and appends events to the journal of the node.

The first rule is to never hurt a job. In slurmstepd there are no threads, no
network, no child processes, no waiting for others, nothing on descriptors 0, 1
and 2 (in the extern step, 1 is a handshake with slurmd; 2 is the user's
output), and every hook returns 0 whatever happens; see `guard`.

Exported names are only those that Slurm looks for. `init` and `fini`, which
its loader would call, are not among them; neither are the hooks that run in the
forked child, nor those of the job's prolog and epilog: their mere existence
makes slurmd start a process for every job.
*/

mod abi;
mod args;
mod cgroup;
mod facts;
mod guard;
mod kmsg;
mod notes;
mod small;
mod step;
mod version;

use std::ffi::{CStr, c_char, c_int};

use crate::abi::*;
use crate::args::Config;
use crate::step::Step;

/// The name in Slurm's messages.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)]
#[used]
static plugin_name: [u8; 8] = *b"inquest\0";

/// What kind of plugin Slurm loads this as.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)]
#[used]
static plugin_type: [u8; 6] = *b"spank\0";

/// Called first in every process that loads plugins.
#[unsafe(no_mangle)]
extern "C" fn slurm_spank_init(handle: spk_handle, argc: c_int, argv: *mut *mut c_char) -> c_int {
    guard::silence();
    guard::hook(false, |state| {
        let host = Host::find();
        let spank = Spank { host: &host, handle };
        register_options(&spank);
        let context = host.context();
        if context != SPK_CTX_REMOTE && context != SPK_CTX_SLURMD {
            return;
        }
        // SAFETY: Slurm passes argc arguments.
        let config = match Config::parse(unsafe { arguments(argc, argv) }) {
            Ok(config) => config,
            Err(e) => {
                let text = format!("inquest: {e}; nothing is recorded until it is corrected");
                // slurmd's log is the admin's, and there an error is one. In
                // slurmstepd an error would also reach the user.
                if context == SPK_CTX_SLURMD {
                    host.error(&text)
                } else {
                    host.info(&text)
                }
                return;
            }
        };
        if context == SPK_CTX_SLURMD {
            if !config.refused.is_empty() {
                let names = config.refused.join(", ");
                host.info(&format!("inquest: not recorded, because it may be a secret: {names}"));
            }
            return;
        }
        *state = Step::open(&spank, config).map(Box::new);
        inject(state, "init");
    })
}

/// Slurm has told of the user's options, and what tasks find in their environment is not settled yet.
#[unsafe(no_mangle)]
extern "C" fn slurm_spank_init_post_opt(handle: spk_handle, _: c_int, _: *mut *mut c_char) -> c_int {
    guard::hook(false, |state| {
        inject(state, "init_post_opt");
        with_step(state, handle, Step::init_post_opt);
    })
}

/// A task was forked and waits; in the extern step, the step has begun.
#[unsafe(no_mangle)]
extern "C" fn slurm_spank_task_post_fork(handle: spk_handle, _: c_int, _: *mut *mut c_char) -> c_int {
    guard::hook(false, |state| {
        inject(state, "task_post_fork");
        with_step(state, handle, Step::task_post_fork);
    })
}

/// A task was reaped.
#[unsafe(no_mangle)]
extern "C" fn slurm_spank_task_exit(handle: spk_handle, _: c_int, _: *mut *mut c_char) -> c_int {
    guard::hook(false, |state| {
        inject(state, "task_exit");
        with_step(state, handle, Step::task_exit);
    })
}

/// The step is over.
#[unsafe(no_mangle)]
extern "C" fn slurm_spank_exit(handle: spk_handle, _: c_int, _: *mut *mut c_char) -> c_int {
    guard::hook(true, |state| {
        inject(state, "exit");
        with_step(state, handle, Step::exit);
    });
    // An end that is missing would read as the death of slurmstepd, so a
    // panic above is worth a second try, and then that is that.
    guard::hook(true, |state| {
        with_step(state, handle, Step::exit);
        if let Some(step) = state {
            step.flush();
        }
    })
    // slurmstepd is about to end. What the step holds, two descriptors and a
    // few pages, goes with it, sooner than it could be given back here.
}

fn with_step(state: &mut Option<Box<Step>>, handle: spk_handle, f: fn(&mut Step, &Spank<'_>)) {
    if let Some(step) = state.as_mut().filter(|step| !step.ended) {
        let host = step.host();
        f(step, &Spank { host: &host, handle });
    }
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

const OPTION_RUN: c_int = 1;
const OPTION_SWITCH: c_int = 2;

/// Two options for users. They exist whatever the arguments say, so that a
/// script works on every cluster that has the plugin.
fn register_options(spank: &Spank<'_>) {
    let options = [
        (c"inquest-run", c"ID", c"put this job into the run ID of the failure records", OPTION_RUN),
        (c"inquest", c"on|off", c"record this job, or not where the site lets users choose", OPTION_SWITCH),
    ];
    for (name, arginfo, usage, val) in options {
        let mut option = spk_option {
            name: name.as_ptr().cast_mut(),
            arginfo: arginfo.as_ptr().cast_mut(),
            usage: usage.as_ptr().cast_mut(),
            has_arg: 1,
            val,
            cb: Some(option_given),
        };
        spank.host.register(spank.handle, &mut option);
    }
}

/// Slurm has met one of our options. Outside slurmstepd it only has to reach
/// the job, which Slurm does itself. A value that makes no sense is never a
/// reason to refuse a job.
unsafe extern "C" fn option_given(val: c_int, arg: *const c_char, remote: c_int) -> c_int {
    if remote == 0 || arg.is_null() {
        return 0;
    }
    guard::hook(false, |state| {
        let Some(step) = state else { return };
        // SAFETY: Slurm passes a NUL-terminated argument.
        let arg = small::text(unsafe { CStr::from_ptr(arg) }.to_bytes());
        match val {
            OPTION_RUN if !arg.is_empty() => step.set_run(arg),
            OPTION_SWITCH => step.set_off(arg == "off"),
            _ => {}
        }
    })
}

/// In builds for tests: panics where the arguments say so.
#[cfg(feature = "inject-faults")]
fn inject(state: &Option<Box<Step>>, hook: &str) {
    if let Some(step) = state
        && step.config.inject.as_deref() == Some(hook)
    {
        panic!("injected into {hook}");
    }
}

#[cfg(not(feature = "inject-faults"))]
fn inject(_: &Option<Box<Step>>, _: &str) {}
