//! What a node can know, each with a real job that shows it and the event that is recorded: the rows
//! of `packaging/doc/recorded.md`, which `tests/recorded.rs` writes from what really happened.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::{Map, Value};

use crate::catalogue::{Entry, How};

/// One thing that a node can know.
pub struct Row {
    /// What is known.
    pub what: &'static str,
    /// The job that shows it: an entry of the catalogue, or a scene of `tests/recorded.rs`.
    pub job: &'static str,
    /// Finds the event among those of the job, and holds it to what is claimed.
    pub find: fn(&[Value]) -> Option<&Value>,
    /// Which fields are shown, below others as `memory.clipped`; with `~`, that they are there.
    pub show: &'static [&'static str],
    /// What `find` has made sure of, beyond what can be seen.
    pub sure: &'static str,
}

/// The events of one type.
fn of<'a>(events: &'a [Value], kind: &'static str) -> impl Iterator<Item = &'a Value> + use<'a> {
    events.iter().filter(move |e| e["event_type"] == kind)
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// Whether a task ended at its job's time limit of a minute or later. The limit counts from before the
/// task's start; where Slurm says when it is, that is what counts.
fn at_limit(events: &[Value], end: &Value) -> bool {
    let limit = of(events, "job_started").find_map(|e| e["end_limit"].as_str());
    match (limit, end["timestamp"].as_str()) {
        (Some(limit), Some(at)) => at >= limit,
        _ => number(&end["duration_us"]) >= 59_000_000,
    }
}

const MIB: u64 = 1 << 20;

/// Every row, in order.
pub const ROWS: &[Row] = &[
    Row {
        what: "Every task: start, end, exit code, signal, core flag",
        job: "pairs",
        find: |events| {
            let ends: BTreeMap<u64, &Value> = of(events, "task_exited")
                .filter(|e| e["step"] == "0")
                .map(|e| (number(&e["task"]), e))
                .collect();
            let starts = of(events, "task_started").filter(|e| e["step"] == "0").count();
            let right = ends.iter().all(|(task, end)| end["exit_code"] == *task);
            (right && ends.len() == 4 && starts == 4).then(|| ends[&2])
        },
        show: &["timestamp", "event_type", "step", "task", "pid", "local_id", "exit_code", "duration_us"],
        sure: "four starts and four ends, each with its own code",
    },
    Row {
        what: "Components of a heterogeneous job",
        job: "het",
        find: |events| {
            let ids: BTreeSet<&str> =
                of(events, "step_started").filter_map(|e| e["job_id"].as_str()).collect();
            of(events, "job_started")
                .find(|e| e["het_offset"] == 0 && e["het_job_id"] == e["job_id"])
                .filter(|_| ids.len() == 2)
        },
        show: &["event_type", "job_id", "step", "het_job_id", "het_offset"],
        sure: "both components have steps under their own job ids",
    },
    Row {
        what: "Steps that write one file at once do not disturb each other",
        job: "at-once",
        find: |events| {
            let whole =
                of(events, "step_ended").filter(|e| e["tasks_exited"] == 1 && e["step"] != "batch").count();
            of(events, "step_ended").find(|e| e["step"] == "15").filter(|_| whole == 16)
        },
        show: &["event_type", "step", "stream", "seq", "tasks_started", "tasks_exited", "tasks_failed"],
        sure: "all sixteen are there from start to end, and no line is torn",
    },
    Row {
        what: "What could not be written is counted",
        job: "full-disk",
        find: |events| of(events, "lost").find(|e| number(&e["count"]) > 0 && e["reason"].is_string()),
        show: &["event_type", "severity", "step", "seq", "~count", "reason"],
        sure: "the numbers that are missing are those that are told of",
    },
    Row {
        what: "An event has one identity, so copies of a journal are merged once",
        job: "copies",
        find: |events| of(events, "task_exited").find(|e| e["stream"].is_string() && e["seq"].is_u64()),
        show: &["event_type", "node", "boot", "stream", "seq"],
        sure: "`inquest collect` was given the journals twice and holds every event once",
    },
    Row {
        what: "UTC in microseconds, and the time since boot that no clock step changes",
        job: "pairs",
        find: |events| {
            let mut order: Vec<(u64, &str)> = events
                .iter()
                .map(|e| (number(&e["mono_us"]), e["timestamp"].as_str().unwrap_or("?")))
                .collect();
            let exact = order.iter().all(|(mono, at)| *mono > 0 && at.len() == 27 && at.ends_with('Z'));
            order.sort_unstable();
            of(events, "step_started").next().filter(|_| exact && order.is_sorted_by_key(|o| o.1))
        },
        show: &["event_type", "timestamp", "boot", "mono_us"],
        sure: "both clocks put the job's events into one order",
    },
    Row {
        what: "Out of memory, from the counter of the cgroup and not from a signal",
        job: "child-oom",
        find: |events| of(events, "oom_kill").find(|e| e["count"] == 1 && e["limit_bytes"] == 64 * MIB),
        show: &[
            "event_type",
            "severity",
            "step",
            "task",
            "count",
            "level",
            "limit_bytes",
            "reported_by_slurm",
        ],
        sure: "",
    },
    Row {
        what: "The victim: process, command, memory, user, cgroup",
        job: "child-oom",
        find: |events| {
            of(events, "oom_kill").find(|e| {
                let victim = &e["victims"][0];
                victim["command"] == "python3" && number(&victim["anon_rss_bytes"]) > 32 * MIB
            })
        },
        show: &["event_type", "step", "task", "victims"],
        sure: "it is the python3 of the script and held more than 32 MiB",
    },
    Row {
        what: "A kill that the script survived: exit code 0",
        job: "child-oom",
        find: |events| {
            let swap = |e: &Value| {
                let memory = &e["memory"];
                number(&memory["memsw_peak_bytes"]) >= 60 * MIB || number(&memory["swap_limit_bytes"]) > 0
            };
            of(events, "task_exited").find(|e| e["exit_code"] == 0 && e["oom_kills"] == 1 && swap(e))
        },
        show: &[
            "event_type",
            "step",
            "task",
            "exit_code",
            "oom_kills",
            "memory.limit_bytes",
            "memory.clipped",
            "memory.memsw_peak_bytes",
            "memory.swap_limit_bytes",
            "memory.swap_peak_bytes",
        ],
        sure: "memory and swap together have a peak of their own (cgroup v1), or swap has a limit (v2)",
    },
    Row {
        what: "A kill for want of memory that no limit of a job explains: the node's, not the job's (agent)",
        job: "node-limit",
        find: |events| {
            of(events, "oom_kill").find(|e| e["level"] == "host" && e["victims"][0]["command"] == "python3")
        },
        show: &["event_type", "source", "step", "level", "victims"],
        sure: "the job was far below its own limit; a test cannot have its machine run out of memory, so all jobs of \
               the node together were given a limit, from outside of Slurm",
    },
    Row {
        what: "A graphics card without memory is no OOM kill of the node",
        job: "gpu-oom",
        find: |events| {
            let none = of(events, "oom_kill").next().is_none();
            of(events, "task_exited").find(|e| e["exit_code"] == 1 && e["oom_kills"] == 0).filter(|_| none)
        },
        show: &["event_type", "step", "exit_code", "oom_kills"],
        sure: "no oom_kill is recorded; what the log says is the verdict's to read",
    },
    Row {
        what: "SIGKILL by hand: a signal without a kill for memory",
        job: "killed",
        find: |events| {
            let none = of(events, "oom_kill").next().is_none();
            of(events, "task_exited").find(|e| e["signal"] == 9 && e["oom_kills"] == 0).filter(|_| none)
        },
        show: &["event_type", "step", "signal", "oom_kills"],
        sure: "",
    },
    Row {
        what: "Memory use passes 90 % of the limit, once per step (agent)",
        job: "near-limit",
        find: |events| {
            let mut high = of(events, "memory_high");
            let first = high.next().filter(|e| number(&e["usage_bytes"]) > 180 * MIB);
            first.filter(|_| high.next().is_none())
        },
        show: &["event_type", "severity", "source", "step", "usage_bytes", "limit_bytes", "level"],
        sure: "more than 180 MiB of 200 MiB, told once",
    },
    Row {
        what: "A time limit: SIGTERM after the minute that was asked for",
        job: "limit",
        find: |events| {
            of(events, "job_ended")
                .find(|e| e["signal"] == 15)
                .and_then(|_| of(events, "task_exited").find(|e| e["signal"] == 15 && at_limit(events, e)))
        },
        show: &["event_type", "step", "signal", "duration_us"],
        sure: "at least 59 s after its start, or after the limit where Slurm says when that is",
    },
    Row {
        what: "A time limit that the script caught: exit code 0, at the limit",
        job: "limit-caught",
        find: |events| of(events, "task_exited").find(|e| e["exit_code"] == 0 && at_limit(events, e)),
        show: &["event_type", "step", "exit_code", "duration_us"],
        sure: "at least 59 s after its start, or after the limit where Slurm says when that is",
    },
    Row {
        what: "The warning signal of `--signal`, where it ended the task",
        job: "limit-warned",
        find: |events| {
            let early = |e: &Value| e["signal"] == 10 && !at_limit(events, e);
            let died = of(events, "task_exited").any(early);
            of(events, "job_ended")
                .find(|e| e["signal"] == 10 && e["warning"] == "B:USR1@50")
                .filter(|_| died)
        },
        show: &["event_type", "step", "signal", "warning", "warning_from"],
        sure: "before the limit; the option stands in the script. One on the command line is known to slurmdbd alone, and \
               a signal that is handled leaves no trace on the node",
    },
    Row {
        what: "Cancelled: SIGTERM long before any limit",
        job: "cancelled",
        find: |events| of(events, "job_ended").find(|e| e["signal"] == 15),
        show: &["event_type", "step", "signal"],
        sure: "who cancelled is not known on the node; Slurm's accounting says",
    },
    Row {
        what: "Requeued: the second attempt is told from the first",
        job: "requeue",
        find: |events| {
            let cut = of(events, "job_ended").any(|e| e["step"] == "batch" && e["signal"] == 15);
            of(events, "step_started").find(|e| e["step"] == "0" && e["restart"] == 1).filter(|_| cut)
        },
        show: &["event_type", "step", "restart"],
        sure: "the first attempt is there, ended by SIGTERM; a script's own step says at its end which attempt it was",
    },
    Row {
        what: "The node came up again: what was open under the old boot ended with it (agent)",
        job: "reboot",
        find: |events| {
            of(events, "node_booted").find(|e| e["previous_boot"] == "0badc0de" && e["booted_at"].is_string())
        },
        show: &["event_type", "severity", "source", "boot", "previous_boot", "booted_at"],
        sure: "a test cannot reboot its machine: the boot id that the agent remembered was changed between two of its lives",
    },
    Row {
        what: "Crashes by their signal, with the kernel's core flag",
        job: "signals",
        find: |events| {
            let mut ends: Vec<(u64, &Value)> = of(events, "task_exited")
                .filter(|e| e["step"] != "batch")
                .filter_map(|e| Some((e["step"].as_str()?.parse().ok()?, e)))
                .collect();
            ends.sort_by_key(|end| end.0);
            let signals: Vec<u64> = ends.iter().map(|(_, e)| number(&e["signal"])).collect();
            let cores = ends.iter().all(|(_, e)| e["core"] == true);
            (signals == [11, 6, 7, 4, 8] && cores).then(|| ends[2].1)
        },
        show: &["event_type", "step", "signal", "core"],
        sure: "the others are recorded with 11, 6, 4 and 8, all with their core flag",
    },
    Row {
        what: "Exit code 139 of a script, and the child that it stands for (agent)",
        job: "exit139",
        find: |events| {
            let code = of(events, "task_exited").any(|e| e["exit_code"] == 139);
            of(events, "process_died").find(|e| e["signal"] == 11 && e["command"] == "sh").filter(|_| code)
        },
        show: &["event_type", "source", "step", "task", "pid", "ppid", "command", "signal", "first"],
        sure: "the task itself is recorded with exit code 139 and no signal",
    },
    Row {
        what: "Where a task's output goes",
        job: "exit139",
        find: |events| {
            of(events, "task_started").find(|e| e["stdout"].as_str().is_some_and(|p| p.ends_with(".out")))
        },
        show: &["event_type", "step", "stdout", "stderr"],
        sure: "the file is the one that sbatch was told",
    },
    Row {
        what: "What a job says itself, by appending a line to the file of INQUEST_NOTE (agent)",
        job: "noted",
        find: |events| {
            of(events, "note")
                .find(|e| e["text"] == "half way" && e["percent"] == 50.0 && e["source"] == "user")
        },
        show: &["event_type", "source", "step", "kind", "text", "percent"],
        sure: "",
    },
    Row {
        what: "The order of deaths over nodes",
        job: "ranks",
        find: |events| {
            let time = |task: u64| {
                let mut ends = of(events, "task_exited").filter(|e| e["step"] == "0");
                ends.find(|e| e["task"] == task).and_then(|e| e["timestamp"].as_str())
            };
            let right = time(1)? <= time(0)?;
            of(events, "task_exited")
                .find(|e| e["step"] == "0" && e["task"] == 1 && e["exit_code"] == 5)
                .filter(|_| right)
        },
        show: &["timestamp", "event_type", "node", "step", "task", "exit_code"],
        sure: "the end of the rank that was killed because of it is stamped later",
    },
    Row {
        what: "Bursts: the same death, at the same time, on a node",
        job: "burst",
        find: |events| {
            let kills: Vec<&Value> = of(events, "oom_kill").filter(|e| e["source"] == "plugin").collect();
            let jobs: BTreeSet<&str> = kills.iter().filter_map(|e| e["job_id"].as_str()).collect();
            let times = kills.iter().map(|e| number(&e["mono_us"]));
            let spread = times.clone().max()? - times.min()?;
            kills.first().copied().filter(|_| jobs.len() == 5 && spread < 30_000_000)
        },
        show: &["timestamp", "event_type", "node", "job_id", "step", "level"],
        sure: "five jobs within 30 s, each with node and time",
    },
    Row {
        what: "The first abnormal death among ranks (agent)",
        job: "first",
        find: |events| {
            let mut first = of(events, "process_died").filter(|e| e["step"] == "0" && e["first"] == true);
            first.next().filter(|e| e["task"] == 2 && e["signal"] == 6 && first.next().is_none())
        },
        show: &["event_type", "source", "step", "task", "command", "signal", "first"],
        sure: "rank 2, and no other is called the first",
    },
    Row {
        what: "The exact peak of memory, however short",
        job: "spike",
        find: |events| {
            of(events, "task_exited")
                .find(|e| (150 * MIB..180 * MIB).contains(&number(&e["memory"]["cgroup_peak_bytes"])))
        },
        show: &["event_type", "step", "memory.cgroup_peak_bytes", "memory.limit_bytes", "memory.clipped"],
        sure: "between 150 and 180 MiB, for a need of 150 MiB that lasted 200 ms",
    },
    Row {
        what: "Peaks of each task, and of the largest process, each under its own name",
        job: "uneven",
        find: |events| {
            let peak = |task: u64| {
                let mut ends = of(events, "task_exited").filter(|e| e["step"] == "0");
                ends.find(|e| e["task"] == task).map(|e| number(&e["memory"]["cgroup_peak_bytes"]))
            };
            let apart = peak(0)? < 60 * MIB && peak(1)? > 120 * MIB;
            let last = of(events, "task_exited").filter(|e| e["step"] == "0").last();
            last.filter(|e| apart && number(&e["memory"]["largest_process_bytes"]) > 120 * MIB)
        },
        show: &["event_type", "step", "memory.cgroup_peak_bytes", "memory.largest_process_bytes"],
        sure: "below 60 MiB for rank 0, above 120 MiB for rank 1, and the largest process above 120 MiB",
    },
    Row {
        what: "CPU time of a step",
        job: "busy",
        find: |events| {
            of(events, "step_ended").find(|e| {
                e["step"] == "0"
                    && (1_900_000..number(&e["duration_us"])).contains(&number(&e["reaped_cpu_us"]))
            })
        },
        show: &["event_type", "step", "duration_us", "reaped_cpu_us"],
        sure: "at least the 2 s for which the program computed, and less than the step lasted",
    },
    Row {
        what: "Which process of a pool in one step crashed: its name, its parent, its task (agent)",
        job: "members",
        find: |events| {
            of(events, "process_died")
                .find(|e| e["step"] == "0" && e["signal"] == 11 && e["command"] == "bash")
        },
        show: &["event_type", "source", "step", "task", "pid", "ppid", "command", "signal", "env"],
        sure: "",
    },
    Row {
        what: "Processes that entered the job from outside (agent)",
        job: "adopted",
        find: |events| of(events, "process_died").find(|e| e["step"] == "extern" && e["signal"] == 11),
        show: &["event_type", "source", "step", "pid", "command", "signal", "first"],
        sure: "",
    },
    Row {
        what: "Kills for memory among them, for which cgroup v1 has no counter when the step ends (agent)",
        job: "adopted-oom",
        find: |events| {
            let none = of(events, "oom_kill").all(|e| e["source"] == "agent");
            of(events, "oom_kill")
                .find(|e| e["step"] == "extern" && e["victims"][0]["command"] == "python3")
                .filter(|_| none)
        },
        show: &["event_type", "source", "step", "level", "limit_bytes", "victims"],
        sure: "",
    },
    Row {
        what: "Attempts of one job do not mix",
        job: "requeue",
        find: |events| {
            let mut ends = of(events, "job_ended").filter(|e| e["step"] == "batch");
            let (first, second) = (ends.next()?, ends.next()?);
            let apart = first["stream"] != second["stream"] && first["signal"] == 15 && ends.next().is_none();
            Some(second).filter(|e| apart && e["exit_code"] == 0)
        },
        show: &["event_type", "step", "stream", "exit_code"],
        sure: "the attempts are written by different streams",
    },
    Row {
        what: "A step whose slurmstepd was killed: a start without an end",
        job: "vanished",
        find: |events| {
            let ends = of(events, "step_ended")
                .chain(of(events, "task_exited"))
                .filter(|e| e["step"] == "0")
                .count();
            of(events, "step_started").find(|e| e["step"] == "0").filter(|_| ends == 0)
        },
        show: &["event_type", "step", "boot", "stepd_pid"],
        sure: "no end of the step and of its task is recorded",
    },
    Row {
        what: "A kill after the first task of the node has ended, which Slurm does not report",
        job: "late-oom",
        find: |events| of(events, "oom_kill").find(|e| e["task"] == 1 && e["reported_by_slurm"] == false),
        show: &["event_type", "step", "task", "count", "level", "limit_bytes", "reported_by_slurm"],
        sure: "Slurm calls the job COMPLETED 0:0",
    },
    Row {
        what: "A step that was killed for memory, of which its script sees exit code 1 at most",
        job: "oom-step",
        find: |events| {
            let well = of(events, "task_exited").any(|e| e["step"] == "batch" && e["exit_code"] == 0);
            of(events, "oom_kill").find(|e| e["step"] == "0" && e["source"] == "plugin").filter(|_| well)
        },
        show: &["event_type", "step", "task", "count", "level", "limit_bytes"],
        sure: "the script's own end is recorded with exit code 0; Slurm calls the job COMPLETED 0:0",
    },
];

/// What only `catalogue::V2` shows: more rows, for the table of releases alone.
pub const V2_ROWS: &[Row] = &[
    Row {
        what: "A step that is killed as a whole, as it has asked for (`memory.oom.group`)",
        job: "oom-group",
        find: |events| {
            let killed = of(events, "task_exited").filter(|e| e["step"] == "0" && e["signal"] == 9);
            let tasks: BTreeSet<u64> = killed.map(|e| number(&e["task"])).collect();
            of(events, "oom_kill")
                .find(|e| e["step"] == "0" && e["source"] == "plugin" && e["oom_group"] == "step")
                .filter(|_| tasks.len() == 2)
        },
        show: &["event_type", "step", "level", "limit_bytes", "oom_group"],
        sure: "both tasks ended with signal 9, the one that only slept, too",
    },
    Row {
        what: "Swap: its limit and its peak",
        job: "swapped",
        find: |events| {
            let none = of(events, "oom_kill").next().is_none();
            let memory = |e: &Value, key: &str| number(&e["memory"][key]);
            of(events, "task_exited").filter(|_| none).find(|e| {
                e["exit_code"] == 0
                    && e["memory"]["limit_bytes"] == 96 * MIB
                    && e["memory"]["swap_limit_bytes"] == 24 * MIB
                    && (MIB..=24 * MIB).contains(&memory(e, "swap_peak_bytes"))
            })
        },
        show: &[
            "event_type",
            "step",
            "exit_code",
            "memory.limit_bytes",
            "memory.clipped",
            "memory.swap_limit_bytes",
            "memory.swap_peak_bytes",
        ],
        sure: "a limit of 24 MiB beside 96 MiB of memory, a peak of 1 MiB at least, and no kill",
    },
];

/// Every row that a job alone can show, on whichever release.
pub fn rows() -> impl Iterator<Item = &'static Row> {
    ROWS.iter().chain(V2_ROWS)
}

/// The event as the table shows it: some fields, and `…` for what is another every time.
pub fn shown(row: &Row, event: &Value) -> String {
    let mut kept = Map::new();
    for path in row.show {
        let (path, other) = path.strip_prefix('~').map_or((*path, false), |path| (path, true));
        let mut from = event;
        for key in path.split('.') {
            from = &from[key];
        }
        if from.is_null() {
            continue;
        }
        let mut into = &mut kept;
        let mut keys = path.split('.').peekable();
        while let Some(key) = keys.next() {
            if keys.peek().is_none() {
                into.insert(key.to_owned(), if other { "…".into() } else { steady(key, from) });
                break;
            }
            let below = into.entry(key).or_insert_with(|| Value::Object(Map::new()));
            let Value::Object(below) = below else { break };
            into = below;
        }
    }
    Value::Object(kept).to_string().replace("\"…\"", "…")
}

fn steady(key: &str, value: &Value) -> Value {
    const OTHER: [&str; 16] = [
        "timestamp",
        "booted_at",
        "pid",
        "ppid",
        "stepd_pid",
        "uid",
        "stream",
        "seq",
        "boot",
        "node",
        "job_id",
        "het_job_id",
        "cgroup",
        "stdout",
        "stderr",
        "local_id",
    ];
    let measured = (key.ends_with("_us") || key.ends_with("_bytes")) && !key.ends_with("limit_bytes");
    match value {
        _ if measured || OTHER.contains(&key) => "…".into(),
        Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), steady(k, v))).collect(),
        Value::Array(values) => values.iter().map(|v| steady("", v)).collect(),
        other => other.clone(),
    }
}

/// How an entry's job is started, in one line of a table.
pub fn command(entry: &Entry) -> String {
    let line = match entry.how {
        How::Sbatch(args, script) => {
            let args: String = args.iter().map(|arg| format!(" {arg}")).collect();
            let script: Vec<&str> = script.lines().filter(|line| !line.is_empty()).collect();
            format!("sbatch{args}: {}", script.join(" ⏎ "))
        }
        How::Srun(args) => format!("srun {}", args.join(" ")),
    };
    format!("`{line}`")
}

/// The file: `found` has the job's command and the event of every row that was found.
pub fn table(found: &[(&Row, String, &Value)]) -> String {
    let mut text = String::from(HEAD);
    for (row, command, event) in found {
        let cell = |text: &str| text.replace('|', "\\|").replace('\n', " ");
        let sure = if row.sure.is_empty() { String::new() } else { format!("<br>Checked: {}.", row.sure) };
        let _ = writeln!(
            text,
            "| {} | {} | `{}`{} |",
            cell(row.what),
            cell(command),
            cell(&shown(row, event)),
            cell(&sure)
        );
    }
    text + TAIL
}

const HEAD: &str = "# What is recorded, shown by real jobs

Written by `INQUEST_UPDATE=1 cargo test -p inquest-tests --test recorded`, which runs these jobs on a private
cluster (Slurm of the machine, cgroup v1, plugin and agent) and fails when an event is missing.
An event is shown with the fields that matter here; `…` is a value that is another every time. What says
(agent) needs `inquest agent` on the node; everything else is the plugin's alone. `⏎` is the end of a line of
the script.

| What is known | Job | Recorded |
|---|---|---|
";

const TAIL: &str = "
Slurm's words in logs are read by the verdict and not recorded.
";
