use clap::Args;

use super::rules::Judging;
use super::{FAILURES, Form, GOOD, Usage, Where, print, print_json};
use crate::report::compare::{self, Compared, Pattern};
use crate::report::failures::log_decides;
use crate::runs::RunStatus;
use crate::slurm::target::Target;

const EXAMPLES: &str = "\
Examples:
  inquest compare sweep-1 sweep-2
  inquest compare array-4700 array-4812 array-4950 -o PATTERN,COUNTS,MESSAGE

Exit status: 0 the latest run has no failures, 1 it has, 2 wrong usage,
3 not found or unreadable, 4 permission denied.";

/// Say which failures stayed, came and went between runs.
///
/// Runs are compared in the order in which they began. A failure is
/// persistent (in every run), new (only in the latest), resolved (not in the
/// latest any more) or flaky (in the latest, but not in all).
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Run ids, or ids of jobs in them.
    #[arg(value_name = "RUN", required = true, num_args = 2..)]
    runs: Vec<String>,
    /// Compare by the recorded facts alone.
    #[arg(long)]
    no_logs: bool,
    #[command(flatten)]
    judging: Judging,
    #[command(flatten)]
    place: Where,
    #[command(flatten)]
    form: Form,
}

pub(super) fn main(arguments: &Arguments) -> anyhow::Result<u8> {
    let mut targets: Vec<Target> = Vec::new();
    for word in &arguments.runs {
        let target = word.parse()?;
        if targets.contains(&target) {
            return Err(Usage(format!("'{word}' is given twice; name two or more different runs")).into());
        }
        targets.push(target);
    }
    let mut runs = collect(arguments, &targets, !arguments.no_logs)?;
    // Names from logs and names from facts are different names, so one run
    // whose logs are gone would look as if everything had changed.
    let gone = |r: &Compared| {
        let mut telling = r.failures.iter().filter(|f| log_decides(f.class)).peekable();
        telling.peek().is_some() && telling.all(|f| !f.unread.is_empty())
    };
    if let Some(run) = runs.iter().find(|r| gone(r)) {
        eprintln!(
            "inquest: no log of {} can be read; runs are compared by the recorded facts alone",
            run.run_id
        );
        runs = collect(arguments, &targets, false)?;
    }
    let rows = compare::compare(&mut runs);
    if let Some(run) =
        runs.last().filter(|r| r.running && rows.iter().any(|r| r.pattern == Pattern::Resolved))
    {
        eprintln!("inquest: {} has not ended; what looks resolved may still happen in it", run.run_id);
    }
    if arguments.form.json {
        print_json(&compare::json(&runs, &rows))?;
    } else {
        print(&arguments.form.print(&compare::table(&rows))?)?;
    }
    Ok(if runs.last().is_some_and(|r| !r.failures.is_empty()) { FAILURES } else { GOOD })
}

fn collect(arguments: &Arguments, targets: &[Target], logs: bool) -> anyhow::Result<Vec<Compared>> {
    let mut runs: Vec<Compared> = Vec::new();
    let mut seen = Vec::new();
    for target in targets {
        let found = arguments.place.judged(target, &arguments.judging)?;
        let which = (found.dir.clone(), found.members.clone());
        if seen.contains(&which) {
            let run = found.run.run_id;
            return Err(
                Usage(format!("two of the names mean the same jobs of {run}; name different runs")).into()
            );
        }
        seen.push(which);
        let failures = super::members::failures(&found, logs)?;
        let members = found.members.iter().map(|n| &found.run.members[n]);
        runs.push(Compared {
            // Two jobs of one run are told apart by their ids.
            run_id: match target {
                Target::Run(_) => found.run.run_id.clone(),
                _ => found.members.first().map_or(String::new(), |n| match found.members.len() {
                    1 => found.run.members[n].display_id(),
                    _ => found.run.run_id.clone(),
                }),
            },
            started: members.clone().map(|m| m.started).min().unwrap_or(found.run.started),
            running: found.run.status == RunStatus::Running,
            jobs: members.count(),
            failures,
        });
    }
    Ok(runs)
}
