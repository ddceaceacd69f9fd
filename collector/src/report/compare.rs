//! What differs between runs: failures that stayed, came, went, or come and go.

use std::collections::BTreeMap;

use inquest_journal::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::failures::Failure;
use super::table::Table;
use super::{JSON_SCHEMA, clean};
use crate::verdict::{Class, Confidence};

/// A run with its failures.
#[derive(Debug)]
pub struct Compared {
    /// Its id.
    pub run_id: String,
    /// When it began: runs are compared in this order.
    pub started: Timestamp,
    /// It has not ended, so that what is missing may still come.
    pub running: bool,
    /// Jobs.
    pub jobs: usize,
    /// Failures of its jobs.
    pub failures: Vec<Failure>,
}

/// How a failure behaves over runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Pattern {
    /// In the latest run and in none before.
    New,
    /// In every run.
    Persistent,
    /// In some runs, the latest among them, but not in all.
    Flaky,
    /// In an earlier run and not in the latest.
    Resolved,
}

impl Pattern {
    /// `new`, `persistent`, ...
    pub fn word(self) -> &'static str {
        match self {
            Pattern::New => "new",
            Pattern::Persistent => "persistent",
            Pattern::Flaky => "flaky",
            Pattern::Resolved => "resolved",
        }
    }

    /// From the number of failures in each run, oldest run first.
    fn of(counts: &[usize]) -> Pattern {
        let (latest, earlier) = counts.split_last().unwrap_or((&0, &[]));
        match (*latest > 0, earlier.iter().filter(|n| **n > 0).count()) {
            (false, _) => Pattern::Resolved,
            (true, 0) => Pattern::New,
            (true, n) if n == earlier.len() => Pattern::Persistent,
            (true, _) => Pattern::Flaky,
        }
    }
}

/// One failure over all runs.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// How it behaves.
    pub pattern: Pattern,
    /// Its class.
    pub class: Class,
    /// Its cause.
    pub cause: String,
    /// Its name.
    pub fingerprint: String,
    /// Jobs that failed so, per run, oldest run first.
    pub counts: Vec<usize>,
    /// First run that has it.
    pub first_seen: String,
    /// Last run that has it.
    pub last_seen: String,
    /// The newest message.
    pub message: String,
}

/// What makes two failures the same: class and fingerprint and, where only
/// the exit says what happened, the exit, because a fingerprint has no numbers.
type Key = (Class, String, Option<String>);

/// Compares runs; `runs` are put in the order of their start.
pub fn compare(runs: &mut [Compared]) -> Vec<Row> {
    runs.sort_by(|a, b| a.started.cmp(&b.started).then_with(|| a.run_id.cmp(&b.run_id)));
    let mut seen: BTreeMap<Key, (Vec<usize>, &Failure)> = BTreeMap::new();
    for (index, run) in runs.iter().enumerate() {
        for failure in &run.failures {
            let exit = (failure.confidence != Confidence::Log).then(|| failure.end());
            let key = (failure.class, failure.fingerprint().to_string(), exit);
            let entry = seen.entry(key).or_insert_with(|| (vec![0; runs.len()], failure));
            entry.0[index] += 1;
            entry.1 = failure;
        }
    }
    let mut rows: Vec<Row> = seen
        .into_iter()
        .map(|((class, fingerprint, _), (counts, failure))| {
            let has = |n: &usize| *n > 0;
            let first = counts.iter().position(has).unwrap_or(0);
            let last = counts.iter().rposition(has).unwrap_or(0);
            Row {
                pattern: Pattern::of(&counts),
                class,
                cause: failure.cause.clone(),
                fingerprint,
                first_seen: runs[first].run_id.clone(),
                last_seen: runs[last].run_id.clone(),
                message: failure.message.clone(),
                counts,
            }
        })
        .collect();
    let total = |r: &Row| std::cmp::Reverse(r.counts.iter().sum::<usize>());
    rows.sort_by(|a, b| a.pattern.cmp(&b.pattern).then_with(|| total(a).cmp(&total(b))));
    rows
}

/// One row per failure; `COUNTS` has one number per run, oldest first.
pub fn table(rows: &[Row]) -> Table {
    let mut table =
        Table::new(&["PATTERN", "CLASS", "CAUSE", "COUNTS", "FIRST", "LAST", "FINGERPRINT", "MESSAGE"])
            .spare(&["FINGERPRINT", "CLASS", "FIRST", "LAST"]);
    for row in rows {
        let counts: Vec<String> = row.counts.iter().map(usize::to_string).collect();
        table.row(vec![
            row.pattern.word().into(),
            row.class.to_string(),
            row.cause.clone(),
            counts.join(","),
            row.first_seen.clone(),
            row.last_seen.clone(),
            row.fingerprint.clone(),
            clean(&row.message),
        ]);
    }
    table
}

/// The same as JSON.
pub fn json(runs: &[Compared], rows: &[Row]) -> Value {
    let runs = runs.iter().map(|r| {
        json!({ "run_id": r.run_id, "started": r.started, "running": r.running, "jobs": r.jobs,
            "failures": r.failures.len() })
    });
    json!({ "schema": JSON_SCHEMA, "runs": runs.collect::<Vec<_>>(), "patterns": rows })
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn patterns_by_counts() {
        for (counts, pattern) in [
            (&[1, 2, 1][..], Pattern::Persistent),
            (&[0, 0, 4], Pattern::New),
            (&[3, 1, 0], Pattern::Resolved),
            (&[0, 1, 0], Pattern::Resolved),
            (&[1, 0, 1], Pattern::Flaky),
            (&[0, 1, 1], Pattern::Flaky),
            (&[1, 1], Pattern::Persistent),
        ] {
            assert_eq!(Pattern::of(counts), pattern, "{counts:?}");
        }
    }
}
