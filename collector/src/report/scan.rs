/*!
Logs of jobs that no plugin recorded: which files belong to which job, what
each says, and what that makes of the job.

A job is known by the names of its files alone, so its exit code, its node and
its memory are not known, and every verdict rests on the log.
*/

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex::Regex;
use serde::Serialize;
use serde_json::{Value, json};

use super::failures::{FromLog, scan};
use super::grep::Grep;
use super::logfiles::{LogError, Whose};
use super::table::Table;
use super::{JSON_SCHEMA, clean, ids, parallel};
use crate::logs::{Cause, Class, Fingerprint, fingerprint};
use crate::units::count;

/// How deep directories are searched.
const DEPTH: usize = 12;

/// Cause of a job of which nothing is known.
const UNREADABLE: &str = "unreadable";

/// Endings of logs; other files in a directory are not looked at.
const ENDINGS: [&str; 7] = ["out", "err", "log", "o", "e", "stdout", "stderr"];

/// A job as the names of its logs tell it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct LogName {
    /// What stands before the ids; for a name without ids, the whole name.
    pub name: String,
    /// Job id, or the array's when there is an index.
    pub job_id: Option<u32>,
    /// Index in the array.
    pub array_id: Option<u32>,
}

/// `prefix_4700_3.err`, `slurm-4700_3.out`, `slurm-4700.out`, `job4700.log`.
static NAME: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = r"^(?:(?<a>.*?)[-_.]?(?<array>\d+)_(?<index>\d+)|(?<j>.*?)[-_.]?(?<job>\d+))$";
    Regex::new(pattern).expect("a pattern of this file compiles")
});

impl LogName {
    /// From the name of a file, its directory and ending left out.
    pub fn parse(stem: &str) -> LogName {
        let plain = || LogName { name: stem.into(), ..LogName::default() };
        let Some(found) = NAME.captures(stem) else { return plain() };
        let number = |name| found.name(name).map(|m| m.as_str().parse::<u32>());
        let text = |name| found.name(name).map_or("", |m| m.as_str());
        match (number("array"), number("index"), number("job")) {
            (Some(Ok(array)), Some(Ok(index)), _) => {
                LogName { name: text("a").into(), job_id: Some(array), array_id: Some(index) }
            }
            (_, _, Some(Ok(job))) => LogName { name: text("j").into(), job_id: Some(job), array_id: None },
            _ => plain(),
        }
    }

    /// `4700_3`, `4700`, or the name.
    pub fn display(&self) -> String {
        match (self.job_id, self.array_id) {
            (Some(job), Some(index)) => format!("{job}_{index}"),
            (Some(job), None) => job.to_string(),
            _ => self.name.clone(),
        }
    }
}

/// The logs of one job.
#[derive(Clone, Debug, Default)]
pub struct JobLogs {
    /// The job.
    pub name: LogName,
    /// Its files, those of standard error first.
    pub files: Vec<PathBuf>,
}

/// Finds the logs in files and, recursively, directories, and sorts them by
/// job. Symbolic links to directories are not followed.
///
/// # Errors
///
/// What cannot be looked into, with the reason.
pub fn find(paths: &[PathBuf]) -> Result<Vec<JobLogs>, (PathBuf, LogError)> {
    let mut jobs: BTreeMap<(PathBuf, LogName), Vec<PathBuf>> = BTreeMap::new();
    for path in paths {
        let meta = fs::metadata(path).map_err(|e| (path.clone(), e.into()))?;
        if meta.is_dir() {
            let fail = |e: std::io::Error| (path.clone(), e.into());
            walk(path, 0, &mut |file| add(&mut jobs, file)).map_err(fail)?;
        } else {
            add(&mut jobs, path.clone());
        }
    }
    let job = |((_, name), mut files): ((PathBuf, LogName), Vec<PathBuf>)| {
        files.sort_by_key(|f| (!is_stderr(f), f.clone()));
        files.dedup();
        JobLogs { name, files }
    };
    let mut jobs: Vec<JobLogs> = jobs.into_iter().map(job).collect();
    jobs.sort_by(|a, b| {
        (a.name.job_id, a.name.array_id, &a.name.name).cmp(&(b.name.job_id, b.name.array_id, &b.name.name))
    });
    Ok(jobs)
}

fn add(jobs: &mut BTreeMap<(PathBuf, LogName), Vec<PathBuf>>, file: PathBuf) {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let dir = file.parent().unwrap_or(Path::new("")).to_owned();
    jobs.entry((dir, LogName::parse(&stem))).or_default().push(file);
}

fn is_stderr(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "err" || e == "e" || e == "stderr")
}

/// The first directory must be readable; one below that is not is left out,
/// as the caller could not have put it there.
fn walk(dir: &Path, depth: usize, each: &mut impl FnMut(PathBuf)) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)?.flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        let path = entry.path();
        if kind.is_dir() && depth < DEPTH {
            let _ = walk(&path, depth + 1, each);
        } else if !kind.is_dir() && path.extension().is_some_and(|e| ENDINGS.iter().any(|known| e == *known))
        {
            each(path);
        }
    }
    Ok(())
}

/// What the logs of a job say.
#[derive(Clone, Debug, Serialize)]
pub struct JobScan {
    /// The job.
    #[serde(flatten)]
    pub name: LogName,
    /// Its logs.
    pub files: Vec<String>,
    /// For counting.
    pub class: Class,
    /// The log's cause; `no_success_marker` when it was to say that it
    /// succeeded and did not.
    pub cause: &'static str,
    /// Name of the failure.
    pub fingerprint: Option<Fingerprint>,
    /// What was found, also when the job got over it.
    pub log: Option<FromLog>,
    /// The success marker was there; absent when none was asked for.
    pub success: Option<bool>,
    /// How Slurm's accounting saw the end, when it was asked.
    pub state: Option<String>,
    /// Why a log could not be read.
    pub unread: Vec<String>,
}

impl JobScan {
    /// Its logs say that it failed, or do not say that it succeeded.
    pub fn failed(&self) -> bool {
        self.class != Class::None && self.cause != UNREADABLE
    }

    /// None of its logs could be read, and nobody else knows.
    pub fn unknown(&self) -> bool {
        self.cause == UNREADABLE
    }

    /// Enters how Slurm saw the end. What Slurm itself did to a job beats what
    /// the job wrote; that it failed somehow counts where the log is silent.
    pub fn learn(&mut self, state: &str) {
        self.state = Some(state.to_owned());
        let (class, cause) = match state {
            "OUT_OF_MEMORY" => (Class::Oom, "oom"),
            "TIMEOUT" | "DEADLINE" => (Class::Timeout, "timeout"),
            "NODE_FAIL" | "BOOT_FAIL" | "LAUNCH_FAILED" => (Class::Infra, "node_fail"),
            "PREEMPTED" => (Class::Preempted, "preempted"),
            "CANCELLED" if self.log.is_none() => (Class::Cancelled, "cancelled"),
            "FAILED" if !self.failed() => (Class::Unknown, "no_reason_in_log"),
            _ => return,
        };
        if (class, cause) != (self.class, self.cause) {
            let line = self.log.as_ref().filter(|l| l.finding.class == class);
            let line = line.and_then(|l| l.finding.root_cause.as_deref());
            self.fingerprint = Some(fingerprint(line.unwrap_or(cause)));
            (self.class, self.cause) = (class, cause);
        }
    }

    /// The log that tells of the failure; the first where none does.
    pub fn log_path(&self) -> Option<String> {
        let telling = self.log.as_ref().map(|l| l.path.to_string_lossy().into_owned());
        telling.or_else(|| self.files.first().cloned())
    }

    /// The root cause.
    pub fn message(&self) -> Option<&str> {
        self.log.as_ref()?.finding.root_cause.as_deref().map(str::trim)
    }
}

/// Reads the logs of all jobs, several at a time. `success` makes a search for
/// the marker of success, one per thread.
pub fn scan_jobs(jobs: &[JobLogs], success: Option<&(dyn Fn() -> Grep + Sync)>) -> Vec<JobScan> {
    parallel::map(jobs, || success.map(|make| make()), |marker, job| scan_job(job, marker.as_mut()))
}

fn scan_job(job: &JobLogs, mut marker: Option<&mut Grep>) -> JobScan {
    let mut best: Option<FromLog> = None;
    let mut unread = Vec::new();
    let mut success = marker.as_ref().map(|_| false);
    for path in &job.files {
        match scan(path, Whose::Any) {
            Ok(report) if report.finding.cause == Cause::None => {}
            // Files come with standard error first, so it wins a draw.
            Ok(report) => FromLog::keep_better(&mut best, path, report),
            Err(e) => {
                unread.push(format!("{} {e}", path.to_string_lossy()));
                continue;
            }
        }
        if let (Some(marker), Some(found)) = (marker.as_mut(), success.as_mut()) {
            *found |= marker.any(path).unwrap_or(false);
        }
    }
    let blind = !unread.is_empty() && unread.len() == job.files.len();
    let (class, cause) = match (&best, success) {
        _ if blind => (Class::Unknown, UNREADABLE),
        // The site says how success looks: nothing else says it better.
        (_, Some(true)) | (None, None) => (Class::None, "none"),
        (Some(log), _) => (log.finding.class, log.finding.cause.as_str()),
        (None, Some(false)) => (Class::Unknown, "no_success_marker"),
    };
    let line = best.as_ref().and_then(|b| b.finding.root_cause.as_deref());
    JobScan {
        name: job.name.clone(),
        files: job.files.iter().map(|f| f.to_string_lossy().into_owned()).collect(),
        class,
        cause,
        fingerprint: (class != Class::None && !blind).then(|| fingerprint(line.unwrap_or(cause))),
        log: best,
        success,
        state: None,
        unread,
    }
}

/// The class as it is written.
pub fn class_word(class: Class) -> String {
    serde_json::to_value(class).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

/// One row per job; those that succeeded only with `all`.
pub fn table(scans: &[JobScan], all: bool) -> Table {
    let mut table =
        Table::new(&["JOB", "NAME", "STATE", "CLASS", "CAUSE", "FINGERPRINT", "ROOT_CAUSE", "LOG"]).spare(&[
            "FINGERPRINT",
            "CLASS",
            "NAME",
            "LOG",
        ]);
    for scan in scans.iter().filter(|s| all || s.failed() || s.unknown()) {
        let line = scan.log.as_ref().and_then(|l| l.finding.line_number);
        let place = line.map_or(String::new(), |n| format!(":{n}"));
        table.row(vec![
            clean(&scan.name.display()),
            clean(&scan.name.name),
            scan.state.clone().unwrap_or_else(|| "-".into()),
            class_word(scan.class),
            scan.cause.into(),
            scan.fingerprint.as_ref().map_or("-".into(), Fingerprint::to_string),
            clean(scan.message().unwrap_or("-")),
            clean(&scan.log_path().unwrap_or_default()) + &place,
        ]);
    }
    table
}

/// Jobs by cause, most frequent first, with their ids in ranges.
pub fn summary(scans: &[JobScan]) -> String {
    let mut groups: BTreeMap<&str, Vec<&JobScan>> = BTreeMap::new();
    for scan in scans {
        groups.entry(scan.cause).or_default().push(scan);
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(cause, jobs)| (std::cmp::Reverse(jobs.len()), *cause));
    let mut table = Table::new(&["CAUSE", "CLASS", "JOBS", "MEMBERS"]);
    for (cause, jobs) in groups {
        let class = class_word(jobs[0].class);
        // The label of a log that tells of no failure, which people call well.
        let (cause, class) = if cause == "none" { ("-", "ok".into()) } else { (cause, class) };
        table.row(vec![cause.into(), class, jobs.len().to_string(), clean(&members(&jobs))]);
    }
    let failed = scans.iter().filter(|s| s.failed()).count();
    let (n, rows) = (scans.len(), table.print(&super::table::Style::page()).unwrap_or_default());
    let unknown = match scans.iter().filter(|s| s.unknown()).count() {
        0 => String::new(),
        n => format!(", {n} cannot be read"),
    };
    format!("{failed} of {} failed{unknown}\n{rows}", count(n, "job", "jobs"))
}

fn members(jobs: &[&JobScan]) -> String {
    let named = jobs.iter().filter(|s| s.name.job_id.is_none()).map(|s| s.name.name.clone());
    let numbered = jobs.iter().filter_map(|s| {
        let id = s.name.job_id?;
        Some((id, s.name.array_id.map(|index| (id, index))))
    });
    let folded = ids::fold(numbered);
    (!folded.is_empty()).then_some(folded).into_iter().chain(named).collect::<Vec<_>>().join(",")
}

/// Indices of the failed members of each array.
pub fn failed_arrays(scans: &[JobScan]) -> BTreeMap<u32, Vec<u32>> {
    let mut arrays: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for scan in scans.iter().filter(|s| s.failed()) {
        if let (Some(job), Some(index)) = (scan.name.job_id, scan.name.array_id) {
            arrays.entry(job).or_default().push(index);
        }
    }
    arrays
}

/// All of it as JSON.
pub fn json(scans: &[JobScan]) -> Value {
    json!({ "schema": JSON_SCHEMA, "failed": scans.iter().filter(|s| s.failed()).count(), "jobs": scans })
}

/// Columns of [`csv_rows`].
pub const CSV: [&str; 10] = [
    "job_id",
    "job_name",
    "array_id",
    "class",
    "cause",
    "confidence",
    "fingerprint",
    "root_cause",
    "log",
    "config_file",
];

/// One row per failed job; `config` names the configuration of an index.
pub fn csv_rows(scans: &[JobScan], config: impl Fn(u32) -> String) -> Vec<Vec<String>> {
    let number = |n: Option<u32>| n.map_or(String::new(), |n| n.to_string());
    let row = |s: &JobScan| {
        let confidence = s.log.as_ref().and_then(|l| serde_json::to_value(l.finding.confidence).ok());
        vec![
            number(s.name.job_id),
            s.name.name.clone(),
            number(s.name.array_id),
            class_word(s.class),
            s.cause.into(),
            confidence.and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default(),
            s.fingerprint.as_ref().map_or(String::new(), Fingerprint::to_string),
            s.message().unwrap_or_default().to_owned(),
            s.log_path().unwrap_or_default(),
            s.name.array_id.map_or(String::new(), &config),
        ]
    };
    scans.iter().filter(|s| s.failed()).map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::LogName;

    #[test]
    fn names_as_schedulers_and_people_make_them() {
        let name = |name: &str, job_id, array_id| LogName { name: name.into(), job_id, array_id };
        for (stem, parsed) in [
            ("slurm-4700", name("slurm", Some(4700), None)),
            ("slurm-4700_3", name("slurm", Some(4700), Some(3))),
            ("sweep_4700_38", name("sweep", Some(4700), Some(38))),
            ("my_exp_v2_4700_38", name("my_exp_v2", Some(4700), Some(38))),
            ("4700_38", name("", Some(4700), Some(38))),
            ("4700", name("", Some(4700), None)),
            ("job4700", name("job", Some(4700), None)),
            ("train.4700", name("train", Some(4700), None)),
            ("notes", name("notes", None, None)),
            ("big-99999999999", name("big-99999999999", None, None)),
            ("", name("", None, None)),
        ] {
            assert_eq!(LogName::parse(stem), parsed, "{stem}");
        }
    }
}
