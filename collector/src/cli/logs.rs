use clap::Args;
use jiff::tz::TimeZone;

use super::{Form, Members, Where, print, print_json};
use crate::report::logfiles::{self, Looked};

const EXAMPLES: &str = "\
Examples:
  inquest logs 4711              the logs of one job
  inquest logs array-4700        those of all failed members of an array
  inquest logs 4700 --all -P -o PATH -n | xargs -d '\\n' tail -n 5";

/// Say where the logs of jobs are, and what is there.
///
/// Paths come from what the tasks had open, else from what Slurm named, with
/// %j %A %a %x %N %t %u filled in, else from Slurm's default. They are looked
/// at with your permissions.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    members: Members,
    #[command(flatten)]
    place: Where,
    #[command(flatten)]
    form: Form,
}

pub(super) fn main(arguments: &Arguments, zone: &TimeZone) -> anyhow::Result<u8> {
    let picked = arguments.members.pick(&arguments.place)?;
    let mut logs = Vec::new();
    for (member, attempt) in picked.attempts() {
        let files = picked.logs(member, attempt);
        if files.is_empty() {
            eprintln!(
                "inquest: {}: no path of a log was recorded; what srun passes on is where srun ran",
                member.display_id()
            );
        }
        for file in files {
            let state = logfiles::look(&file.path, file.whose);
            logs.push(Looked { member, file, state });
        }
    }
    if arguments.form.json {
        print_json(&logfiles::json(&picked.found.run, &logs))?;
    } else {
        print(&arguments.form.print(&logfiles::table(&logs, zone))?)?;
    }
    Ok(picked.code())
}
