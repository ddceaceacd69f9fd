//! A store made by a real collector from the lines of real encoders, at times
//! that a test chooses, and the built command on it.

#![allow(dead_code)] // Each test uses its own part.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use inquest::collect::{Collector, Options};
use inquest_journal::{
    Body, Header, Identity, JobEnded, JobId, JobStarted, Level, Memory, OomKill, Severity, Source, Stamp,
    StepEnded, StepId, StepStarted, TaskExited, TaskStarted, Timestamp, encode,
};
use inquest_tests::children::apart;

/// 2026-11-21 14:00:00 UTC in microseconds.
pub(crate) const EPOCH: i64 = 1_795_269_600_000_000;
pub(crate) const MIB: u64 = 1 << 20;

/// Whose jobs are, when a test does not care: of somebody whom nobody knows. Only root can give them
/// logs; who is not has jobs of their own.
fn user() -> u32 {
    let caller = rustix::process::geteuid();
    if caller.is_root() { 4_294_967_294 } else { caller.as_raw() }
}

/// How a job's only task ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    Code(u8),
    Signal(u8),
    /// Killed for memory at this limit in MiB.
    Oom(u64),
    /// The same at the limit of its step.
    OomStep(u64),
    /// Still running.
    Open,
}

/// A batch job on one node.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) id: u32,
    pub(crate) array: Option<(u32, u32)>,
    pub(crate) cluster: &'static str,
    pub(crate) node: &'static str,
    /// Seconds since [`EPOCH`].
    pub(crate) start: i64,
    pub(crate) secs: i64,
    pub(crate) end: End,
    pub(crate) name: String,
    pub(crate) run: Option<&'static str>,
    pub(crate) work_dir: Option<String>,
    pub(crate) submit_dir: Option<String>,
    pub(crate) stdout: Option<String>,
    pub(crate) stderr: Option<String>,
    /// What the task had open.
    pub(crate) open: Option<String>,
    pub(crate) memory_mib: u64,
    pub(crate) peak_mib: u64,
    pub(crate) restart: u32,
    pub(crate) uid: u32,
    pub(crate) account: Option<&'static str>,
}

impl Job {
    pub(crate) fn new(id: u32, end: End) -> Job {
        Job {
            id,
            array: None,
            cluster: "lab",
            node: "n1",
            start: 0,
            secs: 10,
            end,
            name: "fit".into(),
            run: None,
            work_dir: None,
            submit_dir: None,
            stdout: None,
            stderr: None,
            open: None,
            memory_mib: 1024,
            peak_mib: 100,
            restart: 0,
            uid: user(),
            account: None,
        }
    }
}

pub(crate) struct Lab {
    pub(crate) dir: tempfile::TempDir,
}

impl Lab {
    pub(crate) fn new() -> Lab {
        let lab = Lab { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(lab.journal()).unwrap();
        fs::set_permissions(lab.journal(), fs::Permissions::from_mode(0o750)).unwrap();
        lab
    }

    /// A lab with these jobs, collected.
    pub(crate) fn with(jobs: impl IntoIterator<Item = Job>) -> Lab {
        let lab = Lab::new();
        for job in jobs {
            lab.job(&job);
        }
        lab.collect();
        lab
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.path().join("journal")
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.path().join("store")
    }

    pub(crate) fn collect(&self) {
        self.collector().pass(true).unwrap();
    }

    /// As [`Lab::collect`], but more is waited for.
    pub(crate) fn collect_some(&self) {
        self.collector().pass(false).unwrap();
    }

    /// As [`Lab::collect`], by the command, which makes an index too; what it said.
    pub(crate) fn merge(&self, more: &[&str]) -> String {
        let journal = self.journal();
        let once = ["collect", "--once", "--accounting", "off", "--journal", journal.to_str().unwrap()];
        let (code, _, stderr) = self.run(&[&once[..], more].concat());
        assert_eq!(code, 0, "{stderr}");
        stderr
    }

    fn collector(&self) -> Collector {
        let options = Options { journal: self.journal(), store: self.store(), quiet: Duration::from_secs(1) };
        Collector::open(options, None).unwrap()
    }

    /// Writes a log of the user of [`Job::new`], whose root does not own the logs, and gives its path.
    pub(crate) fn log(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let path = self.path().join(name);
        fs::write(&path, text).unwrap();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(user()), None).unwrap();
        }
        path.to_str().unwrap().to_owned()
    }

    /// Appends the events of a job to its node's journal.
    pub(crate) fn job(&self, job: &Job) {
        let mut events: Vec<(i64, Option<u32>, Severity, Body)> = Vec::new();
        let (uid, name) = (Some(job.uid), Some(job.name.clone()));
        let array_job_id = job.array.map(|a| JobId(a.0));
        let array_task_id = job.array.map(|a| a.1);
        let (run, restart) = (job.run.map(str::to_owned), Some(job.restart));
        let start = job.start * 1_000_000;
        let end = start + job.secs * 1_000_000;
        let memory_mib = Some(job.memory_mib);
        let body = JobStarted {
            uid,
            name: name.clone(),
            array_job_id,
            array_task_id,
            run: run.clone(),
            restart,
            partition: Some("batch".into()),
            account: job.account.map(str::to_owned),
            work_dir: job.work_dir.clone(),
            submit_dir: job.submit_dir.clone(),
            stdout: job.stdout.clone(),
            stderr: job.stderr.clone(),
            memory_mib,
            ..JobStarted::default()
        };
        events.push((start, None, Severity::Info, body.into()));
        let body = StepStarted {
            uid,
            name,
            array_job_id,
            array_task_id,
            run,
            restart,
            limit_bytes: Some(job.memory_mib * MIB),
            ..StepStarted::default()
        };
        events.push((start, None, Severity::Info, body.into()));
        let body = TaskStarted {
            pid: Some(job.id),
            stdout: job.open.clone(),
            stderr: job.open.clone(),
            ..TaskStarted::default()
        };
        events.push((start, Some(0), Severity::Info, body.into()));
        let (exit_code, signal, oom) = match job.end {
            End::Code(code) => (Some(code), None, None),
            End::Signal(signal) => (None, Some(signal), None),
            End::Oom(limit) | End::OomStep(limit) => (None, Some(9), Some(limit)),
            End::Open => (None, None, None),
        };
        let level = if matches!(job.end, End::OomStep(_)) { Level::Step } else { Level::Job };
        let memory = Memory {
            cgroup_peak_bytes: Some(oom.unwrap_or(job.peak_mib) * MIB),
            limit_bytes: Some(job.memory_mib * MIB),
            limit_level: Some(Level::Job),
            clipped: oom.is_some(),
            ..Memory::default()
        };
        if let Some(limit) = oom {
            let body = OomKill {
                count: Some(1),
                level: Some(level),
                limit_bytes: Some(limit * MIB),
                peak_bytes: Some(limit * MIB),
                ..OomKill::default()
            };
            events.push((end - 1000, Some(0), Severity::Error, body.into()));
        }
        if !matches!(job.end, End::Open) {
            let severity = if exit_code == Some(0) { Severity::Info } else { Severity::Error };
            let body = TaskExited {
                pid: Some(job.id),
                exit_code,
                signal,
                oom_kills: oom.map(|_| 1),
                memory: memory.clone(),
                duration_us: Some((end - start).cast_unsigned()),
                ..TaskExited::default()
            };
            events.push((end, Some(0), severity, body.into()));
            let body = StepEnded { memory, ..StepEnded::default() };
            events.push((end, None, Severity::Info, body.into()));
            let body = JobEnded { exit_code, signal, restart, ..JobEnded::default() };
            events.push((end, None, Severity::Info, body.into()));
        }
        let identity = Identity::new("lab", job.node, "0badc0de", job.id, u64::from(job.restart));
        let mut lines = Vec::new();
        for (seq, (at, task, severity, body)) in events.iter().enumerate() {
            let mut line = Vec::new();
            let header = Header {
                stamp: Stamp { wall: Timestamp(EPOCH + at), mono_us: at.cast_unsigned() + 1_000_000 },
                severity: *severity,
                source: Source::Plugin,
                cluster: job.cluster,
                node: job.node,
                boot: "0badc0de",
                stream: identity.stream(),
                seq: seq as u64,
                job_id: Some(JobId(job.id)),
                step: Some(StepId::Batch),
                task: *task,
            };
            encode(&mut line, &header, body);
            lines.extend(line);
        }
        let dir = self.journal().join(job.node);
        fs::create_dir_all(&dir).unwrap();
        let file = fs::OpenOptions::new().create(true).append(true).open(dir.join("2026-11-21.jsonl"));
        file.unwrap().write_all(&lines).unwrap();
    }

    /// Appends one event of its own writer to a node's journal, `at` seconds
    /// after [`EPOCH`].
    pub(crate) fn event(
        &self,
        (node, boot, pid): (&str, &str, u32),
        at: i64,
        job: Option<(u32, StepId)>,
        body: impl Into<Body>,
    ) {
        let identity = Identity::new("lab", node, boot, pid, 0);
        let at = at * 1_000_000;
        let header = Header {
            stamp: Stamp { wall: Timestamp(EPOCH + at), mono_us: at.cast_unsigned() + 1_000_000 },
            severity: Severity::Info,
            source: Source::Plugin,
            cluster: "lab",
            node,
            boot,
            stream: identity.stream(),
            seq: 0,
            job_id: job.map(|j| JobId(j.0)),
            step: job.map(|j| j.1),
            task: None,
        };
        let mut line = Vec::new();
        encode(&mut line, &header, &body.into());
        let dir = self.journal().join(node);
        fs::create_dir_all(&dir).unwrap();
        let file = fs::OpenOptions::new().create(true).append(true).open(dir.join("2026-11-21.jsonl"));
        file.unwrap().write_all(&line).unwrap();
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = apart(env!("CARGO_BIN_EXE_inquest"));
        command.args(arguments).env("INQUEST_STORE", self.store()).env("TZ", "UTC").env_remove("NO_COLOR");
        command.current_dir(self.path());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        self.feed(arguments, b"")
    }

    pub(crate) fn feed(&self, arguments: &[&str], input: &[u8]) -> (i32, String, String) {
        finish(self.command(arguments), input)
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let (_, stdout, stderr) = self.run(arguments);
        serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {stdout} {stderr}"))
    }

    /// The events file of a run.
    pub(crate) fn events_of(&self, run: &str) -> PathBuf {
        find(&self.store(), run).join("events.jsonl")
    }

    /// Wrong input is answered with one line that has all of `parts`, nothing
    /// on standard output, and this exit code.
    pub(crate) fn refuses(&self, arguments: &[&str], code: i32, parts: &[&str]) {
        let (got, stdout, stderr) = self.run(arguments);
        assert_eq!((got, stdout.as_str()), (code, ""), "{arguments:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
        assert!(stderr.starts_with("inquest: ") && !stderr.contains('\u{1b}'), "{stderr:?}");
        for part in parts {
            assert!(stderr.contains(part), "{arguments:?}: {part} is not in: {stderr}");
        }
    }
}

pub(crate) fn finish(mut command: Command, input: &[u8]) -> (i32, String, String) {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(input); // It need not read it.
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// The directory of this name somewhere below.
pub(crate) fn find(root: &Path, name: &str) -> PathBuf {
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap().flatten().filter(|e| e.path().is_dir()) {
            if entry.file_name() == name {
                return entry.path();
            }
            dirs.push(entry.path());
        }
    }
    panic!("no {name} below {}", root.display());
}
