//! Ended by Slurm, or by somebody through it.

use super::*;
use crate::story::Moment;

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
        "Slurm says that a later attempt of the job exists, which has not ended, and this one was ended by a signal: somebody or a preemption put it back into the queue"
    }
    fn check(&self, case: &Case<'_>) -> Option<Match> {
        let later = case.slurm.is_some_and(|r| r.restarts > case.attempt.restart && !r.is_final());
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
pub struct NodeReboot;

impl Rule for NodeReboot {
    fn cause(&self) -> &'static str {
        "node_reboot"
    }
    fn class(&self) -> Class {
        Class::Infra
    }
    fn label(&self) -> &'static str {
        "REBOOT"
    }
    fn when(&self) -> &'static str {
        "a node of the job came up with a new boot id while a step of it was at work there"
    }
    fn check(&self, case: &Case<'_>) -> Option<Match> {
        let (_, _, part) = case.attempt.lost_parts().next()?;
        let moments = part.lost.iter().chain(&part.started);
        let evidence = moments.map(|m| m.event.clone()).collect();
        Some(Match { confidence: Confidence::Fact, death: None, evidence })
    }
    fn explain(&self, case: &Case<'_>, _: &Match) -> String {
        let lost = case.attempt.lost_parts().next();
        let Some((step, node, part)) = lost else { return "a node of the job came up anew.".into() };
        let boot = |m: &Option<Moment>| m.as_ref().map_or("".into(), |m| m.boot.clone());
        format!(
            "{node} went down while step {step} ran on it: it came up anew (boot {}, then {}), and the end of the step \
             was never recorded.",
            boot(&part.started),
            boot(&part.lost)
        )
    }
    fn advise(&self, case: &Case<'_>, _: &Match) -> Vec<String> {
        let node = case.attempt.lost_parts().next().map_or("", |(_, node, _)| node);
        vec![format!("run it again; if it happens again on {node}, exclude it: sbatch --exclude={node}")]
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
        "Slurm cancelled the job because what it depended on can never be satisfied: it says so, or nobody cancelled the job and it never had a node"
    }
    fn check(&self, case: &Case<'_>) -> Option<Match> {
        let record = case.slurm.filter(|r| r.state_word() == "CANCELLED")?;
        // slurmdbd writes down who cancelled a job. Slurm itself does so for this one reason, and
        // newer releases forget the reason.
        let by_itself = record.never_ran && record.cancelled_by.is_none();
        match record.reason.as_str() {
            "DependencyNeverSatisfied" => found(Confidence::Fact, case.first),
            "Dependency" if by_itself => found(Confidence::Fact, case.first),
            _ => by_itself.then(|| found(Confidence::Inferred, case.first))?,
        }
    }
    fn explain(&self, _: &Case<'_>, _: &Match) -> String {
        "the job was never to run: a job that it depended on failed.".into()
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
    let before = if case.slurm.is_some_and(|r| r.never_ran) { " before it ran" } else { "" };
    format!("the job was cancelled{by}{before}{ended}.")
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
        if let Some(orphan) = case.attempt.orphans().next() {
            let evidence = vec![orphan.at.event.clone()];
            return Some(Match { confidence: Confidence::Fact, death: None, evidence });
        }
        let mut parts = case.attempt.steps.values().flat_map(|s| s.nodes.values());
        parts.any(|part| part.ended.is_none()).then(|| found(Confidence::Inferred, None))?
    }
    fn explain(&self, case: &Case<'_>, _: &Match) -> String {
        if let Some(orphan) = case.attempt.orphans().next() {
            return format!("{}, so its end was never recorded.", orphan.says());
        }
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
