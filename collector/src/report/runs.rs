//! Lists of runs, and the members of one.

use std::collections::HashSet;

use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::table::Table;
use super::{JSON_SCHEMA, clean, time};
use crate::runs::{Member, MemberState, RunState, RunStatus};
use crate::store::RegistryEntry;
use crate::units::duration;

/// One row per run, oldest first.
pub fn list(runs: &[(String, String, RegistryEntry)], zone: &TimeZone) -> Table {
    let names = ["RUN", "NAME", "USER", "STATUS", "JOBS", "FAILED", "STARTED", "ELAPSED", "KEY", "CLASSES"];
    let mut table = Table::new(&names).spare(&["KEY", "USER", "ELAPSED", "STATUS"]);
    for (_, user, run) in runs {
        let classes: Vec<String> = run.classes.iter().map(|(class, n)| format!("{class}:{n}")).collect();
        table.row(vec![
            run.run_id.clone(),
            short(&clean(run.name.as_deref().unwrap_or("-"))),
            user.clone(),
            status(run.status).into(),
            run.n_chunks.to_string(),
            run.n_failed.to_string(),
            time(run.submitted_at, zone),
            duration(run.updated_at.since(run.submitted_at)),
            key(run),
            if classes.is_empty() { "-".into() } else { classes.join(" ") },
        ]);
    }
    table
}

/// What keeps the run's jobs together, in a word: the engine, else the kind;
/// weak ones say so.
fn key(run: &RegistryEntry) -> String {
    let Some(key) = &run.key else { return "-".into() };
    let word = key.engine.as_deref().unwrap_or(key.kind.as_str());
    if key.kind.is_weak() { format!("{word} (weak)") } else { clean(word) }
}

/// A name in a table, cut as sacct cuts: with a plus sign.
fn short(name: &str) -> String {
    const WIDTH: usize = 24;
    match name.char_indices().nth(WIDTH) {
        Some(_) => name.chars().take(WIDTH - 1).chain(['+']).collect(),
        None => name.to_owned(),
    }
}

/// The same as JSON.
pub fn list_json(runs: &[(String, String, RegistryEntry)]) -> Value {
    let entries = runs.iter().map(|(cluster, user, run)| {
        let mut value = json!(run);
        if let Some(map) = value.as_object_mut() {
            map.insert("cluster".into(), json!(cluster));
            map.insert("user".into(), json!(user));
        }
        value
    });
    json!({ "schema": JSON_SCHEMA, "runs": entries.collect::<Vec<_>>() })
}

/// One row per member of a run.
pub fn members(run: &RunState, which: &[u32], zone: &TimeZone) -> Table {
    let names =
        ["JOB", "JOBID", "STATE", "CLASS", "CAUSE", "ATTEMPTS", "STARTED", "ELAPSED", "NAME", "DETAIL"];
    let mut table = Table::new(&names).spare(&["JOBID", "ATTEMPTS", "CLASS", "NAME", "ELAPSED"]);
    // Members are numbered as they were first heard of; people look for them by job and index.
    let mut members: Vec<&Member> = which.iter().filter_map(|n| run.members.get(n)).collect();
    members.sort_by_key(|m| (m.array_job_id.unwrap_or(m.job_id), m.array_task_id, m.job_id));
    for member in members {
        let verdict = member.verdict.as_ref();
        table.row(vec![
            member.display_id(),
            member.job_id.to_string(),
            verdict.map_or(open(member).into(), |v| v.label.clone()),
            verdict.map_or("-".into(), |v| v.class.to_string()),
            verdict.map_or("-".into(), |v| v.cause.clone()),
            member.attempts.to_string(),
            time(member.started, zone),
            duration(member.last.since(member.started)),
            clean(member.name.as_deref().unwrap_or("-")),
            verdict.map_or("-".into(), |v| clean(&v.detail)),
        ]);
    }
    table
}

/// Where a member without a verdict is.
fn open(member: &Member) -> &'static str {
    match member.state {
        Some(MemberState::Requeued) => "REQUEUED",
        None => "RUNNING",
    }
}

/// The same as JSON: `run.json` with a schema version.
pub fn members_json(run: &RunState, which: &[u32]) -> Value {
    let mut run = run.clone();
    let which: HashSet<u32> = which.iter().copied().collect();
    run.members.retain(|n, _| which.contains(n));
    json!({ "schema": JSON_SCHEMA, "run": run })
}

/// `running`, `completed`, `failed`.
pub fn status(status: RunStatus) -> &'static str {
    match status {
        RunStatus::Running => "running",
        RunStatus::Completed => "completed",
        RunStatus::Failed => "failed",
    }
}

#[cfg(test)]
mod tests {
    /// Looking for each among all would take longer than a test may.
    #[test]
    fn all_members_of_a_large_run() {
        const MEMBERS: u32 = 200_000;
        let run = crate::report::tests::run(MEMBERS);
        let which: Vec<u32> = (1..=MEMBERS).rev().collect();
        let json = super::members_json(&run, &which);
        assert_eq!(json["run"]["members"].as_object().unwrap().len(), MEMBERS as usize);
    }
}
