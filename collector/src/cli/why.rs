use std::collections::BTreeMap;

use clap::Args;
use inquest_journal::{JobId, Source};
use jiff::tz::TimeZone;

use super::{FAILURES, GOOD, Where, print, print_json};
use crate::report::failures::failures;
use crate::report::why::{self, Subject};
use crate::slurm::target::Target;
use crate::store::{Found, ReadError, read_events};
use crate::story::Story;
use crate::verdict::Class;

const EXAMPLES: &str = "\
Examples:
  inquest why 4711               one job
  inquest why 4700_[12,17]       members of an array
  inquest why array-4700         a whole run
  inquest why 4711 --json | jq '.jobs[].verdict.cause\'";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Job id, members of an array, a step (123.0), or a run id.
    #[arg(value_name = "JOB|RUN")]
    target: String,
    /// Print JSON: verdicts with evidence, and the whole story.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Where,
}

pub(super) fn main(arguments: &Arguments, zone: &TimeZone) -> anyhow::Result<u8> {
    let target: Target = arguments.target.parse()?;
    let found = arguments.place.find(&target)?;
    let mut stories = stories(&found)?;
    let mut read = 0;
    let subjects: Vec<Subject<'_>> = found
        .members
        .iter()
        .map(|n| {
            let member = &found.run.members[n];
            let story = stories.remove(&member.job_id).unwrap_or_default();
            // Logs are read for as many failures as are shown at length.
            let failed = member.verdict.as_ref().is_some_and(|v| v.class != Class::Ok) && read < why::SHOWN;
            read += usize::from(failed);
            let failure = failed.then(|| failures(&found.run, member, &story, true).pop()).flatten();
            Subject { number: *n, member, story, failure }
        })
        .collect();
    if arguments.json {
        print_json(&why::json(&found.run, &subjects))?;
    } else {
        print(&why::text(&found.run, &subjects, super::events::step_of(&target), zone))?;
    }
    let failed = subjects.iter().filter_map(|s| s.member.verdict.as_ref()).any(|v| v.class != Class::Ok);
    Ok(if failed { FAILURES } else { GOOD })
}

/// The stories of the members that were asked for, from one pass over the
/// part of the file that holds them.
pub(super) fn stories(found: &Found) -> Result<BTreeMap<JobId, Story>, ReadError> {
    let members = found.members.iter().map(|n| &found.run.members[n]);
    let mut stories: BTreeMap<JobId, Story> = members.clone().map(|m| (m.job_id, Story::default())).collect();
    let from = members.clone().map(|m| m.range.0).min().unwrap_or(0);
    let to = members.map(|m| m.range.1).max().unwrap_or(0);
    read_events(&found.dir, Some((from, to)), |line, raw| {
        if line.source == Source::Collector {
            return;
        }
        if let Some(story) = line.job_id.and_then(|id| stories.get_mut(&id))
            && let Some(body) = line.body(raw)
        {
            story.apply(&line.into_head(), body);
        }
    })?;
    Ok(stories)
}
