use clap::Args;
use inquest_journal::{Severity, StepId};
use jiff::tz::TimeZone;

use super::{FAILURES, GOOD, Where, print};
use crate::report::events;
use crate::slurm::target::Target;
use crate::store::read_events;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Run id, job id (with a step if you like), or members of an array.
    #[arg(value_name = "RUN|JOB")]
    target: String,
    /// Only events of this type, for example oom_kill.
    #[arg(short = 't', long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Print the lines as they are stored.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Where,
}

pub(super) fn main(arguments: &Arguments, zone: &TimeZone) -> anyhow::Result<u8> {
    let target: Target = arguments.target.parse()?;
    let found = arguments.place.find(&target)?;
    let whole_run = matches!(target, Target::Run(_));
    let step = step_of(&target);
    let jobs: Vec<_> = found.members.iter().map(|n| &found.run.members[n]).collect();
    let from = jobs.iter().map(|m| m.range.0).min().unwrap_or(0);
    let to = jobs.iter().map(|m| m.range.1).max().unwrap_or(u64::MAX);
    let ids: std::collections::BTreeSet<_> = jobs.iter().map(|m| m.job_id).collect();
    let range = if whole_run { None } else { Some((from, to)) };
    let mut text = String::new();
    let mut errors = false;
    let bad = read_events(&found.dir, range, |line, raw| {
        let ours = whole_run || line.job_id.is_some_and(|id| ids.contains(&id));
        let wanted = arguments.event_type.as_deref().is_none_or(|t| t == line.event_type);
        if !ours || !wanted || step.is_some() && line.step != step {
            return;
        }
        errors |= line.severity == Severity::Error;
        if arguments.json {
            text.push_str(&String::from_utf8_lossy(raw));
        } else {
            text.push_str(&events::line(&line, raw, zone));
        }
        text.push('\n');
    })?;
    print(&text)?;
    if bad > 0 {
        eprintln!("inquest: {bad} lines of {} are damaged and were left out", found.dir.display());
    }
    Ok(if errors { FAILURES } else { GOOD })
}

pub(super) fn step_of(target: &Target) -> Option<StepId> {
    match target {
        Target::Job { step, .. } | Target::Array { step, .. } => *step,
        Target::Het { .. } | Target::Run(_) => None,
    }
}
