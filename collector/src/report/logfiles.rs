/*!
Where the logs of a job are, and what can be read of them.

A path that a task was seen writing to is better than one that Slurm named,
and that is better than Slurm's default. Files are opened with the
permissions of whoever asks, and only regular ones: a named pipe in place of a
log must not hold up the reader.
*/

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use inquest_journal::{StepId, Timestamp};
use jiff::tz::TimeZone;
use rustix::fs::OFlags;
use serde::Serialize;
use serde_json::{Value, json};

use super::table::Table;
use super::{JSON_SCHEMA, clean, time};
use crate::logs::{PatternContext, expand_pattern};
use crate::runs::{Member, RunState};
use crate::story::Attempt;
use crate::units::bytes;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Stream {
    Stdout,
    Stderr,
    /// Both in one file, Slurm's default.
    Both,
}

impl Stream {
    /// `out`, `err`, `both`.
    pub fn word(self) -> &'static str {
        match self {
            Stream::Stdout => "out",
            Stream::Stderr => "err",
            Stream::Both => "both",
        }
    }
}

/// How a path is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Known {
    /// A task had it open.
    Task,
    /// Slurm named it for the job.
    Job,
    /// Nobody recorded it; this is where Slurm writes unless told otherwise.
    Default,
}

/// A log of a job.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LogFile {
    /// Its place.
    pub path: PathBuf,
    /// What it holds.
    pub stream: Stream,
    /// The step that wrote it.
    pub step: StepId,
    /// The first task that wrote it; absent for the job script.
    pub task: Option<u32>,
    /// How the path is known.
    pub known: Known,
}

/// The logs of an attempt: the job script's first, then those of steps that
/// wrote elsewhere, each file once.
pub fn log_files(run: &RunState, member: &Member, attempt: &Attempt) -> Vec<LogFile> {
    let mut files: Vec<LogFile> = Vec::new();
    let script = [StepId::Batch, StepId::Interactive].into_iter().find(|s| attempt.steps.contains_key(s));
    let order = attempt.steps.iter().filter(|(id, _)| Some(**id) == script);
    let order = order.chain(attempt.steps.iter().filter(|(id, _)| Some(**id) != script));
    for (&id, step) in order {
        for (&rank, task) in &step.tasks {
            let mut add = |path: Option<&String>, stream| {
                if let Some(path) = path.filter(|p| p.starts_with('/') && *p != "/dev/null") {
                    let task = (Some(id) != script).then_some(rank);
                    push(
                        &mut files,
                        LogFile { path: path.into(), stream, step: id, task, known: Known::Task },
                    );
                }
            };
            add(task.stdout.as_ref(), Stream::Stdout);
            add(task.stderr.as_ref(), Stream::Stderr);
        }
    }
    let seen = |files: &[LogFile], stream| files.iter().any(|f| f.task.is_none() && covers(f.stream, stream));
    let facts = &attempt.facts;
    let context = context(run, member, attempt);
    for (pattern, stream) in [(&facts.stdout, Stream::Stdout), (&facts.stderr, Stream::Stderr)] {
        let Some(pattern) = pattern.as_deref().filter(|p| !p.is_empty() && *p != "/dev/null") else {
            continue;
        };
        if !seen(&files, stream) {
            let path = expand_pattern(pattern, &context);
            let step = script.unwrap_or(StepId::Batch);
            push(&mut files, LogFile { path, stream, step, task: None, known: Known::Job });
        }
    }
    // Slurm's default is known only when the directory is, and means nothing
    // when the job said where it writes or has no script.
    if files.is_empty() && facts.stdout.is_none() && script == Some(StepId::Batch) && facts.work_dir.is_some()
    {
        let path = expand_pattern("", &context);
        files.push(LogFile {
            path,
            stream: Stream::Both,
            step: StepId::Batch,
            task: None,
            known: Known::Default,
        });
    }
    files
}

fn covers(has: Stream, wanted: Stream) -> bool {
    has == wanted || has == Stream::Both
}

/// A file is listed once, however many tasks write to it.
fn push(files: &mut Vec<LogFile>, new: LogFile) {
    match files.iter_mut().find(|f| f.path == new.path) {
        Some(old) if old.stream != new.stream => old.stream = Stream::Both,
        Some(_) => {}
        None => files.push(new),
    }
}

fn context(run: &RunState, member: &Member, attempt: &Attempt) -> PatternContext {
    let facts = &attempt.facts;
    let script = attempt.steps.get(&StepId::Batch).and_then(|s| s.tasks.values().next());
    let host = script.map(|t| t.node.as_ref()).or(attempt.nodes.iter().next().map(AsRef::as_ref));
    PatternContext {
        job_id: Some(member.job_id.0.into()),
        array_job_id: member.array_job_id.map(|id| id.0.into()),
        array_task_id: member.array_task_id.map(Into::into),
        step: Some("batch".into()),
        task: None,
        node: None,
        host: host.map(|h| h.split('.').next().unwrap_or(h).to_owned()),
        user: Some(run.user.clone()),
        job_name: facts.name.clone(),
        workdir: facts.work_dir.as_ref().map(PathBuf::from),
    }
}

/// A log cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// It is not there.
    #[error("is missing: removed, renamed, or on a file system that this machine does not have")]
    Missing,
    /// The caller may not.
    #[error("is not readable for you")]
    Denied,
    /// A directory, pipe or device.
    #[error("is a {0}, not a file")]
    NotAFile(&'static str),
    /// Something else.
    #[error("cannot be read: {0}")]
    Other(String),
}

impl From<io::Error> for LogError {
    fn from(e: io::Error) -> LogError {
        match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => LogError::Missing,
            io::ErrorKind::PermissionDenied => LogError::Denied,
            _ => LogError::Other(e.to_string()),
        }
    }
}

/// Opens a log for reading; never waits for anybody.
///
/// # Errors
///
/// When it is missing, closed to the caller, or no regular file.
pub fn open_log(path: &Path) -> Result<(File, Metadata), LogError> {
    use std::os::unix::fs::FileTypeExt;
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let meta = file.metadata()?;
    let kind = meta.file_type();
    match () {
        () if kind.is_file() => Ok((file, meta)),
        () if kind.is_dir() => Err(LogError::NotAFile("directory")),
        () if kind.is_fifo() => Err(LogError::NotAFile("named pipe")),
        () => Err(LogError::NotAFile("device")),
    }
}

/// A log, looked at.
#[derive(Debug)]
pub struct Looked<'a> {
    /// Of whom.
    pub member: &'a Member,
    /// Which.
    pub file: LogFile,
    /// What is there.
    pub state: Result<LogState, LogError>,
}

/// What is there of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogState {
    /// Bytes.
    pub size: u64,
    /// Lines, a last one without its newline included.
    pub lines: u64,
    /// When it was last written to.
    pub modified: Option<Timestamp>,
}

/// Size, lines and time of a log; reads it once, with bounded memory.
///
/// # Errors
///
/// When it cannot be read.
pub fn look(path: &Path) -> Result<LogState, LogError> {
    let (mut file, meta) = open_log(path)?;
    let mut buffer = vec![0u8; 256 << 10];
    let (mut lines, mut last) = (0u64, b'\n');
    loop {
        let n = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e.into()),
        };
        lines += memchr::memchr_iter(b'\n', &buffer[..n]).count() as u64;
        last = buffer[n - 1];
    }
    let since = meta.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
    let modified = since.and_then(|d| i64::try_from(d.as_micros()).ok()).map(Timestamp);
    Ok(LogState { size: meta.len(), lines: lines + u64::from(last != b'\n'), modified })
}

/// One row per log.
pub fn table(logs: &[Looked<'_>], zone: &TimeZone) -> Table {
    let mut table = Table::new(&["JOB", "STEP", "STREAM", "SIZE", "LINES", "MODIFIED", "PATH", "NOTE"])
        .spare(&["MODIFIED", "STREAM", "LINES"]);
    for log in logs {
        let state = log.state.as_ref().ok();
        let note = match &log.state {
            Err(e) => e.to_string(),
            Ok(_) if log.file.known == Known::Default => "Slurm's default, not recorded".into(),
            Ok(_) => String::new(),
        };
        table.row(vec![
            log.member.display_id(),
            place(&log.file),
            log.file.stream.word().into(),
            state.map_or("-".into(), |s| bytes(s.size)),
            state.map_or("-".into(), |s| s.lines.to_string()),
            state.and_then(|s| s.modified).map_or("-".into(), |t| time(t, zone)),
            clean(&log.file.path.to_string_lossy()),
            note,
        ]);
    }
    table
}

/// `batch`, `0/3`.
fn place(file: &LogFile) -> String {
    file.task.map_or(file.step.to_string(), |task| format!("{}/{task}", file.step))
}

/// The same as JSON.
pub fn json(run: &RunState, logs: &[Looked<'_>]) -> Value {
    let rows = logs.iter().map(|log| {
        let state = log.state.as_ref().ok();
        json!({
            "job": log.member.display_id(),
            "job_id": log.member.job_id,
            "step": log.file.step,
            "task": log.file.task,
            "stream": log.file.stream,
            "path": log.file.path.to_string_lossy(),
            "known": log.file.known,
            "size_bytes": state.map(|s| s.size),
            "lines": state.map(|s| s.lines),
            "modified": state.and_then(|s| s.modified),
            "error": log.state.as_ref().err().map(ToString::to_string),
        })
    });
    json!({ "schema": JSON_SCHEMA, "run_id": run.run_id, "logs": rows.collect::<Vec<_>>() })
}
