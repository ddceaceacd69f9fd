/*!
What happened in a run in the order of true time, and what happened together:
failures in one short time (bursts), and nodes on which jobs fail that succeed
elsewhere.
*/

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;

use inquest_journal::{Body, JobId, Source, StepId, Timestamp};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::nodes::BadNode;
use super::table::Table;
use super::{JSON_SCHEMA, clean, clock, events, ids, nodes, time};
use crate::runs::{Member, RunState};
use crate::slurm::hostlist;
use crate::store::Line;
use crate::story::clocks::{Clocks, Skew, seconds};
use crate::units::{count, duration};
use crate::verdict::{Class, Unordered};

/// So many failures make a burst ...
pub const BURST: usize = 3;
/// ... when they are within so many microseconds.
pub const BURST_US: i64 = 60_000_000;

/// A line of the timeline.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// When, by the clock of the node.
    pub utc: Timestamp,
    /// Since the start of the run, in microseconds; a clock that is known to be wrong is put right.
    pub offset_us: i64,
    /// `START`, `DONE`, `OOM`, ...
    pub event: &'static str,
    /// As it is stored.
    pub event_type: String,
    /// Where.
    pub node: String,
    /// Job as people write it; absent for the run itself.
    pub job: Option<String>,
    /// The job's own id.
    pub job_id: Option<JobId>,
    /// Step.
    pub step: Option<StepId>,
    /// Rank.
    pub task: Option<u32>,
    /// What became of the job, where that is what happened.
    pub class: Option<Class>,
    /// Deaths that may have come before the first, where that is the end of a job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unordered: Option<Unordered>,
    /// More.
    pub detail: String,
    /// Something died.
    #[serde(skip)]
    bad: bool,
    /// Which attempt of the job ended with it.
    #[serde(skip)]
    attempt: Option<u64>,
    /// Who saw it.
    #[serde(skip)]
    source: Source,
}

/// Failures close together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Burst {
    /// The first.
    pub from: Timestamp,
    /// From the first to the last, in microseconds.
    pub length_us: i64,
    /// How many.
    pub failures: usize,
    /// Whose, folded.
    pub jobs: String,
    /// Where, folded.
    pub nodes: String,
    /// Of which classes.
    pub classes: BTreeSet<Class>,
}

/// Collects the lines of a timeline.
#[derive(Debug)]
pub struct Timeline<'a> {
    run: &'a RunState,
    members: BTreeMap<JobId, &'a Member>,
    whole_run: bool,
    every: bool,
    entries: Vec<Entry>,
    /// Where the end of an attempt is among them, until they are put in order.
    ended: HashMap<(Option<JobId>, u64), usize>,
    nodes: BTreeMap<String, usize>,
    /// When nodes began a step, or (`true`) ended one: what several were told at the same time.
    told: BTreeMap<(JobId, StepId, bool), Vec<(usize, Timestamp)>>,
    wrong: Vec<Skew>,
    /// Nodes where jobs fail more often than elsewhere.
    bad_nodes: Vec<BadNode>,
    /// Lines that were left out because they were too far away.
    far: usize,
}

/// What is needed of the collector's own events.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Ended {
    n_errors: Option<u64>,
    attempt: Option<u64>,
    verdict: Option<Said>,
}

#[derive(Deserialize)]
struct Said {
    class: Class,
    #[serde(default)]
    first_failure: Option<FirstFailure>,
    #[serde(default)]
    unordered: Option<Unordered>,
}

#[derive(Deserialize)]
struct FirstFailure {
    at: At,
}

#[derive(Deserialize)]
struct At {
    node: String,
}

impl<'a> Timeline<'a> {
    /// A timeline of these members. `every` takes starts and clean ends of
    /// steps and tasks too.
    pub fn new(run: &'a RunState, members: &[u32], every: bool) -> Timeline<'a> {
        let whole_run = members.len() == run.members.len();
        let members = members.iter().filter_map(|n| run.members.get(n)).map(|m| (m.job_id, m)).collect();
        Timeline {
            run,
            members,
            whole_run,
            every,
            entries: Vec::new(),
            ended: HashMap::new(),
            nodes: BTreeMap::new(),
            told: BTreeMap::new(),
            wrong: Vec::new(),
            bad_nodes: Vec::new(),
            far: 0,
        }
    }

    /// Takes an event of the run's file.
    pub fn add(&mut self, line: &Line<'_>, raw: &[u8]) {
        let member = line.job_id.and_then(|id| self.members.get(&id).copied());
        if member.is_none() && (line.job_id.is_some() || !self.whole_run) {
            return;
        }
        self.note_told(line);
        let ended: Ended = match &*line.event_type {
            "chunk_failed" | "chunk_completed" | "run_failed" => {
                serde_json::from_slice(raw).unwrap_or_default()
            }
            _ => Ended::default(),
        };
        let class = ended.verdict.as_ref().map(|v| v.class);
        let Some((event, bad)) = tag(line, raw, class, self.every) else { return };
        let detail = match &*line.event_type {
            "run_started" => "the run begins".into(),
            "run_completed" => "the run ends: all jobs ended well".into(),
            "run_failed" => {
                format!("the run ends: {} failed", count(ended.n_errors.unwrap_or(0), "job", "jobs"))
            }
            _ => events::detail(line, raw),
        };
        let (death, unordered) = ended.verdict.map_or((None, None), |v| (v.first_failure, v.unordered));
        let node = death.map_or(line.node.to_string(), |f| f.at.node);
        let entry = Entry {
            utc: line.utc,
            offset_us: line.utc.since(self.run.started),
            event,
            event_type: line.event_type.to_string(),
            node,
            job: member.map(|m| m.display_id()),
            job_id: line.job_id,
            step: line.step,
            task: line.task,
            class,
            unordered,
            detail,
            bad,
            attempt: ended.attempt,
            source: line.source,
        };
        // A verdict that was revised takes the place of the one before.
        let next = self.entries.len();
        let end = entry.attempt.filter(|_| entry.class.is_some());
        match end.map(|attempt| *self.ended.entry((entry.job_id, attempt)).or_insert(next)) {
            Some(at) if at < next => self.entries[at] = entry,
            _ => self.entries.push(entry),
        }
    }

    /// Puts the lines in order and, with a number of seconds, keeps those so
    /// close to a failure.
    pub fn finish(&mut self, around_s: Option<u64>) {
        self.wrong = self.clocks().wrong();
        let ahead: BTreeMap<&str, i64> = self.wrong.iter().map(|w| (w.node.as_str(), w.ahead_us)).collect();
        for entry in &mut self.entries {
            entry.offset_us -= ahead.get(entry.node.as_str()).unwrap_or(&0);
        }
        // Stable, so that what the journals order stays in order.
        self.entries.sort_by_key(|e| e.offset_us);
        self.say_once();
        // What is left out below ended as well somewhere.
        self.bad_nodes = nodes::bad(self.ends().map(|(entry, class)| (entry.node.as_str(), class)));
        let Some(around_s) = around_s else { return };
        let window = i64::try_from(around_s).unwrap_or(i64::MAX).saturating_mul(1_000_000);
        let bad: Vec<i64> = self.entries.iter().filter(|e| e.bad).map(|e| e.offset_us).collect();
        let before = self.entries.len();
        self.entries.retain(|e| {
            // Failures are in order: only the two neighbours can be near.
            let at = bad.partition_point(|b| *b < e.offset_us);
            let near = |b: &i64| (b - e.offset_us).abs() <= window;
            bad.get(at).is_some_and(near) || at > 0 && near(&bad[at - 1])
        });
        self.far = before - self.entries.len();
    }

    /// Keeps when a node began a step, or ended the one that lasts as long as the job is on it.
    fn note_told(&mut self, line: &Line<'_>) {
        let ends = match &*line.event_type {
            "step_started" => false,
            "step_ended" => true,
            _ => return,
        };
        let (Some(job), Some(step)) = (line.job_id, line.step) else { return };
        if matches!(step, StepId::Batch | StepId::Interactive) || ends && step != StepId::Extern {
            return;
        }
        let next = self.nodes.len();
        let node = match self.nodes.get(&*line.node) {
            Some(&node) => node,
            None => *self.nodes.entry(line.node.to_string()).or_insert(next),
        };
        let told = self.told.entry((job, step, ends)).or_default();
        // What comes again is of the next attempt.
        if told.iter().any(|(known, _)| *known == node) {
            told.clear();
        }
        told.push((node, line.utc));
    }

    fn clocks(&self) -> Clocks {
        let names: BTreeMap<usize, &String> = self.nodes.iter().map(|(name, n)| (*n, name)).collect();
        let mut clocks = Clocks::default();
        for (&(_, step, ends), told) in self.told.iter().filter(|(_, t)| t.len() > 1) {
            let at = told.iter().filter_map(|(n, at)| Some(((*names.get(n)?).clone(), *at)));
            clocks.add(step, ends, at.collect());
        }
        clocks
    }

    /// A run whose jobs come one after the other ends and goes on many times, and a kill may have two
    /// witnesses, the plugin and the agent: each is told once. Kills of which one witness told are as many as it
    /// told of, also in the same words.
    fn say_once(&mut self) {
        let ends = |e: &Entry| matches!(&*e.event_type, "run_completed" | "run_failed");
        let last_end = self.entries.iter().rposition(ends);
        let mut began = false;
        let mut attempts: BTreeMap<Option<JobId>, u32> = BTreeMap::new();
        // Told by the plugin, by others, and kept.
        let mut kills: BTreeMap<_, [u32; 3]> = BTreeMap::new();
        let mut at = 0;
        self.entries.retain(|e| {
            at += 1;
            match &*e.event_type {
                "run_started" => !std::mem::replace(&mut began, true),
                "run_completed" | "run_failed" => last_end == Some(at - 1),
                "chunk_requeued" | "chunk_retried" => {
                    *attempts.entry(e.job_id).or_default() += 1;
                    true
                }
                "oom_kill" => {
                    let attempt = attempts.get(&e.job_id).copied();
                    let told =
                        kills.entry((e.job_id, attempt, e.step, e.task, e.detail.clone())).or_default();
                    let by = usize::from(e.source != Source::Plugin);
                    told[by] += 1;
                    let new = told[by] > told[2];
                    told[2] += u32::from(new);
                    new
                }
                _ => true,
            }
        });
    }

    /// Whether a job failed.
    pub fn failed(&self) -> bool {
        self.members.values().any(|m| m.verdict.as_ref().is_some_and(|v| v.class != Class::Ok))
    }

    /// Ends of jobs.
    fn ends(&self) -> impl Iterator<Item = (&Entry, Class)> {
        self.entries.iter().filter_map(|e| Some((e, e.class?)))
    }

    /// Failures close together.
    pub fn bursts(&self) -> Vec<Burst> {
        let failures: Vec<(&Entry, Class)> = self.ends().filter(|(_, c)| *c != Class::Ok).collect();
        let mut bursts = Vec::new();
        let mut rest = failures.as_slice();
        while let Some(((first, _), _)) = rest.split_first() {
            let len = rest.iter().take_while(|(e, _)| e.offset_us - first.offset_us <= BURST_US).count();
            let (close, after) = rest.split_at(len);
            if len < BURST {
                rest = &rest[1..];
                continue;
            }
            let nodes: BTreeSet<&str> = close.iter().map(|(e, _)| e.node.as_str()).collect();
            let jobs = close.iter().filter_map(|(e, _)| self.members.get(&e.job_id?)).map(|m| id(m));
            bursts.push(Burst {
                from: first.utc,
                length_us: close.last().map_or(0, |(e, _)| e.offset_us - first.offset_us),
                failures: len,
                jobs: ids::fold(jobs),
                nodes: hostlist::fold(nodes),
                classes: close.iter().map(|(_, c)| *c).collect(),
            });
            rest = after;
        }
        bursts
    }

    /// One row per event.
    pub fn table(&self, zone: &TimeZone) -> Table {
        let names = ["TIME", "OFFSET", "EVENT", "NODE", "JOB", "STEP", "TASK", "CLASS", "DETAIL"];
        let mut table = Table::new(&names).spare(&["CLASS"]);
        let days = self.run.last.since(self.run.started) >= 86_400_000_000;
        let dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        for e in &self.entries {
            let at = if days { time(e.utc, zone) } else { clock(e.utc, zone) };
            let sign = if e.offset_us < 0 { "" } else { "+" };
            table.row(vec![
                at,
                format!("{sign}{}", duration(e.offset_us)),
                e.event.into(),
                if e.event_type.starts_with("run_") { "-".into() } else { clean(&e.node) },
                dash(e.job.clone()),
                dash(e.step.map(|s| s.to_string())),
                dash(e.task.map(|t| t.to_string())),
                dash(e.class.map(|c| c.to_string())),
                e.detail.clone(),
            ]);
        }
        table
    }

    /// What happened together, in sentences; empty when nothing did.
    pub fn remarks(&self, zone: &TimeZone) -> String {
        let mut out = String::new();
        for b in self.bursts() {
            let classes: Vec<String> = b.classes.iter().map(Class::to_string).collect();
            let _ = writeln!(
                out,
                "Burst: {} failures ({}) within {} from {}: {} on {}",
                b.failures,
                classes.join(", "),
                duration(b.length_us),
                clock(b.from, zone),
                b.jobs,
                clean(&b.nodes)
            );
        }
        for n in &self.bad_nodes {
            let _ = writeln!(out, "Node {}: {}", clean(&n.node), n.says());
        }
        for wrong in &self.wrong {
            let _ = writeln!(out, "Clock: {}; offsets are put right by that", clean(&wrong.to_string()));
        }
        for entry in &self.entries {
            let (Some(unordered), Some(job)) = (&entry.unordered, &entry.job) else { continue };
            let how = unordered.within_us.map_or("their clocks cannot be compared".into(), |us| {
                format!("order between its nodes is uncertain within {}", seconds(us))
            });
            let _ = writeln!(out, "Order: which task of {job} failed first is not known: {how}");
        }
        if self.far > 0 {
            let _ = writeln!(
                out,
                "{} left out",
                count(self.far, "event further from a failure is", "events further from a failure are")
            );
        }
        out
    }

    /// All of it as JSON.
    pub fn json(&self) -> Value {
        json!({
            "schema": JSON_SCHEMA,
            "run_id": self.run.run_id,
            "started": self.run.started,
            "events": self.entries,
            "left_out": self.far,
            "bursts": self.bursts(),
            "nodes": self.bad_nodes,
            "clocks": self.wrong,
        })
    }
}

fn id(member: &Member) -> (u32, Option<(u32, u32)>) {
    (member.job_id.0, member.array_job_id.map(|a| a.0).zip(member.array_task_id))
}

/// What an event that a person wants to see at once says: its word, whether
/// something died, and what became of the job where it tells that.
pub(crate) fn told(line: &Line<'_>, raw: &[u8]) -> Option<(&'static str, bool, Option<Class>)> {
    let ended: Ended = match &*line.event_type {
        "chunk_failed" | "chunk_completed" => serde_json::from_slice(raw).unwrap_or_default(),
        _ => Ended::default(),
    };
    let class = ended.verdict.map(|v| v.class);
    tag(line, raw, class, false).map(|(word, bad)| (word, bad, class))
}

/// The word for an event and whether something died; `None` leaves it out.
fn tag(line: &Line<'_>, raw: &[u8], class: Option<Class>, every: bool) -> Option<(&'static str, bool)> {
    let quiet = |word| every.then_some((word, false));
    match &*line.event_type {
        "run_started" | "chunk_started" => Some(("START", false)),
        "run_completed" | "chunk_completed" => Some(("DONE", false)),
        "run_failed" => Some(("FAIL", false)),
        "chunk_failed" => Some((of_class(class.unwrap_or(Class::Unknown)), true)),
        "chunk_requeued" => Some(("REQUEUE", false)),
        "chunk_retried" => Some(("RETRY", false)),
        "oom_kill" => Some(("KILL", true)),
        "process_died" => Some(("DIED", true)),
        "memory_high" => Some(("HIGH", false)),
        "node_booted" => Some(("BOOT", false)),
        "note" => Some(("NOTE", false)),
        "lost" => Some(("LOST", false)),
        "task_exited" => match line.body(raw)? {
            Body::TaskExited(b) if b.signal.is_some() || b.exit_code != Some(0) => Some(("DIED", true)),
            _ => quiet("EXIT"),
        },
        "job_started" | "step_started" | "task_started" => quiet("BEGIN"),
        "job_ended" | "step_ended" => quiet("END"),
        _ => quiet("EVENT"),
    }
}

fn of_class(class: Class) -> &'static str {
    match class {
        Class::Ok => "DONE",
        Class::Oom => "OOM",
        Class::Timeout => "TIMEOUT",
        Class::Crash => "CRASH",
        Class::Cancelled => "CANCEL",
        Class::Preempted => "PREEMPT",
        Class::Infra => "INFRA",
        Class::AppError | Class::Dependency | Class::Validation | Class::Unknown => "FAIL",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::run;

    fn add(timeline: &mut Timeline<'_>, event: &str, source: &str, at: i64, more: &Value) {
        let utc = Timestamp(at).to_string();
        let mut line = json!({
            "run_id": "r", "chunk_id": 1, "utc": utc, "timestamp": utc, "v": 1, "event_type": event,
            "severity": "error", "source": source, "cluster": "lab", "node": "n1", "boot": "0badc0de",
            "mono_us": at, "stream": "s", "seq": at, "job_id": "1", "step": "batch",
        });
        line.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let raw = line.to_string();
        timeline.add(&serde_json::from_str(&raw).unwrap(), raw.as_bytes());
    }

    /// Looking for each end among all before it would take longer than a test may.
    #[test]
    fn many_ends_and_the_revision_of_one() {
        const ENDS: i64 = 150_000;
        let run = run(1);
        let mut timeline = Timeline::new(&run, &[1], false);
        for attempt in (1..=ENDS).chain([7]) {
            let class = if attempt == 7 { "oom" } else { "app_error" };
            let said = json!({ "attempt": attempt, "verdict": { "class": class } });
            add(&mut timeline, "chunk_failed", "collector", attempt, &said);
        }
        timeline.finish(None);
        assert_eq!(timeline.entries.len(), ENDS as usize);
        assert_eq!(timeline.entries[6].class, Some(Class::Oom));
    }

    #[test]
    fn a_kill_is_told_once_and_two_kills_twice() {
        let run = run(1);
        let mut timeline = Timeline::new(&run, &[1], false);
        let kill = json!({ "task": 0, "count": 1, "limit_bytes": 1_048_576 });
        // Two kills with the same words, both told by both witnesses.
        for (at, source) in [(1, "agent"), (2, "agent"), (3, "plugin"), (4, "plugin")] {
            add(&mut timeline, "oom_kill", source, at, &kill);
        }
        add(&mut timeline, "chunk_requeued", "collector", 5, &json!({}));
        // In the next attempt only one of them was there.
        add(&mut timeline, "oom_kill", "agent", 6, &kill);
        add(&mut timeline, "oom_kill", "plugin", 7, &json!({ "task": 1, "count": 1 }));
        timeline.finish(None);
        let kills = timeline.entries.iter().filter(|e| e.event == "KILL").count();
        assert_eq!(kills, 4);
    }
}
