use clap::Args;
use jiff::tz::TimeZone;

use super::rules::Judging;
use super::{FAILURES, Form, GOOD, Where, print, print_json};
use crate::report::runs;
use crate::slurm::target::Target;
use crate::verdict::Class;

const EXAMPLES: &str = "\
Examples:
  inquest run array-4700
  inquest run 4700_[1-20] -o JOB,CLASS,DETAIL";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Run id, job id, or members of an array.
    #[arg(value_name = "RUN|JOB")]
    target: String,
    #[command(flatten)]
    judging: Judging,
    #[command(flatten)]
    place: Where,
    #[command(flatten)]
    form: Form,
}

pub(super) fn main(arguments: &Arguments, zone: &TimeZone) -> anyhow::Result<u8> {
    let target: Target = arguments.target.parse()?;
    let found = arguments.place.judged_members(&target, &arguments.judging)?;
    if arguments.form.json {
        print_json(&runs::members_json(&found.run, &found.members))?;
    } else {
        print(&arguments.form.print(&runs::members(&found.run, &found.members, zone))?)?;
    }
    let failed = found
        .members
        .iter()
        .filter_map(|n| found.run.members[n].verdict.as_ref())
        .any(|v| v.class != Class::Ok);
    Ok(if failed { FAILURES } else { GOOD })
}
