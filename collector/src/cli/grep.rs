use clap::Args;
use serde_json::json;

use super::{DENIED, Form, GOOD, Members, NOT_FOUND, Usage, Where, print, print_json};
use crate::report::grep::{self, Grep, Hit, Options};
use crate::report::logfiles::LogError;
use crate::report::table::Table;
use crate::report::{JSON_SCHEMA, clean};
use crate::units::count;

const EXAMPLES: &str = "\
Examples:
  inquest grep 'Error|Killed' 4711
  inquest grep -i -C 0 -m 0 nan array-4700 --all
  inquest grep -F 'rank[3]' 4700_12 --json

Exit status: 0 a line matched, 1 none did, 2 wrong usage, 3 not found or
unreadable, 4 permission denied.";

/// Search the logs of jobs.
///
/// Both standard output and standard error are searched, of failed jobs only
/// unless --all is given, with your permissions.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Regular expression.
    pattern: String,
    #[command(flatten)]
    members: Members,
    /// Lines to show around a match.
    #[arg(short = 'C', long, value_name = "N", default_value_t = 3)]
    context: usize,
    /// Stop after this many matches in all; 0 for no end.
    #[arg(short = 'm', long, value_name = "N", default_value_t = 50)]
    max_count: u64,
    /// The same in upper and lower case.
    #[arg(short = 'i', long)]
    ignore_case: bool,
    /// The pattern is plain text.
    #[arg(short = 'F', long)]
    fixed_strings: bool,
    #[command(flatten)]
    place: Where,
    #[command(flatten)]
    form: Form,
}

/// No line matched; grep's own convention.
const NO_MATCH: u8 = 1;

pub(super) fn main(arguments: &Arguments) -> anyhow::Result<u8> {
    let options = Options {
        ignore_case: arguments.ignore_case,
        fixed: arguments.fixed_strings,
        context: arguments.context,
    };
    let mut grep = Grep::new(&arguments.pattern, &options).map_err(|e| Usage(e.to_string()))?;
    let form = &arguments.form;
    let columns = ["JOB", "STREAM", "LINE", "MATCH", "TEXT", "PATH"];
    let mut table = Table::new(&columns);
    let as_table = form.parsable2 || !form.format.is_empty();
    // A column that is not there must not cost a search.
    form.print(&table)?;
    let picked = arguments.members.pick(&arguments.place)?;
    let mut rows = Vec::new();
    let (mut matches, mut read, mut unread, mut closed) = (0u64, 0, 0, 0);
    let enough = |matches| arguments.max_count > 0 && matches >= arguments.max_count;
    'logs: for (member, attempt) in picked.attempts() {
        let job = member.display_id();
        for file in picked.logs(member, attempt) {
            if enough(matches) {
                break 'logs;
            }
            let mut first = true;
            let result = grep.search(&file.path, file.whose, |hit: Hit| {
                // The lines after the last match still belong to it.
                if hit.is_match && enough(matches) || hit.gap && enough(matches) {
                    return Ok(false);
                }
                matches += u64::from(hit.is_match);
                if form.json {
                    rows.push(json!({
                        "job": job, "job_id": member.job_id, "stream": file.stream,
                        "path": file.path.to_string_lossy(), "line_number": hit.line_number,
                        "text": hit.text, "is_match": hit.is_match,
                    }));
                } else if as_table {
                    table.row(vec![
                        job.clone(),
                        file.stream.word().into(),
                        hit.line_number.to_string(),
                        if hit.is_match { "yes" } else { "no" }.into(),
                        clean(&hit.text),
                        clean(&file.path.to_string_lossy()),
                    ]);
                } else {
                    if std::mem::take(&mut first) && !form.noheader {
                        print(&grep::heading(&job, &file.path))?;
                    }
                    print(&grep::line(&hit))?;
                }
                Ok(true)
            })?;
            match result {
                Ok(()) => read += 1,
                Err(e) => {
                    unread += 1;
                    closed += u32::from(matches!(e, LogError::Denied | LogError::NotTheirs { .. }));
                    let path = file.path.to_string_lossy();
                    eprintln!("inquest: {job}: {} {e}", clean(&path));
                }
            }
        }
    }
    if form.json {
        print_json(&json!({
            "schema": JSON_SCHEMA, "run_id": picked.found.run.run_id, "matches": matches,
            "stopped": enough(matches), "lines": rows,
        }))?;
    } else if as_table {
        print(&form.print(&table)?)?;
    }
    if enough(matches) {
        eprintln!("inquest: stopped after {}; -m 0 shows all", count(matches, "match", "matches"));
    }
    Ok(match (matches, read, unread) {
        (1.., _, _) => GOOD,
        (0, 0, 1..) if closed == unread => DENIED,
        (0, 0, 1..) => NOT_FOUND,
        _ => NO_MATCH,
    })
}
