//! Processes of a job that died and are no tasks, which the agent of a node sees: what a script did not tell of,
//! what came from outside, and, where many members of a run are packed into one step, which of them it was.

use inquest_journal::StepId;

use super::Subject;
use crate::report::events::end;
use crate::report::{clean, member};
use crate::story::{Attempt, Moment, Oom, Process};
use crate::units::{bytes, duration};
use crate::verdict::{Verdict, level_name, processes};

/// Lines of one job.
const SHOWN: usize = 8;

/// Slurm ends what is left of a job with these, and a pipe its writer.
const TOLD_TO: [u8; 3] = [9, 13, 15];

/// One process, or one kill for memory, in words.
#[derive(Debug)]
pub(super) struct Child<'a> {
    pub(super) at: &'a Moment,
    /// `+1:02` since the start of the job.
    pub(super) offset: String,
    /// What it was and how it ended.
    pub(super) text: String,
}

/// Those that tell a person something, in the order of time, and how many more there were. Programs of a script
/// end with codes all day long; one of a known member is a member that failed.
pub(super) fn children<'a>(
    subject: &'a Subject<'_>,
    verdict: &Verdict,
    only: Option<StepId>,
) -> (Vec<Child<'a>>, usize) {
    let Some(attempt) = subject.attempt() else { return (Vec::new(), 0) };
    let here = |step: Option<StepId>| only.is_none_or(|only| step == Some(only));
    let died = attempt.processes.iter().filter(|p| here(p.step) && tells(attempt, verdict, p));
    let died = died.map(|p| child(attempt, p));
    let killed = attempt.oom.iter().filter(|o| here(o.step) && is_of_no_task(attempt, o));
    let mut told: Vec<Child<'_>> = died.chain(killed.map(|o| victim(attempt, o))).collect();
    told.sort_by_key(|child| child.at.wall);
    let more = told.len().saturating_sub(SHOWN);
    told.truncate(SHOWN);
    (told, more)
}

/// A kill in the extern step, among processes that came from outside, or where the end of the task was never
/// recorded: no death of a task stands for it.
fn is_of_no_task(attempt: &Attempt, oom: &Oom) -> bool {
    let step = oom.step.and_then(|id| attempt.steps.get(&id));
    let task = step.zip(oom.task).and_then(|(step, task)| step.tasks.get(&task));
    task.is_none_or(|task| task.exit.is_none())
}

fn tells(attempt: &Attempt, verdict: &Verdict, process: &Process) -> bool {
    let died = &process.died;
    let step = process.step.and_then(|id| attempt.steps.get(&id));
    // The task itself, and who was killed for memory, are told of as that.
    let is_task = step.is_some_and(|s| s.tasks.values().any(|t| t.pid.is_some() && t.pid == died.pid));
    let is_victim = attempt.oom.iter().flat_map(|o| &o.victims).any(|v| v.pid == died.pid);
    let by_itself = died.signal.is_some_and(|signal| !TOLD_TO.contains(&signal));
    let before = verdict.first_failure.as_ref().is_none_or(|f| process.at.since(&f.at) <= 0);
    let of_member = member(&died.env).is_some() && (before || died.signal.is_none());
    !is_task && !is_victim && (by_itself || of_member)
}

fn since(attempt: &Attempt, at: &Moment) -> String {
    format!("+{}", duration(attempt.started.as_ref().map_or(0, |start| at.since(start))))
}

fn victim<'a>(attempt: &Attempt, oom: &'a Oom) -> Child<'a> {
    let named =
        |v: &inquest_journal::Victim| Some(format!("{} (pid {})", clean(v.command.as_deref()?), v.pid?));
    let names: Vec<String> = oom.victims.iter().filter_map(named).collect();
    let who = if names.is_empty() { processes(oom.count) } else { names.join(", ") };
    let place = oom.step.map_or("the job".into(), |step| format!("step {step}"));
    let level = oom.level.map_or(String::new(), |level| format!(" ({})", level_name(level)));
    let limit = oom.limit_bytes.map_or(String::new(), |limit| format!("; limit {}{level}", bytes(limit)));
    Child {
        at: &oom.at,
        offset: since(attempt, &oom.at),
        text: format!("{place} on {}: {who} killed for memory{limit}", clean(&oom.at.node)),
    }
}

fn child<'a>(attempt: &Attempt, process: &'a Process) -> Child<'a> {
    let died = &process.died;
    let task = process.task.map_or(String::new(), |task| format!(" task {task}"));
    let place = process.step.map_or("the job".into(), |step| format!("step {step}{task}"));
    let name = clean(died.command.as_deref().unwrap_or("a process"));
    let pid = died.pid.map_or(String::new(), |pid| format!(" (pid {pid})"));
    let how = end(died.exit_code, died.signal, died.core).unwrap_or_else(|| "an unknown end".into());
    let member = member(&died.env).map_or(String::new(), |m| format!("; {m}"));
    Child {
        at: &process.at,
        offset: since(attempt, &process.at),
        text: format!("{place} on {}: {name}{pid}, {how}{member}", clean(&process.at.node)),
    }
}
