use clap::Args;

use super::rules::Judging;
use super::{FAILURES, Form, GOOD, Where, print, print_json};
use crate::report::clean;
use crate::report::failures::{self, Failure};
use crate::slurm::target::Target;

const EXAMPLES: &str = "\
Examples:
  inquest errors array-4700
  inquest errors 4700 -o JOB,CLASS,FINGERPRINT -n | sort -k3 | uniq -c -f2
  inquest errors 4711 --json | jq '.errors[].log.root_cause'";

/// List failures, one row per failed attempt, with the root cause.
///
/// The message is the root cause that the job's log shows, where the program
/// ended by its own fault, and else what the recorded facts say. The
/// fingerprint is the same for the same failure in other jobs and runs.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Job id, members of an array (123_[1-3]), or run id.
    #[arg(value_name = "JOB|RUN")]
    target: String,
    /// Do not read the jobs' logs.
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
    let target: Target = arguments.target.parse()?;
    let found = arguments.place.judged_members(&target, &arguments.judging)?;
    let failures = super::members::failures(&found, !arguments.no_logs)?;
    if arguments.form.json {
        print_json(&failures::json(&found.run, &failures))?;
    } else {
        print(&arguments.form.print(&failures::table(&failures))?)?;
        say_unread(&failures);
    }
    Ok(if failures.is_empty() { GOOD } else { FAILURES })
}

/// Logs that could not be read, in one line: the first, and how many more.
pub(super) fn say_unread(failures: &[Failure]) {
    let mut unread = failures.iter().flat_map(|f| f.unread.iter().map(move |u| (f, u)));
    if let Some((failure, first)) = unread.next() {
        let more = match unread.count() {
            0 => String::new(),
            n => format!(" (and {n} more)"),
        };
        eprintln!("inquest: {}: {}{more}; such rows rest on the recorded facts", failure.job, clean(first));
    }
}
