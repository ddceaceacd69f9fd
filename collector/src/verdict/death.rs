//! The abnormal ends of an attempt, and which of them explains the others.

use std::collections::BTreeMap;

use inquest_journal::{Level, StepId, Victim};
use serde::{Deserialize, Serialize};

use crate::slurm::signal_name;
use crate::story::clocks::Clocks;
use crate::story::{Attempt, EventId, Exit, Moment, Oom, Process, Step, Task};
use crate::units::{bytes, duration};

/// slurmstepd collects ends in batches of 100 ms and nodes' clocks differ, so
/// times closer than this do not order two deaths.
pub(crate) const BLUR_US: i64 = 300_000;

/// How long after a death slurmstepd may notice it.
const NOTICED_US: i64 = 100_000;

/// Deaths on nodes whose clocks nothing compares are not put in order when they are closer than this.
const UNTIED_US: i64 = 1_000_000;

/// How long srun takes to end a step, and a script to notice, after a task
/// has died. A bound for scripts whose code says nothing; where it repeats the
/// step's, the time does not matter.
const ECHO_US: i64 = 10_000_000;

/// A task that ended badly, or in which something was killed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Death {
    /// When it was noticed.
    pub at: Moment,
    /// Since the start of the attempt, in microseconds. Where the clock of its node is known to be
    /// wrong against that of the first node, this is put right and [`Death::at`] is not.
    pub offset_us: i64,
    /// Step.
    pub step: StepId,
    /// Rank.
    pub task: u32,
    /// Process id of the task.
    pub pid: Option<u32>,
    /// Exit code, when it exited.
    pub exit_code: Option<u8>,
    /// Signal, when one ended it.
    pub signal: Option<u8>,
    /// A core was dumped.
    pub core: bool,
    /// Processes of the task killed for memory.
    pub oom_kills: u64,
    /// Who they were.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub victims: Vec<Victim>,
    /// Highest charge of the task's cgroup in bytes.
    pub peak_bytes: Option<u64>,
    /// Memory limit in bytes; none of a node that had no memory left.
    pub limit_bytes: Option<u64>,
    /// Whose limit.
    pub limit_level: Option<Level>,
    /// Whether Slurm's own check can have seen the kill.
    pub reported_by_slurm: Option<bool>,
    /// What the kernel killed as a whole (`memory.oom.group`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_group: Option<Level>,
    /// The events that say so.
    pub evidence: Vec<EventId>,
}

impl Death {
    /// `exit code 3`, `SIGSEGV, core dumped`, `exit code 0`.
    pub fn end(&self) -> String {
        let core = if self.core { ", core dumped" } else { "" };
        match (self.signal, self.exit_code) {
            (Some(signal), _) => format!("{}{core}", signal_name(signal)),
            (None, Some(code)) => format!("exit code {code}"),
            (None, None) => "an end that nobody recorded".into(),
        }
    }

    /// `step 0 task 1 on n2`.
    pub fn place(&self) -> String {
        format!("step {} task {} on {}", self.step, self.task, self.at.node)
    }

    /// `peak 61.2 MiB of a limit of 64.0 MiB (job)`, as far as it is known.
    pub fn memory(&self) -> Option<String> {
        let peak = self.peak_bytes.map(|p| format!("peak {}", bytes(p)));
        let level = self.limit_level.map_or(String::new(), |l| format!(" ({})", level_name(l)));
        match (peak, self.limit_bytes) {
            (Some(peak), Some(limit)) => Some(format!("{peak} of a limit of {}{level}", bytes(limit))),
            (None, Some(limit)) => Some(format!("limit {}{level}", bytes(limit))),
            (peak, None) => peak,
        }
    }

    /// `+1:02` since the start of the job.
    pub fn offset(&self) -> String {
        format!("+{}", duration(self.offset_us))
    }

    fn bad_end(&self) -> bool {
        self.signal.is_some() || self.exit_code != Some(0)
    }

    /// Ended by a signal that somebody sends, or with a code that passes one on.
    fn was_told(&self) -> bool {
        matches!(self.signal, Some(9 | 15)) && self.oom_kills == 0
            || matches!(self.exit_code, Some(137 | 143))
    }
}

/// `job`, `step`, ... as a word.
pub(crate) fn level_name(level: Level) -> &'static str {
    match level {
        Level::Task => "task",
        Level::Step => "step",
        Level::Job => "job",
        Level::Host => "node",
    }
}

/// Puts moments of all nodes on one scale: since the first event, in microseconds. Inside one boot
/// of a node the boot clock counts, from the first event there; only that one is placed by the wall
/// clock, put right where it is known to be wrong.
struct Scale<'a> {
    zero: Option<&'a Moment>,
    clocks: &'a Clocks,
    first: BTreeMap<(&'a str, &'a str), &'a Moment>,
}

impl<'a> Scale<'a> {
    fn of(attempt: &'a Attempt, clocks: &'a Clocks) -> Scale<'a> {
        let mut first: BTreeMap<_, &Moment> = BTreeMap::new();
        let begun = attempt.steps.values().flat_map(|s| s.nodes.values()).filter_map(|p| p.started.as_ref());
        for at in begun {
            let known = first.entry((&*at.node, &*at.boot)).or_insert(at);
            if at.mono_us < known.mono_us {
                *known = at;
            }
        }
        Scale { zero: attempt.started.as_ref(), clocks, first }
    }

    fn offset(&self, at: &Moment) -> i64 {
        let Some(zero) = self.zero else { return 0 };
        let first = self.first.get(&(&*at.node, &*at.boot)).copied().unwrap_or(at);
        self.clocks.since(first, zero).0.saturating_add(at.since(first))
    }
}

/// All abnormal ends of an attempt in the order of their time, kills for
/// memory in a task that ended well among them.
pub fn deaths(attempt: &Attempt, clocks: &Clocks) -> Vec<Death> {
    let scale = Scale::of(attempt, clocks);
    let mut deaths = Vec::new();
    for (&id, step) in &attempt.steps {
        for (&rank, task) in &step.tasks {
            let ooms: Vec<&Oom> =
                attempt.oom.iter().filter(|o| o.step == Some(id) && o.task == Some(rank)).collect();
            let orphaned = || attempt.orphans().any(|o| o.step == id && *o.node == *task.node);
            let outside = match &task.exit {
                Some(_) => None,
                None => seen_outside(attempt, id, task, &ooms).filter(|_| orphaned()),
            };
            let Some(exit) = task.exit.as_ref().or(outside.as_ref()) else { continue };
            if exit.is_clean() && exit.oom_kills == 0 && ooms.is_empty() {
                continue;
            }
            deaths.push(death(&scale, (id, step), rank, exit, &ooms));
        }
    }
    deaths.sort_by(|a, b| a.offset_us.cmp(&b.offset_us).then(a.at.event.cmp(&b.at.event)));
    chosen_first(&mut deaths);
    deaths
}

/// The end of a task in which the kernel has killed, where no slurmstepd was left to record it.
fn seen_outside(attempt: &Attempt, id: StepId, task: &Task, ooms: &[&Oom]) -> Option<Exit> {
    let itself = |p: &&Process| p.step == Some(id) && p.at.node == task.node && p.died.pid == task.pid;
    let died = attempt.processes.iter().find(itself).filter(|_| task.pid.is_some());
    let killed = task.pid.is_some_and(|pid| ooms.iter().any(|o| o.names(pid)));
    Some(Exit {
        at: died.map(|p| &p.at).or(ooms.last().map(|o| &o.at)).filter(|_| !ooms.is_empty())?.clone(),
        code: died.and_then(|p| p.died.exit_code),
        signal: died.and_then(|p| p.died.signal).or(killed.then_some(9)),
        core: died.is_some_and(|p| p.died.core),
        duration_us: None,
        oom_kills: 0,
        memory: inquest_journal::Memory::default(),
    })
}

/// Where the kernel has killed a step as a whole, the task whose process it had chosen goes before the
/// others, whichever was collected first: of that process alone the kernel says where it lived.
fn chosen_first(deaths: &mut [Death]) {
    let chosen = |d: &Death| d.victims.iter().any(|v| v.cgroup.is_some());
    for at in 0..deaths.len() {
        let first = &deaths[at];
        if first.oom_group.is_none() || chosen(first) {
            continue;
        }
        let same = |d: &Death| d.oom_group.is_some() && d.step == first.step && d.at.node == first.at.node;
        if let Some(further) = deaths[at..].iter().position(|d| same(d) && chosen(d)) {
            deaths[at..=at + further].rotate_right(1);
        }
    }
}

fn death(scale: &Scale<'_>, (id, step): (StepId, &Step), rank: u32, exit: &Exit, ooms: &[&Oom]) -> Death {
    let task = &step.tasks[&rank];
    let memory = &exit.memory;
    let mut evidence: Vec<EventId> = ooms.iter().map(|o| o.at.event.clone()).collect();
    evidence.push(exit.at.event.clone());
    let victims = victims(ooms);
    // The agent knows of a node without memory; the plugin alone may not.
    let of_node = ooms.iter().any(|o| o.level == Some(Level::Host)).then_some(Level::Host);
    let level = of_node.or_else(|| ooms.iter().find_map(|o| o.level)).or(memory.limit_level);
    let node_limit = step.nodes.get(&task.node).and_then(|n| n.limit_bytes);
    let limit = ooms.iter().find_map(|o| o.limit_bytes).or(memory.limit_bytes).or(node_limit);
    Death {
        offset_us: scale.offset(&exit.at),
        at: exit.at.clone(),
        step: id,
        task: rank,
        pid: task.pid,
        exit_code: exit.code,
        signal: exit.signal,
        core: exit.core,
        oom_kills: exit.oom_kills.max(kills(ooms)),
        victims,
        peak_bytes: ooms.iter().find_map(|o| o.peak_bytes).or(memory.cgroup_peak_bytes),
        limit_bytes: limit.filter(|_| of_node.is_none()),
        limit_level: level,
        reported_by_slurm: ooms.iter().find_map(|o| o.reported_by_slurm),
        oom_group: ooms.iter().find_map(|o| o.oom_group),
        evidence,
    }
}

/// How many processes were killed. Plugin and agent both tell of the same
/// kill; what one writer tells adds up, what two tell does not.
fn kills(ooms: &[&Oom]) -> u64 {
    let mut by_writer: BTreeMap<&str, u64> = BTreeMap::new();
    for oom in ooms {
        *by_writer.entry(&oom.at.event.stream).or_default() += oom.count;
    }
    by_writer.into_values().max().unwrap_or(0)
}

/// Who they were, each once.
fn victims(ooms: &[&Oom]) -> Vec<Victim> {
    let mut all: Vec<Victim> = Vec::new();
    for victim in ooms.iter().flat_map(|o| &o.victims) {
        if victim.pid.is_none() || all.iter().all(|v| v.pid != victim.pid) {
            all.push(victim.clone());
        }
    }
    all
}

/// The death that explains how the job ended: inside the step that ended it,
/// the earliest; among those too close to order, the one that was not told to
/// die. A job script that fails right after one of its steps has only passed
/// that failure on, and so has one that fails with the code of its last failed step,
/// however long srun took to tell it.
pub(crate) fn first(attempt: &Attempt, deaths: &[Death]) -> Option<usize> {
    let script = deaths.iter().position(|d| matches!(d.step, StepId::Batch | StepId::Interactive));
    let steps: Vec<usize> = (0..deaths.len()).filter(|i| Some(*i) != script).collect();
    let Some(script) = script else {
        let ended_well = attempt.batch_exit().is_some_and(Exit::is_clean);
        // A step's exit code that the script dealt with explains nothing.
        let telling = steps.into_iter().filter(|&i| {
            !ended_well || deaths[i].oom_kills > 0 || deaths[i].signal.is_some_and(|s| s != 15 && s != 9)
        });
        return earliest(deaths, telling.collect());
    };
    if deaths[script].oom_kills > 0 {
        return Some(script);
    }
    // srun waits for a step that lost its slurmstepd until somebody ends the job.
    let unheard = |d: &Death| {
        let task = attempt.steps.get(&d.step).and_then(|s| s.tasks.get(&d.task));
        d.oom_kills > 0 && task.is_some_and(|t| t.exit.is_none())
    };
    let waited = steps.iter().copied().filter(|&i| deaths[script].was_told() && unheard(&deaths[i]));
    if let Some(first) = earliest(deaths, waited.collect()) {
        return Some(first);
    }
    let repeated = repeated(deaths, script, &steps);
    // The ranks of a step may die one after another: it is the last of them that the script has waited for.
    let soon = |i: usize| deaths[script].offset_us - deaths[i].offset_us <= ECHO_US;
    let waited_for = |step: StepId| steps.iter().any(|&i| deaths[i].step == step && soon(i));
    let passed_on =
        steps.iter().copied().filter(|&i| waited_for(deaths[i].step) || Some(deaths[i].step) == repeated);
    earliest(deaths, passed_on.collect()).or(Some(script))
}

/// The step whose code the script has ended with, if it is the last that failed. srun ends with the
/// code of a task, or with 128 and its signal (srun(1), exit status). Every program ends with 1, so
/// that code says nothing.
fn repeated(deaths: &[Death], script: usize, steps: &[usize]) -> Option<StepId> {
    let code = deaths[script].exit_code.filter(|&code| code > 1)?;
    let last = deaths[*steps.iter().max_by_key(|&&i| deaths[i].offset_us)?].step;
    let of_srun = |d: &Death| d.exit_code.or(d.signal.map(|signal| signal.saturating_add(128)));
    let says = |&&i: &&usize| deaths[i].step == last && of_srun(&deaths[i]) == Some(code);
    steps.iter().find(says).map(|_| last)
}

fn earliest(deaths: &[Death], among: Vec<usize>) -> Option<usize> {
    let start = among.iter().map(|&i| deaths[i].offset_us).min()?;
    let close = |i: &usize| deaths[*i].offset_us - start <= BLUR_US;
    let blurred: Vec<usize> = among.into_iter().filter(close).collect();
    let own = |i: &&usize| !deaths[**i].was_told();
    // A kill for memory before anything else that happened at the same time.
    let oom = blurred.iter().find(|i| deaths[**i].oom_kills > 0);
    oom.or_else(|| blurred.iter().find(own)).or_else(|| blurred.first()).copied()
}

/// Deaths that may have come before the first one: of other nodes, by a fault of their own, and so
/// close to it that the clocks do not order them. The events that tell of them, and how far the
/// clocks may be wrong; `None` where nothing compares them.
pub(crate) fn unordered(clocks: &Clocks, deaths: &[Death], first: usize) -> Vec<(usize, Option<i64>)> {
    let first = &deaths[first];
    let script = |d: &Death| matches!(d.step, StepId::Batch | StepId::Interactive);
    let rivals = deaths.iter().enumerate().filter(|(_, d)| d.at.node != first.at.node);
    let rivals = rivals.filter(|(_, d)| !script(d) && !script(first) && !d.was_told());
    rivals
        .filter_map(|(index, d)| {
            let bound = clocks.since(&d.at, &first.at).1;
            let close = bound.map_or(UNTIED_US, |us| us.saturating_add(NOTICED_US));
            ((d.offset_us - first.offset_us).saturating_abs() <= close).then_some((index, bound))
        })
        .collect()
}

impl Death {
    /// The death ended the task itself, not only a child of it.
    pub fn is_of_the_task(&self) -> bool {
        self.bad_end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::story::EventId;
    use inquest_journal::Timestamp;

    fn oom(stream: &str, seq: u64, pid: u32) -> Oom {
        let event = EventId { stream: stream.into(), seq };
        Oom {
            at: Moment { wall: Timestamp(0), node: "n1".into(), boot: "b".into(), mono_us: seq, event },
            step: Some(StepId::Batch),
            task: Some(0),
            count: 1,
            level: None,
            limit_bytes: None,
            peak_bytes: None,
            victims: vec![Victim { pid: Some(pid), ..Victim::default() }],
            reported_by_slurm: None,
            oom_group: None,
        }
    }

    fn died(step: StepId, task: u32, second: i64, exit_code: Option<u8>, signal: Option<u8>) -> Death {
        let event = EventId { stream: step.to_string().into(), seq: u64::from(task) };
        let wall = Timestamp(second * 1_000_000);
        Death {
            at: Moment { wall, node: "n1".into(), boot: "b".into(), mono_us: wall.0.unsigned_abs(), event },
            offset_us: wall.0,
            step,
            task,
            pid: None,
            exit_code,
            signal,
            core: false,
            oom_kills: 0,
            victims: Vec::new(),
            peak_bytes: None,
            limit_bytes: None,
            limit_level: None,
            reported_by_slurm: None,
            oom_group: None,
            evidence: Vec::new(),
        }
    }

    #[test]
    fn a_script_passes_on_the_failure_of_a_step_soon_or_with_its_code() {
        let step = StepId::Number(0);
        let first_with = |script: Option<u8>, second: i64, later: Option<Death>| {
            let mut deaths = vec![died(step, 1, 1, Some(5), None), died(step, 0, 3, None, Some(15))];
            deaths.extend(later);
            deaths.push(died(StepId::Batch, 0, second, script, None));
            deaths[first(&Attempt::default(), &deaths).unwrap()].step
        };
        // Soon, whatever it says; late with 128 and the signal of rank 0, or with the code of rank 1.
        assert_eq!(first_with(Some(1), 8, None), step);
        for code in [143, 5] {
            assert_eq!(first_with(Some(code), 60, None), step);
        }
        // Late with a code of its own, or with one that any program has.
        for code in [7, 1] {
            assert_eq!(first_with(Some(code), 60, None), StepId::Batch);
        }
        // The ranks died one after another, and the script soon after the last of them.
        let mut slow = vec![died(step, 2, 1, None, Some(6)), died(step, 3, 60, Some(1), None)];
        slow.push(died(StepId::Batch, 0, 61, Some(1), None));
        assert_eq!(first(&Attempt::default(), &slow), Some(0));
        // Another step has failed since.
        let later = died(StepId::Number(1), 0, 20, Some(3), None);
        assert_eq!(first_with(Some(143), 60, Some(later)), StepId::Batch);
    }

    #[test]
    fn whom_the_kernel_chose_goes_before_those_who_died_with_it() {
        let killed = |task, second, node: &str, cgroup: Option<&str>| {
            let mut death = died(StepId::Number(0), task, second, None, Some(9));
            death.at.node = node.into();
            death.oom_group = Some(Level::Step);
            death.victims = vec![Victim { cgroup: cgroup.map(str::to_owned), ..Victim::default() }];
            death
        };
        let mut deaths = [
            died(StepId::Number(0), 9, 0, Some(1), None),
            killed(0, 1, "n1", None),
            killed(1, 2, "n1", None),
            killed(4, 3, "n2", Some("/task_4")),
            killed(2, 4, "n1", Some("/task_2")),
        ];
        chosen_first(&mut deaths);
        assert_eq!(deaths.each_ref().map(|d| d.task), [9, 2, 0, 1, 4]);
    }

    #[test]
    fn what_plugin_and_agent_both_tell_happened_once() {
        let ooms = [oom("plugin", 3, 42), oom("agent", 9, 42), oom("agent", 10, 43)];
        let ooms: Vec<&Oom> = ooms.iter().collect();
        assert_eq!(kills(&ooms), 2);
        let pids: Vec<_> = victims(&ooms).iter().map(|v| v.pid).collect();
        assert_eq!(pids, [Some(42), Some(43)]);
        assert_eq!(kills(&[]), 0);
    }
}
