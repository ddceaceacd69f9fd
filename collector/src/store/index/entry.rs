//! One attempt of a job as the index knows it.

use std::collections::BTreeSet;

use inquest_journal::{JobId, Timestamp};
use serde::{Serialize, Serializer};

use crate::slurm::hostlist;
use crate::story::{Attempt, Story};
use crate::verdict::{Class, Confidence, Verdict, judge_earlier};

/// Bytes of a message that are kept; the verdict has it whole.
const MESSAGE_MAX: usize = 400;

/// One attempt of a job.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    /// Which attempt, from 1.
    pub attempt: u32,
    /// Name of the job.
    pub name: Option<String>,
    /// Account that pays.
    pub account: Option<String>,
    /// Partition.
    pub partition: Option<String>,
    /// First event.
    pub started: Timestamp,
    /// Newest event.
    pub last: Timestamp,
    /// How it ended; absent while it runs.
    #[serde(flatten)]
    pub end: Option<End>,
    /// Exit code of what failed first, else of the job script.
    pub exit_code: Option<u8>,
    /// Signal that ended what failed first, else the job script.
    pub signal: Option<u8>,
    /// Where the first failure was; the first node of the job when no death
    /// is known.
    pub node: Option<String>,
    /// Nodes with at least one event, folded in JSON.
    #[serde(serialize_with = "folded")]
    pub nodes: BTreeSet<String>,
    /// Nodes of the allocation.
    pub node_count: u32,
    /// Time from first to newest event, times the nodes, in microseconds.
    pub node_us: i64,
    /// Highest charge of memory in bytes.
    pub peak_bytes: Option<u64>,
    /// Highest memory limit that applied to a step of it, in bytes.
    pub limit_bytes: Option<u64>,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct End {
    /// When: its newest event.
    pub ended: Timestamp,
    /// For counting.
    pub class: Class,
    /// For acting.
    pub cause: String,
    /// One word for tables.
    pub label: String,
    /// How sure that is.
    pub confidence: Confidence,
    /// The same for the same failure in other jobs; absent when all was well.
    pub fingerprint: Option<String>,
    /// Why, in one line; absent when all was well.
    pub message: Option<String>,
}

fn folded<S: Serializer>(nodes: &BTreeSet<String>, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&hostlist::fold(nodes.iter().map(String::as_str)))
}

/// A job attempt with its place, as a query gives it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct JobEntry {
    /// Cluster.
    pub cluster: String,
    /// User.
    pub user: String,
    /// Run that it is a member of.
    pub run_id: String,
    /// Its number in the run.
    pub chunk_id: u32,
    /// Its id.
    pub job_id: JobId,
    /// Array it belongs to.
    pub array_job_id: Option<JobId>,
    /// Index in it.
    pub array_task_id: Option<u32>,
    /// The attempt.
    #[serde(flatten)]
    pub entry: Entry,
    /// Its number in the index, for [`super::Filter::before`].
    #[serde(skip)]
    pub id: i64,
}

impl JobEntry {
    /// `123`, or `120_3` for a member of an array.
    pub fn display_id(&self) -> String {
        match (self.array_job_id, self.array_task_id) {
            (Some(array), Some(task)) => format!("{array}_{task}"),
            _ => self.job_id.to_string(),
        }
    }

    /// When it ended; absent while it runs.
    pub fn ended(&self) -> Option<Timestamp> {
        self.entry.end.as_ref().map(|e| e.ended)
    }

    /// Where it stands in an answer, for [`super::Filter::before`].
    pub fn place(&self) -> (Option<Timestamp>, i64) {
        (self.ended(), self.id)
    }

    /// Its class; absent while it runs.
    pub fn class(&self) -> Option<Class> {
        self.entry.end.as_ref().map(|e| e.class)
    }
}

/// All attempts of a story. `verdict` is on the newest one.
pub(super) fn entries(story: &Story, verdict: Option<&Verdict>) -> Vec<Entry> {
    let last = story.attempts.len().saturating_sub(1);
    let each = story.attempts.iter().enumerate().filter_map(|(at, attempt)| {
        let number = u32::try_from(at + 1).unwrap_or(u32::MAX);
        let earlier = (at < last).then(|| judge_earlier(attempt, story));
        entry(number, attempt, earlier.as_ref().or(verdict))
    });
    each.collect()
}

/// `None` for an attempt without events.
fn entry(number: u32, attempt: &Attempt, verdict: Option<&Verdict>) -> Option<Entry> {
    let (started, last) = (attempt.started.as_ref()?, attempt.last.as_ref()?);
    let facts = &attempt.facts;
    let death = verdict.and_then(|v| v.first_failure.as_ref());
    let script = attempt.batch_exit();
    let end = attempt.ended.as_ref();
    let node_count =
        facts.node_count.unwrap_or(0).max(u32::try_from(attempt.nodes.len()).unwrap_or(u32::MAX));
    let steps = attempt.steps.values();
    let limits = steps.flat_map(|s| s.nodes.values()).filter_map(|n| n.limit_bytes.max(n.memory.limit_bytes));
    let limits = limits.chain(attempt.oom.iter().filter_map(|o| o.limit_bytes));
    // One death decides both, so that a code of one task is never shown beside
    // the signal of another.
    let (exit_code, signal) = match (death, script, end) {
        (Some(d), ..) => (d.exit_code, d.signal),
        (_, Some(exit), _) => (exit.code, exit.signal),
        (.., Some(end)) => (end.exit_code, end.signal),
        _ => (None, None),
    };
    Some(Entry {
        attempt: number,
        name: facts.name.clone(),
        account: facts.account.clone(),
        partition: facts.partition.clone(),
        started: started.wall,
        last: last.wall,
        end: verdict.map(|v| {
            let failed = v.class != Class::Ok;
            End {
                ended: last.wall,
                class: v.class,
                cause: v.cause.clone(),
                label: v.label.clone(),
                confidence: v.confidence,
                fingerprint: failed.then(|| v.fingerprint().to_string()),
                message: failed.then(|| cut(&v.detail)),
            }
        }),
        exit_code,
        signal,
        node: death.map(|d| &d.at.node).or(attempt.nodes.first()).map(ToString::to_string),
        nodes: attempt.nodes.iter().map(ToString::to_string).collect(),
        node_count,
        node_us: last.since(started).max(0).saturating_mul(i64::from(node_count)),
        peak_bytes: attempt.peak_bytes().max(death.and_then(|d| d.peak_bytes)),
        limit_bytes: limits.max(),
    })
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(MESSAGE_MAX)].to_owned()
}
