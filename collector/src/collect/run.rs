//! A run in memory: what is needed to go on with it, without its members.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

use inquest_journal::{JobId, Timestamp};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::ledger::{Ledger, LedgerError, MemberRow, RunName, RunRow};
use crate::runs::{MemberState, RunKey, RunStatus, SCHEMA, failed};
use crate::store::{EVENTS, RegistryEntry, Tail, user_dir};
use crate::story::Moment;
use crate::verdict::Class;

/// What the ledger keeps of a run as text.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) key: RunKey,
    /// Run ids of stronger keys that were met later.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) aliases: Vec<String>,
    pub(super) name: Option<String>,
    pub(super) started: Timestamp,
    pub(super) last: Timestamp,
    /// Events the collector itself has added.
    pub(super) next_seq: u64,
    /// Highest number given to a member.
    pub(super) last_chunk: u32,
    /// Members.
    pub(super) count: u32,
    /// Members without a verdict.
    pub(super) running: u32,
    pub(super) classes: BTreeMap<Class, u32>,
    /// How it ended, as the run's own last event says.
    pub(super) ended: Option<RunStatus>,
    /// The end of the member that ended last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) last_end: Option<Moment>,
    /// The same, when the run's end has not been told yet.
    pub(super) closing: Option<Moment>,
    /// Members that wait in the queue again.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) requeued: BTreeSet<u32>,
}

/// A run with an open job, or whose shown state is old.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) id: i64,
    pub(super) name: RunName,
    pub(super) head: Head,
    pub(super) tail: Tail,
    /// Ids of its jobs and their arrays, for the registry.
    jobs: Ids,
    arrays: Ids,
    /// Jobs of it in memory.
    pub(super) users: u32,
    /// Numbers given since the last checkpoint.
    pub(super) fresh: Vec<u32>,
    /// The ledger knows it.
    pub(super) committed: bool,
    /// The ledger does not know its newest state.
    pub(super) dirty: bool,
    /// `run.json` and registry do not show its newest state.
    pub(super) stale: bool,
    /// It began again or ended since they did.
    pub(super) turned: bool,
    /// They may be written again from then on.
    pub(super) due: Option<Instant>,
    /// So many members did they show.
    pub(super) shown: u32,
}

impl Run {
    pub(super) fn new(id: i64, name: RunName, key: RunKey, started: Timestamp) -> Run {
        let head = Head {
            key,
            aliases: Vec::new(),
            name: None,
            started,
            last: started,
            next_seq: 0,
            last_chunk: 0,
            count: 0,
            running: 0,
            classes: BTreeMap::new(),
            ended: None,
            last_end: None,
            closing: None,
            requeued: BTreeSet::new(),
        };
        Run {
            id,
            name,
            head,
            tail: Tail::default(),
            jobs: Ids::default(),
            arrays: Ids::default(),
            users: 0,
            fresh: Vec::new(),
            committed: false,
            dirty: true,
            stale: true,
            turned: false,
            due: None,
            shown: 0,
        }
    }

    /// From the ledger; `None` when its text is of another version.
    pub(super) fn load(row: RunRow, ledger: &Ledger) -> Result<Option<Run>, LedgerError> {
        let Ok(head) = serde_json::from_str::<Head>(&row.state) else { return Ok(None) };
        let mut run = Run::new(row.id, row.name, head.key.clone(), head.started);
        run.head = head;
        run.tail = Tail::new(row.length);
        run.committed = true;
        run.dirty = false;
        run.stale = row.stale;
        ledger.members(run.id, |member| run.know(&member))?;
        Ok(Some(run))
    }

    pub(super) fn row(&self) -> RunRow {
        RunRow {
            id: self.id,
            name: self.name.clone(),
            length: self.tail.flushed(),
            state: serde_json::to_string(&self.head).unwrap_or_default(),
            stale: self.stale,
        }
    }

    pub(super) fn know(&mut self, member: &MemberRow) {
        self.jobs.insert(member.job_id);
        if let Some(id) = member.array_job_id {
            self.arrays.insert(id);
        }
    }

    pub(super) fn status(&self) -> RunStatus {
        RunStatus::of(self.head.running, &self.head.classes)
    }

    /// A member has a verdict that it had not, or no longer has one.
    pub(super) fn count(&mut self, before: Option<Class>, after: Option<Class>) {
        match before {
            Some(class) => {
                if let Some(n) = self.head.classes.get_mut(&class) {
                    *n -= 1;
                    if *n == 0 {
                        self.head.classes.remove(&class);
                    }
                }
            }
            None => self.head.running = self.head.running.saturating_sub(1),
        }
        match after {
            Some(class) => *self.head.classes.entry(class).or_default() += 1,
            None => self.head.running += 1,
        }
        self.touch();
    }

    /// An event at `at` is of its time, not more than `idle_us` before its first
    /// or after its last.
    pub(super) fn is_near(&self, at: Timestamp, idle_us: i64) -> bool {
        at.since(self.head.last) <= idle_us && self.head.started.since(at) <= idle_us
    }

    pub(super) fn touch(&mut self) {
        self.dirty = true;
        self.stale = true;
    }

    /// The directory of its user's runs, below the store.
    pub(super) fn dir(&self) -> PathBuf {
        user_dir(&self.name.0, &self.name.1)
    }

    /// A file of its own, below [`Run::dir`].
    pub(super) fn file(&self, name: &str) -> PathBuf {
        Path::new(&self.name.2).join(name)
    }

    /// Its events, below the store.
    pub(super) fn events(&self) -> PathBuf {
        self.dir().join(self.file(EVENTS))
    }

    pub(super) fn registry_entry(&self) -> RegistryEntry {
        RegistryEntry {
            run_id: self.name.2.clone(),
            submitted_at: self.head.started,
            updated_at: self.head.last,
            status: self.status(),
            backend: "slurm".into(),
            n_chunks: self.head.count,
            n_failed: failed(&self.head.classes),
            classes: self.head.classes.clone(),
            name: self.head.name.clone(),
            key: Some(self.head.key.won.clone()),
            aliases: self.head.aliases.clone(),
            jobs: self.jobs.folded(),
            arrays: self.arrays.folded(),
        }
    }

    /// Text of `run.json`: of all members, each with the text of its verdict.
    pub(super) fn json<'a>(
        &self,
        members: impl Iterator<Item = (&'a MemberRow, Option<&'a RawValue>)>,
    ) -> Vec<u8> {
        let members = members.map(|(m, verdict)| Member {
            job_id: JobId(m.job_id),
            array_job_id: m.array_job_id.map(JobId),
            array_task_id: m.array_task_id,
            attempts: m.attempts,
            started: Timestamp(m.started),
            last: Timestamp(m.last),
            state: self.head.requeued.contains(&m.chunk).then_some(MemberState::Requeued),
            verdict,
            range: (m.first, m.end),
            name: m.name.as_deref(),
            chunk: m.chunk,
        });
        let file = RunJson {
            schema: SCHEMA,
            run_id: &self.name.2,
            cluster: &self.name.0,
            user: &self.name.1,
            key: &self.head.key,
            aliases: &self.head.aliases,
            name: self.head.name.as_deref(),
            started: self.head.started,
            last: self.head.last,
            status: self.status(),
            classes: &self.head.classes,
            members: Members(members.collect()),
            next_seq: self.head.next_seq,
        };
        serde_json::to_vec(&file).unwrap_or_default()
    }
}

/// [`crate::runs::RunState`] as it is written, without owning anything.
#[derive(Serialize)]
struct RunJson<'a> {
    schema: u32,
    run_id: &'a str,
    cluster: &'a str,
    user: &'a str,
    key: &'a RunKey,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    aliases: &'a [String],
    name: Option<&'a str>,
    started: Timestamp,
    last: Timestamp,
    status: RunStatus,
    classes: &'a BTreeMap<Class, u32>,
    members: Members<'a>,
    next_seq: u64,
}

struct Members<'a>(Vec<Member<'a>>);

impl Serialize for Members<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(Some(self.0.len()))?;
        for member in &self.0 {
            map.serialize_entry(&member.chunk, member)?;
        }
        map.end()
    }
}

#[derive(Serialize)]
struct Member<'a> {
    job_id: JobId,
    #[serde(skip_serializing_if = "Option::is_none")]
    array_job_id: Option<JobId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    array_task_id: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    attempts: u32,
    started: Timestamp,
    last: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<MemberState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<&'a RawValue>,
    range: (u64, u64),
    #[serde(skip)]
    chunk: u32,
}

/// A set of ids that come mostly in sequence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ids(Vec<(u32, u32)>);

impl Ids {
    fn insert(&mut self, id: u32) {
        // The first range that begins behind the id.
        let at = self.0.partition_point(|(from, _)| *from <= id);
        let joins_left = at > 0 && self.0[at - 1].1.saturating_add(1) >= id;
        let joins_right = self.0.get(at).is_some_and(|(from, _)| *from == id.saturating_add(1));
        match (joins_left, joins_right) {
            (true, _) if self.0[at - 1].1 >= id => {}
            (true, true) => {
                self.0[at - 1].1 = self.0[at].1;
                self.0.remove(at);
            }
            (true, false) => self.0[at - 1].1 = id,
            (false, true) => self.0[at].0 = id,
            (false, false) => self.0.insert(at, (id, id)),
        }
    }

    /// `101-106,110`.
    fn folded(&self) -> String {
        let range = |(from, to): &(u32, u32)| match from == to {
            true => from.to_string(),
            false => format!("{from}-{to}"),
        };
        self.0.iter().map(range).collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slurm::target::fold_ranges;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ids_fold_like_a_set(ids in proptest::collection::vec(prop_oneof![0u32..30, Just(u32::MAX)], 0..60)) {
            let mut set = Ids::default();
            for id in &ids {
                set.insert(*id);
            }
            let model: std::collections::BTreeSet<u32> = ids.into_iter().collect();
            prop_assert_eq!(set.folded(), fold_ranges(model.into_iter()));
        }
    }
}
