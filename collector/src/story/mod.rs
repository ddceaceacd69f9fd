/*!
The events of one job, folded into what happened: attempts, steps, tasks and
every death in order.

The fold is pure: the same events give the same story, in whatever order the
nodes' journals were merged, because each fact is put where its event says it
belongs. What a story cannot know stays `None`.
*/

mod attempts;
pub mod clocks;
mod fold;
mod name;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use inquest_journal::{JobId, Level, Memory, StepId, Timestamp, Victim};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use name::Name;

/// Names one event for ever: its stream and its number in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    /// The writer's life.
    pub stream: Name,
    /// Number in it.
    pub seq: u64,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.stream, self.seq)
    }
}

impl Serialize for EventId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EventId {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<EventId, D::Error> {
        let text = String::deserialize(d)?;
        let parts = text.rsplit_once('#').and_then(|(s, n)| Some((s.into(), n.parse().ok()?)));
        let (stream, seq) = parts.ok_or_else(|| D::Error::custom("not an event id"))?;
        Ok(EventId { stream, seq })
    }
}

/// When and where an event happened, and which event says so. Most events of
/// a job share their names with others, in memory too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// Wall clock of the node.
    pub wall: Timestamp,
    /// The node.
    pub node: Name,
    /// Boot id, short.
    pub boot: Name,
    /// Boot clock in microseconds: exact order inside one boot.
    pub mono_us: u64,
    /// The event.
    pub event: EventId,
}

impl Moment {
    /// Microseconds from `earlier` to `self`: by the boot clock inside one
    /// boot of one node, else by the wall clocks of both.
    pub fn since(&self, earlier: &Moment) -> i64 {
        if self.node == earlier.node && self.boot == earlier.boot {
            self.mono_us.cast_signed().wrapping_sub(earlier.mono_us.cast_signed())
        } else {
            self.wall.since(earlier.wall)
        }
    }
}

/// Everything known of one job.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Story {
    /// In order; the last one is the current one.
    pub attempts: Vec<Attempt>,
}

/// One life of a job: a requeued job has several under the same id.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Attempt {
    /// How often the job was restarted before, from 0.
    pub restart: u32,
    /// An event said so; else it was counted here.
    #[serde(skip)]
    pub counted: bool,
    /// What was asked for and by whom.
    pub facts: Facts,
    /// First event.
    pub started: Option<Moment>,
    /// Newest event.
    pub last: Option<Moment>,
    /// End of the job script or, by the epilog, of the job.
    pub ended: Option<JobEnd>,
    /// Nodes with at least one event.
    pub nodes: BTreeSet<Name>,
    /// Steps by id.
    pub steps: BTreeMap<StepId, Step>,
    /// Kills for memory, in the order in which they were merged.
    pub oom: Vec<Oom>,
    /// Descendants that died, where an agent saw them.
    pub processes: Vec<Process>,
    /// What the job said itself.
    pub notes: Vec<Note>,
    /// Events that were numbered and are not here, and those that a node says it could not write.
    pub lost: u64,
    /// What is here of the streams that are this attempt's alone.
    #[serde(skip)]
    pub streams: BTreeMap<Name, Stream>,
}

/// One life of a writer of the plugin, which writes of one job alone: its numbers have no gaps, but for what was lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// Its node.
    pub node: Name,
    /// Events that are here.
    pub seen: u64,
    /// One more than the highest number among them.
    pub next: u64,
    /// Events that it said it could not write, which have numbers too.
    pub told: u64,
    /// Why it could not.
    pub reason: Option<String>,
}

impl Stream {
    /// Events that are not here.
    pub fn lost(&self) -> u64 {
        self.next.saturating_sub(self.seen).max(self.told)
    }
}

/// What is known of a job beside its course.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs)] // The fields of JobStarted, documented there.
pub struct Facts {
    pub uid: Option<u32>,
    pub name: Option<String>,
    pub account: Option<String>,
    pub partition: Option<String>,
    pub qos: Option<String>,
    pub comment: Option<String>,
    pub work_dir: Option<String>,
    pub stdout: Option<String>,
    pub stderr: Option<String>,
    pub node_list: Option<String>,
    pub node_count: Option<u32>,
    pub cpus: Option<u32>,
    pub memory_mib: Option<u64>,
    pub array_job_id: Option<JobId>,
    pub array_task_id: Option<u32>,
    pub end_limit: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warning: Option<Asked>,
}

/// The warning signal that was asked for: `warning` and `warning_from` of JobEnded.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Asked {
    pub text: String,
    pub from: String,
}

/// The end of a job.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct JobEnd {
    /// When.
    pub at: Moment,
    /// Exit code, when it exited.
    pub exit_code: Option<u8>,
    /// Signal, when one ended it.
    pub signal: Option<u8>,
}

/// One step over all its nodes. Most have one part and one task, and a map has room for eleven: hence the boxes.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Step {
    /// The command.
    pub argv: Vec<String>,
    /// Tasks on all nodes, as Slurm planned them.
    pub total_tasks: Option<u32>,
    /// Its part on each node.
    pub nodes: BTreeMap<Name, Box<StepNode>>,
    /// Tasks by rank.
    pub tasks: BTreeMap<u32, Box<Task>>,
}

/// A step's part on one node.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StepNode {
    /// When slurmstepd began it.
    pub started: Option<Moment>,
    /// Process id of that slurmstepd.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stepd_pid: Option<u32>,
    /// When it ended; a start without an end is a dead slurmstepd or node.
    pub ended: Option<Moment>,
    /// When it was seen that the node had come up anew under it: nothing can
    /// end it any more.
    pub lost: Option<Moment>,
    /// Memory limit in bytes.
    pub limit_bytes: Option<u64>,
    /// Processes killed for memory, of the whole step on this node.
    pub oom_kills: Option<u64>,
    /// Tasks that ended with a code other than 0 or by a signal, of the whole step on this node.
    pub tasks_failed: Option<u32>,
    /// Memory of the whole step on this node.
    pub memory: Memory,
    /// CPU time in microseconds.
    pub cpu_us: Option<u64>,
}

/// A task.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Task {
    /// Its node.
    pub node: Name,
    /// Process id.
    pub pid: Option<u32>,
    /// When it was started.
    pub started: Option<Moment>,
    /// File of standard output.
    pub stdout: Option<String>,
    /// File of standard error.
    pub stderr: Option<String>,
    /// How it ended.
    pub exit: Option<Exit>,
}

/// The end of a task.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Exit {
    /// When slurmstepd noticed it, up to 100 ms after the death.
    pub at: Moment,
    /// Exit code, when it exited.
    pub code: Option<u8>,
    /// Signal, when one ended it.
    pub signal: Option<u8>,
    /// A core was dumped.
    pub core: bool,
    /// Since the start, in microseconds.
    pub duration_us: Option<u64>,
    /// Processes of the task killed for memory.
    pub oom_kills: u64,
    /// Memory of the task at its end.
    pub memory: Memory,
}

impl JobEnd {
    /// How it ended is known.
    pub fn is_known(&self) -> bool {
        self.exit_code.is_some() || self.signal.is_some()
    }
}

impl Exit {
    /// Code 0, no signal and nothing killed in it.
    pub fn is_clean(&self) -> bool {
        self.code == Some(0) && self.signal.is_none()
    }
}

/// A step's part on a node whose slurmstepd died before it: nobody records its end any more, and
/// slurmctld is not told of it.
#[derive(Clone, Copy, Debug)]
pub struct Orphan<'a> {
    /// The step.
    pub step: StepId,
    /// The node.
    pub node: &'a str,
    /// Process id of the slurmstepd.
    pub pid: u32,
    /// When it died.
    pub at: &'a Moment,
    /// The kernel killed it for memory.
    pub for_memory: bool,
}

impl Orphan<'_> {
    /// `slurmstepd (pid 42) of step 0 on n1 was killed for memory`.
    pub fn says(&self) -> String {
        let how = if self.for_memory { "was killed for memory" } else { "died" };
        format!("slurmstepd (pid {}) of step {} on {} {how}", self.pid, self.step, self.node)
    }
}

/// A kill for memory.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Oom {
    /// When it was seen.
    pub at: Moment,
    /// In which step.
    pub step: Option<StepId>,
    /// In which task.
    pub task: Option<u32>,
    /// How many processes.
    pub count: u64,
    /// Whose limit.
    pub level: Option<Level>,
    /// The limit in bytes.
    pub limit_bytes: Option<u64>,
    /// Highest charge in bytes.
    pub peak_bytes: Option<u64>,
    /// Who was killed.
    pub victims: Vec<Victim>,
    /// Whether Slurm's own check can have seen it.
    pub reported_by_slurm: Option<bool>,
    /// What the kernel killed as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_group: Option<Level>,
}

impl Oom {
    /// This process was killed.
    pub fn names(&self, pid: u32) -> bool {
        self.victims.iter().any(|v| v.pid == Some(pid))
    }
}

/// A descendant of a job that ended abnormally.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Process {
    /// When.
    pub at: Moment,
    /// In which step.
    pub step: Option<StepId>,
    /// In which task.
    pub task: Option<u32>,
    /// What the kernel says of it.
    pub died: inquest_journal::ProcessDied,
}

/// What a job said itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Note {
    /// When.
    pub at: Moment,
    /// In which step.
    pub step: Option<StepId>,
    /// The words.
    pub note: inquest_journal::Note,
}

impl Attempt {
    /// The same job, as if nothing had been seen of this attempt.
    #[must_use]
    pub fn without_course(&self) -> Attempt {
        Attempt { restart: self.restart, facts: self.facts.clone(), ..Attempt::default() }
    }

    /// Exit of the job script, when there was one and it ended.
    pub fn batch_exit(&self) -> Option<&Exit> {
        let script = self.steps.get(&StepId::Batch).or_else(|| self.steps.get(&StepId::Interactive))?;
        script.tasks.values().next()?.exit.as_ref()
    }

    /// Every step that began on some node has ended there, or with the node.
    pub fn all_steps_ended(&self) -> bool {
        !self.steps.is_empty()
            && self
                .steps
                .values()
                .flat_map(|s| s.nodes.values())
                .all(|n| n.ended.is_some() || n.lost.is_some())
    }

    /// Parts of steps that ended with their node.
    pub fn lost_parts(&self) -> impl Iterator<Item = (&StepId, &str, &StepNode)> {
        let parts = self
            .steps
            .iter()
            .flat_map(|(id, s)| s.nodes.iter().map(move |(node, part)| (id, &**node, &**part)));
        parts.filter(|(_, _, part)| part.lost.is_some() && part.ended.is_none())
    }

    /// Parts of steps whose slurmstepd is known to have died before them.
    pub fn orphans(&self) -> impl Iterator<Item = Orphan<'_>> {
        let parts =
            self.steps.iter().flat_map(|(id, s)| s.nodes.iter().map(move |(node, part)| (*id, node, part)));
        parts.filter(|(_, _, part)| part.ended.is_none()).filter_map(|(step, node, part)| {
            let pid = part.stepd_pid?;
            let here = |of: Option<StepId>, at: &Moment| of == Some(step) && at.node == *node;
            let killed = self.oom.iter().find(|o| here(o.step, &o.at) && o.names(pid)).map(|o| &o.at);
            let died = || self.processes.iter().find(|p| here(p.step, &p.at) && p.died.pid == Some(pid));
            let at = killed.or_else(|| died().map(|p| &p.at))?;
            Some(Orphan { step, node, pid, at, for_memory: killed.is_some() })
        })
    }

    /// Nothing of it can still be running: all steps ended, and with them one
    /// that lasts as long as the job does (its script, its extern step), or
    /// the job's own end was seen.
    pub fn is_over(&self) -> bool {
        let lasting = [StepId::Batch, StepId::Extern, StepId::Interactive];
        self.all_steps_ended() && (self.ended.is_some() || lasting.iter().any(|s| self.steps.contains_key(s)))
    }

    /// From the first event to the newest, in microseconds.
    pub fn elapsed_us(&self) -> Option<i64> {
        Some(self.last.as_ref()?.since(self.started.as_ref()?))
    }

    /// Highest charge of any step on any node, in bytes (page cache included).
    pub fn peak_bytes(&self) -> Option<u64> {
        let steps = self.steps.values().flat_map(|s| s.nodes.values()).map(|n| &n.memory);
        let tasks = self.steps.values().flat_map(|s| s.tasks.values()).filter_map(|t| t.exit.as_ref());
        steps.chain(tasks.map(|e| &e.memory)).filter_map(|m| m.cgroup_peak_bytes).max()
    }
}
