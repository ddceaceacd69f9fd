//! From what a job's events say to the id of a run.

use inquest_journal::{Body, JobId};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::engines;
use super::evidence::Evidence;

/// What decided that jobs belong together, strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyKind {
    /// `--inquest-run=ID`, or `INQUEST_RUN` in the job's environment.
    Explicit,
    /// A run id that a workflow engine put into the environment.
    Env,
    /// An id of a workflow engine in the job's name, comment or command.
    Name,
    /// A directory of a workflow engine, in the path of a log or where the job works.
    Path,
    /// The job array.
    Array,
    /// The het job.
    Het,
    /// Weak: same user, job name and directory, close in time.
    Group,
    /// Nothing: the run is this one job.
    Job,
    /// An id that names something of the job beside its run; never decides.
    Link,
}

impl KeyKind {
    /// Jobs are together because they look alike, not because something says so.
    pub fn is_weak(self) -> bool {
        self == KeyKind::Group
    }

    /// As a word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            KeyKind::Explicit => "explicit",
            KeyKind::Env => "env",
            KeyKind::Name => "name",
            KeyKind::Path => "path",
            KeyKind::Array => "array",
            KeyKind::Het => "het",
            KeyKind::Group => "group",
            KeyKind::Job => "job",
            KeyKind::Link => "link",
        }
    }
}

/// One reason to put a job into a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// How strong it is.
    pub kind: KeyKind,
    /// The workflow engine whose id it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// The id: the engine's own, a path, or a job id.
    pub value: String,
    /// The fact it rests on: `env:PARADE_RUN_ID`, `name`, `stdout`, ...
    pub from: String,
    /// What the engine calls this one job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
}

/// The key of a run: the strongest candidate, and the others that the job had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunKey {
    /// What decided.
    #[serde(flatten)]
    pub won: Candidate,
    /// Whose run it is, for [`RunKey::id`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Keys that would have decided otherwise, strongest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub losers: Vec<Candidate>,
}

/// A job id, or a job's name and place, seen again after so long is another
/// run's: microseconds.
const DAY_US: i64 = 86_400_000_000;
const WEEK_US: i64 = 7 * DAY_US;
const GROUP_US: i64 = 600_000_000;

impl Candidate {
    pub(super) fn new(kind: KeyKind, value: impl Into<String>, from: impl Into<String>) -> Candidate {
        Candidate { kind, engine: None, value: value.into(), from: from.into(), member: None }
    }

    pub(super) fn member(mut self, member: Option<impl Into<String>>) -> Candidate {
        self.member = member.map(Into::into);
        self
    }

    /// The id of the run that it makes of `job`, which is also its directory.
    pub fn run_id(&self, job: JobId) -> String {
        match (self.kind, &self.engine) {
            (KeyKind::Group | KeyKind::Job, _) => format!("job-{job}"),
            (_, Some(engine)) => {
                let id = path_id(&self.value);
                let id = if id.len() > 96 { hashed(&self.value) } else { id };
                format!("{engine}-{id}")
            }
            (KeyKind::Array | KeyKind::Het, None) => format!("{}-{}", self.kind.as_str(), self.value),
            (_, None) => path_id(&self.value),
        }
    }

    /// How long a run of this key may be idle before the same key means another
    /// run, in microseconds; `None` for ids that are unique by themselves.
    pub fn idle_us(&self) -> Option<i64> {
        match self.kind {
            KeyKind::Explicit | KeyKind::Env => None,
            KeyKind::Path => Some(DAY_US),
            KeyKind::Group => Some(GROUP_US),
            _ => Some(WEEK_US),
        }
    }
}

impl RunKey {
    /// The key that an event gives to its job; `None` when this event cannot
    /// know (the extern step has no environment and no array ids).
    pub fn of(job: JobId, body: &Body) -> Option<RunKey> {
        let evidence = Evidence::of(job, body)?;
        let mut keys = candidates(&evidence);
        keys.sort_by_key(|c| c.kind);
        let won = keys.remove(0);
        keys.retain(|c| c.kind != KeyKind::Job);
        Some(RunKey { won, uid: evidence.uid, losers: keys })
    }

    /// The key of a job of which nothing better is known.
    pub fn of_job(job: JobId) -> RunKey {
        RunKey { won: Candidate::new(KeyKind::Job, job.to_string(), "job_id"), uid: None, losers: Vec::new() }
    }

    /// The key in one word that is unique over engines and users,
    /// `<engine>:<uid>:<id>`.
    pub fn id(&self) -> String {
        let space = self.won.engine.as_deref().unwrap_or(self.won.kind.as_str());
        let uid = self.uid.map_or("-".to_owned(), |uid| uid.to_string());
        format!("{space}:{uid}:{}", self.won.value)
    }

    /// The key in words for people: what it is, where it was read, how sure.
    pub fn describe(&self) -> String {
        let Candidate { kind, engine, value, from, .. } = &self.won;
        match (kind, engine) {
            (KeyKind::Explicit, _) => format!("named '{value}' by its user ({from})"),
            (KeyKind::Array, _) => format!("job array {value}"),
            (KeyKind::Het, _) => format!("het job {value}"),
            (KeyKind::Job | KeyKind::Link, _) => "the job itself".into(),
            (KeyKind::Group, None) => format!("weak: jobs that look alike, {value}"),
            (KeyKind::Group, Some(engine)) => format!("weak: jobs of {engine} that look alike, {value}"),
            (_, engine) => format!("{} {value} (from {from})", engine.as_deref().unwrap_or("run")),
        }
    }
}

fn candidates(evidence: &Evidence<'_>) -> Vec<Candidate> {
    let mut keys = Vec::new();
    let explicit = |id: Option<&str>, from: &str| {
        id.filter(|id| !id.is_empty()).map(|id| Candidate::new(KeyKind::Explicit, id, from))
    };
    keys.extend(
        explicit(evidence.run, "--inquest-run")
            .or_else(|| explicit(evidence.env("INQUEST_RUN"), "env:INQUEST_RUN")),
    );
    let said = evidence.comment.and_then(|c| c.split_whitespace().find_map(|word| word.strip_prefix("run=")));
    keys.extend(explicit(said, "comment"));
    for engine in engines::ENGINES {
        keys.extend((engine.find)(evidence).map(|c| Candidate { engine: Some(engine.name.into()), ..c }));
    }
    keys.extend(evidence.array.map(|(id, task)| {
        Candidate::new(KeyKind::Array, id.to_string(), "array_job_id").member(task.map(|n| n.to_string()))
    }));
    keys.extend(evidence.het.map(|(id, part)| {
        Candidate::new(KeyKind::Het, id.to_string(), "het_job_id").member(part.map(|n| n.to_string()))
    }));
    // Slurm's own words for jobs without a name of their own say nothing.
    let telling = !matches!(evidence.name, "" | "sbatch" | "wrap" | "interactive" | "bash" | "sh");
    if let Some(dir) = evidence.submit_dir.filter(|_| telling) {
        let alike = format!("{} in {dir}", evidence.name);
        keys.push(Candidate::new(KeyKind::Group, alike, "name, submit_dir"));
    }
    keys.push(Candidate::new(KeyKind::Job, evidence.job.to_string(), "job_id"));
    keys
}

/// A name that is safe as one component of a path: itself when it is
/// `[A-Za-z0-9._-]{1,128}` and does not begin with a dot, a dash, or the underscore
/// of the store's own names (`_registry.jsonl`, `_site`), else a hash.
pub fn path_id(id: &str) -> String {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let plain = (1..=128).contains(&id.len()) && id.bytes().all(good) && !id.starts_with(['.', '-', '_']);
    if plain { id.to_owned() } else { hashed(id) }
}

fn hashed(id: &str) -> String {
    format!("x{:016x}", xxh3_64(id.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use inquest_journal::{JobStarted, StepStarted};

    #[test]
    fn the_strongest_key_wins_and_the_others_are_kept() {
        let mut job =
            JobStarted { array_job_id: Some(JobId(7)), run: Some("sweep".into()), ..JobStarted::default() };
        let key = RunKey::of(JobId(9), &job.clone().into()).unwrap();
        assert_eq!((key.won.kind, key.won.run_id(JobId(9)).as_str()), (KeyKind::Explicit, "sweep"));
        let losers: Vec<_> = key.losers.iter().map(|c| (c.kind, c.value.as_str())).collect();
        assert_eq!(losers, [(KeyKind::Array, "7")]);
        job.run = None;
        let key = RunKey::of(JobId(9), &job.into()).unwrap();
        assert_eq!((key.won.kind, key.won.run_id(JobId(9)).as_str()), (KeyKind::Array, "array-7"));
    }

    #[test]
    fn a_comment_may_name_the_run() {
        let job = JobStarted { comment: Some("bench run=night-3".into()), ..JobStarted::default() };
        let key = RunKey::of(JobId(9), &job.into()).unwrap();
        assert_eq!((key.won.run_id(JobId(9)), key.won.from), ("night-3".into(), "comment".into()));
    }

    #[test]
    fn jobs_that_look_alike_are_a_weak_group_named_after_the_first() {
        let job = |name: &str| JobStarted {
            uid: Some(7),
            name: Some(name.into()),
            submit_dir: Some("/home/u".into()),
            ..JobStarted::default()
        };
        let key = RunKey::of(JobId(9), &job("train").into()).unwrap();
        assert!(key.won.kind.is_weak());
        assert_eq!((key.won.run_id(JobId(9)), key.id()), ("job-9".into(), "group:7:train in /home/u".into()));
        let key = RunKey::of(JobId(9), &job("sbatch").into()).unwrap();
        assert_eq!(key.won.kind, KeyKind::Job);
    }

    #[test]
    fn a_step_without_a_name_does_not_decide() {
        assert_eq!(RunKey::of(JobId(9), &StepStarted::default().into()), None);
        let named = StepStarted { name: Some("j".into()), ..StepStarted::default() };
        assert_eq!(RunKey::of(JobId(9), &named.into()).unwrap().won.run_id(JobId(9)), "job-9");
    }

    #[test]
    fn a_key_survives_being_written() {
        let job = JobStarted { array_job_id: Some(JobId(7)), run: Some("s".into()), ..JobStarted::default() };
        let key = RunKey::of(JobId(9), &job.into()).unwrap();
        let text = serde_json::to_string(&key).unwrap();
        assert_eq!(serde_json::from_str::<RunKey>(&text).unwrap(), key, "{text}");
    }

    #[test]
    fn hostile_ids_never_become_paths() {
        let of_the_store = ["_registry.jsonl", "_registry.jsonl.new", "_site"];
        let hostile = ["", "..", "../x", "a/b", ".hidden", "-rf", "a\nb", "é", &"x".repeat(129)];
        for hostile in hostile.into_iter().chain(of_the_store) {
            let id = path_id(hostile);
            assert!(id.starts_with('x') && id.len() == 17, "{hostile:?} became {id}");
        }
        assert_eq!(path_id("sweep-3.b_1"), "sweep-3.b_1");
    }
}
