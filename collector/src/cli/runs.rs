use clap::Args;
use jiff::tz::TimeZone;

use super::{FAILURES, Form, GOOD, Where, print, print_json};
use crate::report::runs;

const EXAMPLES: &str = "\
Examples:
  inquest runs
  inquest runs --last 20
  inquest runs -u ann -o RUN,STATUS,FAILED -P

The counts are the collector's and rest on events. A class that only a job's log
tells, as by a site's rule with a pattern, is what run and errors show.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Only the newest N.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    last: Option<u32>,
    #[command(flatten)]
    place: Where,
    #[command(flatten)]
    form: Form,
}

pub(super) fn main(arguments: &Arguments, zone: &TimeZone) -> anyhow::Result<u8> {
    let place = &arguments.place;
    let mut found = place.open()?.runs(place.cluster.as_deref(), place.user.as_deref())?;
    if let Some(last) = arguments.last {
        found.drain(..found.len().saturating_sub(last as usize));
    }
    if arguments.form.json {
        print_json(&runs::list_json(&found))?;
    } else {
        print(&arguments.form.print(&runs::list(&found, zone))?)?;
    }
    Ok(if found.iter().any(|(_, _, run)| run.n_failed > 0) { FAILURES } else { GOOD })
}
