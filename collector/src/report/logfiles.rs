/*!
Where the logs of a job are, and what can be read of them.

A path that a task was seen writing to is better than one that Slurm named,
and that is better than Slurm's default. Files are opened with the
permissions of whoever asks, and only regular ones: a named pipe in place of a
log must not hold up the reader. The path is the job's word, so what it leads
to is read for others than the job's user only where that user owns it: a link
in place of a log must not show root's files.
*/

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use inquest_journal::{StepId, Timestamp};
use jiff::tz::TimeZone;
use rustix::fs::{Mode, OFlags, SeekFrom, open, seek};
use rustix::io::Errno;
use serde::Serialize;
use serde_json::{Value, json};

use super::table::Table;
use super::{JSON_SCHEMA, clean, time};
use crate::logs::{PatternContext, expand_pattern};
use crate::recover;
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

/// Whose a log has to be for the caller to read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Anybody's: the caller named the file, or is the job's user, whose rights are all that the job had.
    Any,
    /// The job's user's: the caller is somebody else.
    Of(u32),
    /// The caller's own, if that: nobody knows who the job's user is.
    Unknown,
}

impl Whose {
    /// For the logs of an attempt.
    fn of(run: &RunState, attempt: &Attempt) -> Whose {
        let named = || uzers::get_user_by_name(&run.user).map(|user| user.uid());
        match attempt.facts.uid.or(run.key.uid).or_else(named) {
            Some(uid) if uid == rustix::process::geteuid().as_raw() => Whose::Any,
            Some(uid) => Whose::Of(uid),
            None => Whose::Unknown,
        }
    }

    /// The caller may read what `owner` owns.
    fn check(self, owner: u32) -> Result<(), LogError> {
        let caller = rustix::process::geteuid();
        let reader = match self {
            Whose::Any => return Ok(()),
            Whose::Unknown if owner == caller.as_raw() && !caller.is_root() => return Ok(()),
            Whose::Of(user) if user == owner => return Ok(()),
            Whose::Of(user) => user,
            Whose::Unknown => owner,
        };
        let of = match self {
            Whose::Of(user) => format!("not to {}, whose job it is", called(user)),
            _ => "whose job it is is not known".to_owned(),
        };
        let account = uzers::get_user_by_uid(reader).map(|user| user.name().to_string_lossy().into_owned());
        let words = ["sudo".into(), "-u".into(), account.unwrap_or_else(|| format!("#{reader}"))];
        let as_reader = recover::line(&words).unwrap_or_default();
        Err(LogError::NotTheirs { owner: called(owner), of, as_reader })
    }
}

/// A user as people are told of one.
fn called(uid: u32) -> String {
    uzers::get_user_by_uid(uid)
        .map_or(format!("uid {uid}"), |user| user.name().to_string_lossy().into_owned())
}

/// A log of a job.
#[derive(Clone, Debug, PartialEq)]
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
    /// Whose it has to be.
    pub whose: Whose,
}

/// The logs of an attempt: the job script's first, then those of steps that
/// wrote elsewhere, each file once.
pub fn log_files(run: &RunState, member: &Member, attempt: &Attempt) -> Vec<LogFile> {
    let mut listed = Listed::default();
    let whose = Whose::of(run, attempt);
    let script = [StepId::Batch, StepId::Interactive].into_iter().find(|s| attempt.steps.contains_key(s));
    let order = attempt.steps.iter().filter(|(id, _)| Some(**id) == script);
    let order = order.chain(attempt.steps.iter().filter(|(id, _)| Some(**id) != script));
    for (&id, step) in order {
        for (&rank, task) in &step.tasks {
            let mut add = |path: Option<&String>, stream| {
                if let Some(path) = path.filter(|p| p.starts_with('/') && *p != "/dev/null") {
                    let task = (Some(id) != script).then_some(rank);
                    listed.push(LogFile {
                        path: path.into(),
                        stream,
                        step: id,
                        task,
                        known: Known::Task,
                        whose,
                    });
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
        if !seen(&listed.files, stream) {
            let path = expand_pattern(pattern, &context);
            let step = script.unwrap_or(StepId::Batch);
            listed.push(LogFile { path, stream, step, task: None, known: Known::Job, whose });
        }
    }
    let mut files = listed.files;
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
            whose,
        });
    }
    files
}

fn covers(has: Stream, wanted: Stream) -> bool {
    has == wanted || has == Stream::Both
}

/// Files in the order in which they were met, and the place of each.
#[derive(Default)]
struct Listed {
    files: Vec<LogFile>,
    places: HashMap<PathBuf, usize>,
}

impl Listed {
    /// A file is listed once, however many tasks write to it.
    fn push(&mut self, new: LogFile) {
        match self.places.entry(new.path.clone()) {
            Entry::Occupied(place) => {
                let old = &mut self.files[*place.get()];
                if old.stream != new.stream {
                    old.stream = Stream::Both;
                }
            }
            Entry::Vacant(place) => {
                place.insert(self.files.len());
                self.files.push(new);
            }
        }
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
    /// It is not the job's user's, and neither is the caller.
    #[error(
        "belongs to {owner}, {of}, so it is not read with your rights; {as_reader} inquest ... reads it with theirs"
    )]
    #[allow(missing_docs)]
    NotTheirs { owner: String, of: String, as_reader: String },
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

/// Opens a log for reading; never waits for anybody, and opens nothing but a file that is to be read.
///
/// # Errors
///
/// When it is missing, closed to the caller, no regular file, or not of whom it has to be.
pub fn open_log(path: &Path, whose: Whose) -> Result<(File, Metadata), LogError> {
    use std::os::unix::fs::FileTypeExt;
    // Only looked at: opening a device can do something to it already.
    let place =
        File::from(open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(io::Error::from)?);
    let meta = place.metadata()?;
    let kind = meta.file_type();
    match () {
        () if kind.is_file() => {}
        () if kind.is_dir() => return Err(LogError::NotAFile("directory")),
        () if kind.is_fifo() => return Err(LogError::NotAFile("named pipe")),
        () => return Err(LogError::NotAFile("device")),
    }
    // A user can put links to all files in place of a log. Symbolic ones were followed by now; hard ones to files
    // of others are refused by the kernel (fs.protected_hardlinks).
    whose.check(meta.uid())?;
    // The same file, whatever the path leads to by now.
    let again = format!("/proc/self/fd/{}", place.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(open(again, flags, Mode::empty()).map_err(io::Error::from)?);
    Ok((file, meta))
}

/// Reads what is in a log and passes over its holes, which cost a job nothing and may be as long as a file can be.
#[derive(Debug)]
pub struct Content {
    file: File,
    /// Less is on disk than it is long.
    sparse: bool,
}

impl Content {
    /// Of an open file.
    pub fn of(file: File, meta: &Metadata) -> Content {
        Content { file, sparse: meta.blocks() * 512 < meta.len() }
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.sparse {
            let at = seek(&self.file, SeekFrom::Current(0))?;
            match seek(&self.file, SeekFrom::Data(at)) {
                // There is a hole until the end.
                Err(Errno::NXIO) => return Ok(0),
                // Otherwise a file system that does not tell.
                Err(_) => self.sparse = false,
                Ok(_) => {}
            }
        }
        self.file.read(buffer)
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
pub fn look(path: &Path, whose: Whose) -> Result<LogState, LogError> {
    let (file, meta) = open_log(path, whose)?;
    let mut file = Content::of(file, &meta);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::run;
    use crate::story::{Step, Task};

    /// With a file for each task, looking for each among all before it would take longer than a test may.
    #[test]
    fn each_task_has_a_log_of_its_own() {
        let run = run(1);
        let task = |rank: u32| Task { stdout: Some(format!("/logs/{rank}")), ..Task::default() };
        let tasks = (0..200_000).map(|rank| (rank, Box::new(task(rank)))).collect();
        let mut attempt = Attempt::default();
        attempt.steps.insert(StepId::Number(0), Step { tasks, ..Step::default() });
        assert_eq!(log_files(&run, &run.members[&1], &attempt).len(), 200_000);
    }

    /// Read byte by byte, it would take days.
    #[test]
    fn holes_are_passed_over() {
        use std::os::unix::fs::FileExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let file = File::create(&path).unwrap();
        file.write_at(b"begin\n", 0).unwrap();
        file.write_at(b"Segmentation fault\n", 8 << 40).unwrap();
        file.set_len(15 << 40).unwrap();
        let state = look(&path, Whose::Any).unwrap();
        // What is left of the last block counts as a line that has no end.
        assert_eq!((state.size, state.lines), (15 << 40, 3));
        let report = crate::report::failures::scan(&path, Whose::Any).unwrap();
        assert!(report.finding.root_cause.unwrap().contains("Segmentation fault"));
    }

    #[test]
    fn only_the_users_own_are_read_for_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "x").unwrap();
        let own = rustix::process::geteuid().as_raw();
        assert!(open_log(&path, Whose::Any).is_ok());
        assert!(open_log(&path, Whose::Of(own)).is_ok());
        let refused = open_log(&path, Whose::Of(4_123_456)).unwrap_err().to_string();
        for part in ["belongs to", "not to uid 4123456", "not read with your rights", "sudo -u", "#4123456"] {
            assert!(refused.contains(part), "{refused}");
        }
        let refused = open_log(Path::new("/etc/passwd"), Whose::Unknown).unwrap_err().to_string();
        assert!(refused.contains("whose job it is is not known"), "{refused}");
        assert_eq!(open_log(dir.path(), Whose::Unknown).unwrap_err(), LogError::NotAFile("directory"));
    }
}
