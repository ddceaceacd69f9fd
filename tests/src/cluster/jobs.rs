//! Jobs on a cluster: submit, wait, look.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::process::Process;
use super::{Cluster, root, sweep};

/// What Slurm says about one job; one record for each member of an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRecord {
    /// The member's own job id.
    pub job: u32,
    /// The array's job id; `job` for other jobs.
    pub array: u32,
    /// The index in the array.
    pub index: Option<u32>,
    /// Extended state, e.g. `OUT_OF_MEMORY`, `COMPLETING`.
    pub state: String,
    /// Exit code and signal, as `scontrol` prints them: `3:0`.
    pub exit_code: String,
    /// Highest exit code of all steps, in the same form.
    pub derived: String,
    /// Slurm's reason for the state.
    pub reason: String,
    /// How often it was requeued.
    pub restarts: u32,
    /// Where stdout goes. None for srun, whose output goes to the caller.
    pub std_out: Option<PathBuf>,
    /// Where stderr goes; the same file as stdout unless asked for.
    pub std_err: Option<PathBuf>,
    /// Host list expression of its nodes.
    pub node_list: String,
}

impl JobRecord {
    /// Whether the job will never run again and has left its nodes.
    pub fn has_ended(&self) -> bool {
        matches!(
            self.state.as_str(),
            "BOOT_FAIL"
                | "CANCELLED"
                | "COMPLETED"
                | "DEADLINE"
                | "FAILED"
                | "NODE_FAIL"
                | "OUT_OF_MEMORY"
                | "PREEMPTED"
                | "TIMEOUT"
        )
    }
}

// squeue, not scontrol: it can be told to leave out the name and the comment, which may hold
// newlines and text that looks like other fields.
const FIELDS: &str = "JobID:|,ArrayJobID:|,ArrayTaskID:|,State:|,exit_code:|,DerivedEC:|,Reason:|,RestartCnt:|,NodeList:|,WorkDir:|,STDOUT:|,STDERR:|";

fn parse(line: &str) -> Option<JobRecord> {
    let field: Vec<&str> = line.split('|').collect();
    let [job, array, index, state, exit_code, derived, reason, restarts, node_list, ref paths @ ..] =
        field[..]
    else {
        return None;
    };
    let [work_dir, std_out, std_err, ..] = paths[..] else {
        return None;
    };
    // squeue prints wait statuses as they are.
    let code =
        |raw: &str| raw.parse::<u32>().map_or(raw.to_owned(), |s| format!("{}:{}", s >> 8 & 0xff, s & 0x7f));
    // From 24.11 on, it leaves the patterns in; 26.05 also leaves out what they are relative to.
    let path = |raw: &str| {
        let name = raw.replace("%j", job).replace("%A", array).replace("%a", index);
        (!matches!(raw, "" | "(null)" | "N/A")).then(|| Path::new(work_dir).join(name))
    };
    let std_out = path(std_out);
    Some(JobRecord {
        job: job.parse().ok()?,
        array: array.parse().ok()?,
        index: index.parse().ok(),
        state: state.into(),
        exit_code: code(exit_code),
        derived: code(derived),
        reason: reason.into(),
        restarts: restarts.parse().ok()?,
        std_err: path(std_err).or_else(|| std_out.clone()),
        std_out,
        node_list: node_list.into(),
    })
}

impl Cluster {
    /// A command on this cluster, as root or as `user`, in a directory that everyone may write to.
    /// Nothing of the caller's environment reaches it: sbatch would hand it on to the job.
    pub fn command(&self, user: Option<&str>, program: &str) -> Command {
        let ids = user.and_then(super::user_ids);
        if let (Some(user), None) = (user, ids) {
            // Fails when it starts, with the name in the error, and does not run as root.
            return Command::new(format!("/nonexistent/no-such-user/{user}"));
        }
        let mut command = root::command(self.root.as_deref(), ids, program);
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin")
            .env("LANG", "C.UTF-8")
            .env("SHELL", "/bin/bash")
            .env("HOME", self.work_dir())
            .env("USER", user.unwrap_or("root"))
            .env("SLURM_CONF", self.slurm_conf())
            .current_dir(self.work_dir())
            .stdin(Stdio::null());
        command
    }

    /// Submit a batch script; `args` go to sbatch. Returns the job id.
    pub fn sbatch(&self, user: &str, args: &[impl AsRef<str>], script: &str) -> Result<u32> {
        self.submit(user, args, None, script)
    }

    /// Submit a batch script that is a file.
    pub fn sbatch_file(&self, user: &str, args: &[impl AsRef<str>], script: &Path) -> Result<u32> {
        self.submit(user, args, Some(script), "")
    }

    fn submit(&self, user: &str, args: &[impl AsRef<str>], file: Option<&Path>, script: &str) -> Result<u32> {
        let mut child = self
            .command(Some(user), "sbatch")
            .arg("--parsable")
            .args(args.iter().map(AsRef::as_ref))
            .args(file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start sbatch as {user}"))?;
        let mut stdin = child.stdin.take().context("sbatch has no stdin")?;
        // A refusing sbatch may close the pipe; its own words below say more than our EPIPE.
        let _ = stdin.write_all(script.as_bytes());
        drop(stdin);
        let output = child.wait_with_output()?;
        let text = said(&format!("sbatch as {user}"), &output)?;
        text.trim()
            .split(';')
            .next()
            .and_then(|id| id.parse().ok())
            .with_context(|| format!("sbatch printed no job id: {text:?}"))
    }

    /// Every job that Slurm still remembers, members of arrays one by one.
    pub fn jobs(&self) -> Result<Vec<JobRecord>> {
        let output = self
            .command(None, "squeue")
            .args(["--noheader", "--array", "--states=all", "--Format", FIELDS])
            .output()?;
        Ok(said("squeue", &output)?.lines().filter_map(parse).collect())
    }

    /// The records of a job: one, or those of an array's members in order of their index.
    pub fn members(&self, job: u32) -> Result<Vec<JobRecord>> {
        let mut members: Vec<JobRecord> =
            self.jobs()?.into_iter().filter(|r| r.array == job || r.job == job).collect();
        members.sort_by_key(|r| r.index);
        if members.is_empty() {
            bail!("Slurm knows no job {job}");
        }
        Ok(members)
    }

    /// The record of a job; of the member that bears the array's id.
    pub fn job(&self, job: u32) -> Result<JobRecord> {
        let members = self.members(job)?;
        let own = members.iter().find(|r| r.job == job);
        Ok(own.unwrap_or(&members[0]).clone())
    }

    /// Wait until a job, or every member of an array, has ended and left its nodes.
    pub fn wait_end(&self, job: u32, timeout: Duration) -> Result<JobRecord> {
        let deadline = Instant::now() + timeout;
        loop {
            let members = self.members(job)?;
            if members.iter().all(JobRecord::has_ended) {
                return self.job(job);
            }
            if Instant::now() > deadline {
                bail!("job {job} has not ended after {timeout:?}: {members:?}");
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Wait until a job is in this state.
    pub fn wait_state(&self, job: u32, state: &str, timeout: Duration) -> Result<JobRecord> {
        let deadline = Instant::now() + timeout;
        loop {
            let record = self.job(job)?;
            if record.state == state {
                return Ok(record);
            }
            if record.has_ended() || Instant::now() > deadline {
                bail!("job {job} is not {state} after {timeout:?}: {record:?}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Run scancel as root with these arguments.
    pub fn scancel(&self, args: &[&str]) -> Result<()> {
        let output = self.command(None, "scancel").args(args).output()?;
        said("scancel", &output).map(drop)
    }

    /// Run scontrol as root with these arguments.
    pub fn scontrol(&self, args: &[&str]) -> Result<()> {
        let output = self.command(None, "scontrol").args(args).output()?;
        said(&format!("scontrol {}", args.join(" ")), &output).map(drop)
    }

    /// What a batch job has written to its standard output so far.
    pub fn stdout(&self, job: u32) -> Result<String> {
        let path = self.job(job)?.std_out.with_context(|| format!("job {job} has no output file"))?;
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The processes in a cgroup of a job on any node, oldest first. `step` is a directory below
    /// the job's, e.g. `step_batch/task_0`, where only the user's own processes are.
    pub fn cgroup_pids(&self, job: u32, step: &str) -> Vec<i32> {
        let mut found: Vec<Process> = Vec::new();
        for node in self.nodes() {
            let tree = Path::new("/sys/fs/cgroup/memory").join(format!("slurm_{node}"));
            for user in fs::read_dir(tree).into_iter().flatten().flatten() {
                let step = user.path().join(format!("job_{job}")).join(step);
                found.extend(sweep::cgroup_processes(&step));
            }
        }
        found.sort_by_key(|p| (p.start, p.pid));
        found.into_iter().map(|p| p.pid).collect()
    }

    /// Every event of every journal of the cluster, node by node, oldest first. Behind what a kill or
    /// a full disk has left of a line, the next writer's line is found, as the collector finds it.
    pub fn events(&self) -> Vec<Value> {
        Cluster::events_of(&self.journal_dir())
    }

    /// The same of another journal directory.
    pub fn events_of(journal: &Path) -> Vec<Value> {
        let mut files: Vec<PathBuf> = fs::read_dir(journal)
            .into_iter()
            .flatten()
            .flatten()
            .flat_map(|node| fs::read_dir(node.path()).into_iter().flatten().flatten())
            .map(|file| file.path())
            .filter(|path| path.extension().is_some_and(|e| e == "jsonl"))
            .collect();
        files.sort();
        let mut events = Vec::new();
        for file in files {
            let text = fs::read(&file).unwrap_or_default();
            let whole = text.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
            events.extend(text[..whole].split(|b| *b == b'\n').filter_map(parse_event));
        }
        events
    }

    /// Wait until the events satisfy `enough`; a hook may write after the job's end is known.
    pub fn wait_events(&self, timeout: Duration, enough: impl Fn(&[Value]) -> bool) -> Result<Vec<Value>> {
        let deadline = Instant::now() + timeout;
        loop {
            let events = self.events();
            if enough(&events) {
                return Ok(events);
            }
            if Instant::now() > deadline {
                let lines: Vec<String> = events.iter().map(Value::to_string).collect();
                bail!("the awaited events are not there after {timeout:?}:\n{}", lines.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn parse_event(line: &[u8]) -> Option<Value> {
    const BEGIN: &[u8] = b"{\"v\":";
    let last = || line.windows(BEGIN.len()).rposition(|w| w == BEGIN);
    serde_json::from_slice(line).or_else(|e| serde_json::from_slice(&line[last().ok_or(e)?..])).ok()
}

/// The standard output of a command that succeeded, or all it said when it did not.
fn said(what: &str, output: &Output) -> Result<String> {
    if !output.status.success() {
        bail!(
            "{what} ended with {}: {}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
