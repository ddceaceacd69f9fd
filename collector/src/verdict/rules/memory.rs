//! Killed for memory.

use inquest_journal::Level;

use super::*;
use crate::story::{Attempt, Orphan};

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

/// A sentence for what Slurm does not know.
fn silence(death: &Death) -> &'static str {
    match death.reported_by_slurm {
        Some(false) => " Slurm had made its one check before and does not report it.",
        _ => "",
    }
}

/// A sentence for a kill that took more than its victim.
fn group(death: &Death) -> String {
    let of = |level| match level {
        Level::Task => "this task",
        Level::Step => "the step on this node",
        Level::Job | Level::Host => "the job on this node",
    };
    death.oom_group.map_or(String::new(), |level| {
        format!(" The kernel kills all processes of {} at once (memory.oom.group).", of(level))
    })
}

/// The slurmstepd that died with the victims.
fn stepd<'a>(case: &'a Case<'_>, death: &Death) -> Option<Orphan<'a>> {
    case.attempt.orphans().find(|o| o.for_memory && o.step == death.step && *o.node == *death.at.node)
}

/// A sentence for it.
fn unheard(case: &Case<'_>, death: &Death) -> String {
    stepd(case, death).map_or(String::new(), |stepd| {
        format!(" Its slurmstepd (pid {}) was killed, too, so Slurm was not told of the end.", stepd.pid)
    })
}

fn with_stepd(case: &Case<'_>, index: usize) -> Match {
    let evidence = stepd(case, &case.deaths[index]).map(|o| o.at.event.clone()).into_iter().collect();
    Match { confidence: Confidence::Fact, death: Some(index), evidence }
}

/// What a job had, in bytes per node, and whose limit it was: that of its kill for memory, else what it had
/// asked for.
pub(crate) fn had(death: Option<&Death>, attempt: &Attempt) -> Option<(u64, Option<Level>)> {
    let hit = death.filter(|d| d.oom_kills > 0).and_then(|d| Some((d.limit_bytes?, d.limit_level)));
    hit.or_else(|| Some((asked(attempt)?, None)))
}

/// Memory that was asked for, in bytes per node.
pub(crate) fn asked(attempt: &Attempt) -> Option<u64> {
    attempt.facts.memory_mib?.checked_mul(1 << 20)
}

/// The peak of a killed task is clipped at the limit, so its true need is unknown; half as much again is a
/// first step.
pub(crate) const MORE: f64 = 1.5;

/// So many times `limit`, in bytes, as sbatch takes it.
pub(crate) fn times(limit: u64, factor: f64) -> String {
    memory_words((limit as f64 * factor / f64::from(1 << 20)).ceil() as u64)
}

fn more_memory(case: &Case<'_>, found: &Match) -> Vec<String> {
    const CLIPPED: &str = "(the peak was cut off at the limit; the true need may be higher)";
    let Some((limit, level)) = the_death(case, found).and_then(|d| had(Some(d), case.attempt)) else {
        return Vec::new();
    };
    let memory = times(limit, MORE);
    let advice = match level {
        Some(Level::Step | Level::Task) => {
            format!(
                "ask for more memory for this step: srun --mem={memory}, and no less for its job {CLIPPED}"
            )
        }
        Some(Level::Job | Level::Host) | None => {
            format!("ask for more memory: --mem={memory} {CLIPPED}")
        }
    };
    vec![advice]
}

/// See [`Rule::when`].
#[derive(Debug)]
pub struct OomHost;

impl Rule for OomHost {
    fn cause(&self) -> &'static str {
        "oom_host"
    }
    fn class(&self) -> Class {
        Class::Oom
    }
    fn label(&self) -> &'static str {
        "NODE OOM"
    }
    fn when(&self) -> &'static str {
        "the node ran out of memory, with no limit of the job reached, and the kernel chose a process of the job; the \
         job failed by it, or its script exited 0 all the same"
    }
    fn check(&self, case: &Case<'_>) -> Option<Match> {
        let index = case.deaths.iter().position(|d| d.oom_kills > 0 && d.limit_level == Some(Level::Host))?;
        let decides = case.first.is_none_or(|first| first == index) || script_ended_well(case);
        decides.then(|| with_stepd(case, index))
    }
    fn explain(&self, case: &Case<'_>, found: &Match) -> String {
        let Some(death) = the_death(case, found) else { return String::new() };
        let (who, place, node) = (victims(death), death.place(), &death.at.node);
        let but = if script_ended_well(case) { ", but the job went on and exited 0" } else { "" };
        format!(
            "{node} ran out of memory{but}: to get some back, the kernel killed {who} in {place}, which ended with {}{}. \
             No limit of the job was reached.{}",
            death.end(),
            memory(death),
            unheard(case, death)
        )
    }
    fn advise(&self, case: &Case<'_>, found: &Match) -> Vec<String> {
        let Some(death) = the_death(case, found) else { return Vec::new() };
        let node = &death.at.node;
        let mut advice = vec![format!(
            "run it again on another node: sbatch --exclude={node}; others used memory there, too"
        )];
        if let Some(resident) = death.victims.iter().filter_map(|v| v.anon_rss_bytes).max() {
            advice.push(format!(
                "where it was this job that filled the node, ask for what it needs, more than {}, so that Slurm \
                 keeps that free for it",
                bytes(resident)
            ));
        }
        if script_ended_well(case) {
            advice
                .push("check the output of this job before you use it: a part of the work was killed".into());
        }
        advice
    }
    fn retry(&self) -> Retry {
        Retry::OnAnotherNode
    }
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
        (death.oom_kills > 0 && !script_ended_well(case)).then(|| with_stepd(case, index))
    }
    fn explain(&self, case: &Case<'_>, found: &Match) -> String {
        let Some(death) = the_death(case, found) else { return String::new() };
        let (who, place) = (victims(death), death.place());
        format!(
            "out of memory: {who} killed in {place}, which ended with {}{}.{}{}{}",
            death.end(),
            memory(death),
            group(death),
            silence(death),
            unheard(case, death)
        )
    }
    fn advise(&self, case: &Case<'_>, found: &Match) -> Vec<String> {
        more_memory(case, found)
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
        (script_ended_well(case) || case.first.is_none()).then(|| with_stepd(case, index))
    }
    fn explain(&self, case: &Case<'_>, found: &Match) -> String {
        let Some(death) = the_death(case, found) else { return String::new() };
        let (who, place) = (victims(death), death.place());
        format!(
            "out of memory, but the job went on and exited 0: {who} killed in {place}, which ended with {}{}. \
             Results may be incomplete.{}{}{}",
            death.end(),
            memory(death),
            group(death),
            silence(death),
            unheard(case, death)
        )
    }
    fn advise(&self, case: &Case<'_>, found: &Match) -> Vec<String> {
        let mut advice = more_memory(case, found);
        advice.push("check the output of this job before you use it: a part of the work was killed".into());
        advice
    }
    fn retry(&self) -> Retry {
        Retry::WithMoreMemory
    }
}
