use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::{FAILURES, GOOD, NOT_FOUND};
use super::{Form, Output, Usage, print, print_json};
use crate::logs::{Cause, ScanOptions, fingerprint, scan_reader};
use crate::recover::Template;
use crate::report::grep::{Grep, Options};
use crate::report::scan::{self, JobScan};
use crate::report::{JSON_SCHEMA, clean, csv};
use crate::slurm::states;
use crate::slurm::target::fold_ranges;
use crate::store::ReadError;
use crate::units::count;

const EXAMPLES: &str = "\
Examples:
  inquest scan logs/ --squeue --sacct
  inquest scan logs/ --success 'results saved' --csv failed.csv \\
      --config-template 'configs/config_%04d.json'
  ssh old-cluster cat slurm-4711.out | inquest scan --stdin

Files of a directory are taken when they end in .out, .err, .log, .o, .e,
.stdout or .stderr, and sorted by job as their names say: slurm-JOB.out,
slurm-ARRAY_INDEX.out, NAME_ARRAY_INDEX.err. Where a job has several, the one
that is surest decides.";

/// Find out from logs alone why jobs failed; no plugin needed.
///
/// Reads the logs of jobs that the plugin did not record. Every verdict rests
/// on what the log says and, with --sacct, on how Slurm saw the end.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Log directories, searched recursively, or single logs.
    #[arg(value_name = "DIR|FILE", required_unless_present = "stdin")]
    paths: Vec<PathBuf>,
    /// Read one log from standard input.
    #[arg(long, conflicts_with_all = ["paths", "success", "csv", "config_template", "all", "jobs", "squeue", "sacct"])]
    stdin: bool,
    /// A job succeeded when one of its logs has this regular expression, and
    /// failed when none has.
    #[arg(long, value_name = "REGEX")]
    success: Option<String>,
    /// Only these job or array ids.
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    jobs: Vec<u32>,
    /// Ask squeue, and leave out jobs that have not ended.
    #[arg(long)]
    squeue: bool,
    /// Ask sacct how Slurm saw the end of the jobs.
    #[arg(long)]
    sacct: bool,
    /// List jobs that did not fail too.
    #[arg(long)]
    all: bool,
    /// Write the failed jobs as CSV, to standard output without a file.
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-", conflicts_with = "json")]
    csv: Option<Output>,
    /// For the column config_file of the CSV: a name with %d or %04d for the
    /// index in the array.
    #[arg(long, value_name = "NAME", requires = "csv")]
    config_template: Option<String>,
    #[command(flatten)]
    form: Form,
}

pub(super) fn main(arguments: &Arguments) -> anyhow::Result<u8> {
    if arguments.stdin {
        return one(arguments);
    }
    let options = Options { ignore_case: false, fixed: false, context: 0 };
    let success = arguments.success.as_deref().map(|p| Grep::new(p, &options).map(|_| p));
    let success = success.transpose().map_err(|e| Usage(e.to_string()))?;
    let template = arguments.config_template.as_deref().map(str::parse::<Template>).transpose();
    let template = template.map_err(|e| Usage(e.to_string()))?;
    let form = &arguments.form;
    form.print(&scan::table(&[], false))?;
    let mut jobs = scan::find(&arguments.paths).map_err(|(path, e)| super::unreadable(&path, &e))?;
    if !arguments.jobs.is_empty() {
        jobs.retain(|j| j.name.job_id.is_some_and(|id| arguments.jobs.contains(&id)));
    }
    if jobs.is_empty() {
        let dirs: Vec<_> = arguments.paths.iter().map(|p| p.to_string_lossy()).collect();
        return Err(ReadError::NotFound(format!(
            "no logs{} in {}: files are found by ending in .out, .err, .log; name files to read others",
            if arguments.jobs.is_empty() { "" } else { " of these jobs" },
            dirs.join(", ")
        ))
        .into());
    }
    let make = |p| move || Grep::new(p, &options).expect("the pattern was tried before");
    let make = success.map(make);
    let ids: BTreeSet<u32> = jobs.iter().filter_map(|j| j.name.job_id).collect();
    if arguments.squeue {
        match states::unfinished(&ids) {
            Ok(open) => {
                let before = jobs.len();
                jobs.retain(|j| !open.contains(&j.name.display()));
                if jobs.len() < before {
                    let open =
                        count(before - jobs.len(), "job has not ended and is", "jobs have not ended and are");
                    eprintln!("inquest: {open} left out");
                }
            }
            Err(reason) => eprintln!("inquest: {}; no job is left out", clean(&reason)),
        }
    }
    let mut scans = scan::scan_jobs(&jobs, make.as_ref().map(|m| m as _));
    if arguments.sacct {
        match states::ended(&ids) {
            Ok(states) => scans.iter_mut().for_each(|scan| {
                if let Some(state) = states.get(&scan.name.display()) {
                    scan.learn(state);
                }
            }),
            Err(reason) => eprintln!("inquest: {}; verdicts rest on the logs alone", clean(&reason)),
        }
    }
    if let Some(to) = &arguments.csv {
        let config = |index| template.as_ref().map_or(String::new(), |t| t.name(index));
        to.write(&csv::text(&scan::CSV, &scan::csv_rows(&scans, config)))?;
    }
    if form.json {
        print_json(&scan::json(&scans))?;
    } else if arguments.csv.as_ref().is_none_or(|to| !to.is_stdout()) {
        print(&form.print(&scan::table(&scans, arguments.all))?)?;
        if !form.parsable2 && form.format.is_empty() && !form.noheader {
            print(&format!("\n{}", scan::summary(&scans)))?;
            for (array, indices) in scan::failed_arrays(&scans) {
                print(&format!(
                    "\nTo run those of array {array} again: sbatch --array={} SCRIPT\n",
                    fold_ranges(indices)
                ))?;
            }
        }
    }
    for line in scans.iter().flat_map(|s| &s.unread) {
        eprintln!("inquest: {}", clean(line));
    }
    Ok(match () {
        () if scans.iter().any(JobScan::failed) => FAILURES,
        () if scans.iter().any(JobScan::unknown) => NOT_FOUND,
        () => GOOD,
    })
}

/// One log from standard input.
fn one(arguments: &Arguments) -> anyhow::Result<u8> {
    let report = scan_reader(std::io::stdin().lock(), &ScanOptions::default())?;
    let finding = &report.finding;
    let failed = finding.cause != Cause::None;
    if arguments.form.json {
        let mut value = json!(report);
        if let Some(map) = value.as_object_mut() {
            map.insert("schema".into(), json!(JSON_SCHEMA));
            map.insert("fingerprint".into(), json!(finding.root_cause.as_deref().map(fingerprint)));
        }
        print_json(&value)?;
    } else if failed {
        let class = scan::class_word(finding.class);
        let at = finding.line_number.map_or(String::new(), |n| format!("line {n}: "));
        let line = clean(finding.root_cause.as_deref().unwrap_or("(no line says why)").trim());
        print(&format!("{} ({class})\n  {at}{line}\n", finding.cause.as_str()))?;
        if let Some(masked) = &finding.masked_by {
            print(&format!("  hidden by: {}\n", clean(masked.trim())))?;
        }
    } else {
        let lines = count(report.lines, "line", "lines");
        print(&format!("nothing in the {lines} says that something failed\n"))?;
    }
    Ok(if failed { FAILURES } else { GOOD })
}
