/*!
Failures, one per failed attempt of a job, with a name that is the same in
every run.

Facts beat logs: where the kernel or Slurm said why a job ended, that is the
message. Where a program ended by its own fault, its log says more than its
exit code, so the root cause of the log is.
*/

use std::path::{Path, PathBuf};

use inquest_journal::{JobId, StepId, Timestamp};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::logfiles::{Content, LogError, LogFile, Stream, Whose, log_files, open_log};
use super::table::Table;
use super::{JSON_SCHEMA, clean};
use crate::logs::{Cause, Finding, Fingerprint, ScanOptions, ScanReport, fingerprint, scan_reader};
use crate::runs::{Member, RunState};
use crate::slurm::signal_name;
use crate::story::{Attempt, Story};
use crate::units::bytes;
use crate::verdict::{Class, Confidence, Verdict, judge_earlier};

/// Logs that are read of one attempt.
const LOGS: usize = 8;

/// A failed attempt.
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    /// Job id as people write it, `120_3`.
    pub job: String,
    /// The job's own id.
    pub job_id: JobId,
    /// Name of the job.
    pub job_name: Option<String>,
    /// Which attempt, from 1.
    pub attempt: usize,
    /// Where the first failure was.
    pub step: Option<StepId>,
    /// Its rank.
    pub task: Option<u32>,
    /// Its node; the first node of the job when no death is known.
    pub node: Option<String>,
    /// When it was noticed.
    pub at: Timestamp,
    /// For counting.
    pub class: Class,
    /// For acting.
    pub cause: String,
    /// Exit code, when it exited.
    pub exit_code: Option<u8>,
    /// Signal, when one ended it.
    pub signal: Option<u8>,
    /// Highest charge of memory in bytes.
    pub peak_bytes: Option<u64>,
    /// The words of its fingerprint.
    #[serde(rename = "fingerprint", serialize_with = "as_fingerprint")]
    named: String,
    /// Why, in one line.
    pub message: String,
    /// What the message rests on.
    pub confidence: Confidence,
    /// What the logs say, whether or not it decided.
    pub log: Option<FromLog>,
    /// How a log ends that says nothing of a failure, when no other does.
    #[serde(skip)]
    pub ends: Option<Ending>,
    /// Why a log could not be read.
    pub unread: Vec<String>,
}

/// The last lines of a log.
#[derive(Clone, Debug)]
pub struct Ending {
    /// The file.
    pub path: PathBuf,
    /// The lines.
    pub lines: Vec<String>,
}

/// What a log says.
#[derive(Clone, Debug, Serialize)]
pub struct FromLog {
    /// The file.
    pub path: PathBuf,
    /// What it says.
    #[serde(flatten)]
    pub finding: Finding,
    /// Lines around the root cause with their numbers; gaps are possible.
    pub excerpt: Vec<(u64, String)>,
}

impl FromLog {
    /// Takes what another log says, when that is surer.
    pub(crate) fn keep_better(best: &mut Option<FromLog>, path: &Path, report: ScanReport) {
        let ScanReport { finding, excerpt, .. } = report;
        if best.as_ref().is_none_or(|b| b.finding.confidence < finding.confidence) {
            *best = Some(FromLog { path: path.to_owned(), finding, excerpt });
        }
    }
}

fn as_fingerprint<S: Serializer>(named: &str, s: S) -> Result<S::Ok, S::Error> {
    fingerprint(named).serialize(s)
}

impl Failure {
    /// The same for the same failure in other jobs and runs. Made when it is asked for: the first one takes
    /// longer than all the rest of a report on one job.
    pub fn fingerprint(&self) -> Fingerprint {
        fingerprint(&self.named)
    }

    /// `SIGSEGV`, `3`, or `-`.
    pub fn end(&self) -> String {
        let code = self.exit_code.map_or("-".into(), |code| code.to_string());
        self.signal.map_or(code, signal_name)
    }
}

/// The failed attempts of a member, oldest first. With `logs`, those of the
/// newest attempt are read.
pub fn failures(run: &RunState, member: &Member, story: &Story, logs: bool) -> Vec<Failure> {
    let mut failures = Vec::new();
    for (index, attempt) in story.attempts.iter().enumerate() {
        let newest = index + 1 == story.attempts.len();
        let verdict = if newest { member.verdict.clone() } else { Some(judge_earlier(attempt, story)) };
        let Some(verdict) = verdict.filter(|v| v.class != Class::Ok) else { continue };
        // The file of an earlier attempt has been written over since.
        let read = if logs && newest { read(run, member, attempt, &verdict) } else { Read::default() };
        failures.push(failure(member, attempt, index + 1, &verdict, read));
    }
    failures
}

#[derive(Default)]
struct Read {
    best: Option<FromLog>,
    ends: Option<Ending>,
    unread: Vec<String>,
}

fn read(run: &RunState, member: &Member, attempt: &Attempt, verdict: &Verdict) -> Read {
    let mut files = log_files(run, member, attempt);
    let step = verdict.first_failure.as_ref().map(|d| d.step);
    files.retain(|f| f.task.is_none() || Some(f.step) == step);
    // Of two logs that say as much, standard error is the one to quote.
    files.sort_by_key(|f| f.stream == Stream::Stdout);
    let mut read = Read::default();
    if files.is_empty() {
        read.unread.push("no path of a log was recorded".into());
    }
    for LogFile { path, whose, .. } in files.into_iter().take(LOGS) {
        match scan(&path, whose) {
            Ok(report) if report.finding.cause == Cause::None => {
                if read.ends.is_none() && !report.tail.is_empty() {
                    read.ends = Some(Ending { path, lines: report.tail });
                }
            }
            Ok(report) => FromLog::keep_better(&mut read.best, &path, report),
            Err(e) => read.unread.push(format!("{} {e}", path.to_string_lossy())),
        }
    }
    read
}

/// Finds the root cause in a log.
///
/// # Errors
///
/// When it cannot be read.
pub fn scan(path: &Path, whose: Whose) -> Result<ScanReport, LogError> {
    let (file, meta) = open_log(path, whose)?;
    Ok(scan_reader(Content::of(file, &meta), &ScanOptions::default())?)
}

fn failure(member: &Member, attempt: &Attempt, number: usize, verdict: &Verdict, read: Read) -> Failure {
    let death = verdict.first_failure.as_ref();
    let quoted = read
        .best
        .as_ref()
        .filter(|_| log_decides(verdict.class))
        .and_then(|log| Some((log.finding.root_cause.as_deref()?, log.finding.cause)));
    let (cause, message, named) = match quoted {
        // What a site's rule says of the cause stands.
        Some((line, cause)) if cause == Cause::AppError || verdict.rule.is_some() => {
            (verdict.cause.clone(), line.trim(), line.to_owned())
        }
        Some((line, cause)) => (cause.as_str().into(), line.trim(), line.to_owned()),
        None => (verdict.cause.clone(), verdict.detail.as_str(), verdict.named()),
    };
    Failure {
        job: member.display_id(),
        job_id: member.job_id,
        job_name: attempt.facts.name.clone(),
        attempt: number,
        step: death.map(|d| d.step),
        task: death.map(|d| d.task),
        node: death.map(|d| &d.at.node).or(attempt.nodes.first()).map(ToString::to_string),
        at: death.map(|d| d.at.wall).or(attempt.last.as_ref().map(|m| m.wall)).unwrap_or(member.last),
        class: verdict.class,
        cause,
        exit_code: death.and_then(|d| d.exit_code),
        signal: death.and_then(|d| d.signal),
        peak_bytes: attempt.peak_bytes().max(death.and_then(|d| d.peak_bytes)),
        named,
        message: message.to_owned(),
        confidence: if quoted.is_some() { Confidence::Log } else { verdict.confidence },
        ends: read.ends.filter(|_| read.best.is_none()),
        log: read.best,
        unread: read.unread,
    }
}

/// The program ended by its own fault, so that its own words say why.
pub(crate) fn log_decides(class: Class) -> bool {
    matches!(class, Class::AppError | Class::Crash | Class::Unknown | Class::Validation | Class::Dependency)
}

/// One row per failure.
pub fn table(failures: &[Failure]) -> Table {
    let mut table = Table::new(&[
        "JOB",
        "ATTEMPT",
        "STEP",
        "TASK",
        "NODE",
        "CLASS",
        "CAUSE",
        "END",
        "PEAK",
        "FINGERPRINT",
        "MESSAGE",
    ])
    .spare(&["FINGERPRINT", "ATTEMPT", "CLASS", "TASK"]);
    let dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    for f in failures {
        table.row(vec![
            f.job.clone(),
            f.attempt.to_string(),
            dash(f.step.map(|s| s.to_string())),
            dash(f.task.map(|t| t.to_string())),
            dash(f.node.as_deref().map(clean)),
            f.class.to_string(),
            f.cause.clone(),
            f.end(),
            dash(f.peak_bytes.map(bytes)),
            f.fingerprint().to_string(),
            clean(&f.message),
        ]);
    }
    table
}

/// The same as JSON.
pub fn json(run: &RunState, failures: &[Failure]) -> Value {
    json!({ "schema": JSON_SCHEMA, "run_id": run.run_id, "errors": failures })
}
