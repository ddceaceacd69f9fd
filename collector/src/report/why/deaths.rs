//! What died in a job, as few lines as it takes: a thousand ranks that were
//! ended because of the first are one line.

use std::collections::BTreeSet;

use inquest_journal::StepId;

use crate::slurm::hostlist;
use crate::slurm::target::fold_ranges;
use crate::verdict::{Death, Verdict};

/// Deaths that are told one by one, whatever they are.
const SINGLE: usize = 4;

/// A line of what happened: one death, or several alike.
#[derive(Debug)]
pub(super) struct Told<'a> {
    pub(super) first: &'a Death,
    pub(super) last: &'a Death,
    /// `step 0 tasks 0-2,4 on n[1-2]`.
    pub(super) place: String,
    pub(super) count: usize,
    /// It explains the others.
    pub(super) root: bool,
}

/// The deaths of a verdict in the order of time.
pub(super) fn told(verdict: &Verdict, only: Option<StepId>) -> Vec<Told<'_>> {
    let here = |d: &&Death| only.is_none_or(|step| d.step == step);
    let mut deaths: Vec<&Death> =
        verdict.first_failure.iter().chain(&verdict.consequences).filter(here).collect();
    deaths.sort_by_key(|d| d.offset_us);
    let root = |d: &Death| verdict.first_failure.as_ref().is_some_and(|f| f.at.event == d.at.event);
    let mut told: Vec<Vec<&Death>> = Vec::new();
    for death in &deaths {
        let alike = |group: &&mut Vec<&Death>| {
            let first = group[0];
            deaths.len() > SINGLE
                && !root(first)
                && !root(death)
                && first.oom_kills == 0
                && death.oom_kills == 0
                && (first.step, first.end()) == (death.step, death.end())
        };
        match told.iter_mut().find(alike) {
            Some(group) => group.push(death),
            None => told.push(vec![death]),
        }
    }
    told.into_iter()
        .map(|group| {
            let (first, last) = (group[0], group[group.len() - 1]);
            let nodes: BTreeSet<&str> = group.iter().map(|d| d.at.node.as_ref()).collect();
            let place = match group.as_slice() {
                [one] => one.place() + &one.pid.map_or(String::new(), |p| format!(" (pid {p})")),
                _ => format!(
                    "step {} tasks {} on {}",
                    first.step,
                    fold_ranges(group.iter().map(|d| d.task)),
                    hostlist::fold(nodes)
                ),
            };
            Told { first, last, place, count: group.len(), root: root(first) && deaths.len() > 1 }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn death(task: u32, signal: Option<u8>, offset_us: i64) -> serde_json::Value {
        let node = format!("n{}", task % 2);
        json!({
            "at": { "wall": "2026-11-21T14:00:00Z", "node": node, "boot": "b", "mono_us": 1, "event": format!("s#{task}") },
            "offset_us": offset_us, "step": "0", "task": task, "pid": 100 + task, "exit_code": signal.is_none().then_some(5),
            "signal": signal, "core": false, "oom_kills": 0, "peak_bytes": null, "limit_bytes": null,
            "limit_level": null, "reported_by_slurm": null, "evidence": [],
        })
    }

    fn verdict(ranks: u32) -> Verdict {
        let rest: Vec<_> =
            (0..ranks).filter(|n| *n != 3).map(|n| death(n, Some(9), 2_000_000 + i64::from(n))).collect();
        serde_json::from_value(json!({
            "class": "app_error", "cause": "app_error", "label": "ERROR", "detail": "", "confidence": "fact",
            "evidence": [], "first_failure": death(3, None, 1_000_000), "consequences": rest, "retry": "not",
        }))
        .unwrap()
    }

    #[test]
    fn ranks_that_died_of_the_first_are_one_line() {
        let verdict = verdict(512);
        let lines: Vec<(String, usize, bool)> =
            told(&verdict, None).iter().map(|t| (t.place.clone(), t.count, t.root)).collect();
        assert_eq!(
            lines,
            [
                ("step 0 task 3 on n1 (pid 103)".to_owned(), 1, true),
                ("step 0 tasks 0-2,4-511 on n[0-1]".to_owned(), 511, false),
            ]
        );
        assert_eq!(told(&self::verdict(4), None).len(), 4, "few are told one by one");
        assert!(told(&verdict, Some(StepId::Batch)).is_empty());
    }
}
