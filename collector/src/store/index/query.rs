//! Questions to the index.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use inquest_journal::{JobId, Timestamp};
use rusqlite::{Connection, InterruptHandle, OpenFlags, OptionalExtension, Row, params, params_from_iter};
use serde::Serialize;

use super::entry::{End, Entry, JobEntry};
use super::filter::{Filter, Origin, Terms, Visible};
use super::put::restore_nodes;
use super::scan::restore_extents;
use super::schema::{VERSION, class_of};
use super::{IndexError, OPEN, machine, path_of};
use crate::ledger::RunName;
use crate::runs::{RunKey, RunStatus};
use crate::slurm::target::Target;
use crate::verdict::{Class, Confidence};

/// Rows of one answer, whatever was asked for.
const ROWS_MAX: usize = 100_000;

/// A reader waits so long for a lock that only recovery after a crash takes.
const BUSY: Duration = Duration::from_secs(2);

/// Why there is no index to ask. The stores can be read instead.
#[derive(Debug, thiserror::Error)]
pub enum Standing {
    /// There is none.
    #[error("there is no index; 'inquest index rebuild' makes it")]
    Absent,
    /// The caller may not read it.
    #[error("the index is for operators")]
    Denied,
    /// It does not hold everything yet.
    #[error("the index is being built")]
    Building,
    /// It is written on another machine.
    #[error("the index belongs to the machine on which the collector runs, and is only read there")]
    Elsewhere,
    /// Another version wrote it.
    #[error("the index has version {0}, this program knows {VERSION}")]
    Version(u32),
    /// It could not be opened.
    #[error(transparent)]
    Broken(IndexError),
}

/// The index of a store, open for reading. Answers come from one state of the
/// index each; two questions may meet two states.
#[derive(Debug)]
pub struct Index {
    db: Connection,
    path: PathBuf,
    words: RefCell<HashMap<i64, Rc<str>>>,
}

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

const JOB: &str = "SELECT job.id, job.cluster, job.user, run.run_id, job.chunk, job.job_id, job.array_job_id, \
     job.array_task_id, job.attempt, job.name, job.account, job.partition, job.started, job.last, job.ended, \
     job.class, job.cause, job.label, job.confidence, job.fingerprint, job.message, job.exit_code, job.signal, \
     job.node, job.nodes, job.node_count, job.node_us, job.peak, job.limit_bytes";

const RUN: &str = "SELECT id, cluster, user, run_id, run_key, name, started, last, members, running, failed, classes, \
     length, aliases FROM run WHERE";

impl Index {
    /// Opens the index of the store at `store`.
    ///
    /// # Errors
    ///
    /// When there is none that could be asked.
    pub fn open(store: &Path) -> Result<Index, Standing> {
        let path = path_of(store);
        let mut head = [0; 100];
        match File::open(&path).and_then(|mut f| f.read_exact(&mut head)) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::PermissionDenied => return Err(Standing::Denied),
            Err(_) => return Err(Standing::Absent),
        }
        // Before SQLite maps what another machine would not share.
        let number = |at: usize| i32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        match number(60).cast_unsigned() {
            VERSION => {}
            found => return Err(Standing::Version(found)),
        }
        if number(68) != machine() {
            return Err(Standing::Elsewhere);
        }
        let open = || -> rusqlite::Result<(Connection, bool)> {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let db = Connection::open_with_flags(&path, flags)?;
            db.busy_timeout(BUSY)?;
            db.pragma_update(None, "mmap_size", 1i64 << 40)?;
            let sql = "SELECT value FROM meta WHERE name = 'building'";
            let building = db.query_row(sql, [], |r| r.get(0)).optional()?.unwrap_or(false);
            Ok((db, building))
        };
        match open() {
            Ok((db, false)) => Ok(Index { db, path, words: RefCell::default() }),
            Ok((_, true)) => Err(Standing::Building),
            Err(source) => Err(Standing::Broken(IndexError::Sql { path, source })),
        }
    }

    /// Attempts, those that run first, then the newest end first; at most
    /// `limit`.
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub fn jobs(&self, filter: &Filter, limit: usize) -> Result<Vec<JobEntry>, IndexError> {
        self.wrap(|| {
            let Some(mut terms) = self.terms(filter)? else { return Ok(Vec::new()) };
            let Origin { tables, ended, id, .. } = Origin::of(filter);
            if let Some((at, number)) = filter.before {
                terms.add_two(&format!("({ended}, {id}) < (?, ?)"), at.map_or(OPEN, |t| t.0), number);
            }
            let sql = format!(
                "{JOB} FROM {tables} JOIN run ON run.id = job.run WHERE {} ORDER BY {ended} DESC, {id} DESC LIMIT {}",
                terms.sql(),
                limit.min(ROWS_MAX)
            );
            let mut query = self.db.prepare_cached(&sql)?;
            let mut rows = query.query(params_from_iter(&terms.values))?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.push(self.job_entry(row)?);
            }
            Ok(found)
        })
    }

    /// All attempts of a job, newest first; of several jobs, when the id was
    /// used more than once. `123` is an array, too.
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub fn attempts(&self, job: JobId, filter: &Filter) -> Result<Vec<JobEntry>, IndexError> {
        self.wrap(|| {
            let Some(mut terms) = self.terms(filter)? else { return Ok(Vec::new()) };
            let id = i64::from(job.0);
            terms.add_two("(job.job_id = ? OR job.array_job_id = ?)", id, id);
            let sql = format!(
                "{JOB} FROM {} JOIN run ON run.id = job.run WHERE {} ORDER BY job.started DESC LIMIT {ROWS_MAX}",
                Origin::of(filter).tables,
                terms.sql()
            );
            let mut query = self.db.prepare_cached(&sql)?;
            let mut rows = query.query(params_from_iter(&terms.values))?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.push(self.job_entry(row)?);
            }
            Ok(found)
        })
    }

    /// What stops a question of this index from another thread.
    pub fn interrupter(&self) -> InterruptHandle {
        self.db.get_interrupt_handle()
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
            if !self.names(&mut terms, &[("cluster = ?", &filter.cluster), ("user = ?", &filter.user)])? {
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
            let mut query = self.db.prepare_cached(&sql)?;
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
            let mut query = self.db.prepare_cached(&sql)?;
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
            self.db.query_row(&format!("SELECT count(*) FROM {table}"), [], |r| r.get::<_, i64>(0))
        };
        self.wrap(|| Ok((count("run")?, count("job")?)))
    }

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
            runs.sort_by_key(|r| std::cmp::Reverse((r.started, r.id)));
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
                let id = crate::runs::path_id(id);
                self.db.prepare_cached(sql)?.query_map([id], |r| r.get(0))?.collect::<Result<_, _>>()?
            }
            Target::Job { id, .. } => {
                let sql =
                    "SELECT run FROM job WHERE job_id = ?1 UNION SELECT run FROM job WHERE array_job_id = ?1";
                self.db.prepare_cached(sql)?.query_map([id.0], |r| r.get(0))?.collect::<Result<_, _>>()?
            }
            Target::Array { id, .. } => {
                let sql = "SELECT DISTINCT run FROM job WHERE array_job_id = ?1";
                self.db.prepare_cached(sql)?.query_map([id.0], |r| r.get(0))?.collect::<Result<_, _>>()?
            }
            Target::Het { id, offset } => {
                let sql = "SELECT DISTINCT run FROM job WHERE job_id = ?1";
                let id = id.0.saturating_add(*offset);
                self.db.prepare_cached(sql)?.query_map([id], |r| r.get(0))?.collect::<Result<_, _>>()?
            }
        };
        let sql = format!("{RUN} id = ?1");
        let mut query = self.db.prepare_cached(&sql)?;
        let mut runs = Vec::new();
        for id in ids {
            let mut rows = query.query([id])?;
            if let Some(row) = rows.next()? {
                runs.push(self.run_entry(row)?);
            }
        }
        Ok(runs)
    }

    fn places(&self, run: i64, target: &Target) -> rusqlite::Result<Vec<Place>> {
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
        let ask = |sql: &str, values: &[i64]| -> rusqlite::Result<Vec<Place>> {
            let sql = format!("{PLACE} {sql}");
            self.db.prepare_cached(&sql)?.query_map(params_from_iter(values), read)?.collect()
        };
        let mut places = match target {
            Target::Run(_) => ask("j.run = ?1", &[run])?,
            Target::Job { id, .. } => {
                let id = i64::from(id.0);
                let mut places = ask("j.job_id = ?2 AND j.run = ?1", &[run, id])?;
                places.extend(ask("j.array_job_id = ?2 AND j.run = ?1", &[run, id])?);
                places
            }
            Target::Array { id, tasks, .. } => {
                let mut places = Vec::new();
                for task in tasks {
                    let values = [run, i64::from(id.0), i64::from(*task)];
                    places
                        .extend(ask("j.array_job_id = ?2 AND j.array_task_id = ?3 AND j.run = ?1", &values)?);
                }
                places
            }
            Target::Het { id, offset } => {
                let id = i64::from(id.0.saturating_add(*offset));
                ask("j.job_id = ?2 AND j.run = ?1", &[run, id])?
            }
        };
        places.sort_by_key(|p| p.chunk);
        places.dedup_by_key(|p| p.chunk);
        Ok(places)
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

    fn run_entry(&self, r: &Row<'_>) -> rusqlite::Result<RunEntry> {
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

    /// Name of a number.
    pub(super) fn word(&self, id: i64) -> rusqlite::Result<Rc<str>> {
        if let Some(text) = self.words.borrow().get(&id) {
            return Ok(text.clone());
        }
        let sql = "SELECT text FROM word WHERE id = ?1";
        let text: Option<String> = self.db.prepare_cached(sql)?.query_row([id], |r| r.get(0)).optional()?;
        let text: Rc<str> = text.unwrap_or_default().into();
        self.words.borrow_mut().insert(id, text.clone());
        Ok(text)
    }

    pub(super) fn number(&self, text: &str) -> rusqlite::Result<Option<i64>> {
        self.db
            .prepare_cached("SELECT id FROM word WHERE text = ?1")?
            .query_row([text], |r| r.get(0))
            .optional()
    }

    pub(super) fn db(&self) -> &Connection {
        &self.db
    }

    pub(super) fn wrap<T>(&self, ask: impl FnOnce() -> rusqlite::Result<T>) -> Result<T, IndexError> {
        ask().map_err(|source| IndexError::Sql { path: self.path.clone(), source })
    }
}
