//! A plan to run jobs again, as text, JSON and CSV.

use std::collections::HashMap;
use std::fmt::Write;

use anstyle::Style;
use serde_json::{Value, json};

use super::failures::Failure;
use super::{JSON_SCHEMA, clean};
use crate::recover::{Group, NO_SCRIPT, Plan, Template, line};
use crate::runs::RunState;
use crate::units::count;

const HEAD: Style = Style::new().bold();

/// The plan for people: each group with what one should know and its command.
pub fn text(plan: &Plan) -> String {
    let mut out = String::new();
    for group in &plan.groups {
        let name = group.name.as_deref().map_or(String::new(), |n| format!(" \"{}\"", clean(n)));
        let members = &group.members;
        let _ = writeln!(
            out,
            "{HEAD}{}{HEAD:#}: {} of {}, {members}{name}",
            group.class,
            group.jobs,
            count(plan.jobs, "job", "jobs")
        );
        for note in &group.notes {
            let _ = writeln!(out, "  {}", clean(note));
        }
        let _ = writeln!(out, "  {}\n", command(group));
    }
    if plan.cancelled > 0 {
        let jobs = count(plan.cancelled, "cancelled job is", "cancelled jobs are");
        let _ = writeln!(out, "{jobs} left out: --class cancelled takes them");
    }
    for n in &plan.bad_nodes {
        let _ = writeln!(out, "Node {}: {}", clean(&n.node), n.says());
    }
    out
}

/// The command; with a word in place of what is not known.
fn command(group: &Group) -> String {
    if let Some(command) = &group.command {
        return command.clone();
    }
    let mut argv: Vec<String> = group.argv.iter().map(|word| clean(word)).collect();
    argv.push(NO_SCRIPT.into());
    line(&argv).unwrap_or_default()
}

/// The plan as JSON.
pub fn json(run: &RunState, plan: &Plan) -> Value {
    json!({ "schema": JSON_SCHEMA, "user": run.user, "run_id": run.run_id, "plan": plan })
}

/// Columns of [`csv_rows`].
pub const CSV: [&str; 8] =
    ["job_id", "job_name", "array_id", "class", "cause", "fingerprint", "node", "config_file"];

/// One row per failed job; `array_id` is the index in the array.
pub fn csv_rows(run: &RunState, failures: &[Failure], template: Option<&Template>) -> Vec<Vec<String>> {
    let members: HashMap<_, _> = run.members.values().map(|m| (m.job_id, m)).collect();
    let row = |f: &Failure| {
        let member = members.get(&f.job_id);
        let array = member.and_then(|m| m.array_job_id.zip(m.array_task_id));
        let index = array.map(|(_, index)| index);
        vec![
            array.map_or(f.job_id, |(id, _)| id).to_string(),
            f.job_name.clone().unwrap_or_default(),
            index.map_or(String::new(), |i| i.to_string()),
            f.class.to_string(),
            f.cause.clone(),
            f.fingerprint().to_string(),
            f.node.clone().unwrap_or_default(),
            template.zip(index).map_or(String::new(), |(t, i)| t.name(i)),
        ]
    };
    failures.iter().map(row).collect()
}
