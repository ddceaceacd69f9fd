/*!
The live view: progress of runs, what just happened, errors and memory.

[`Watch`] reads what is new since the last look, [`Frame`] is what is known
now, [`lines`] lays it out for a terminal of any size. Cost is bounded whatever
the store holds: of the registries only new lines are read, and events only of
as many runs as [`WATCHED`], from their end on.
*/

mod lines;
mod watch;

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

use inquest_journal::{Body, JobId, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

pub use lines::{HELP, Ink, Span, View, lines, shown};
pub use watch::Watch;

use super::{JSON_SCHEMA, clean, events, timeline};
use crate::runs::RunStatus;
use crate::store::{Line, RUN, RegistryEntry};
use crate::verdict::Class;

/// Runs whose events are read.
pub const WATCHED: usize = 32;

/// Events that are kept for showing.
const RECENT: usize = 200;

/// A larger `run.json` is not read: jobs whose start is out of sight go by their own id then.
const RUN_BYTES: u64 = 16 << 20;

/// A run as the live view knows it.
#[derive(Clone, Debug)]
pub struct Run {
    /// Cluster.
    pub cluster: String,
    /// User.
    pub user: String,
    /// What the registry says.
    pub entry: RegistryEntry,
    /// What its newest events say, when they are read.
    pub seen: Seen,
}

/// A failure.
#[derive(Clone, Debug)]
pub struct Failed {
    /// When.
    pub at: Timestamp,
    /// Which job.
    pub job_id: Option<JobId>,
    /// The job as people write it.
    pub job: Option<String>,
    /// What.
    pub what: String,
}

/// What the events of a run said.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The highest share of a limit: peak and limit in bytes.
    pub memory: Option<(u64, u64)>,
    /// The newest failure of each class: when, which job, what.
    pub failed: BTreeMap<Class, Failed>,
}

/// Jobs of a run that are members of an array: array and index.
#[derive(Clone, Debug, Default)]
pub(crate) struct Indices(BTreeMap<JobId, (JobId, u32)>);

impl Indices {
    /// Those that `run.json` knows; none when it is large or cannot be read.
    fn of(dir: &Path) -> Indices {
        #[derive(Deserialize)]
        struct Known {
            members: BTreeMap<u32, Listed>,
        }
        #[derive(Deserialize)]
        struct Listed {
            job_id: JobId,
            array_job_id: Option<JobId>,
            array_task_id: Option<u32>,
        }
        let path = dir.join(RUN);
        if std::fs::metadata(&path).map_or(true, |m| m.len() > RUN_BYTES) {
            return Indices::default();
        }
        let text = std::fs::read(path).unwrap_or_default();
        let known = serde_json::from_slice::<Known>(&text).map_or(BTreeMap::new(), |k| k.members);
        let index = |m: Listed| Some((m.job_id, (m.array_job_id?, m.array_task_id?)));
        Indices(known.into_values().filter_map(index).collect())
    }

    fn learn(&mut self, job: Option<JobId>, array: Option<JobId>, index: Option<u32>) {
        if let (Some(job), Some(array), Some(index)) = (job, array, index) {
            self.0.insert(job, (array, index));
        }
    }

    /// As people write it: `4700_3`.
    fn show(&self, job: JobId) -> String {
        self.0.get(&job).map_or_else(|| job.to_string(), |(array, index)| format!("{array}_{index}"))
    }
}

/// Something that happened.
#[derive(Clone, Debug)]
pub struct Recent {
    /// When.
    pub utc: Timestamp,
    /// Where.
    pub node: String,
    /// In which run.
    pub run_id: String,
    /// In which job.
    pub job_id: Option<JobId>,
    /// The job as people write it.
    pub job: Option<String>,
    /// `OOM`, `DIED`, `START`, ...
    pub event: &'static str,
    /// Something died.
    pub bad: bool,
    /// What.
    pub detail: String,
}

/// All that is known now.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    /// Running ones first, then by their newest event.
    pub runs: Vec<Run>,
    /// The newest last.
    pub recent: VecDeque<Recent>,
}

impl Run {
    /// Jobs that ended well, ended badly, and run.
    pub fn counts(&self) -> (u32, u32, u32) {
        let ended: u32 = self.entry.classes.values().sum();
        let ok = self.entry.classes.get(&Class::Ok).copied().unwrap_or(0);
        (ok, ended - ok, self.entry.n_chunks.saturating_sub(ended))
    }

    /// Whether a job of it runs.
    pub fn running(&self) -> bool {
        self.entry.status == RunStatus::Running
    }

    /// Whether a word stands in its names, in upper or lower case.
    pub fn mentions(&self, word: &str) -> bool {
        let word = word.to_lowercase();
        let name = self.entry.name.as_deref().unwrap_or_default();
        let status = super::runs::status(self.entry.status);
        let classes = self.entry.classes.keys().map(Class::to_string).collect::<Vec<_>>().join(" ");
        [self.entry.run_id.as_str(), name, &self.user, &self.cluster, status, &classes]
            .iter()
            .any(|text| text.to_lowercase().contains(&word))
    }
}

impl Seen {
    /// Takes an event; gives what is worth showing of it.
    fn add(&mut self, indices: &mut Indices, line: &Line<'_>, raw: &[u8]) -> Option<Recent> {
        let (peak, limit) = match line.body(raw) {
            Some(Body::JobStarted(b)) => {
                indices.learn(line.job_id, b.array_job_id, b.array_task_id);
                (None, None)
            }
            Some(Body::StepStarted(b)) => {
                indices.learn(line.job_id, b.array_job_id, b.array_task_id);
                (None, None)
            }
            Some(Body::TaskExited(b)) => (b.memory.cgroup_peak_bytes, b.memory.limit_bytes),
            Some(Body::StepEnded(b)) => (b.memory.cgroup_peak_bytes, b.memory.limit_bytes),
            Some(Body::MemoryHigh(b)) => (b.usage_bytes, b.limit_bytes),
            Some(Body::OomKill(b)) => (b.peak_bytes, b.limit_bytes),
            _ => (None, None),
        };
        if let (Some(peak), Some(limit)) = (peak, limit.filter(|l| *l > 0)) {
            let share = |(p, l): (u64, u64)| p as f64 / l as f64;
            if self.memory.is_none_or(|old| share(old) < share((peak, limit))) {
                self.memory = Some((peak, limit));
            }
        }
        let (event, bad, class) = timeline::told(line, raw)?;
        let detail = events::detail(line, raw);
        let job = line.job_id.map(|id| indices.show(id));
        if let Some(class) = class.filter(|c| *c != Class::Ok) {
            let (job_id, what) = (line.job_id, detail.clone());
            self.failed.insert(class, Failed { at: line.utc, job_id, job: job.clone(), what });
        }
        Some(Recent {
            utc: line.utc,
            node: clean(&line.node),
            run_id: line.run_id.to_string(),
            job_id: line.job_id,
            job,
            event,
            bad,
            detail,
        })
    }
}

/// The frame as JSON.
pub fn json(frame: &Frame) -> Value {
    let run = |r: &Run| {
        let (ok, failed, running) = r.counts();
        let errors = r.seen.failed.iter().map(|(class, f)| {
            json!({
                "class": class, "jobs": r.entry.classes.get(class), "at": f.at, "job_id": f.job_id, "job": f.job,
                "message": f.what,
            })
        });
        json!({
            "run_id": r.entry.run_id,
            "cluster": r.cluster,
            "user": r.user,
            "name": r.entry.name,
            "status": r.entry.status,
            "jobs": r.entry.n_chunks,
            "ok": ok,
            "failed": failed,
            "running": running,
            "submitted_at": r.entry.submitted_at,
            "updated_at": r.entry.updated_at,
            "peak_bytes": r.seen.memory.map(|m| m.0),
            "limit_bytes": r.seen.memory.map(|m| m.1),
            "errors": errors.collect::<Vec<_>>(),
        })
    };
    let recent = |e: &Recent| json!({ "utc": e.utc, "node": e.node, "run_id": e.run_id, "job_id": e.job_id, "job": e.job, "event": e.event, "detail": e.detail });
    json!({
        "schema": JSON_SCHEMA,
        "runs": frame.runs.iter().map(run).collect::<Vec<_>>(),
        "recent": frame.recent.iter().map(recent).collect::<Vec<_>>(),
    })
}
