//! The rules, in the order in which they are tried.

mod exit;
pub(crate) mod memory;
mod slurm;
mod time;

use inquest_journal::StepId;

use super::{Case, Class, Confidence, Death, Match, Retry, Rule};
use crate::slurm::signal_name;
use crate::story::{EventId, Exit};
use crate::units::{bytes, count, duration, memory_words};

pub use exit::{AppError, ChildSignal, Crash, CrashMasked, Ended, KilledOther, LaunchFail, Unexplained};
pub use memory::{OomCgroup, OomHost, OomPartial};
pub use slurm::{
    BootFail, Cancelled, CancelledByAdmin, CancelledByUser, Dependency, EndedBySlurm, Lost, NodeFail,
    NodeReboot, Preempted, Requeued,
};
pub use time::{Deadline, TimedOut, TimeoutHandled, Warned};

/// All rules. Order matters and is part of the manual.
pub const RULES: &[&dyn Rule] = &[
    &OomHost,
    &OomCgroup,
    &OomPartial,
    &TimeoutHandled,
    &Dependency,
    &Deadline,
    &TimedOut,
    &Preempted,
    &Requeued,
    &BootFail,
    &NodeReboot,
    &NodeFail,
    &CancelledByUser,
    &CancelledByAdmin,
    &Cancelled,
    &Warned,
    &EndedBySlurm,
    &Crash,
    &CrashMasked,
    &KilledOther,
    &LaunchFail,
    &ChildSignal,
    &AppError,
    &Ended,
    &Lost,
];

fn found(confidence: Confidence, death: Option<usize>) -> Option<Match> {
    Some(Match { confidence, death, evidence: Vec::new() })
}

fn first<'a>(case: &'a Case<'_>) -> Option<(usize, &'a Death)> {
    let index = case.first?;
    Some((index, case.deaths.get(index)?))
}

fn the_death<'a>(case: &'a Case<'_>, found: &Match) -> Option<&'a Death> {
    case.deaths.get(found.death?)
}

fn state<'a>(case: &Case<'a>) -> &'a str {
    case.slurm.map_or("", |r| r.state_word())
}

fn script_ended_well(case: &Case<'_>) -> bool {
    case.attempt.batch_exit().is_some_and(Exit::is_clean)
}

/// `1 process`, `3 processes`.
pub(crate) fn processes(count: u64) -> String {
    crate::units::count(count, "process", "processes")
}

fn memory(death: &Death) -> String {
    death.memory().map_or(String::new(), |m| format!("; {m}"))
}
