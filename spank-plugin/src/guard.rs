//! What every hook passes through, so that none of them can hurt a job.
//!
//! Slurm protects a job from an `optional` plugin only as far as a hook's
//! return value goes. An abort in slurmstepd orphans the tasks, and in the
//! extern step it takes the node out of service. So: no panic leaves a hook,
//! nothing is printed about it, the result is always 0, and a plugin that has
//! panicked once stays silent for the rest of its process.

use std::cell::UnsafeCell;
use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::small::monotonic_ns;
use crate::step::Step;

/// The one step that this slurmstepd runs, or nothing in any other process.
///
/// Slurm calls all hooks of a process one after another. With `contain_spank`
/// some of them run in a clone that shares this memory, and Slurm waits for
/// it. So there is one user at a time; `busy` makes that true even
/// if some release breaks the rule, and it is no lock: nobody ever waits, the
/// second user does nothing. Should a clone be killed inside a hook, `busy`
/// stays set, and the plugin stays silent.
struct State {
    busy: AtomicBool,
    step: UnsafeCell<Option<Box<Step>>>,
}

// SAFETY: `step` is only touched by whoever has set `busy`.
unsafe impl Sync for State {}

static STATE: State = State { busy: AtomicBool::new(false), step: UnsafeCell::new(None) };

/// Runs a hook on the state of this process. Takes it a panic, it is counted
/// in the state, and everything but `last` is skipped from then on.
pub(crate) fn hook(last: bool, body: impl FnOnce(&mut Option<Box<Step>>)) -> c_int {
    let began = monotonic_ns();
    if STATE.busy.swap(true, Ordering::Acquire) {
        return 0;
    }
    // SAFETY: busy was clear and is ours now.
    let step = unsafe { &mut *STATE.step.get() };
    if last || step.as_ref().is_none_or(|s| s.panics == 0) {
        if let Some(step) = step {
            step.hook_began_ns = began;
        }
        // The state is either dropped or only counted on after a panic, so a
        // half-made change is never built upon.
        let result = catch_unwind(AssertUnwindSafe(|| body(step)));
        if let Some(step) = step {
            let took = monotonic_ns().saturating_sub(began);
            step.hook_ns += took;
            step.hook_max_ns = step.hook_max_ns.max(took);
            step.panics += u32::from(result.is_err());
        }
        if let Err(payload) = result {
            // A payload may panic once more when it is dropped.
            std::mem::forget(payload);
        }
    }
    STATE.busy.store(false, Ordering::Release);
    0
}

/// Keeps panics from being printed: descriptor 2 is the user's output.
pub(crate) fn silence() {
    std::panic::set_hook(Box::new(|_| {}));
}
