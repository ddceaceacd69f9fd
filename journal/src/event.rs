/*!
What can happen on a node, one type per `event_type`.

This file is the schema: the JSON Schema, the field table of the manual and the
readers are all made from it. Every field says its unit; a field that a node
cannot know is absent, never guessed. Bytes are bytes, times are microseconds
(`_us`) or a [`Timestamp`], ids of jobs are strings.
*/

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::own::{self, Cursor, Fields, Own};
use crate::put::Sink;
use crate::{JobId, Timestamp};

/// How much an event matters to a person who only wants to see trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Severity {
    /// Something happened as it should.
    Info,
    /// Worth a look.
    Warn,
    /// Something died or was lost.
    Error,
}

/// Who saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Source {
    /// The SPANK plugin, inside slurmstepd.
    Plugin,
    /// The node agent.
    Agent,
    /// The job itself, through `inquest note`.
    User,
    /// The collector, which derived it from other events.
    Collector,
}

impl Severity {
    /// As it stands in a line.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warn => "warn",
            Severity::Error => "error",
        }
    }
}

impl Source {
    /// As it stands in a line.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Source::Plugin => "plugin",
            Source::Agent => "agent",
            Source::User => "user",
            Source::Collector => "collector",
        }
    }
}

/// Whose memory limit it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Level {
    /// A limit on the task's own cgroup.
    Task,
    /// The limit of the step.
    Step,
    /// The limit of the job on this node.
    Job,
    /// The node itself ran out of memory.
    Host,
}

/// Which hook a job-level event was seen from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Via {
    /// The job's prolog on this node.
    Prolog,
    /// The job's epilog on this node.
    Epilog,
    /// The batch step.
    Batch,
    /// The interactive step of salloc.
    Interactive,
    /// The first step of srun.
    Step,
}

/// Decides what is left out of a line: an absent fact takes no bytes.
pub(crate) trait Absent {
    fn absent(&self) -> bool;
}
impl<T> Absent for Option<T> {
    fn absent(&self) -> bool {
        self.is_none()
    }
}
impl<T> Absent for Vec<T> {
    fn absent(&self) -> bool {
        self.is_empty()
    }
}
impl<K, V> Absent for BTreeMap<K, V> {
    fn absent(&self) -> bool {
        self.is_empty()
    }
}
impl Absent for bool {
    fn absent(&self) -> bool {
        !*self
    }
}
impl Absent for Memory {
    fn absent(&self) -> bool {
        *self == Memory::default()
    }
}
impl Absent for Pressure {
    fn absent(&self) -> bool {
        *self == Pressure::default()
    }
}
fn absent<T: Absent>(value: &T) -> bool {
    value.absent()
}

/// Declares a record whose every field may be absent.
macro_rules! record {
    ($(#[$m:meta])* pub struct $name:ident { $($(#[$fm:meta])* $field:ident: $t:ty,)* }) => {
        $(#[$m])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        pub struct $name {
            $($(#[$fm])* #[serde(skip_serializing_if = "absent")] pub $field: $t,)*
        }

        impl $name {
            /// Every field that is there, with a comma before it.
            pub(crate) fn put_fields(&self, sink: &mut Sink<'_>) {
                $(sink.field(concat!(",\"", stringify!($field), "\":").as_bytes(), &self.$field);)*
            }
        }

        impl Fields for $name {
            fn fill(&mut self, at: &mut Cursor<'_>, mut sep: u8) -> Option<()> {
                $(if at.field(sep, concat!("\"", stringify!($field), "\":")) {
                    self.$field = Own::own(at)?;
                    sep = b',';
                })*
                // A record inside of another has fields, or is left out.
                (sep == b',').then_some(())
            }
        }

        #[cfg(test)]
        impl own::tests::Made for $name {
            fn made(r: &mut dyn FnMut(u64) -> u64) -> $name {
                $name { $($field: own::tests::Made::made(r),)* }
            }
        }
    };
}

record! {
    /// Memory of a cgroup and of the processes in it, as three different figures that must
    /// not be mixed: the cgroup's charge counts page cache, a process' resident
    /// set does not.
    pub struct Memory {
        /// Highest charge of the cgroup in bytes, page cache included
        /// (`memory.max_usage_in_bytes`, `memory.peak`); exact, not sampled.
        cgroup_peak_bytes: Option<u64>,
        /// The limit that applied, in bytes; absent when there was none.
        limit_bytes: Option<u64>,
        /// Whose limit that is.
        limit_level: Option<Level>,
        /// The peak reached the limit, so the real need may be higher. By
        /// itself this is no failure: page cache is reclaimed at the limit.
        clipped: bool,
        /// How often the limit was hit (`memory.failcnt`; `max` of
        /// `memory.events`); reclaim of page cache counts too.
        limit_hits: Option<u64>,
        /// Largest resident set of any single process that has ended in this
        /// step so far, in bytes (RUSAGE_CHILDREN of slurmstepd).
        largest_process_bytes: Option<u64>,
        /// Limit of what the cgroup that `limit_level` names may have swapped
        /// out, in bytes (`memory.swap.max`, cgroup v2). This and the next
        /// three are read only when the peak came close to the limit; a limit
        /// that is not set is absent.
        swap_limit_bytes: Option<u64>,
        /// Most that it ever had swapped out, in bytes (`memory.swap.peak`,
        /// cgroup v2, where the kernel has it).
        swap_peak_bytes: Option<u64>,
        /// Limit of its memory and swap together, in bytes
        /// (`memory.memsw.limit_in_bytes`, cgroup v1).
        memsw_limit_bytes: Option<u64>,
        /// Highest charge of memory and swap together, in bytes
        /// (`memory.memsw.max_usage_in_bytes`, cgroup v1).
        memsw_peak_bytes: Option<u64>,
        /// Highest sampled anonymous memory in bytes, where an agent sampled.
        anon_peak_bytes: Option<u64>,
    }
}

record! {
    /// Time in which processes of a cgroup waited for something they lacked,
    /// in microseconds (PSI, the `total` of `cpu.pressure`, `memory.pressure`
    /// and `io.pressure`; cgroup v2 only). "Some" counts while at least one
    /// process waited, "full" while all did.
    pub struct Pressure {
        /// For a CPU.
        cpu_some_us: Option<u64>,
        /// For memory: reclaim, swap, refaults.
        memory_some_us: Option<u64>,
        /// The same, while nothing else ran.
        memory_full_us: Option<u64>,
        /// For storage.
        io_some_us: Option<u64>,
        /// The same, while nothing else ran.
        io_full_us: Option<u64>,
    }
}

record! {
    /// A process that the kernel killed for memory, from the kernel's record.
    pub struct Victim {
        /// Process id.
        pid: Option<u32>,
        /// Command name as the kernel has it, at most 15 bytes.
        command: Option<String>,
        /// Anonymous resident memory when it was killed, in bytes.
        anon_rss_bytes: Option<u64>,
        /// Its cgroup.
        cgroup: Option<String>,
        /// User id.
        uid: Option<u32>,
    }
}

record! {
    /// A job reached this node. Written by every step that can be the first.
    pub struct JobStarted {
        /// Which hook saw it.
        via: Option<Via>,
        /// User id, from Slurm and not from the environment.
        uid: Option<u32>,
        /// Group id.
        gid: Option<u32>,
        /// Job name.
        name: Option<String>,
        /// Account that pays.
        account: Option<String>,
        /// Partition.
        partition: Option<String>,
        /// Quality of service.
        qos: Option<String>,
        /// The user's comment.
        comment: Option<String>,
        /// Working directory.
        work_dir: Option<String>,
        /// Directory sbatch was called in.
        submit_dir: Option<String>,
        /// File of standard output, as Slurm resolved or patterned it.
        stdout: Option<String>,
        /// File of standard error.
        stderr: Option<String>,
        /// All nodes of the allocation, as a hostlist.
        node_list: Option<String>,
        /// Number of nodes of the allocation.
        node_count: Option<u32>,
        /// Cores of the job on this node.
        cpus: Option<u32>,
        /// Memory of the job on this node in MiB, as allocated by Slurm.
        memory_mib: Option<u64>,
        /// Job id of the array, for a member of one.
        array_job_id: Option<JobId>,
        /// Index in the array.
        array_task_id: Option<u32>,
        /// Job id of the het job's leader, for a component of one.
        het_job_id: Option<JobId>,
        /// Index of the component.
        het_offset: Option<u32>,
        /// How often the job was restarted before; 0 the first time, absent where it is not known.
        restart: Option<u32>,
        /// When the time limit ends the job, where Slurm says (23.02 and later).
        end_limit: Option<Timestamp>,
        /// Run id given with `--inquest-run`.
        run: Option<String>,
        /// Allow-listed environment that tells which run the job belongs to.
        env: BTreeMap<String, String>,
    }
}

record! {
    /// A job left this node.
    pub struct JobEnded {
        /// Which hook saw it.
        via: Option<Via>,
        /// Exit code of the job script, when it exited.
        exit_code: Option<u8>,
        /// Signal that ended it, when one did.
        signal: Option<u8>,
        /// Highest exit code of all steps (epilog only).
        derived_exit_code: Option<u8>,
        /// How often the job was restarted before, where it is known.
        restart: Option<u32>,
        /// The warning signal that sbatch was asked for, as it was written:
        /// the value of `--signal`, such as `B:USR1@120`. Looked for when the
        /// script failed. Slurm itself tells a node nothing of it, and an
        /// option on sbatch's command line, which goes before both places, is
        /// not known here.
        warning: Option<String>,
        /// Where that stands: `environment` (SBATCH_SIGNAL) or `script`
        /// (`#SBATCH`).
        warning_from: Option<String>,
    }
}

record! {
    /// A step began on this node. Written as early as possible: a start
    /// without an end is how the death of slurmstepd or of the node shows.
    pub struct StepStarted {
        /// User id.
        uid: Option<u32>,
        /// Name of the job.
        name: Option<String>,
        /// The command, one string per argument; long ones are cut.
        argv: Vec<String>,
        /// Working directory of the step.
        cwd: Option<String>,
        /// Nodes of this step.
        node_count: Option<u32>,
        /// Position of this node among them, from 0.
        node_rank: Option<u32>,
        /// Tasks of this step on this node.
        local_tasks: Option<u32>,
        /// Tasks of this step on all nodes.
        total_tasks: Option<u32>,
        /// Cores of the step on this node.
        cpus: Option<u32>,
        /// Memory of the step on this node in MiB, as allocated.
        memory_mib: Option<u64>,
        /// Memory limit in force, in bytes.
        limit_bytes: Option<u64>,
        /// When the time limit ends the job, where Slurm says.
        end_limit: Option<Timestamp>,
        /// The step's memory cgroup below the hierarchy's mount point.
        cgroup: Option<String>,
        /// 1 or 2.
        cgroup_version: Option<u8>,
        /// Process id of slurmstepd.
        stepd_pid: Option<u32>,
        /// Slurm on this node, `22.05.8`.
        slurm_version: Option<String>,
        /// The plugin, `0.1.0`.
        plugin_version: Option<String>,
        /// Job id of the array, for a member of one.
        array_job_id: Option<JobId>,
        /// Index in the array.
        array_task_id: Option<u32>,
        /// How often the job was restarted before, where it is known.
        restart: Option<u32>,
        /// Run id given with `--inquest-run`.
        run: Option<String>,
        /// Allow-listed environment that tells which run the job belongs to.
        env: BTreeMap<String, String>,
    }
}

record! {
    /// A step ended on this node.
    pub struct StepEnded {
        /// Since step_started, in microseconds.
        duration_us: Option<u64>,
        /// Tasks that were started here.
        tasks_started: Option<u32>,
        /// Tasks whose end was seen here.
        tasks_exited: Option<u32>,
        /// Tasks that ended with a non-zero code or a signal.
        tasks_failed: Option<u32>,
        /// Processes of this step killed for memory.
        oom_kills: Option<u64>,
        /// Memory of the whole step.
        memory: Memory,
        /// CPU time of the step's cgroup in microseconds.
        cpu_us: Option<u64>,
        /// User time of the step's cgroup in microseconds.
        user_us: Option<u64>,
        /// System time of the step's cgroup in microseconds.
        system_us: Option<u64>,
        /// Periods in which the cgroup had used up its share of the CPUs
        /// (`nr_throttled`; only where a quota is set).
        throttled_count: Option<u64>,
        /// How long it was held back then, in microseconds.
        throttled_us: Option<u64>,
        /// Waiting for CPU, memory and storage.
        pressure: Pressure,
        /// Bytes read from storage by the step's cgroup (`io.stat`, where the
        /// io controller is on).
        read_bytes: Option<u64>,
        /// Bytes written to storage by the step's cgroup.
        written_bytes: Option<u64>,
        /// User and system time of all reaped processes, in microseconds.
        reaped_cpu_us: Option<u64>,
        /// The system time among it.
        reaped_system_us: Option<u64>,
        /// Bytes that reaped processes made local storage read (getrusage,
        /// `ru_inblock`). What came from the page cache or over a network
        /// file system is not in it.
        reaped_read_bytes: Option<u64>,
        /// Bytes that reaped processes made dirty for local storage
        /// (`ru_oublock`).
        reaped_written_bytes: Option<u64>,
        /// Page faults of reaped processes that had to wait for storage.
        reaped_major_faults: Option<u64>,
        /// Time that all hooks of this plugin took in this step, in
        /// microseconds; of the last hook, up to the making of this line.
        hook_us: Option<u64>,
        /// The slowest single hook, in microseconds.
        hook_max_us: Option<u64>,
        /// Hooks that ended in a caught panic; the plugin was silent from then on.
        panics: Option<u32>,
    }
}

record! {
    /// A task was started.
    pub struct TaskStarted {
        /// Process id.
        pid: Option<u32>,
        /// Rank on this node, from 0.
        local_id: Option<u32>,
        /// File behind descriptor 1; absent when it is a pipe to srun.
        stdout: Option<String>,
        /// File behind descriptor 2.
        stderr: Option<String>,
    }
}

record! {
    /// A task ended. The time stamp is up to 100 ms after the death, because
    /// slurmstepd collects ends in batches.
    pub struct TaskExited {
        /// Process id.
        pid: Option<u32>,
        /// Rank on this node, from 0.
        local_id: Option<u32>,
        /// Exit code, when it exited.
        exit_code: Option<u8>,
        /// Signal that ended it, when one did.
        signal: Option<u8>,
        /// The kernel marked a core dump.
        core: bool,
        /// Since task_started, in microseconds.
        duration_us: Option<u64>,
        /// Processes of this task's cgroup that were killed for memory.
        oom_kills: Option<u64>,
        /// Memory of the task at this moment.
        memory: Memory,
    }
}

record! {
    /// The kernel killed something for memory.
    pub struct OomKill {
        /// Processes killed since the last event of this task.
        count: Option<u64>,
        /// Whose limit was exceeded.
        level: Option<Level>,
        /// That limit, in bytes.
        limit_bytes: Option<u64>,
        /// Highest charge of the task's cgroup, in bytes.
        peak_bytes: Option<u64>,
        /// Who was killed, as far as the kernel's record could be read.
        victims: Vec<Victim>,
        /// The outermost cgroup, up to the one whose limit it was, that is
        /// killed as a whole: `memory.oom.group` is set there, as Slurm does
        /// for `--oom-kill-step` (cgroup v2).
        oom_group: Option<Level>,
        /// Whether Slurm's own check, made once when the first task of the
        /// node ends, can have seen it.
        reported_by_slurm: Option<bool>,
    }
}

record! {
    /// Memory use first passed 90 % of the limit.
    pub struct MemoryHigh {
        /// Charge in bytes.
        usage_bytes: Option<u64>,
        /// Limit in bytes.
        limit_bytes: Option<u64>,
        /// Whose limit that is.
        level: Option<Level>,
        /// Share of the last 10 s in which some process waited for memory, in
        /// percent (PSI `some avg10`).
        pressure_some_percent: Option<f64>,
    }
}

record! {
    /// A descendant of a job ended abnormally.
    pub struct ProcessDied {
        /// Process id.
        pid: Option<u32>,
        /// Its parent.
        ppid: Option<u32>,
        /// Command name as the kernel has it, at most 15 bytes.
        command: Option<String>,
        /// Exit code, when it exited.
        exit_code: Option<u8>,
        /// Signal that ended it, when one did.
        signal: Option<u8>,
        /// The kernel marked a core dump.
        core: bool,
        /// Peak resident set in bytes.
        peak_rss_bytes: Option<u64>,
        /// User id.
        uid: Option<u32>,
        /// The first abnormal death in its step.
        first: bool,
        /// Allow-listed environment that tells which member of a run it was,
        /// where an engine packs many into one step.
        env: BTreeMap<String, String>,
    }
}

record! {
    /// The node came up with a new boot id. Everything open under the old one
    /// ended with it.
    pub struct NodeBooted {
        /// The boot id before, short.
        previous_boot: Option<String>,
        /// When the kernel started.
        booted_at: Option<Timestamp>,
    }
}

record! {
    /// What a job says itself.
    pub struct Note {
        /// stage, message, error or progress.
        kind: Option<String>,
        /// The words.
        text: Option<String>,
        /// Progress in percent.
        percent: Option<f64>,
        /// Process that said it, where it sent it to the agent.
        pid: Option<u32>,
        /// Where it ends in the step's file of notes (`INQUEST_NOTE`), in bytes, where it was there.
        file_end: Option<u64>,
    }
}

record! {
    /// Events of this stream that could not be written. The gap in `seq` says
    /// which; this says why.
    pub struct Lost {
        /// How many.
        count: Option<u64>,
        /// The operating system's reason for the first of them.
        reason: Option<String>,
    }
}

/// Declares the enum over all events and everything that goes by its name.
macro_rules! bodies {
    ($($(#[$m:meta])* $variant:ident = $name:literal,)*) => {
        /// The body of an event: what it says beside who, when and where.
        #[derive(Clone, Debug, PartialEq, Serialize)]
        #[serde(untagged)]
        #[allow(clippy::large_enum_variant)] // Made and written at once, never stored in bulk.
        pub enum Body {
            $($(#[$m])* $variant($variant),)*
        }

        impl Body {
            /// Every `event_type` of this version, in the order of the manual.
            pub const TYPES: &[&str] = &[$($name),*];

            /// The `event_type` of this body.
            pub fn event_type(&self) -> &'static str {
                match self {
                    $(Body::$variant(_) => $name,)*
                }
            }

            pub(crate) fn put_fields(&self, sink: &mut Sink<'_>) {
                match self {
                    $(Body::$variant(body) => body.put_fields(sink),)*
                }
            }

            /// Reads the body of a whole line whose type is known from its
            /// head; `None` for a type of a newer version.
            ///
            /// # Errors
            ///
            /// When a field has another JSON type than the schema says.
            pub fn parse(event_type: &str, line: &[u8]) -> Option<serde_json::Result<Body>> {
                match event_type {
                    $($name => Some(serde_json::from_slice(line).map(Body::$variant)),)*
                    _ => None,
                }
            }

            /// Reads the body at the end of a line that our own writer wrote,
            /// from the comma before its first field or from the closing
            /// brace. `None` for everything that is not exactly in its form;
            /// that is for [`Body::parse`] to decide.
            pub fn own(event_type: &str, rest: &str) -> Option<Box<Body>> {
                match event_type {
                    $($name => {
                        let mut body = Box::new(Body::$variant($variant::default()));
                        if let Body::$variant(fields) = &mut *body {
                            own::rest_of_line(fields, rest)?;
                        }
                        Some(body)
                    })*
                    _ => None,
                }
            }
        }

        $(impl From<$variant> for Body {
            fn from(body: $variant) -> Body {
                Body::$variant(body)
            }
        })*

        #[cfg(test)]
        impl Body {
            /// One of every type, made of the numbers that `r` yields.
            pub(crate) fn made(r: &mut dyn FnMut(u64) -> u64) -> Vec<Body> {
                vec![$(Body::$variant(own::tests::Made::made(r))),*]
            }
        }

        #[cfg(feature = "schema")]
        pub(crate) fn body_schemas(g: &mut schemars::SchemaGenerator) -> Vec<(&'static str, schemars::Schema)> {
            vec![$(($name, <$variant as schemars::JsonSchema>::json_schema(g))),*]
        }
    };
}

bodies! {
    /// `job_started`.
    JobStarted = "job_started",
    /// `job_ended`.
    JobEnded = "job_ended",
    /// `step_started`.
    StepStarted = "step_started",
    /// `step_ended`.
    StepEnded = "step_ended",
    /// `task_started`.
    TaskStarted = "task_started",
    /// `task_exited`.
    TaskExited = "task_exited",
    /// `oom_kill`.
    OomKill = "oom_kill",
    /// `memory_high`.
    MemoryHigh = "memory_high",
    /// `process_died`.
    ProcessDied = "process_died",
    /// `node_booted`.
    NodeBooted = "node_booted",
    /// `note`.
    Note = "note",
    /// `lost`.
    Lost = "lost",
}

impl Body {
    /// Drops the fields whose length the writer does not control, for the
    /// line that is too long even with every string cut short.
    pub(crate) fn drop_lists(&mut self) {
        match self {
            Body::JobStarted(b) => b.env.clear(),
            Body::StepStarted(b) => {
                b.env.clear();
                b.argv.clear();
            }
            Body::OomKill(b) => b.victims.clear(),
            Body::ProcessDied(b) => b.env.clear(),
            _ => {}
        }
    }
}
