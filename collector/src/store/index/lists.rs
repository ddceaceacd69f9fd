//! Lists of attempts and of runs, page by page.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use inquest_journal::{JobId, Timestamp};
use rusqlite::types::Value;
use rusqlite::{Row, params, params_from_iter};
use serde::Serialize;

use super::entry::{End, Entry, JobEntry};
use super::filter::{Filter, Origin, Terms, Visible};
use super::put::restore_nodes;
use super::schema::class_of;
use super::{Index, IndexError, OPEN};
use crate::ledger::RunName;
use crate::runs::{RunKey, RunStatus};
use crate::verdict::{Class, Confidence};

/// Rows of one answer, whatever was asked for.
const ROWS_MAX: usize = 100_000;

/// A run as the index knows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunEntry {
    /// Cluster.
    pub cluster: String,
    /// User.
    pub user: String,
    /// Id and directory.
    pub run_id: String,
    /// What decided that its jobs belong together.
    pub key: Option<RunKey>,
    /// Further names that it got.
    pub aliases: Vec<String>,
    /// Name of its first job.
    pub name: Option<String>,
    /// Where it stands.
    pub status: RunStatus,
    /// First event of any member.
    pub started: Timestamp,
    /// Newest event of any member.
    pub last: Timestamp,
    /// Jobs.
    pub members: u32,
    /// Jobs that have no verdict yet.
    pub running: u32,
    /// Jobs that ended badly.
    pub failed: u32,
    /// Jobs by class; running ones are not counted.
    pub classes: BTreeMap<Class, u32>,
    /// Bytes of its events that are indexed.
    pub length: u64,
    /// Its number in the index.
    #[serde(skip)]
    pub id: i64,
}

impl RunEntry {
    /// Where it stands in an answer, for [`Filter::before`].
    pub fn place(&self) -> (Option<Timestamp>, i64) {
        (Some(self.last), self.id)
    }
}

pub(super) const RUN: &str = "SELECT id, cluster, user, run_id, run_key, name, started, last, members, running, failed, classes, \
     length, aliases FROM run WHERE";

/// The columns of an attempt, from where it is found.
fn select(origin: Origin) -> String {
    let Origin { tables, ended, class, id } = origin;
    format!(
        "SELECT {id}, job.cluster, job.user, run.run_id, job.chunk, job.job_id, job.array_job_id, \
         job.array_task_id, job.attempt, job.name, job.account, job.partition, job.started, job.last, {ended}, \
         {class}, job.cause, job.label, job.confidence, job.fingerprint, job.message, job.exit_code, job.signal, \
         job.node, job.nodes, job.node_count, job.node_us, job.peak, job.limit_bytes \
         FROM {tables} JOIN run ON run.id = job.run WHERE"
    )
}

/// The end and the number of an attempt among [`select`]'s columns, newest end first.
const NEWEST: &str = "ORDER BY 15 DESC, 1 DESC";

impl Index {
    /// Attempts, those that run first, then the newest end first; at most
    /// `limit`.
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub fn jobs(&self, filter: &Filter, limit: usize) -> Result<Vec<JobEntry>, IndexError> {
        self.wrap(|| {
            let (origin, mut arms) = (Origin::of(filter), self.arms(filter)?);
            if arms.is_empty() {
                return Ok(Vec::new());
            }
            let mut all = Vec::new();
            for terms in &mut arms {
                if let Some((at, number)) = filter.before {
                    let term = format!("({}, {}) < (?, ?)", origin.ended, origin.id);
                    terms.add_two(&term, at.map_or(OPEN, |t| t.0), number);
                }
                all.push(format!("{} {}", select(origin), terms.sql()));
            }
            // They differ in their conditions alone.
            debug_assert!(arms.iter().all(|arm| arm.values == arms[0].values));
            let sql = format!("{} {NEWEST} LIMIT {}", all.join(" UNION ALL "), limit.min(ROWS_MAX));
            self.entries(&sql, &arms[0].values)
        })
    }

    /// Attempts of one run in the order of their numbers, from member `from`
    /// on; at most `limit`. Of the filter, cluster, user, run, failed, open and
    /// what is visible are looked at.
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub fn members(&self, filter: &Filter, from: u32, limit: usize) -> Result<Vec<JobEntry>, IndexError> {
        self.wrap(|| {
            let Some(mut terms) = self.terms(filter)? else { return Ok(Vec::new()) };
            terms.add("job.chunk >= ?", i64::from(from));
            let sql = format!(
                "{} {} ORDER BY job.chunk, job.attempt LIMIT {}",
                select(Origin::of(filter)),
                terms.sql(),
                limit.min(ROWS_MAX)
            );
            self.entries(&sql, &terms.values)
        })
    }

    /// Numbers of the members of one run that the filter does not leave out,
    /// between two numbers.
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub fn member_numbers(
        &self,
        filter: &Filter,
        between: RangeInclusive<u32>,
    ) -> Result<BTreeSet<u32>, IndexError> {
        self.wrap(|| {
            let Some(mut terms) = self.terms(filter)? else { return Ok(BTreeSet::new()) };
            terms.add("job.chunk >= ?", i64::from(*between.start()));
            terms.add("job.chunk <= ?", i64::from(*between.end()));
            let sql = format!("SELECT DISTINCT job.chunk FROM job WHERE {} ORDER BY 1", terms.sql());
            let mut query = self.db().prepare_cached(&sql)?;
            query.query_map(params_from_iter(&terms.values), |r| r.get(0))?.collect()
        })
    }

    /// What the members of one run that the filter does not leave out have come
    /// to: by class, each by its last attempt, and how many run.
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub fn come_to(&self, filter: &Filter) -> Result<(BTreeMap<Class, u32>, u32), IndexError> {
        self.wrap(|| {
            let (mut classes, mut running) = (BTreeMap::new(), 0);
            let Some(terms) = self.terms(filter)? else { return Ok((classes, running)) };
            // Columns beside max() are of the row that has it.
            let sql = format!(
                "SELECT ended = {OPEN}, class, count(*) \
                 FROM (SELECT job.ended AS ended, job.class AS class, max(job.attempt) \
                 FROM job WHERE {} GROUP BY job.chunk) GROUP BY 1, 2",
                terms.sql()
            );
            let mut query = self.db().prepare_cached(&sql)?;
            let mut rows = query.query(params_from_iter(&terms.values))?;
            while let Some(row) = rows.next()? {
                let jobs: u32 = row.get(2)?;
                if row.get(0)? {
                    running += jobs;
                } else {
                    *classes.entry(class_of(row.get(1)?)).or_default() += jobs;
                }
            }
            Ok((classes, running))
        })
    }

    fn entries(&self, sql: &str, values: &[Value]) -> rusqlite::Result<Vec<JobEntry>> {
        let mut query = self.db().prepare_cached(sql)?;
        let mut rows = query.query(params_from_iter(values))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(self.job_entry(row)?);
        }
        Ok(found)
    }

    /// Runs, newest event first; at most `limit`. Of the filter, cluster,
    /// user, run, times (of the newest event), failed, open, what is visible
    /// and the page before are looked at.
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub fn runs(&self, filter: &Filter, limit: usize) -> Result<Vec<RunEntry>, IndexError> {
        self.wrap(|| {
            let mut terms = Terms::default();
            // Those that run are few and have an index of their own.
            let user = if filter.open == Some(true) { "+user = ?" } else { "user = ?" };
            if !self.names(&mut terms, &[("cluster = ?", &filter.cluster), (user, &filter.user)])? {
                return Ok(Vec::new());
            }
            if let Some(id) = &filter.run_id {
                terms.add("run_id = ?", id.clone());
            }
            terms.times("last", filter.since, filter.until);
            if filter.failed {
                terms.fixed("failed > 0");
            }
            if let Some(visible) = &filter.visible {
                // A run is there for whoever sees one of its jobs.
                let own = self.visible(&Visible { accounts: Vec::new(), ..visible.clone() }, "user", "0")?;
                let accounts = Visible { user: String::new(), ..visible.clone() };
                let job = self.visible(&accounts, "job.user", "job.account")?;
                terms.fixed(&match job.as_str() {
                    "0" => own,
                    job => format!("({own} OR id IN (SELECT run FROM job WHERE {job}))"),
                });
            }
            if let Some((last, id)) = filter.before {
                terms.add_two("(last, id) < (?, ?)", last.map_or(OPEN, |t| t.0), id);
            }
            match filter.open {
                Some(true) => terms.fixed("running > 0"),
                Some(false) => terms.fixed("running = 0"),
                None => {}
            }
            let sql =
                format!("{RUN} {} ORDER BY last DESC, id DESC LIMIT {}", terms.sql(), limit.min(ROWS_MAX));
            let mut query = self.db().prepare_cached(&sql)?;
            let mut rows = query.query(params_from_iter(&terms.values))?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.push(self.run_entry(row)?);
            }
            Ok(found)
        })
    }

    /// One run.
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub fn run(&self, name: &RunName) -> Result<Option<RunEntry>, IndexError> {
        self.wrap(|| {
            let (Some(cluster), Some(user)) = (self.number(&name.0)?, self.number(&name.1)?) else {
                return Ok(None);
            };
            let sql = format!("{RUN} cluster = ?1 AND user = ?2 AND run_id = ?3");
            let mut query = self.db().prepare_cached(&sql)?;
            let mut rows = query.query(params![cluster, user, name.2])?;
            rows.next()?.map(|row| self.run_entry(row)).transpose()
        })
    }

    /// Runs and attempts that it holds.
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub fn totals(&self) -> Result<(i64, i64), IndexError> {
        let count = |table: &str| {
            self.db().query_row(&format!("SELECT count(*) FROM {table}"), [], |r| r.get::<_, i64>(0))
        };
        self.wrap(|| Ok((count("run")?, count("job")?)))
    }

    fn job_entry(&self, r: &Row<'_>) -> rusqlite::Result<JobEntry> {
        let word = |at: usize| -> rusqlite::Result<Option<String>> {
            let text = r.get::<_, Option<i64>>(at)?.map(|id| self.word(id)).transpose()?;
            Ok(text.map(|t| t.to_string()).filter(|t| !t.is_empty()))
        };
        let needed = |at| word(at).map(Option::unwrap_or_default);
        let ended: i64 = r.get(14)?;
        let class: Option<i64> = r.get(15)?;
        let end = match class {
            Some(class) => Some(End {
                ended: Timestamp(ended),
                class: class_of(class),
                cause: needed(16)?,
                label: needed(17)?,
                confidence: match r.get::<_, Option<i64>>(18)? {
                    Some(0) => Confidence::Fact,
                    Some(1) => Confidence::Log,
                    _ => Confidence::Inferred,
                },
                fingerprint: word(19)?,
                message: r.get(20)?,
            }),
            None => None,
        };
        let nodes = restore_nodes(r.get_ref(24)?.as_blob()?);
        let nodes = nodes.into_iter().map(|id| self.word(id).map(|t| t.to_string()));
        Ok(JobEntry {
            id: r.get(0)?,
            cluster: needed(1)?,
            user: needed(2)?,
            run_id: r.get(3)?,
            chunk_id: r.get(4)?,
            job_id: JobId(r.get(5)?),
            array_job_id: r.get::<_, Option<u32>>(6)?.map(JobId),
            array_task_id: r.get(7)?,
            entry: Entry {
                attempt: r.get(8)?,
                name: r.get(9)?,
                account: word(10)?,
                partition: word(11)?,
                started: Timestamp(r.get(12)?),
                last: Timestamp(r.get(13)?),
                end,
                exit_code: r.get(21)?,
                signal: r.get(22)?,
                node: word(23)?,
                nodes: nodes.collect::<Result<_, _>>()?,
                node_count: r.get(25)?,
                node_us: r.get(26)?,
                peak_bytes: r.get::<_, Option<i64>>(27)?.map(i64::cast_unsigned),
                limit_bytes: r.get::<_, Option<i64>>(28)?.map(i64::cast_unsigned),
            },
        })
    }

    pub(super) fn run_entry(&self, r: &Row<'_>) -> rusqlite::Result<RunEntry> {
        let classes: BTreeMap<Class, u32> =
            serde_json::from_str(r.get_ref(11)?.as_str()?).unwrap_or_default();
        let running = r.get(9)?;
        Ok(RunEntry {
            id: r.get(0)?,
            cluster: self.word(r.get(1)?)?.to_string(),
            user: self.word(r.get(2)?)?.to_string(),
            run_id: r.get(3)?,
            key: r.get::<_, Option<String>>(4)?.and_then(|text| serde_json::from_str(&text).ok()),
            aliases: serde_json::from_str(r.get_ref(13)?.as_str()?).unwrap_or_default(),
            name: r.get(5)?,
            status: RunStatus::of(running, &classes),
            started: Timestamp(r.get(6)?),
            last: Timestamp(r.get(7)?),
            members: r.get(8)?,
            running,
            failed: r.get(10)?,
            classes,
            length: r.get::<_, i64>(12)?.cast_unsigned(),
        })
    }
}
