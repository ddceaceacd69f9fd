//! From what a person points at to a run: by the index when there is one that
//! the caller may read, else by the registries of the users.

use std::collections::BTreeMap;

use inquest_journal::{JobId, Lines};
use memchr::memmem;

use super::index::Place as Places;
use super::index::{Index, RunEntry, names};
use super::read::{Found, Place, ReadError, RegistryEntry, Store};
use super::{EventsFile, run_dir};
use crate::runs::{Member, RunKey, RunState, SCHEMA, path_id};
use crate::slurm::target::{Target, fold_ranges};
use crate::verdict::Verdict;

/// Said to whoever does not see the jobs of all users, of what is not there and of what is not theirs alike.
const OTHERS: &str = ". Jobs of others are for their owners and for operators to read; the site's server (inquest \
    serve) shows coordinators those of their accounts";

impl Store {
    /// The run that `target` names or lies in, with all its members; the
    /// newest, when a job id was used more than once.
    ///
    /// # Errors
    ///
    /// When there is none, or it cannot be read.
    pub fn find(
        &self,
        target: &Target,
        cluster: Option<&str>,
        user: Option<&str>,
    ) -> Result<Found, ReadError> {
        for (run, _) in self.located(target, cluster, user) {
            let place = Place { cluster: run.cluster, user: run.user };
            if let Some(found) = self.members_in(&place, &run.run_id, target)? {
                return Ok(found);
            }
        }
        self.find_registered(target, cluster, user)
    }

    /// As [`Store::find`], but only the members that were asked for are in the
    /// run's state when the index knows them: a large run need not be read
    /// for one job of it.
    ///
    /// # Errors
    ///
    /// As [`Store::find`].
    pub fn find_members(
        &self,
        target: &Target,
        cluster: Option<&str>,
        user: Option<&str>,
    ) -> Result<Found, ReadError> {
        if !matches!(target, Target::Run(_))
            && let Some((run, places)) = self.located(target, cluster, user).into_iter().next()
            && let Some(found) = self.as_indexed(run, &places)?
        {
            return Ok(found);
        }
        self.find(target, cluster, user)
    }

    /// What the index says; nothing when there is none to ask.
    fn located(
        &self,
        target: &Target,
        cluster: Option<&str>,
        user: Option<&str>,
    ) -> Vec<(RunEntry, Vec<Places>)> {
        let located = Index::open(&self.root).ok().and_then(|index| index.locate(target, cluster, user).ok());
        located.unwrap_or_default()
    }

    /// `None` when the run has grown since it was indexed.
    fn as_indexed(&self, run: RunEntry, places: &[Places]) -> Result<Option<Found>, ReadError> {
        let dir = self.root.join(run_dir(&run.cluster, &run.user, &run.run_id));
        let events = match EventsFile::open(&dir) {
            Ok(events) => events,
            Err(ReadError::NotFound(_)) => return Ok(None),
            Err(e) => return Err(e),
        };
        if events.len() != run.length {
            return Ok(None);
        }
        let mut members = BTreeMap::new();
        let mut parts = Vec::new();
        for place in places {
            let verdict = match place.verdict {
                Some((at, length)) => {
                    let text = events.read(at, length as usize)?;
                    let Ok(verdict) = serde_json::from_slice(&text) else { return Ok(None) };
                    Some(verdict)
                }
                // run.json knows whether it runs or waits.
                None => return Ok(None),
            };
            parts.extend(place.extents.iter().map(|(at, length)| (*at, at + u64::from(*length))));
            members.insert(place.chunk, member_of(place, verdict));
        }
        parts.sort_unstable();
        let numbers = members.keys().copied().collect();
        let found = |run| Found { dir, run, members: numbers, parts: Some(parts) };
        Ok(run_of(run, members).map(found))
    }

    fn find_registered(
        &self,
        target: &Target,
        cluster: Option<&str>,
        user: Option<&str>,
    ) -> Result<Found, ReadError> {
        let mut hits: Vec<(Place, RegistryEntry)> = Vec::new();
        for place in self.places(cluster, user)? {
            let text = match self.registry_text(&place) {
                Ok(text) => text,
                Err(ReadError::Denied(_)) if user.is_none() => continue,
                Err(e) => return Err(e),
            };
            let mut newest = BTreeMap::new();
            for (_, line) in Lines::new(&text).filter(|(_, line)| may_name(line, target)) {
                if let Ok(entry) = serde_json::from_slice::<RegistryEntry>(line)
                    && is_called(&entry, target)
                {
                    newest.insert(entry.run_id.clone(), entry);
                }
            }
            hits.extend(newest.into_values().map(|entry| (place.clone(), entry)));
        }
        hits.sort_by_cached_key(|(_, e)| (names(target, &e.run_id), e.submitted_at, e.run_id.clone()));
        for (place, entry) in hits.into_iter().rev() {
            if let Some(found) = self.members_in(&place, &entry.run_id, target)? {
                return Ok(found);
            }
        }
        Err(self.not_found(target))
    }

    fn members_in(&self, place: &Place, run_id: &str, target: &Target) -> Result<Option<Found>, ReadError> {
        let (dir, run) = match self.load(place, run_id) {
            Err(ReadError::NotFound(_)) => return Ok(None), // It was removed, or moved away.
            loaded => loaded?,
        };
        let members = run.members.iter().filter(|(_, m)| target_is(target, m)).map(|(n, _)| *n);
        let members: Vec<u32> = members.collect();
        Ok((!members.is_empty()).then_some(Found { dir, run, members, parts: None }))
    }

    fn not_found(&self, target: &Target) -> ReadError {
        let (what, id) = match target {
            Target::Run(id) => ("run", id.clone()),
            Target::Job { id, .. } => ("job", id.to_string()),
            Target::Array { id, tasks, .. } => {
                ("array task", format!("{id}_[{}]", fold_ranges(tasks.iter().copied())))
            }
            Target::Het { id, offset } => ("het component", format!("{id}+{offset}")),
        };
        ReadError::NotFound(format!(
            "no {what} {id} in {}: it may not have reached a node, be of another user or cluster, or be older than \
             what is kept; 'inquest runs' lists what is there{}",
            self.root.display(),
            if self.is_of_all_users() { "" } else { OTHERS }
        ))
    }
}

/// A member as the index knows it.
pub(crate) fn member_of(place: &Places, verdict: Option<Verdict>) -> Member {
    Member {
        job_id: place.job_id,
        array_job_id: place.array_job_id,
        array_task_id: place.array_task_id,
        name: place.name.clone(),
        attempts: place.attempts,
        started: place.started,
        last: place.last,
        state: None,
        verdict,
        range: place.range,
    }
}

/// A run as the index knows it, with some of its members; `None` without any.
pub(crate) fn run_of(run: RunEntry, members: BTreeMap<u32, Member>) -> Option<RunState> {
    let first = members.values().next()?.job_id;
    Some(RunState {
        schema: SCHEMA,
        run_id: run.run_id,
        cluster: run.cluster,
        user: run.user,
        key: run.key.unwrap_or_else(|| RunKey::of_job(first)),
        aliases: run.aliases,
        name: run.name,
        started: run.started,
        last: run.last,
        status: run.status,
        classes: run.classes,
        members,
        next_seq: 0,
    })
}

/// Whether a line of a registry can be of the run that is looked for. A user
/// may have many runs, and most lines need not be parsed.
fn may_name(line: &[u8], target: &Target) -> bool {
    let id = match target {
        // Its own, or a further name.
        Target::Run(id) => return memmem::find(line, format!("\"{}\"", path_id(id)).as_bytes()).is_some(),
        Target::Job { id, .. } | Target::Array { id, .. } | Target::Het { id, .. } => *id,
    };
    // A name that looks like one of these fields only costs a look too many.
    ["\"jobs\":\"", "\"arrays\":\""].iter().any(|field| {
        memmem::find_iter(line, field.as_bytes()).any(|at| {
            let rest = &line[at + field.len()..];
            let end = memchr::memchr(b'"', rest).unwrap_or(rest.len());
            std::str::from_utf8(&rest[..end]).is_ok_and(|ranges| in_ranges(ranges, id))
        })
    })
}

fn is_called(entry: &RegistryEntry, target: &Target) -> bool {
    let Target::Run(id) = target else { return true };
    let id = path_id(id);
    entry.run_id == id || entry.aliases.contains(&id)
}

fn in_ranges(ranges: &str, id: JobId) -> bool {
    ranges.split(',').any(|range| {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        matches!((from.parse::<u32>(), to.parse::<u32>()), (Ok(from), Ok(to)) if (from..=to).contains(&id.0))
    })
}

fn target_is(target: &Target, member: &Member) -> bool {
    match target {
        Target::Run(_) => true,
        Target::Job { id, .. } => member.job_id == *id || member.array_job_id == Some(*id),
        Target::Array { id, tasks, .. } => {
            member.array_job_id == Some(*id)
                && member.array_task_id.is_some_and(|task| tasks.binary_search(&task).is_ok())
        }
        // Components have consecutive ids from the leader's on.
        Target::Het { id, offset } => member.job_id.0 == id.0.saturating_add(*offset),
    }
}
