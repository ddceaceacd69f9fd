//! At a limit of time.

use super::*;
use crate::slurm::limit_seconds;
use crate::slurm::warning::Warning;

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

/// slurmctld looks at limits twice a minute, and sends the signal up to a minute too soon (sbatch(1)).
const SOONER_US: i64 = 65_000_000;

/// See [`Rule::when`].
#[derive(Debug)]
pub struct Warned;

/// The warning signal that the job asked for, as it was written, and where that stands. The command line goes
/// before the environment, and that before the script.
pub(super) fn asked<'a>(case: &'a Case<'_>) -> Option<(Warning, &'a str, &'static str)> {
    let (text, place) = match (&case.slurm.and_then(|r| r.warning.as_deref()), &case.attempt.facts.warning) {
        (Some(text), _) => (*text, "sbatch's command line"),
        (None, Some(asked)) if asked.from == "environment" => (asked.text.as_str(), "its environment"),
        (None, Some(asked)) => (asked.text.as_str(), "its script"),
        (None, None) => return None,
    };
    Some((Warning::parse(text)?, text, place))
}

/// How long before its time limit the death was, in microseconds.
pub(super) fn before_limit(case: &Case<'_>, death: &Death) -> Option<i64> {
    if let Some(limit) = case.attempt.facts.end_limit {
        return Some(limit.since(death.at.wall));
    }
    let limit = limit_seconds(&case.slurm?.time_limit)?.checked_mul(1_000_000)?;
    Some(limit - death.at.since(case.attempt.started.as_ref()?))
}

impl Rule for Warned {
    fn cause(&self) -> &'static str {
        "limit_warning"
    }
    fn class(&self) -> Class {
        Class::Timeout
    }
    fn label(&self) -> &'static str {
        "TIMEOUT"
    }
    fn when(&self) -> &'static str {
        "the first failure is a task that died by the very signal that the job had asked for before its time limit (--signal), and at that time as far as the limit is known"
    }
    fn check(&self, case: &Case<'_>) -> Option<Match> {
        let (index, death) = first(case)?;
        let (warning, ..) = asked(case)?;
        let to_script = matches!(death.step, StepId::Batch | StepId::Interactive);
        if death.signal != Some(warning.signal) || death.oom_kills > 0 || to_script && !warning.script {
            return None;
        }
        let sent = i64::from(warning.seconds) * 1_000_000;
        match before_limit(case, death) {
            Some(before) if before > sent + SOONER_US => None,
            Some(_) => found(Confidence::Fact, Some(index)),
            None => found(Confidence::Inferred, Some(index)),
        }
    }
    fn explain(&self, case: &Case<'_>, found: &Match) -> String {
        let (Some(death), Some((warning, text, place))) = (the_death(case, found), asked(case)) else {
            return String::new();
        };
        let signal = signal_name(warning.signal);
        let when = match before_limit(case, death) {
            Some(before) if before >= 0 => format!(", {} before its time limit", duration(before)),
            Some(_) => ", at its time limit".into(),
            None => String::new(),
        };
        format!(
            "{} was ended at {} by {signal}{when}: Slurm's warning signal, which the job had asked for (--signal={text} in \
             {place}) and did not handle.",
            death.place(),
            death.offset()
        )
    }
    fn advise(&self, case: &Case<'_>, found: &Match) -> Vec<String> {
        let Some((warning, ..)) = asked(case) else { return Vec::new() };
        let name = signal_name(warning.signal);
        let name = name.trim_start_matches("SIG");
        let handle = if warning.script {
            format!(
                "let the script handle it: trap '...' {name}, with what takes long in the background ('command & wait'), because \
                 a shell handles a signal only between commands"
            )
        } else {
            format!(
                "let the program handle {name}: without a handler it ends it; with B: before it, only the script gets it"
            )
        };
        let mut advice = vec![handle];
        advice.extend(TimedOut.advise(case, found).into_iter().take(1));
        advice
    }
    fn retry(&self) -> Retry {
        Retry::WithMoreTime
    }
}
