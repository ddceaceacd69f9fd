//! From what a step says of its job to the id of a run.

use inquest_journal::{Body, JobId};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// What decided that jobs belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyKind {
    /// `--inquest-run=ID`, or `INQUEST_RUN` in the job's environment.
    Explicit,
    /// The job array.
    Array,
    /// The het job.
    Het,
    /// Nothing: the run is this one job.
    Job,
}

/// The key of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunKey {
    /// What decided.
    pub kind: KeyKind,
    /// Its value: the explicit id, or a job id.
    pub value: String,
    /// Other keys that the job had, which would have decided otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub losers: Vec<(KeyKind, String)>,
}

impl RunKey {
    /// The key that an event gives to its job; `None` when this event cannot
    /// know (the extern step has no environment and no array ids).
    pub fn of(job: JobId, body: &Body) -> Option<RunKey> {
        let (explicit, array, het) = match body {
            Body::JobStarted(b) => (explicit(b.run.as_ref(), &b.env), b.array_job_id, b.het_job_id),
            Body::StepStarted(b) => {
                // Without a job name it is the extern step, which knows nothing.
                b.name.as_ref()?;
                (explicit(b.run.as_ref(), &b.env), b.array_job_id, None)
            }
            _ => return None,
        };
        let mut keys = Vec::new();
        keys.extend(explicit.map(|id| (KeyKind::Explicit, id)));
        keys.extend(array.map(|id| (KeyKind::Array, id.to_string())));
        keys.extend(het.map(|id| (KeyKind::Het, id.to_string())));
        keys.push((KeyKind::Job, job.to_string()));
        let (kind, value) = keys.remove(0);
        let losers = keys.into_iter().filter(|(kind, _)| *kind != KeyKind::Job).collect();
        Some(RunKey { kind, value, losers })
    }

    /// The key of a job of which nothing better is known.
    pub fn of_job(job: JobId) -> RunKey {
        RunKey { kind: KeyKind::Job, value: job.to_string(), losers: Vec::new() }
    }

    /// The id of the run, which is also its directory.
    pub fn run_id(&self) -> String {
        match self.kind {
            KeyKind::Explicit => path_id(&self.value),
            KeyKind::Array => format!("array-{}", self.value),
            KeyKind::Het => format!("het-{}", self.value),
            KeyKind::Job => format!("job-{}", self.value),
        }
    }
}

fn explicit(option: Option<&String>, env: &std::collections::BTreeMap<String, String>) -> Option<String> {
    option.or_else(|| env.get("INQUEST_RUN")).filter(|id| !id.is_empty()).cloned()
}

/// A name that is safe as one component of a path: itself when it is
/// `[A-Za-z0-9._-]{1,128}` and does not begin with a dot or dash, else a hash.
pub fn path_id(id: &str) -> String {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let plain = (1..=128).contains(&id.len()) && id.bytes().all(good) && !id.starts_with(['.', '-']);
    if plain { id.to_owned() } else { format!("x{:016x}", xxh3_64(id.as_bytes())) }
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
        assert_eq!((key.kind, key.run_id().as_str()), (KeyKind::Explicit, "sweep"));
        assert_eq!(key.losers, [(KeyKind::Array, "7".to_owned())]);
        job.run = None;
        let key = RunKey::of(JobId(9), &job.into()).unwrap();
        assert_eq!((key.kind, key.run_id().as_str()), (KeyKind::Array, "array-7"));
    }

    #[test]
    fn a_step_without_a_name_does_not_decide() {
        assert_eq!(RunKey::of(JobId(9), &StepStarted::default().into()), None);
        let named = StepStarted { name: Some("j".into()), ..StepStarted::default() };
        assert_eq!(RunKey::of(JobId(9), &named.into()).unwrap().run_id(), "job-9");
    }

    #[test]
    fn hostile_ids_never_become_paths() {
        for hostile in ["", "..", "../x", "a/b", ".hidden", "-rf", "a\nb", "é", &"x".repeat(129)] {
            let id = path_id(hostile);
            assert!(id.starts_with('x') && id.len() == 17, "{hostile:?} became {id}");
        }
        assert_eq!(path_id("sweep-3.b_1"), "sweep-3.b_1");
    }
}
