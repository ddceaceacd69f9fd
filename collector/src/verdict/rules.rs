//! The rules, in the order in which they are tried.

use super::{Case, Class, Confidence, Death, Match, Retry, Rule};
use crate::slurm::signal_name;
use crate::story::Exit;
use crate::units::{bytes, duration};

/// All rules. Order matters and is part of the manual.
pub const RULES: &[&dyn Rule] = &[
    &OomCgroup,
    &OomPartial,
    &TimeoutHandled,
    &Dependency,
    &Deadline,
    &TimedOut,
    &Preempted,
    &Requeued,
    &BootFail,
    &NodeFail,
    &CancelledByUser,
    &CancelledByAdmin,
    &Cancelled,
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

fn victims(death: &Death) -> String {
    let named: Vec<String> = death
        .victims
        .iter()
        .filter_map(|v| {
            let rss = v.anon_rss_bytes.map_or(String::new(), |b| format!(", {} resident", bytes(b)));
            Some(format!("{} (pid {}{rss})", v.command.as_deref()?, v.pid?))
        })
        .collect();
    if named.is_empty() { processes(death.oom_kills) } else { named.join(", ") }
}

/// `1 process`, `3 processes`.
pub(crate) fn processes(count: u64) -> String {
    if count == 1 { "1 process".into() } else { format!("{count} processes") }
}

fn memory(death: &Death) -> String {
    death.memory().map_or(String::new(), |m| format!("; {m}"))
}

/// A sentence for what Slurm does not know.
fn silence(death: &Death) -> &'static str {
    match death.reported_by_slurm {
        Some(false) => " Slurm had made its one check before and does not report it.",
        _ => "",
    }
}

fn more_memory(death: &Death) -> Vec<String> {
    let mut advice = Vec::new();
    if let Some(limit) = death.limit_bytes {
        // The peak of a killed task is clipped at the limit, so its true need
        // is unknown; half as much again is a first step.
        let mib = (limit / 2 * 3).div_ceil(1 << 20);
        advice.push(format!("ask for more memory: --mem={mib}M (the peak was cut off at the limit; the true need may be higher)"));
    }
    advice
}

/// See [`Rule::when`].
#[derive(Debug)]
pub struct OomCgroup;

impl Rule for OomCgroup {
    fn cause(&self) -> &'static str {
        "oom_cgroup"
    }
    fn class(&self) -> Class {
        Class::Oom
    }
    fn label(&self) -> &'static str {
        "OOM"
    }
    fn when(&self) -> &'static str {
        "the first failure is a task in whose cgroup the kernel counted a kill for memory, and the job failed by it"
    }
    fn check(&self, case: &Case<'_>) -> Option<Match> {
        let (index, death) = first(case)?;
        (death.oom_kills > 0 && !script_ended_well(case)).then(|| found(Confidence::Fact, Some(index)))?
    }
    fn explain(&self, case: &Case<'_>, found: &Match) -> String {
        let Some(death) = the_death(case, found) else { return String::new() };
        let (who, place) = (victims(death), death.place());
        format!(
            "out of memory: {who} killed in {place}, which ended with {}{}.{}",
            death.end(),
            memory(death),
            silence(death)
        )
    }
    fn advise(&self, case: &Case<'_>, found: &Match) -> Vec<String> {
        the_death(case, found).map(more_memory).unwrap_or_default()
    }
    fn retry(&self) -> Retry {
        Retry::WithMoreMemory
    }
}

/// See [`Rule::when`].
#[derive(Debug)]
pub struct OomPartial;

impl Rule for OomPartial {
    fn cause(&self) -> &'static str {
        "oom_partial"
    }
    fn class(&self) -> Class {
        Class::Oom
    }
    fn label(&self) -> &'static str {
        "OOM"
    }
    fn when(&self) -> &'static str {
        "a process was killed for memory although the job script exited 0: results may be incomplete"
    }
    fn check(&self, case: &Case<'_>) -> Option<Match> {
        let index = case.deaths.iter().position(|d| d.oom_kills > 0)?;
        // A failure of another kind that the job did end by is judged first.
        (script_ended_well(case) || case.first.is_none()).then(|| found(Confidence::Fact, Some(index)))?
    }
    fn explain(&self, case: &Case<'_>, found: &Match) -> String {
        let Some(death) = the_death(case, found) else { return String::new() };
        let (who, place) = (victims(death), death.place());
        format!(
            "out of memory, but the job went on and exited 0: {who} killed in {place}, which ended with {}{}. \
             Results may be incomplete.{}",
            death.end(),
            memory(death),
            silence(death)
        )
    }
    fn advise(&self, case: &Case<'_>, found: &Match) -> Vec<String> {
        let mut advice = the_death(case, found).map(more_memory).unwrap_or_default();
        advice.push("check the output of this job before you use it: a part of the work was killed".into());
        advice
    }
    fn retry(&self) -> Retry {
        Retry::WithMoreMemory
    }
}

/// See [`Rule::when`].
#[derive(Debug)]
pub struct TimeoutHandled;

impl Rule for TimeoutHandled {
    fn cause(&self) -> &'static str {
        "timeout_handled"
    }
    fn class(&self) -> Class {
        Class::Timeout
    }
    fn label(&self) -> &'static str {
        "TIMEOUT"
    }
    fn when(&self) -> &'static str {
        "the job reached its time limit, and its script ended with code 0 when it was told: the work may be unfinished"
    }
    fn check(&self, case: &Case<'_>) -> Option<Match> {
        let script = case.attempt.batch_exit().filter(|e| e.is_clean())?;
        let evidence = vec![script.at.event.clone()];
        let matched = |confidence| Some(Match { confidence, death: None, evidence: evidence.clone() });
        if case.slurm.is_some() {
            return matches!(state(case), "TIMEOUT" | "DEADLINE").then(|| matched(Confidence::Fact))?;
        }
        // On the node alone, an end after the limit may be one in time: Slurm
        // looks at limits twice a minute. A task that it ended tells.
        let limit = case.attempt.facts.end_limit?;
        let told = |d: &Death| matches!(d.signal, Some(9 | 15)) && d.at.wall.since(limit) >= -1_000_000;
        case.deaths.iter().any(told).then(|| matched(Confidence::Inferred))?
    }
    fn explain(&self, case: &Case<'_>, _: &Match) -> String {
        let (limit, ran) = (time_limit(case), ran(case));
        format!(
            "the job reached {limit}{ran}: its script ended with code 0 when it was told. What it had still to do is not done."
        )
    }
    fn advise(&self, case: &Case<'_>, found: &Match) -> Vec<String> {
        let mut advice = TimedOut.advise(case, found);
        advice.truncate(1);
        advice.insert(0, "see how far it came before you use its output".into());
        advice
    }
    fn retry(&self) -> Retry {
        Retry::WithMoreTime
    }
}

fn time_limit(case: &Case<'_>) -> String {
    let limit = case.slurm.map(|r| r.time_limit.as_str()).filter(|l| !l.is_empty());
    limit.map_or("its time limit".into(), |l| format!("its time limit of {l}"))
}

/// ` after 1:02`, or nothing.
fn ran(case: &Case<'_>) -> String {
    case.attempt.elapsed_us().map_or(String::new(), |us| format!(" after {}", duration(us)))
}

/// See [`Rule::when`].
#[derive(Debug)]
pub struct TimedOut;

impl Rule for TimedOut {
    fn cause(&self) -> &'static str {
        "timeout"
    }
    fn class(&self) -> Class {
        Class::Timeout
    }
    fn label(&self) -> &'static str {
        "TIMEOUT"
    }
    fn when(&self) -> &'static str {
        "Slurm says TIMEOUT, or a task was ended by SIGTERM or SIGKILL after the job's end limit had passed"
    }
    fn check(&self, case: &Case<'_>) -> Option<Match> {
        if state(case) == "TIMEOUT" {
            return found(Confidence::Fact, case.first);
        }
        let (index, death) = first(case)?;
        let limit = case.attempt.facts.end_limit?;
        let at_limit = matches!(death.signal, Some(9 | 15)) && death.at.wall.since(limit) >= -1_000_000;
        (case.slurm.is_none() && at_limit).then(|| found(Confidence::Inferred, Some(index)))?
    }
    fn explain(&self, case: &Case<'_>, found: &Match) -> String {
        let (limit, ran) = (time_limit(case), ran(case));
        match the_death(case, found) {
            Some(d) => format!("the job reached {limit}: Slurm ended {}{ran} with {}.", d.place(), d.end()),
            None => format!("the job reached {limit}{ran}."),
        }
    }
    fn advise(&self, case: &Case<'_>, _: &Match) -> Vec<String> {
        let limit =
            case.slurm.map(|r| r.time_limit.as_str()).filter(|l| !l.is_empty()).unwrap_or("the limit");
        vec![
            format!(
                "ask for more time: --time longer than {limit}, or write checkpoints and continue from them"
            ),
            "--signal=B:USR1@120 tells the script two minutes before the end".into(),
        ]
    }
    fn retry(&self) -> Retry {
        Retry::WithMoreTime
    }
}

/// See [`Rule::when`].
#[derive(Debug)]
pub struct Preempted;

impl Rule for Preempted {
    fn cause(&self) -> &'static str {
        "preempted"
    }
    fn class(&self) -> Class {
        Class::Preempted
    }
    fn label(&self) -> &'static str {
        "PREEMPTED"
    }
    fn when(&self) -> &'static str {
        "Slurm says PREEMPTED"
    }
    fn check(&self, case: &Case<'_>) -> Option<Match> {
        (state(case) == "PREEMPTED").then(|| found(Confidence::Fact, case.first))?
    }
    fn explain(&self, _: &Case<'_>, _: &Match) -> String {
        "the job was preempted in favour of other work.".into()
    }
    fn retry(&self) -> Retry {
        Retry::AsItIs
    }
}

/// See [`Rule::when`].
#[derive(Debug)]
pub struct Requeued;

impl Rule for Requeued {
    fn cause(&self) -> &'static str {
        "requeued"
    }
    fn class(&self) -> Class {
        Class::Preempted
    }
    fn label(&self) -> &'static str {
        "REQUEUED"
    }
    fn when(&self) -> &'static str {
        "a later attempt of the job exists and this one was ended by a signal: somebody or a preemption put it back into the queue"
    }
    fn check(&self, case: &Case<'_>) -> Option<Match> {
        let later = case.slurm.is_some_and(|r| r.restarts > case.attempt.restart);
        let (index, death) = first(case)?;
        (later && matches!(death.signal, Some(9 | 15))).then(|| found(Confidence::Fact, Some(index)))?
    }
    fn explain(&self, case: &Case<'_>, _: &Match) -> String {
        format!("attempt {} of the job was put back into the queue.", case.attempt.restart + 1)
    }
    fn retry(&self) -> Retry {
        Retry::AsItIs
    }
}

/// See [`Rule::when`].
#[derive(Debug)]
pub struct NodeFail;

impl Rule for NodeFail {
    fn cause(&self) -> &'static str {
        "node_fail"
    }
    fn class(&self) -> Class {
        Class::Infra
    }
    fn label(&self) -> &'static str {
        "NODE_FAIL"
    }
    fn when(&self) -> &'static str {
        "Slurm says NODE_FAIL or LAUNCH_FAILED"
    }
    fn check(&self, case: &Case<'_>) -> Option<Match> {
        matches!(state(case), "NODE_FAIL" | "LAUNCH_FAILED").then(|| found(Confidence::Fact, case.first))?
    }
    fn explain(&self, case: &Case<'_>, _: &Match) -> String {
        format!("a node of the job failed (Slurm: {}).", state(case))
    }
    fn retry(&self) -> Retry {
        Retry::OnAnotherNode
    }
}

/// See [`Rule::when`].
#[derive(Debug)]
pub struct Dependency;

impl Rule for Dependency {
    fn cause(&self) -> &'static str {
        "dependency"
    }
    fn class(&self) -> Class {
        Class::Dependency
    }
    fn label(&self) -> &'static str {
        "DEPENDENCY"
    }
    fn when(&self) -> &'static str {
        "Slurm cancelled the job because what it depended on can never be satisfied"
    }
    fn check(&self, case: &Case<'_>) -> Option<Match> {
        let reason = case.slurm.is_some_and(|r| r.reason == "DependencyNeverSatisfied");
        (reason && state(case) == "CANCELLED").then(|| found(Confidence::Fact, case.first))?
    }
    fn explain(&self, _: &Case<'_>, _: &Match) -> String {
        "the job was never to run: a job that it depended on failed.".into()
    }
}

/// See [`Rule::when`].
#[derive(Debug)]
pub struct Deadline;

impl Rule for Deadline {
    fn cause(&self) -> &'static str {
        "deadline"
    }
    fn class(&self) -> Class {
        Class::Timeout
    }
    fn label(&self) -> &'static str {
        "DEADLINE"
    }
    fn when(&self) -> &'static str {
        "Slurm says DEADLINE"
    }
    fn check(&self, case: &Case<'_>) -> Option<Match> {
        (state(case) == "DEADLINE").then(|| found(Confidence::Fact, case.first))?
    }
    fn explain(&self, _: &Case<'_>, _: &Match) -> String {
        "the job's deadline (--deadline) passed before it could end.".into()
    }
    fn advise(&self, _: &Case<'_>, _: &Match) -> Vec<String> {
        vec!["give it a later --deadline, or a shorter --time so that it starts sooner".into()]
    }
}

/// See [`Rule::when`].
#[derive(Debug)]
pub struct BootFail;

impl Rule for BootFail {
    fn cause(&self) -> &'static str {
        "boot_fail"
    }
    fn class(&self) -> Class {
        Class::Infra
    }
    fn label(&self) -> &'static str {
        "BOOT_FAIL"
    }
    fn when(&self) -> &'static str {
        "Slurm says BOOT_FAIL"
    }
    fn check(&self, case: &Case<'_>) -> Option<Match> {
        (state(case) == "BOOT_FAIL").then(|| found(Confidence::Fact, case.first))?
    }
    fn explain(&self, _: &Case<'_>, _: &Match) -> String {
        "a node of the job did not come up.".into()
    }
    fn retry(&self) -> Retry {
        Retry::OnAnotherNode
    }
}

fn cancelled(case: &Case<'_>, found: &Match, by: &str) -> String {
    let ended = the_death(case, found)
        .map_or(String::new(), |d| format!(": {} ended with {} at {}", d.place(), d.end(), d.offset()));
    format!("the job was cancelled{by}{ended}.")
}

/// Who cancelled the job, and whose it is, where both are known.
fn canceller(case: &Case<'_>) -> Option<(u32, u32)> {
    let by = case.slurm.filter(|r| r.state_word() == "CANCELLED")?.cancelled_by?;
    Some((by, case.attempt.facts.uid?))
}

/// See [`Rule::when`].
#[derive(Debug)]
pub struct CancelledByUser;

impl Rule for CancelledByUser {
    fn cause(&self) -> &'static str {
        "cancelled_user"
    }
    fn class(&self) -> Class {
        Class::Cancelled
    }
    fn label(&self) -> &'static str {
        "CANCELLED"
    }
    fn when(&self) -> &'static str {
        "slurmdbd says CANCELLED by the job's own user"
    }
    fn check(&self, case: &Case<'_>) -> Option<Match> {
        canceller(case).filter(|(by, owner)| by == owner)?;
        found(Confidence::Fact, case.first)
    }
    fn explain(&self, case: &Case<'_>, found: &Match) -> String {
        cancelled(case, found, " by its own user")
    }
}

/// See [`Rule::when`].
#[derive(Debug)]
pub struct CancelledByAdmin;

impl Rule for CancelledByAdmin {
    fn cause(&self) -> &'static str {
        "cancelled_admin"
    }
    fn class(&self) -> Class {
        Class::Cancelled
    }
    fn label(&self) -> &'static str {
        "CANCELLED"
    }
    fn when(&self) -> &'static str {
        "slurmdbd says CANCELLED by another user than the job's own: root, an operator, or Slurm itself"
    }
    fn check(&self, case: &Case<'_>) -> Option<Match> {
        canceller(case).filter(|(by, owner)| by != owner)?;
        found(Confidence::Fact, case.first)
    }
    fn explain(&self, case: &Case<'_>, found: &Match) -> String {
        let by = match canceller(case) {
            Some((0, _)) | None => " by root or by Slurm itself".to_owned(),
            Some((uid, _)) => format!(" by user {uid}, not by its own"),
        };
        cancelled(case, found, &by)
    }
}

/// See [`Rule::when`].
#[derive(Debug)]
pub struct Cancelled;

impl Rule for Cancelled {
    fn cause(&self) -> &'static str {
        "cancelled"
    }
    fn class(&self) -> Class {
        Class::Cancelled
    }
    fn label(&self) -> &'static str {
        "CANCELLED"
    }
    fn when(&self) -> &'static str {
        "Slurm says CANCELLED and not by whom"
    }
    fn check(&self, case: &Case<'_>) -> Option<Match> {
        (state(case) == "CANCELLED").then(|| found(Confidence::Fact, case.first))?
    }
    fn explain(&self, case: &Case<'_>, found: &Match) -> String {
        cancelled(case, found, "")
    }
}

/// See [`Rule::when`].
#[derive(Debug)]
pub struct EndedBySlurm;

impl Rule for EndedBySlurm {
    fn cause(&self) -> &'static str {
        "ended_by_slurm"
    }
    fn class(&self) -> Class {
        Class::Cancelled
    }
    fn label(&self) -> &'static str {
        "ENDED"
    }
    fn when(&self) -> &'static str {
        "the job script itself was ended by SIGTERM and Slurm was not asked or did not say why: cancel, limit, preemption and requeue look the same on the node"
    }
    fn check(&self, case: &Case<'_>) -> Option<Match> {
        let script = case.attempt.batch_exit()?;
        (case.slurm.is_none() && script.signal == Some(15))
            .then(|| found(Confidence::Inferred, case.first))?
    }
    fn explain(&self, case: &Case<'_>, found: &Match) -> String {
        let at = the_death(case, found).map_or(String::new(), |d| format!(" at {}", d.offset()));
        format!(
            "Slurm ended the job{at} with SIGTERM: a cancel, the time limit, a preemption or a requeue; the node alone cannot tell which."
        )
    }
    fn advise(&self, _: &Case<'_>, _: &Match) -> Vec<String> {
        vec!["ask Slurm: sacct -j ID --format=State,Elapsed,Timelimit".into()]
    }
}

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
            "{} was killed with {} at {}: not for memory (no kill was counted{}), not by the time limit and not by a cancel.",
            death.place(),
            death.end(),
            death.offset(),
            memory(death)
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
        "the first failure is any other exit code than 0"
    }
    fn check(&self, case: &Case<'_>) -> Option<Match> {
        let (index, death) = first(case)?;
        (death.exit_code.is_some_and(|c| c != 0) && !script_ended_well(case))
            .then(|| found(Confidence::Fact, Some(index)))?
    }
    fn explain(&self, case: &Case<'_>, found: &Match) -> String {
        let Some(death) = the_death(case, found) else { return String::new() };
        format!("{} ended with {} at {}.", death.place(), death.end(), death.offset())
    }
}

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
            None => case.deaths.is_empty() && attempt.all_steps_ended(),
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

/// See [`Rule::when`].
#[derive(Debug)]
pub struct Lost;

impl Rule for Lost {
    fn cause(&self) -> &'static str {
        "lost"
    }
    fn class(&self) -> Class {
        Class::Infra
    }
    fn label(&self) -> &'static str {
        "LOST"
    }
    fn when(&self) -> &'static str {
        "a step began and its end was never recorded: slurmstepd or the node died"
    }
    fn check(&self, case: &Case<'_>) -> Option<Match> {
        (!case.attempt.all_steps_ended()).then(|| found(Confidence::Inferred, None))?
    }
    fn explain(&self, case: &Case<'_>, _: &Match) -> String {
        let open = case.attempt.steps.iter().find_map(|(id, step)| {
            step.nodes
                .iter()
                .find(|(_, part)| part.ended.is_none())
                .map(|(node, _)| format!("step {id} on {node}"))
        });
        format!(
            "{} began and its end was never recorded: slurmstepd or the node died.",
            open.unwrap_or_else(|| "a step".into())
        )
    }
    fn retry(&self) -> Retry {
        Retry::OnAnotherNode
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
