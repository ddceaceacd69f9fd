//! Where what somebody names lies: from a job, an array or a run to the events.

use std::collections::BTreeSet;

use inquest_journal::{JobId, Timestamp};
use rusqlite::{Row, params_from_iter};

use super::lists::RUN;
use super::scan::restore_extents;
use super::{Index, IndexError, RunEntry};
use crate::runs::path_id;
use crate::slurm::target::Target;

/// Where the events of a job are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number in the run.
    pub chunk: u32,
    /// The job.
    pub job_id: JobId,
    /// Array it belongs to.
    pub array_job_id: Option<JobId>,
    /// Index in it.
    pub array_task_id: Option<u32>,
    /// What its workflow engine calls it.
    pub name: Option<String>,
    /// Attempts.
    pub attempts: u32,
    /// First event.
    pub started: Timestamp,
    /// Newest event.
    pub last: Timestamp,
    /// Bytes of the run's events between which all its events are.
    pub range: (u64, u64),
    /// Where its own events are: offset and length. Others may lie between.
    pub extents: Vec<(u64, u32)>,
    /// Where its verdict is.
    pub verdict: Option<(u64, u32)>,
}

/// Whether what is looked for is the run of this id by its own name, and not
/// another that is called so, too.
pub(in crate::store) fn names(target: &Target, run_id: &str) -> bool {
    matches!(target, Target::Run(id) if path_id(id) == run_id)
}

impl Index {
    /// The runs in which `target` lies, newest first, each with the places of
    /// the members that are meant.
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub fn locate(
        &self,
        target: &Target,
        cluster: Option<&str>,
        user: Option<&str>,
    ) -> Result<Vec<(RunEntry, Vec<Place>)>, IndexError> {
        self.wrap(|| {
            let mut runs: Vec<RunEntry> = self.runs_of(target)?;
            runs.retain(|r| cluster.is_none_or(|c| c == r.cluster) && user.is_none_or(|u| u == r.user));
            runs.sort_by_key(|r| (!names(target, &r.run_id), std::cmp::Reverse((r.started, r.id))));
            let mut found = Vec::new();
            for run in runs {
                let places = self.places(run.id, target)?;
                if !places.is_empty() {
                    found.push((run, places));
                }
            }
            Ok(found)
        })
    }

    fn runs_of(&self, target: &Target) -> rusqlite::Result<Vec<RunEntry>> {
        let ids: BTreeSet<i64> = match target {
            Target::Run(id) => {
                let sql =
                    "SELECT id FROM run WHERE run_id = ?1 UNION SELECT run FROM alias WHERE run_id = ?1";
                let id = path_id(id);
                self.db().prepare_cached(sql)?.query_map([id], |r| r.get(0))?.collect::<Result<_, _>>()?
            }
            Target::Job { id, .. } => {
                let sql =
                    "SELECT run FROM job WHERE job_id = ?1 UNION SELECT run FROM job WHERE array_job_id = ?1";
                self.db().prepare_cached(sql)?.query_map([id.0], |r| r.get(0))?.collect::<Result<_, _>>()?
            }
            Target::Array { id, .. } => {
                let sql = "SELECT DISTINCT run FROM job WHERE array_job_id = ?1";
                self.db().prepare_cached(sql)?.query_map([id.0], |r| r.get(0))?.collect::<Result<_, _>>()?
            }
            Target::Het { id, offset } => {
                let sql = "SELECT DISTINCT run FROM job WHERE job_id = ?1";
                let id = id.0.saturating_add(*offset);
                self.db().prepare_cached(sql)?.query_map([id], |r| r.get(0))?.collect::<Result<_, _>>()?
            }
        };
        let sql = format!("{RUN} id = ?1");
        let mut query = self.db().prepare_cached(&sql)?;
        let mut runs = Vec::new();
        for id in ids {
            let mut rows = query.query([id])?;
            if let Some(row) = rows.next()? {
                runs.push(self.run_entry(row)?);
            }
        }
        Ok(runs)
    }

    /// One member of a run, by [`RunEntry::id`].
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub fn place(&self, run: i64, chunk: u32) -> Result<Option<Place>, IndexError> {
        self.wrap(|| Ok(self.ask("j.run = ?1 AND j.chunk = ?2", &[run, chunk.into()])?.pop()))
    }

    fn ask(&self, condition: &str, values: &[i64]) -> rusqlite::Result<Vec<Place>> {
        const PLACE: &str = "SELECT DISTINCT m.chunk, m.job_id, j.array_job_id, j.array_task_id, m.attempts, m.started, \
             m.last, m.first, m.end, m.extents, m.verdict, m.verdict_length, m.name \
             FROM job j JOIN member m ON m.run = j.run AND m.chunk = j.chunk WHERE";
        let read = |r: &Row<'_>| {
            let [first, end] = [r.get::<_, i64>(7)?, r.get(8)?].map(i64::cast_unsigned);
            Ok(Place {
                chunk: r.get(0)?,
                job_id: JobId(r.get(1)?),
                array_job_id: r.get::<_, Option<u32>>(2)?.map(JobId),
                array_task_id: r.get(3)?,
                name: r.get(12)?,
                attempts: r.get(4)?,
                started: Timestamp(r.get(5)?),
                last: Timestamp(r.get(6)?),
                range: (first, end),
                extents: restore_extents(r.get_ref(9)?.as_blob()?),
                verdict: r.get::<_, Option<i64>>(10)?.map(i64::cast_unsigned).zip(r.get(11)?),
            })
        };
        let mut query = self.db().prepare_cached(&format!("{PLACE} {condition}"))?;
        query.query_map(params_from_iter(values), read)?.collect()
    }

    fn places(&self, run: i64, target: &Target) -> rusqlite::Result<Vec<Place>> {
        let mut places = match target {
            Target::Run(_) => self.ask("j.run = ?1", &[run])?,
            Target::Job { id, .. } => {
                let id = i64::from(id.0);
                let mut places = self.ask("j.job_id = ?2 AND j.run = ?1", &[run, id])?;
                places.extend(self.ask("j.array_job_id = ?2 AND j.run = ?1", &[run, id])?);
                places
            }
            Target::Array { id, tasks, .. } => {
                let mut places = Vec::new();
                for task in tasks {
                    let values = [run, i64::from(id.0), i64::from(*task)];
                    let condition = "j.array_job_id = ?2 AND j.array_task_id = ?3 AND j.run = ?1";
                    places.extend(self.ask(condition, &values)?);
                }
                places
            }
            Target::Het { id, offset } => {
                let id = i64::from(id.0.saturating_add(*offset));
                self.ask("j.job_id = ?2 AND j.run = ?1", &[run, id])?
            }
        };
        places.sort_by_key(|p| p.chunk);
        places.dedup_by_key(|p| p.chunk);
        Ok(places)
    }
}
