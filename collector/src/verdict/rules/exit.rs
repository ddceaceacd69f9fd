//! Ended by itself, or by somebody on the node.

use super::time::{asked, before_limit};
use super::*;

/// See [`Rule::when`].
#[derive(Debug)]
pub struct Crash;

fn is_fault(signal: u8) -> bool {
    // ILL, TRAP, ABRT, BUS, FPE, SEGV, SYS: a program's own doing.
    matches!(signal, 4 | 5 | 6 | 7 | 8 | 11 | 31)
}

impl Rule for Crash {
    fn cause(&self) -> &'static str {
        "signal"
    }
    fn class(&self) -> Class {
        Class::Crash
    }
    fn label(&self) -> &'static str {
        "CRASH"
    }
    fn when(&self) -> &'static str {
        "the first failure is a task that died by a fault of its own: SEGV, ABRT, BUS, ILL, FPE, TRAP or SYS"
    }
    fn check(&self, case: &Case<'_>) -> Option<Match> {
        let (index, death) = first(case)?;
        (death.signal.is_some_and(is_fault) && !script_ended_well(case))
            .then(|| found(Confidence::Fact, Some(index)))?
    }
    fn explain(&self, case: &Case<'_>, found: &Match) -> String {
        let Some(death) = the_death(case, found) else { return String::new() };
        format!("{} crashed with {} at {}{}.", death.place(), death.end(), death.offset(), memory(death))
    }
    fn advise(&self, _: &Case<'_>, _: &Match) -> Vec<String> {
        vec!["run it with 'ulimit -c unlimited' and look at the core file with gdb, or build it with -g and a sanitizer".into()]
    }
}

/// See [`Rule::when`].
#[derive(Debug)]
pub struct CrashMasked;

impl Rule for CrashMasked {
    fn cause(&self) -> &'static str {
        "crash_masked"
    }
    fn class(&self) -> Class {
        Class::Crash
    }
    fn label(&self) -> &'static str {
        "CRASH"
    }
    fn when(&self) -> &'static str {
        "a task of a step died by a fault of its own although the job script exited 0"
    }
    fn check(&self, case: &Case<'_>) -> Option<Match> {
        let (index, death) = first(case)?;
        (death.signal.is_some_and(is_fault) && script_ended_well(case))
            .then(|| found(Confidence::Fact, Some(index)))?
    }
    fn explain(&self, case: &Case<'_>, found: &Match) -> String {
        let Some(death) = the_death(case, found) else { return String::new() };
        format!(
            "{} crashed with {} at {}, but the job script went on and exited 0.",
            death.place(),
            death.end(),
            death.offset()
        )
    }
    fn advise(&self, _: &Case<'_>, _: &Match) -> Vec<String> {
        vec!["let the script stop at the first failure: set -e, or check the exit code of srun".into()]
    }
}

/// See [`Rule::when`].
#[derive(Debug)]
pub struct KilledOther;

/// A signal just before the time limit may be the warning that sbatch's command line asked for, which only
/// slurmdbd knows.
fn near_limit(case: &Case<'_>, death: &Death) -> String {
    const NEAR_US: i64 = 600_000_000;
    let before = before_limit(case, death).filter(|before| (0..=NEAR_US).contains(before));
    let before = before.filter(|_| death.signal != Some(9) && asked(case).is_none());
    before.map_or(String::new(), |us| {
        format!(
            " It was {} before the job's time limit, as Slurm's warning signal would be; whether one was asked for \
             (--signal) is not known.",
            duration(us)
        )
    })
}

impl Rule for KilledOther {
    fn cause(&self) -> &'static str {
        "killed_other"
    }
    fn class(&self) -> Class {
        Class::Crash
    }
    fn label(&self) -> &'static str {
        "KILLED"
    }
    fn when(&self) -> &'static str {
        "the first failure is a task that died by a signal that is no fault of its own, and neither memory, limit, cancel nor preemption explains it: somebody or something sent it"
    }
    fn check(&self, case: &Case<'_>) -> Option<Match> {
        let (index, death) = first(case)?;
        (death.signal.is_some() && !script_ended_well(case)).then(|| found(Confidence::Fact, Some(index)))?
    }
    fn explain(&self, case: &Case<'_>, found: &Match) -> String {
        let Some(death) = the_death(case, found) else { return String::new() };
        format!(
            "{} was killed with {} at {}: not for memory (no kill was counted{}), not by the time limit and not by a cancel.{}",
            death.place(),
            death.end(),
            death.offset(),
            memory(death),
            near_limit(case, death)
        )
    }
    fn advise(&self, _: &Case<'_>, _: &Match) -> Vec<String> {
        vec!["look for who sent the signal: the job itself (kill, timeout(1), a supervisor), an administrator, or a daemon of the node".into()]
    }
    fn retry(&self) -> Retry {
        Retry::AsItIs
    }
}

/// See [`Rule::when`].
#[derive(Debug)]
pub struct LaunchFail;

impl Rule for LaunchFail {
    fn cause(&self) -> &'static str {
        "launch_fail"
    }
    fn class(&self) -> Class {
        Class::AppError
    }
    fn label(&self) -> &'static str {
        "LAUNCH"
    }
    fn when(&self) -> &'static str {
        "the first failure is exit code 126 or 127, which a shell gives for a command it cannot run or find"
    }
    fn check(&self, case: &Case<'_>) -> Option<Match> {
        let (index, death) = first(case)?;
        (matches!(death.exit_code, Some(126 | 127)) && !script_ended_well(case))
            .then(|| found(Confidence::Inferred, Some(index)))?
    }
    fn explain(&self, case: &Case<'_>, found: &Match) -> String {
        let Some(death) = the_death(case, found) else { return String::new() };
        let what = if death.exit_code == Some(127) { "was not found" } else { "could not be executed" };
        format!("{} ended with {} at {}: a command {what}.", death.place(), death.end(), death.offset())
    }
    fn advise(&self, _: &Case<'_>, _: &Match) -> Vec<String> {
        vec![
            "check PATH, loaded modules and the file's execute bit on the node; the log names the command"
                .into(),
        ]
    }
}

/// See [`Rule::when`].
#[derive(Debug)]
pub struct ChildSignal;

impl Rule for ChildSignal {
    fn cause(&self) -> &'static str {
        "child_signal"
    }
    fn class(&self) -> Class {
        Class::Crash
    }
    fn label(&self) -> &'static str {
        "CRASH"
    }
    fn when(&self) -> &'static str {
        "the first failure is exit code 128+n, which a shell gives for a child that died by signal n"
    }
    fn check(&self, case: &Case<'_>) -> Option<Match> {
        let (index, death) = first(case)?;
        let signal = death.exit_code?.checked_sub(128)?;
        ((1..=31).contains(&signal) && !script_ended_well(case))
            .then(|| found(Confidence::Inferred, Some(index)))?
    }
    fn explain(&self, case: &Case<'_>, found: &Match) -> String {
        let Some(death) = the_death(case, found) else { return String::new() };
        let signal = signal_name(death.exit_code.unwrap_or(128) - 128);
        format!(
            "{} ended with {} at {}: a child of it died by {signal}.",
            death.place(),
            death.end(),
            death.offset()
        )
    }
}

/// See [`Rule::when`].
#[derive(Debug)]
pub struct AppError;

impl Rule for AppError {
    fn cause(&self) -> &'static str {
        "app_error"
    }
    fn class(&self) -> Class {
        Class::AppError
    }
    fn label(&self) -> &'static str {
        "ERROR"
    }
    fn when(&self) -> &'static str {
        "the first failure is any other exit code than 0; or no task's end says so, and a step, the job's end or Slurm does"
    }
    fn check(&self, case: &Case<'_>) -> Option<Match> {
        if case.attempt.steps.is_empty() && state(case) == "FAILED" {
            return found(Confidence::Fact, None);
        }
        let Some((index, death)) = first(case) else {
            let (evidence, words) = said_beside(case);
            return (!words.is_empty()).then_some(Match {
                confidence: Confidence::Fact,
                death: None,
                evidence,
            });
        };
        (death.exit_code.is_some_and(|c| c != 0) && !script_ended_well(case))
            .then(|| found(Confidence::Fact, Some(index)))?
    }
    fn explain(&self, case: &Case<'_>, found: &Match) -> String {
        let Some(death) = the_death(case, found) else {
            if case.attempt.steps.is_empty() {
                let said = case.slurm.map_or(String::new(), |r| r.verdict());
                return format!("its nodes recorded nothing of this attempt; Slurm says {said}.");
            }
            let (_, words) = said_beside(case);
            return format!("no recorded end of a task explains it, but {}.", words.join(", and "));
        };
        format!("{} ended with {} at {}.", death.place(), death.end(), death.offset())
    }
}

/// What says that a job without a recorded end of its script has failed, beside the ends of its tasks: those may
/// be lost, or it was the shell that held the allocation. The events, and in words.
fn said_beside(case: &Case<'_>) -> (Vec<EventId>, Vec<String>) {
    let (mut evidence, mut words) = (Vec::new(), Vec::new());
    if case.attempt.batch_exit().is_some() {
        return (evidence, words);
    }
    for (id, step) in &case.attempt.steps {
        for (node, part) in &step.nodes {
            if let Some(failed) = part.tasks_failed.filter(|n| *n > 0) {
                words.push(format!(
                    "{} of step {id} on {node} failed",
                    count(u64::from(failed), "task", "tasks")
                ));
                evidence.extend(part.ended.as_ref().map(|at| at.event.clone()));
            }
        }
    }
    let more = words.len().saturating_sub(BESIDE);
    words.truncate(BESIDE);
    evidence.truncate(BESIDE);
    if more > 0 {
        words.push(format!("so did tasks of {more} more"));
    }
    if let Some(end) = &case.attempt.ended {
        let said = match (end.signal, end.exit_code) {
            (Some(signal), _) => Some(signal_name(signal)),
            (None, Some(code)) if code != 0 => Some(format!("exit code {code}")),
            _ => None,
        };
        if let Some(said) = said {
            words.push(format!("the job ended with {said}"));
            evidence.push(end.at.event.clone());
        }
    }
    if let Some(record) = case.slurm.filter(|_| state(case) == "FAILED") {
        words.push(format!("Slurm says {}", record.verdict()));
    }
    (evidence, words)
}

/// Parts of steps that are named.
const BESIDE: usize = 3;

/// See [`Rule::when`].
#[derive(Debug)]
pub struct Ended;

impl Rule for Ended {
    fn cause(&self) -> &'static str {
        "ok"
    }
    fn class(&self) -> Class {
        Class::Ok
    }
    fn label(&self) -> &'static str {
        "OK"
    }
    fn when(&self) -> &'static str {
        "the job script, or without one every task, ended with code 0 and nothing was killed"
    }
    fn check(&self, case: &Case<'_>) -> Option<Match> {
        let attempt = case.attempt;
        let clean = match attempt.batch_exit() {
            Some(exit) => exit.is_clean(),
            None if attempt.steps.is_empty() => state(case) == "COMPLETED",
            None => {
                case.deaths.is_empty()
                    && attempt.all_steps_ended()
                    && said_beside(case).1.is_empty()
                    && matches!(state(case), "" | "COMPLETED")
            }
        };
        let evidence = attempt
            .batch_exit()
            .map(|e| e.at.event.clone())
            .or(attempt.last.as_ref().map(|m| m.event.clone()));
        clean.then(|| Match {
            confidence: Confidence::Fact,
            death: None,
            evidence: evidence.into_iter().collect(),
        })
    }
    fn explain(&self, case: &Case<'_>, _: &Match) -> String {
        match case.deaths.len() {
            0 => "ended well.".into(),
            n => format!(
                "ended well; {n} task(s) of its steps ended with an error that the script dealt with."
            ),
        }
    }
}

/// What is left when no rule holds.
#[derive(Debug)]
pub struct Unexplained;

impl Rule for Unexplained {
    fn cause(&self) -> &'static str {
        "unknown"
    }
    fn class(&self) -> Class {
        Class::Unknown
    }
    fn label(&self) -> &'static str {
        "UNKNOWN"
    }
    fn when(&self) -> &'static str {
        "no other rule holds"
    }
    fn check(&self, _: &Case<'_>) -> Option<Match> {
        found(Confidence::Inferred, None)
    }
    fn explain(&self, case: &Case<'_>, _: &Match) -> String {
        let said = case.slurm.map_or(String::new(), |r| format!(" Slurm says {}.", r.verdict()));
        format!("no recorded fact explains how the job ended.{said}")
    }
}
