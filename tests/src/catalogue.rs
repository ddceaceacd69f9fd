//! The catalogue: real jobs that end in every way that matters, with what Slurm says of each and
//! what Inquest must say. The demo shows it; the tests hold both halves to it.

mod more;

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use serde_json::Value;

use crate::cluster::{Cluster, JobRecord, Process};

pub use more::{MORE, V2};

/// One job of the catalogue.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Names it in output; the job's name too, but for `hostile`.
    pub name: &'static str,
    /// What it does, in one line.
    pub what: &'static str,
    /// How it is submitted.
    pub how: How,
    /// What is done to it while it runs.
    pub action: Action,
    /// What Slurm says in the end; of the failing members of an array.
    pub slurm: Slurm,
    /// Of an array: how many members, and the indices of those that fail. The others end well.
    pub array: Option<(u32, &'static [u32])>,
    /// What Inquest must say.
    pub verdict: Expected,
    /// Step and task of the first failure, where several tasks fail or a step does behind the
    /// script's back.
    pub first: Option<(&'static str, u64)>,
    /// The child that dies behind the script's back, as the kernel calls it.
    pub child: Option<&'static str>,
    /// What the job itself says through `inquest note`.
    pub note: Option<&'static str>,
    /// Takes more than half a minute, by Slurm's own clocks.
    pub slow: bool,
    /// What the job's own log says, where that says more than how it ended: the cause, and words of
    /// the line to quote.
    pub log: Option<(&'static str, &'static str)>,
    /// The command that `inquest rerun` prints ends well, as it is printed.
    pub mended: bool,
}

/// How a job is submitted.
#[derive(Debug, Clone, Copy)]
pub enum How {
    /// A batch script with arguments of sbatch.
    Sbatch(&'static [&'static str], &'static str),
    /// srun without an allocation: its arguments. The task prints `$SLURM_JOB_ID` in its first line.
    Srun(&'static [&'static str]),
}

/// What is done to a job while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    Wait,
    /// scancel.
    Cancel,
    /// SIGKILL to the process of the batch script, from outside of Slurm.
    KillScript,
    /// scontrol requeue.
    Requeue,
    /// A job that goes before it asks for its node.
    Preempt,
    /// Its node goes down.
    NodeDown,
}

/// How Slurm ends a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slurm {
    /// State, as squeue prints it.
    pub state: &'static str,
    /// Exit code and signal, as scontrol prints them.
    pub exit: &'static str,
}

/// A verdict in Inquest's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// For counting.
    pub class: &'static str,
    /// For acting.
    pub cause: &'static str,
}

pub(crate) const fn slurm(state: &'static str, exit: &'static str) -> Slurm {
    Slurm { state, exit }
}

pub(crate) const fn verdict(class: &'static str, cause: &'static str) -> Expected {
    Expected { class, cause }
}

/// Most entries differ from this in a few fields.
pub(crate) const PLAIN: Entry = Entry {
    name: "",
    what: "",
    how: How::Sbatch(&[], ""),
    action: Action::Wait,
    slurm: slurm("COMPLETED", "0:0"),
    array: None,
    verdict: verdict("ok", "ok"),
    first: None,
    child: None,
    note: None,
    slow: false,
    log: None,
    mended: false,
};

// Every memory eater stops at 512 MB by itself, in case that no limit stops it.
/// The catalogue.
pub const CATALOGUE: &[Entry] = &[
    Entry {
        name: "success",
        what: "computes for a second and ends well",
        how: How::Sbatch(&[], "sleep 1; echo done\n"),
        ..PLAIN
    },
    Entry {
        name: "exit3",
        what: "the script ends with exit code 3",
        how: How::Sbatch(&[], "echo 'cannot find the input' >&2; exit 3\n"),
        slurm: slurm("FAILED", "3:0"),
        verdict: verdict("app_error", "app_error"),
        ..PLAIN
    },
    Entry {
        name: "segfault",
        what: "the script itself dies by SIGSEGV",
        how: How::Sbatch(&[], "kill -SEGV $$\n"),
        slurm: slurm("FAILED", "0:11"),
        verdict: verdict("crash", "signal"),
        ..PLAIN
    },
    Entry {
        name: "task-oom",
        what: "the batch task is OOM-killed at 64 MB",
        how: How::Sbatch(
            &["--mem=64M"],
            "exec /usr/bin/python3 -c 'eaten = [bytearray(4 << 20) for _ in range(128)]'\n",
        ),
        slurm: slurm("OUT_OF_MEMORY", "0:125"),
        verdict: verdict("oom", "oom_cgroup"),
        ..PLAIN
    },
    Entry {
        name: "child-oom",
        what: "a child is OOM-killed, the script goes on and exits 0",
        how: How::Sbatch(
            &["--mem=64M"],
            "/usr/bin/python3 -c 'eaten = [bytearray(4 << 20) for _ in range(128)]'
echo \"the child ended with $?, who cares\"
exit 0
",
        ),
        slurm: slurm("OUT_OF_MEMORY", "0:125"),
        verdict: verdict("oom", "oom_partial"),
        child: Some("python3"),
        ..PLAIN
    },
    Entry {
        name: "late-oom",
        what: "the second task is OOM-killed after the first has ended; the script exits 0",
        how: How::Sbatch(
            &["-n2", "--mem=64M"],
            "srun -n2 sh -c '
[ $SLURM_PROCID = 0 ] && exit 0
sleep 3
exec /usr/bin/python3 -c \"eaten = [bytearray(4 << 20) for _ in range(128)]\"
'
exit 0
",
        ),
        // The kill is real and Slurm does not tell.
        slurm: slurm("COMPLETED", "0:0"),
        verdict: verdict("oom", "oom_partial"),
        first: Some(("0", 1)),
        ..PLAIN
    },
    Entry {
        name: "limit",
        what: "sleeps past its limit of one minute",
        how: How::Sbatch(&["--time=1"], "sleep 600\n"),
        slurm: slurm("TIMEOUT", "0:15"),
        verdict: verdict("timeout", "timeout"),
        slow: true,
        ..PLAIN
    },
    Entry {
        name: "cancelled",
        what: "its owner scancels it while it runs",
        how: How::Sbatch(&[], "sleep 600\n"),
        action: Action::Cancel,
        slurm: slurm("CANCELLED", "0:15"),
        verdict: verdict("cancelled", "cancelled"),
        ..PLAIN
    },
    Entry {
        name: "killed",
        what: "somebody kills the script with kill -9 on the node",
        how: How::Sbatch(&[], "sleep 600\n"),
        action: Action::KillScript,
        slurm: slurm("FAILED", "0:9"),
        verdict: verdict("crash", "killed_other"),
        ..PLAIN
    },
    Entry {
        name: "python",
        what: "a Python program raises ValueError because of a KeyError",
        how: How::Sbatch(
            &[],
            "exec /usr/bin/python3 - <<'END'
settings = {'grid': 64}
try:
    steps = settings['steps']
except KeyError as missing:
    raise ValueError('the settings are incomplete') from missing
END
",
        ),
        slurm: slurm("FAILED", "1:0"),
        verdict: verdict("app_error", "app_error"),
        ..PLAIN
    },
    Entry {
        name: "array",
        what: "two of six members of an array fail",
        how: How::Sbatch(
            &["--array=0-5"],
            "case $SLURM_ARRAY_TASK_ID in 2|5) echo \"bad slice $SLURM_ARRAY_TASK_ID\" >&2; exit 1;; esac\n",
        ),
        slurm: slurm("FAILED", "1:0"),
        array: Some((6, &[2, 5])),
        verdict: verdict("app_error", "app_error"),
        ..PLAIN
    },
    Entry {
        name: "ranks",
        what: "on two nodes, rank 1 exits 5 and takes rank 0 with it",
        how: How::Sbatch(
            &["-N2", "-n2"],
            "srun -N2 -n2 --kill-on-bad-exit=1 sh -c '
there=ranks-$SLURM_JOB_ID
if [ $SLURM_PROCID = 1 ]; then
  until [ -e $there ]; do sleep 0.2; done
  sleep 1; echo rank 1 gives up >&2; exit 5
fi
touch $there; sleep 300
'
exit $?
",
        ),
        slurm: slurm("FAILED", "143:0"),
        verdict: verdict("app_error", "app_error"),
        first: Some(("0", 1)),
        ..PLAIN
    },
    Entry {
        name: "masked-crash",
        what: "the only task of a step dies by SIGSEGV, the script exits 0",
        how: How::Sbatch(&[], "srun -n1 sh -c 'kill -SEGV $$'\nexit 0\n"),
        slurm: slurm("COMPLETED", "0:0"),
        verdict: verdict("crash", "crash_masked"),
        first: Some(("0", 0)),
        ..PLAIN
    },
    Entry {
        name: "requeue",
        what: "is requeued while it runs and ends well at the second attempt",
        how: How::Sbatch(
            &["--requeue"],
            "[ \"${SLURM_RESTART_COUNT:-0}\" = 0 ] && sleep 600\nsrun -n1 true\nexit 0\n",
        ),
        action: Action::Requeue,
        slow: true,
        ..PLAIN
    },
    Entry {
        name: "srun-direct",
        what: "srun without a batch script; its task exits 4",
        how: How::Srun(&["-n1", "sh", "-c", "echo $SLURM_JOB_ID; exit 4"]),
        slurm: slurm("FAILED", "4:0"),
        verdict: verdict("app_error", "app_error"),
        ..PLAIN
    },
    Entry {
        name: "hostile",
        what: "a name and a comment full of newlines, quotes and terminal escapes; exits 6",
        how: How::Sbatch(
            &[
                "--job-name=evil\"\n\x1b[31mJobId=1 JobState=COMPLETED\x1b]0;owned\x07\\u0000",
                "--comment={\"v\":1}\n\x1b[2J<script>alert(1)</script>\u{202e}",
            ],
            "printf '\\033[2J\\033]0;owned\\007'; exit 6\n",
        ),
        slurm: slurm("FAILED", "6:0"),
        verdict: verdict("app_error", "app_error"),
        ..PLAIN
    },
];

/// What is tried on every release of Slurm: all there is, but for `V2`, which is for newer ones.
pub fn matrix() -> impl Iterator<Item = &'static Entry> {
    CATALOGUE.iter().chain(MORE).chain(V2)
}

/// One job of each kind of end.
const QUICK: &[&str] =
    &["success", "exit3", "segfault", "task-oom", "child-oom", "child-crash", "ranks", "srun-direct"];

/// The same, or a few of it, which every change is tried with.
pub fn matrix_or(quick: bool) -> impl Iterator<Item = &'static Entry> {
    matrix().filter(move |entry| !quick || QUICK.contains(&entry.name))
}

/// An entry's job on a cluster.
#[derive(Debug)]
pub struct Submitted {
    /// The entry.
    pub entry: &'static Entry,
    /// Its job id.
    pub job: u32,
    srun: Option<Child>,
}

impl Entry {
    /// Submit the job. Scripts are kept as files in the cluster's work directory.
    pub fn submit(&'static self, cluster: &Cluster, user: &str) -> Result<Submitted> {
        self.submit_with(cluster, user, &[])
    }

    /// Submit the job with more arguments, of the command line only.
    pub fn submit_with(&'static self, cluster: &Cluster, user: &str, more: &[String]) -> Result<Submitted> {
        let (job, srun) = match self.how {
            How::Sbatch(args, script) => {
                let path = cluster.work_dir().join(format!("{}.sh", self.name));
                let (text, outside) = self.batch(args, script);
                fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
                fs::set_permissions(&path, Permissions::from_mode(0o755))?;
                let all: Vec<String> =
                    outside.into_iter().map(str::to_owned).chain(more.iter().cloned()).collect();
                (cluster.sbatch_file(user, &all, &path)?, None)
            }
            How::Srun(args) => {
                let mut srun = cluster
                    .command(Some(user), "srun")
                    .arg(format!("--job-name={}", self.name))
                    .args(more)
                    .args(args)
                    .stdout(Stdio::piped())
                    .stderr(Stdio::null())
                    .spawn()
                    .with_context(|| format!("cannot start srun as {user}"))?;
                let mut line = String::new();
                BufReader::new(srun.stdout.take().context("srun has no stdout")?).read_line(&mut line)?;
                let job = line.trim().parse();
                (job.with_context(|| format!("srun printed no job id: {line:?}"))?, Some(srun))
            }
        };
        Ok(Submitted { entry: self, job, srun })
    }

    /// The batch script, and the options that it cannot hold. Options stand in the script, as those do
    /// that shall hold for a rerun too. What cannot stand there, and so can be given once only, goes to
    /// the command line.
    pub fn batch(&self, args: &[&'static str], script: &str) -> (String, Vec<&'static str>) {
        let (inside, outside): (Vec<&str>, Vec<&str>) =
            args.iter().copied().partition(|arg| !arg.contains(|c: char| c.is_control()));
        let id = if self.array.is_some() { "%A_%a" } else { "%j" };
        let mut text = format!(
            "#!/bin/bash\n#SBATCH --ntasks=1\n#SBATCH --job-name={name}\n#SBATCH --output={name}-{id}.out\n",
            name = self.name
        );
        // Later options win, so an entry can name itself.
        // What a colon is between the components of a het job on the command line.
        let line = |option: &&str| if *option == ":" { "hetjob" } else { *option }.to_owned();
        text.extend(inside.iter().map(|option| format!("#SBATCH {}\n", line(option))));
        (text + script, outside)
    }

    /// Whether it asks for what only newer releases of Slurm have, on cgroup v2.
    pub fn is_of_v2(&self) -> bool {
        V2.iter().any(|entry| entry.name == self.name)
    }

    /// Whether the member of this index, or the job when it is no array, is one that fails.
    fn fails(&self, index: Option<u32>) -> bool {
        match (self.array, index) {
            (Some((_, failing)), Some(index)) => failing.contains(&index),
            _ => true,
        }
    }

    /// How many jobs Slurm makes of it.
    pub fn jobs(&self) -> usize {
        self.array.map_or(1, |(members, _)| members as usize)
    }

    /// Where the journal is not what the entry expects: the child's death is there with its name, and
    /// the note. `events` are those of the entry's jobs.
    pub fn unrecorded(&self, events: &[Value]) -> Vec<String> {
        let of = |kind: &'static str| events.iter().filter(move |e| e["event_type"] == kind);
        let mut found = Vec::new();
        if let Some(child) = self.child {
            let died = of("process_died").any(|e| e["command"] == child && e["signal"].is_u64());
            let victims = of("oom_kill").filter_map(|e| e["victims"].as_array()).flatten();
            if !died && !victims.into_iter().any(|v| v["command"] == child) {
                found.push(format!("the death of {child} is not recorded"));
            }
        }
        if let Some(note) = self.note
            && !of("note").any(|e| e["text"] == note && e["source"] == "user")
        {
            found.push(format!("the note {note:?} is not recorded"));
        }
        found
    }

    /// Where the answer of `inquest why --json` is not what the catalogue expects.
    pub fn misjudged(&self, why: &Value) -> Vec<String> {
        let none = Vec::new();
        let jobs = why["jobs"].as_array().unwrap_or(&none);
        let mut found = Vec::new();
        if jobs.len() != self.jobs() {
            found.push(format!("{} jobs, not {}", jobs.len(), self.jobs()));
        }
        for job in jobs {
            let id = job["id"].as_str().unwrap_or_default();
            let fails = self.fails(id.split_once('_').and_then(|(_, index)| index.parse().ok()));
            let want = if fails { self.verdict } else { PLAIN.verdict };
            let verdict = &job["verdict"];
            let said = |key: &str| verdict[key].as_str().unwrap_or("nothing").to_owned();
            if (said("class").as_str(), said("cause").as_str()) != (want.class, want.cause) {
                found.push(format!(
                    "{id} is said to be {}, {}, but is {}, {}",
                    said("class"),
                    said("cause"),
                    want.class,
                    want.cause
                ));
            }
            let first = &verdict["first_failure"];
            if let Some((step, task)) = self.first
                && (first["step"].as_str(), first["task"].as_u64()) != (Some(step), Some(task))
            {
                found.push(format!(
                    "{id} is said to have failed first in {first}, not in step {step} task {task}"
                ));
            }
        }
        found
    }
}

impl Submitted {
    /// Wait until the job runs and do to it what the entry says.
    pub fn act(&self, cluster: &Cluster) -> Result<()> {
        if self.entry.action == Action::Wait {
            return Ok(());
        }
        let script = self.script(cluster, Duration::from_secs(60))?;
        match self.entry.action {
            Action::Wait => {}
            Action::Cancel => cluster.scancel(&[&self.job.to_string()])?,
            Action::KillScript => script.signal(Signal::KILL),
            Action::Requeue => {
                cluster.scontrol(&["requeue", &self.job.to_string()])?;
            }
            Action::Preempt => {
                let node = cluster.job(self.job)?.node_list;
                let args = ["--partition=high", "--exclusive", "--output=/dev/null", "--nodelist"];
                let args: Vec<&str> = args.into_iter().chain([node.as_str()]).collect();
                cluster.sbatch("root", &args, "#!/bin/sh\nexit 0\n")?;
            }
            Action::NodeDown => {
                let node = format!("NodeName={}", cluster.job(self.job)?.node_list);
                cluster.scontrol(&["update", &node, "State=DOWN", "Reason=test"])?;
            }
        }
        Ok(())
    }

    /// The process of the batch script, once it has a child: then bash has read what it runs.
    fn script(&self, cluster: &Cluster, timeout: Duration) -> Result<Process> {
        let deadline = Instant::now() + timeout;
        loop {
            let pids = cluster.cgroup_pids(self.job, "step_batch/task_0");
            if let [script, _, ..] = pids[..]
                && let Some(process) = Process::of(script)
            {
                return Ok(process);
            }
            if Instant::now() > deadline {
                bail!("{}: job {} does not run after {timeout:?}", self.entry.name, self.job);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The job's records when every one has ended, else None. `jobs` is `Cluster::jobs`' answer.
    pub fn ended(&mut self, jobs: &[JobRecord]) -> Option<Vec<JobRecord>> {
        let mut members: Vec<JobRecord> =
            jobs.iter().filter(|r| r.job == self.job || r.array == self.job).cloned().collect();
        members.sort_by_key(|r| r.index);
        if members.is_empty() || !members.iter().all(JobRecord::has_ended) {
            return None;
        }
        if let Some(mut srun) = self.srun.take() {
            let _ = srun.wait();
        }
        Some(members)
    }

    /// What is not as the catalogue says it is in Slurm's records; empty when all is.
    pub fn deviations(&self, records: &[JobRecord]) -> Vec<String> {
        let entry = self.entry;
        let mut found = Vec::new();
        if records.len() != entry.jobs() {
            found.push(format!("{} records, not {}", records.len(), entry.jobs()));
        }
        for record in records {
            let want = if entry.fails(record.index) { entry.slurm } else { PLAIN.slurm };
            if (record.state.as_str(), record.exit_code.as_str()) != (want.state, want.exit) {
                found.push(format!("Slurm says {record:?}, not {want:?}"));
            }
        }
        let requeued = u32::from(entry.action == Action::Requeue);
        if records.iter().any(|r| r.restarts != requeued) {
            found.push(format!("not requeued {requeued} times"));
        }
        found
    }
}
