use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use clap::Args;
use inquest_journal::{Body, JobId, Severity, StepId};
use jiff::tz::TimeZone;

use super::{FAILURES, GOOD, Usage, Where, print};
use crate::report::{clean_json, events, tail::Tail};
use crate::slurm::target::Target;
use crate::store::{Line, read_events};
use crate::units::count;

const EXAMPLES: &str = "\
Examples:
  inquest events 4711 --last 20
  inquest events array-4700 -f -t oom_kill -t task_exited
  inquest events array-4700 --json | jq -c 'select(.severity == \"error\")'";

/// Between two looks at a file that is followed.
const INTERVAL: Duration = Duration::from_millis(200);

/// Bytes that are printed together.
const PIECE: usize = 64 << 10;

/// List the recorded events of a job or run.
///
/// One line per event, in the order in which they were merged; see timeline
/// for the order of time.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Run id, job id (with a step if you like), or members of an array.
    #[arg(value_name = "RUN|JOB")]
    target: String,
    /// Only events of this type, for example oom_kill; may be repeated.
    #[arg(short = 't', long = "type", value_name = "TYPE", value_delimiter = ',')]
    types: Vec<String>,
    /// Only the last so many.
    #[arg(long, value_name = "N")]
    last: Option<usize>,
    /// Go on as events come in, until interrupted.
    #[arg(short = 'f', long)]
    follow: bool,
    /// Print the lines as they are stored.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Where,
}

/// Which events are shown, and how.
struct Filter<'a> {
    arguments: &'a Arguments,
    zone: &'a TimeZone,
    /// Only of these jobs; of the whole run without.
    jobs: Option<BTreeSet<JobId>>,
    step: Option<StepId>,
}

impl Filter<'_> {
    /// The text of an event that is shown, and whether it is an error.
    fn show(&self, line: &Line<'_>, raw: &[u8]) -> Option<(String, bool)> {
        let ours = self.jobs.as_ref().is_none_or(|jobs| line.job_id.is_some_and(|id| jobs.contains(&id)));
        let types = &self.arguments.types;
        let wanted = types.is_empty() || types.iter().any(|t| *t == line.event_type);
        if !ours || !wanted || self.step.is_some() && line.step != self.step {
            return None;
        }
        let text = if self.arguments.json {
            clean_json(&String::from_utf8_lossy(raw)).into_owned()
        } else {
            events::line(line, raw, self.zone)
        };
        Some((text + "\n", line.severity == Severity::Error))
    }
}

pub(super) fn main(arguments: &Arguments, zone: &TimeZone) -> anyhow::Result<u8> {
    let target: Target = arguments.target.parse()?;
    known(&arguments.types)?;
    let found = arguments.place.find_members(&target)?;
    let whole_run = matches!(target, Target::Run(_));
    let jobs: Vec<_> = found.members.iter().map(|n| &found.run.members[n]).collect();
    let from = jobs.iter().map(|m| m.range.0).min().unwrap_or(0);
    let to = jobs.iter().map(|m| m.range.1).max().unwrap_or(u64::MAX);
    let filter = Filter {
        arguments,
        zone,
        jobs: (!whole_run).then(|| jobs.iter().map(|m| m.job_id).collect()),
        step: step_of(&target),
    };
    if arguments.follow {
        return follow(&found.dir, if whole_run { 0 } else { from }, &filter);
    }
    let mut shown: VecDeque<String> = VecDeque::new();
    let (mut ready, mut printed) = (String::new(), Ok(()));
    let mut errors = false;
    let bad = read_events(&found.dir, (!whole_run).then_some((from, to)), |line, raw| {
        let Some((text, error)) = filter.show(&line, raw) else { return };
        errors |= error;
        match arguments.last {
            Some(last) => {
                shown.push_back(text);
                if shown.len() > last {
                    shown.pop_front();
                }
            }
            None if printed.is_ok() => {
                ready += &text;
                if ready.len() >= PIECE {
                    printed = print(&ready);
                    ready.clear();
                }
            }
            None => {}
        }
    })?;
    printed?;
    ready.extend(shown);
    print(&ready)?;
    if bad > 0 {
        let are = count(bad, "line is", "lines are");
        eprintln!("inquest: {are} damaged and left out, of {}", found.dir.display());
    }
    Ok(if errors { FAILURES } else { GOOD })
}

/// Shows what is there, or the end of it, and then what comes.
fn follow(dir: &std::path::Path, from: u64, filter: &Filter<'_>) -> anyhow::Result<u8> {
    let mut tail = Tail::open(dir, from)?;
    let mut shown: VecDeque<String> = VecDeque::new();
    // Until all that is there was read, nobody knows what is its end.
    let mut last = filter.arguments.last;
    loop {
        let more = tail.read(|line, raw| {
            shown.extend(filter.show(&line, raw).map(|s| s.0));
            if last.is_some_and(|last| shown.len() > last) {
                shown.pop_front();
            }
        })?;
        last = last.filter(|_| more);
        if last.is_none() {
            print(&shown.drain(..).collect::<String>())?;
        }
        if !more {
            std::thread::sleep(INTERVAL);
        }
    }
}

/// A mistyped type would show nothing, for ever with --follow.
pub(super) fn known(types: &[String]) -> Result<(), Usage> {
    const DERIVED: [&str; 9] = [
        "run_started",
        "run_completed",
        "run_failed",
        "chunk_started",
        "chunk_completed",
        "chunk_failed",
        "chunk_retried",
        "chunk_requeued",
        "run_alias",
    ];
    let all = || Body::TYPES.iter().chain(&DERIVED);
    match types.iter().find(|t| !all().any(|known| known == t)) {
        None => Ok(()),
        Some(word) => Err(Usage(format!(
            "there is no event type '{}'; choose from {}",
            word.escape_debug(),
            all().copied().collect::<Vec<_>>().join(", ")
        ))),
    }
}

pub(super) fn step_of(target: &Target) -> Option<StepId> {
    match target {
        Target::Job { step, .. } | Target::Array { step, .. } => *step,
        Target::Het { .. } | Target::Run(_) => None,
    }
}
