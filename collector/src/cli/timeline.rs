use clap::Args;
use jiff::tz::TimeZone;

use super::{FAILURES, Form, GOOD, Where, print, print_json};
use crate::report::timeline::Timeline;
use crate::slurm::target::Target;
use crate::store::read_events;
use crate::units::count;

const EXAMPLES: &str = "\
Examples:
  inquest timeline array-4700
  inquest timeline array-4700 --around 60
  inquest timeline 4711 --all -o OFFSET,EVENT,STEP,TASK,DETAIL

EVENT is START, DONE, REQUEUE, RETRY; OOM, TIMEOUT, CRASH, CANCEL, PREEMPT,
INFRA or FAIL for the end of a job; DIED for a task or process, KILL for a kill
by the kernel for memory, HIGH for memory near its limit; BOOT, NOTE and LOST;
with --all also BEGIN and END of steps and EXIT of tasks that ended well.

Below the table: bursts (three or more failures within a minute), and nodes
where jobs fail at least twice as often as elsewhere.";

/// Show what happened when and where, and what happened together.
///
/// Times are those of the nodes' clocks, offsets count from the start of the
/// run.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Job id, members of an array (123_[1-3]), or run id.
    #[arg(value_name = "JOB|RUN")]
    target: String,
    /// Only what happened so many seconds before or after a failure.
    #[arg(long, value_name = "SECS")]
    around: Option<u64>,
    /// Starts and clean ends of steps and tasks too.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    place: Where,
    #[command(flatten)]
    form: Form,
}

pub(super) fn main(arguments: &Arguments, zone: &TimeZone) -> anyhow::Result<u8> {
    let target: Target = arguments.target.parse()?;
    let found = arguments.place.find(&target)?;
    let whole = matches!(target, Target::Run(_));
    let ranges = || found.members.iter().map(|n| found.run.members[n].range);
    let from = ranges().map(|r| r.0).min().unwrap_or(0);
    let to = ranges().map(|r| r.1).max().unwrap_or(0);
    let step = super::events::step_of(&target);
    let mut timeline = Timeline::new(&found.run, &found.members, arguments.all);
    let bad = read_events(&found.dir, (!whole).then_some((from, to)), |line, raw| {
        if step.is_none() || line.step == step {
            timeline.add(&line, raw);
        }
    })?;
    timeline.finish(arguments.around);
    let form = &arguments.form;
    if form.json {
        print_json(&timeline.json())?;
    } else {
        print(&form.print(&timeline.table(zone))?)?;
        let remarks = timeline.remarks(zone);
        if !remarks.is_empty() && !form.parsable2 {
            print(&format!("\n{remarks}"))?;
        }
    }
    if bad > 0 {
        let are = count(bad, "line is", "lines are");
        eprintln!("inquest: {are} damaged and left out, of {}", found.dir.display());
    }
    Ok(if timeline.failed() { FAILURES } else { GOOD })
}
