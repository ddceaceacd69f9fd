use std::collections::{BTreeMap, HashMap};

use clap::Args;
use inquest_journal::{JobId, Source, StepId};
use jiff::tz::TimeZone;

use super::rules::Judging;
use super::{FAILURES, GOOD, Output, Where, print, print_json};
use crate::report::failures::failures;
use crate::report::why::{self, LOGS_READ, Subject};
use crate::report::{JSON_SCHEMA, clean};
use crate::report::{parallel, site, unrecorded};
use crate::runs::{Member, RunState};
use crate::slurm::past;
use crate::slurm::target::Target;
use crate::store::{Found, ReadError, read_parts};
use crate::story::Story;

const EXAMPLES: &str = "\
Examples:
  inquest why 4711               one job
  inquest why 4700_[12,17]       members of an array
  inquest why array-4700         a whole run
  inquest why --last             your newest run in which a job failed
  inquest why --last 3           the newest three of them
  inquest why array-4700 --html report.html
  inquest why 4711 --json | jq '.jobs[].verdict.cause\'";

/// Say what went wrong in a job, array or run, and on which evidence.
///
/// A job that the plugin did not record, or whose records are for its owner and
/// operators to read, is told of by what Slurm's accounting (sacct) and its log
/// say, as far as they tell you.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Job id, members of an array, a step (123.0), or a run id.
    #[arg(value_name = "JOB|RUN", required_unless_present = "last")]
    target: Option<String>,
    /// The newest runs in which a job failed: your own, or with -u another
    /// user's; for root, who runs no jobs, anybody's.
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "1", conflicts_with = "target",
          value_parser = clap::value_parser!(u16).range(1..))]
    last: Option<u16>,
    /// Print JSON: verdicts with evidence, and the whole story.
    #[arg(long, conflicts_with = "html")]
    json: bool,
    /// Write a page with pictures that needs no network and no script; to
    /// standard output with -.
    #[arg(long, value_name = "FILE")]
    html: Option<Output>,
    #[command(flatten)]
    judging: Judging,
    #[command(flatten)]
    place: Where,
}

pub(super) fn main(arguments: &Arguments, zone: &TimeZone) -> anyhow::Result<u8> {
    let (found, told, step) = arguments.find()?;
    let mut code = GOOD;
    let mut json = Vec::new();
    let mut pages = Vec::new();
    for (index, found) in found.iter().enumerate() {
        let subjects = match &told {
            Some(told) => {
                let closed = self::closed(&arguments.place, &found.run);
                subjects_of(found, told.clone(), closed)
            }
            None if arguments.json || arguments.html.is_some() => subjects_of(found, stories(found)?, false),
            None => subjects(found)?,
        };
        if subjects.iter().any(Subject::failed) {
            code = FAILURES;
        }
        if arguments.json {
            json.push(why::json(&found.run, &subjects));
        } else if arguments.html.is_some() {
            pages.push((&found.run, subjects));
        } else {
            let gap = if index == 0 { "" } else { "\n" };
            print(&format!("{gap}{}", why::text(&found.run, &subjects, step, zone)))?;
        }
    }
    if let Some(to) = arguments.html.as_ref().filter(|_| !pages.is_empty()) {
        let pages: Vec<_> = pages.iter().map(|(run, subjects)| (*run, subjects.as_slice())).collect();
        to.write(&why::html(&pages, step, zone))?;
    }
    match (arguments.json, arguments.last, json.pop()) {
        // One run is answered as if it had been named.
        (true, None | Some(1), Some(one)) => print_json(&one)?,
        (true, _, last) => {
            json.extend(last);
            print_json(&serde_json::json!({ "schema": JSON_SCHEMA, "runs": json }))?;
        }
        _ => {}
    }
    Ok(code)
}

impl Arguments {
    /// What the question is about, what is known of it where no store tells, and one step of it.
    fn find(&self) -> anyhow::Result<(Vec<Found>, Option<Stories>, Option<StepId>)> {
        let Some(word) = &self.target else {
            let whose = self.place.whose();
            let count = usize::from(self.last.unwrap_or(1));
            let cluster = self.place.cluster.as_deref();
            let mut unread = |run: &str, e: ReadError| {
                eprintln!("inquest: the run {} is left out: {}", clean(run), clean(&e.to_string()));
            };
            let mut found =
                self.place.open()?.newest_failed(cluster, whose.as_deref(), count, &mut unread)?;
            if found.is_empty() {
                let whose = whose.map_or(String::new(), |u| format!(" of {u}"));
                eprintln!("inquest: no run{whose} has a job that failed; 'inquest runs' lists what is there");
            }
            let rules = self.judging.load()?;
            for found in &mut found {
                super::judge(found, &rules)?;
            }
            return Ok((found, None, None));
        };
        let target: Target = word.parse()?;
        let step = super::events::step_of(&target);
        let error = match self.place.judged_members(&target, &self.judging) {
            Ok(found) => return Ok((vec![found], None, step)),
            Err(error) => error,
        };
        if matches!(target, Target::Run(_)) || !matches!(error.downcast_ref(), Some(ReadError::NotFound(_))) {
            return Err(error);
        }
        let jobs = past::ask(&target, self.place.cluster.as_deref(), self.place.user.as_deref());
        match unrecorded::found(jobs.as_deref().unwrap_or_default()) {
            Some((mut found, stories)) => {
                site::refine(&self.judging.load()?, &mut found.run, &found.members, &stories);
                Ok((vec![found], Some(stories), step))
            }
            None => {
                let slurm = jobs.map_or_else(|reason| reason, |_| "sacct does not know it either".into());
                Err(ReadError::NotFound(format!("{error}; {slurm}")).into())
            }
        }
    }
}

pub(super) type Stories = BTreeMap<JobId, Story>;

/// The members that were asked for as a report in text tells of them: with their stories, and what the logs of
/// the first failed ones say. Of several, those that ended well are told of by their nodes alone.
pub(super) fn subjects(found: &Found) -> Result<Vec<Subject<'_>>, ReadError> {
    let brief = |m: &Member| found.members.len() > 1 && m.verdict.is_some() && !m.failed() && m.attempts == 1;
    Ok(subjects_of(found, stories_told(found, &found.members, brief)?, false))
}

/// Whether what may be recorded of a job that was not found is for others to read.
fn closed(place: &Where, run: &RunState) -> bool {
    place.open().is_ok_and(|store| !store.is_callers(&run.user))
}

fn subjects_of(found: &Found, mut stories: Stories, closed: bool) -> Vec<Subject<'_>> {
    let mut left = LOGS_READ;
    let mut subjects: Vec<(Subject<'_>, bool)> = found
        .members
        .iter()
        .map(|number| {
            let member = &found.run.members[number];
            let story = stories.remove(&member.job_id).unwrap_or_default();
            let read = member.failed() && left > 0;
            left -= usize::from(read);
            (Subject { number: *number, member, story, failure: None, closed }, read)
        })
        .collect();
    let each = |(): &mut (), (s, read): &(Subject<'_>, bool)| {
        s.failed().then(|| failures(&found.run, s.member, &s.story, *read).pop()).flatten()
    };
    let failures = parallel::map(&subjects, || (), each);
    for ((subject, _), failure) in subjects.iter_mut().zip(failures) {
        subject.failure = failure;
    }
    subjects.into_iter().map(|(subject, _)| subject).collect()
}

/// The stories of the members that were asked for.
pub(super) fn stories(found: &Found) -> Result<Stories, ReadError> {
    stories_of(found, &found.members)
}

/// The stories of these members, from one pass over the part of the file that
/// holds them.
pub(super) fn stories_of(found: &Found, members: &[u32]) -> Result<Stories, ReadError> {
    stories_told(found, members, |_| false)
}

/// The same; a `brief` member's first event on every node is all of its story.
fn stories_told(
    found: &Found,
    members: &[u32],
    brief: impl Fn(&Member) -> bool,
) -> Result<Stories, ReadError> {
    let members = members.iter().map(|n| &found.run.members[n]);
    let mut stories: HashMap<JobId, (Story, bool)> =
        members.clone().map(|m| (m.job_id, (Story::default(), brief(m)))).collect();
    let from = members.clone().map(|m| m.range.0).min().unwrap_or(0);
    let to = members.map(|m| m.range.1).max().unwrap_or(0);
    let between = [(from, to)];
    read_parts(&found.dir, found.parts.as_deref().unwrap_or(&between), |line, raw| {
        // Of its own events, one is about what happened on a node.
        if line.source == Source::Collector && line.event_type != "node_booted" {
            return;
        }
        let Some((story, brief)) = line.job_id.and_then(|id| stories.get_mut(&id)) else { return };
        if *brief && story.attempts.last().is_some_and(|a| a.nodes.contains(&*line.node)) {
            return;
        }
        if let Some(mut body) = line.body(raw) {
            story.apply(&line.into_head(), &mut body);
        }
    })?;
    Ok(stories.into_iter().map(|(id, (story, _))| (id, story)).collect())
}
