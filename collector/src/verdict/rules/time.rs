//! At a limit of time.

use super::*;

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
