/*!
What has been merged, in one SQLite file: positions in journals, which events
of which stream were seen, committed lengths of the store's files, and the jobs
and runs that are still open.

This is the collector's memory across crashes. A checkpoint appends to run
files, syncs the file system and then commits here, in that order, in one
transaction ([`Ledger::commit`]). After a crash the run files are cut back to
the committed lengths and the journals are read on from the committed
positions. The ledger belongs to one collector at a time; the lock is SQLite's.
*/

mod stream;

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

pub use stream::{Seen, StreamState};

use crate::follow::Position;

/// The ledger could not be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// SQLite's own reason.
    #[error("ledger {path}: {source}")]
    Sql {
        /// File of the ledger.
        path: String,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// Another collector has it.
    #[error("ledger {0} is in use by another collector; stop that one first")]
    InUse(String),
    /// Written by a newer version.
    #[error("ledger {path} has version {found}, this program knows {VERSION}; use the newer program")]
    Newer {
        /// File of the ledger.
        path: String,
        /// Version found.
        found: u32,
    },
}

const VERSION: u32 = 1;

const TABLES: &str = "
CREATE TABLE journal (
    name TEXT PRIMARY KEY, dev INTEGER, ino INTEGER, bytes INTEGER, size INTEGER,
    changed INTEGER, guard INTEGER, bad INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE stream (
    name TEXT PRIMARY KEY, node TEXT NOT NULL, next INTEGER NOT NULL, missing TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE output (path TEXT PRIMARY KEY, length INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE run (
    cluster TEXT, user TEXT, run_id TEXT, state TEXT NOT NULL, open INTEGER NOT NULL,
    PRIMARY KEY (cluster, user, run_id)) WITHOUT ROWID;
CREATE INDEX run_open ON run (open) WHERE open;
CREATE TABLE job (
    cluster TEXT, job_id INTEGER, user TEXT NOT NULL, run_id TEXT NOT NULL, chunk INTEGER NOT NULL,
    first INTEGER NOT NULL, last_us INTEGER NOT NULL, open INTEGER NOT NULL,
    PRIMARY KEY (cluster, job_id)) WITHOUT ROWID;
CREATE INDEX job_open ON job (open) WHERE open;
CREATE TABLE held (
    n INTEGER PRIMARY KEY, cluster TEXT NOT NULL, job_id INTEGER NOT NULL, uid INTEGER, line BLOB NOT NULL);
";

/// A run as the ledger keeps it; `state` is the JSON of `run.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunRow {
    /// Cluster, user and run id: its directory in the store.
    pub key: (String, String, String),
    /// What [`crate::runs`] keeps of it, as JSON.
    pub state: String,
    /// Members are still running or not yet settled.
    pub open: bool,
}

/// Which run a job belongs to, and where its events are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRow {
    /// Cluster and job id.
    pub key: (String, u32),
    /// Directory of the user in the store.
    pub user: String,
    /// The run.
    pub run_id: String,
    /// Number of the job in its run.
    pub chunk: u32,
    /// Offset of the job's first event in the run's file, in bytes.
    pub first: u64,
    /// Time of its newest event, in microseconds since 1970.
    pub last_us: i64,
    /// Not yet settled.
    pub open: bool,
}

/// A line that waits until it is known which run its job belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldRow {
    /// Cluster and job id.
    pub key: (String, u32),
    /// User, when the line itself did say.
    pub uid: Option<u32>,
    /// The line as it stands in the journal.
    pub line: Vec<u8>,
}

/// Everything one checkpoint changes.
#[derive(Debug, Default)]
pub struct Changes {
    /// New positions and how many bad lines were met since the last checkpoint.
    pub journals: HashMap<String, (Position, u64)>,
    /// Streams that moved, with their node.
    pub streams: HashMap<String, (String, StreamState)>,
    /// New lengths of store files.
    pub outputs: HashMap<String, u64>,
    /// Runs that changed.
    pub runs: Vec<RunRow>,
    /// Jobs that changed.
    pub jobs: Vec<JobRow>,
    /// All lines that wait now, when that changed.
    pub held: Option<Vec<HeldRow>>,
}

/// An open ledger.
#[derive(Debug)]
pub struct Ledger {
    db: Connection,
    path: String,
}

impl Ledger {
    /// Opens or makes the ledger at `path` and takes it for this process.
    ///
    /// # Errors
    ///
    /// When the file cannot be used, is of a newer version, or is in use.
    pub fn open(path: &Path) -> Result<Ledger, LedgerError> {
        let name = path.display().to_string();
        let sql = |source: rusqlite::Error| match source.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => {
                LedgerError::InUse(name.clone())
            }
            _ => LedgerError::Sql { path: name.clone(), source },
        };
        let mut db = Connection::open(path).map_err(sql)?;
        db.busy_timeout(Duration::ZERO).map_err(sql)?;
        // Exclusive: the lock taken by the first write is kept until the end.
        db.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(sql)?;
        db.pragma_update(None, "journal_mode", "WAL").map_err(sql)?;
        db.pragma_update(None, "synchronous", "FULL").map_err(sql)?;
        let tx = db.transaction_with_behavior(TransactionBehavior::Exclusive).map_err(sql)?;
        let found: u32 = tx.pragma_query_value(None, "user_version", |r| r.get(0)).map_err(sql)?;
        match found {
            0 => {
                tx.execute_batch(TABLES).map_err(sql)?;
                tx.pragma_update(None, "user_version", VERSION).map_err(sql)?;
            }
            VERSION => {}
            found => return Err(LedgerError::Newer { path: name, found }),
        }
        tx.commit().map_err(sql)?;
        db.set_prepared_statement_cache_capacity(32);
        Ok(Ledger { db, path: name })
    }

    fn wrap<T>(&self, result: rusqlite::Result<T>) -> Result<T, LedgerError> {
        result.map_err(|source| LedgerError::Sql { path: self.path.clone(), source })
    }

    fn rows<T>(
        &self,
        sql: &str,
        read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, LedgerError> {
        self.wrap((|| self.db.prepare_cached(sql)?.query_map([], read)?.collect())())
    }

    /// Positions of all journals.
    pub fn journals(&self) -> Result<HashMap<String, Position>, LedgerError> {
        let rows = self.rows("SELECT name, dev, ino, bytes, size, changed, guard FROM journal", |r| {
            let position = Position {
                file: (unsigned(r, 1)?, unsigned(r, 2)?),
                bytes: unsigned(r, 3)?,
                size: unsigned(r, 4)?,
                changed: r.get(5)?,
                guard: unsigned(r, 6)?,
            };
            Ok((r.get(0)?, position))
        })?;
        Ok(rows.into_iter().collect())
    }

    /// Lines that did not parse, over all journals and all time.
    pub fn bad_lines(&self) -> Result<u64, LedgerError> {
        let sql = "SELECT coalesce(sum(bad), 0) FROM journal";
        self.wrap(self.db.query_row(sql, [], |r| unsigned(r, 0)))
    }

    /// What was seen of a stream.
    pub fn stream(&self, name: &str) -> Result<Option<StreamState>, LedgerError> {
        let sql = "SELECT next, missing FROM stream WHERE name = ?1";
        self.wrap((|| {
            self.db
                .prepare_cached(sql)?
                .query_row([name], |r| Ok(StreamState::restore(unsigned(r, 0)?, &r.get::<_, String>(1)?)))
                .optional()
        })())
    }

    /// Streams with gaps: node, stream, lost events.
    pub fn gaps(&self) -> Result<Vec<(String, String, u64)>, LedgerError> {
        let sql = "SELECT node, name, next, missing FROM stream WHERE missing <> '' ORDER BY node, name";
        self.rows(sql, |r| {
            let state = StreamState::restore(unsigned(r, 2)?, &r.get::<_, String>(3)?);
            Ok((r.get(0)?, r.get(1)?, state.lost()))
        })
    }

    /// Committed lengths of the store's files.
    pub fn outputs(&self) -> Result<HashMap<String, u64>, LedgerError> {
        let rows = self.rows("SELECT path, length FROM output", |r| Ok((r.get(0)?, unsigned(r, 1)?)))?;
        Ok(rows.into_iter().collect())
    }

    /// Runs with members that are not settled.
    pub fn open_runs(&self) -> Result<Vec<RunRow>, LedgerError> {
        self.rows("SELECT cluster, user, run_id, state, open FROM run WHERE open", run_row)
    }

    /// One run.
    pub fn run(&self, key: &(String, String, String)) -> Result<Option<RunRow>, LedgerError> {
        let sql = "SELECT cluster, user, run_id, state, open FROM run \
                   WHERE cluster = ?1 AND user = ?2 AND run_id = ?3";
        self.wrap((|| {
            self.db.prepare_cached(sql)?.query_row(params![key.0, key.1, key.2], run_row).optional()
        })())
    }

    /// Jobs that are not settled.
    pub fn open_jobs(&self) -> Result<Vec<JobRow>, LedgerError> {
        self.rows(&format!("SELECT {JOB} FROM job WHERE open"), job_row)
    }

    /// One job.
    pub fn job(&self, cluster: &str, job_id: u32) -> Result<Option<JobRow>, LedgerError> {
        let sql = format!("SELECT {JOB} FROM job WHERE cluster = ?1 AND job_id = ?2");
        self.wrap((|| {
            self.db.prepare_cached(&sql)?.query_row(params![cluster, job_id], job_row).optional()
        })())
    }

    /// Lines that wait for their run, in the order in which they were read.
    pub fn held(&self) -> Result<Vec<HeldRow>, LedgerError> {
        self.rows("SELECT cluster, job_id, uid, line FROM held ORDER BY n", |r| {
            Ok(HeldRow { key: (r.get(0)?, r.get(1)?), uid: r.get(2)?, line: r.get(3)? })
        })
    }

    /// Makes all of `changes` durable, or none of it.
    ///
    /// # Errors
    ///
    /// When SQLite cannot commit; nothing has changed then.
    pub fn commit(&mut self, changes: &Changes) -> Result<(), LedgerError> {
        let result = commit(&mut self.db, changes);
        self.wrap(result)
    }
}

const JOB: &str = "cluster, job_id, user, run_id, chunk, first, last_us, open";

fn job_row(r: &rusqlite::Row<'_>) -> rusqlite::Result<JobRow> {
    Ok(JobRow {
        key: (r.get(0)?, r.get(1)?),
        user: r.get(2)?,
        run_id: r.get(3)?,
        chunk: r.get(4)?,
        first: unsigned(r, 5)?,
        last_us: r.get(6)?,
        open: r.get(7)?,
    })
}

fn run_row(r: &rusqlite::Row<'_>) -> rusqlite::Result<RunRow> {
    Ok(RunRow { key: (r.get(0)?, r.get(1)?, r.get(2)?), state: r.get(3)?, open: r.get(4)? })
}

/// SQLite has signed integers only; the bits are kept.
fn unsigned(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(i64::cast_unsigned)
}

fn commit(db: &mut Connection, changes: &Changes) -> rusqlite::Result<()> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    {
        let mut put = tx.prepare_cached(
            "INSERT INTO journal VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (name) DO UPDATE SET \
             dev = ?2, ino = ?3, bytes = ?4, size = ?5, changed = ?6, guard = ?7, bad = bad + ?8",
        )?;
        for (name, (at, bad)) in &changes.journals {
            let (dev, ino) = at.file;
            let signed = [dev, ino, at.bytes, at.size, at.guard, *bad].map(u64::cast_signed);
            let [dev, ino, bytes, size, guard, bad] = signed;
            put.execute(params![name, dev, ino, bytes, size, at.changed, guard, bad])?;
        }
        let mut put = tx.prepare_cached("INSERT OR REPLACE INTO stream VALUES (?1, ?2, ?3, ?4)")?;
        for (name, (node, state)) in &changes.streams {
            let (next, missing) = state.save();
            put.execute(params![name, node, next.cast_signed(), missing])?;
        }
        let mut put = tx.prepare_cached("INSERT OR REPLACE INTO output VALUES (?1, ?2)")?;
        for (path, length) in &changes.outputs {
            put.execute(params![path, length.cast_signed()])?;
        }
        let mut put = tx.prepare_cached("INSERT OR REPLACE INTO run VALUES (?1, ?2, ?3, ?4, ?5)")?;
        for run in &changes.runs {
            put.execute(params![run.key.0, run.key.1, run.key.2, run.state, run.open])?;
        }
        let mut put =
            tx.prepare_cached("INSERT OR REPLACE INTO job VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?;
        for job in &changes.jobs {
            let first = job.first.cast_signed();
            let (cluster, id) = &job.key;
            put.execute(params![cluster, id, job.user, job.run_id, job.chunk, first, job.last_us, job.open])?;
        }
        if let Some(held) = &changes.held {
            tx.execute("DELETE FROM held", [])?;
            let mut put =
                tx.prepare_cached("INSERT INTO held (cluster, job_id, uid, line) VALUES (?1, ?2, ?3, ?4)")?;
            for row in held {
                put.execute(params![row.key.0, row.key.1, row.uid, row.line])?;
            }
        }
    }
    tx.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_committed_is_there_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.db");
        let position =
            Position { file: (1, u64::MAX), bytes: 10, size: 12, changed: -3, guard: u64::MAX - 1 };
        let mut seen = StreamState::default();
        assert_eq!(seen.see(2), Seen::New);
        let job = JobRow {
            key: ("lab".into(), 7),
            user: "u".into(),
            run_id: "job-7".into(),
            chunk: 1,
            first: 0,
            last_us: 5,
            open: true,
        };
        let run = RunRow { key: ("lab".into(), "u".into(), "job-7".into()), state: "{}".into(), open: true };
        let held = HeldRow { key: ("lab".into(), 8), uid: Some(1), line: b"{}".to_vec() };
        let changes = Changes {
            journals: HashMap::from([("n1/a.jsonl".to_owned(), (position.clone(), 2))]),
            streams: HashMap::from([("s".to_owned(), ("n1".to_owned(), seen.clone()))]),
            outputs: HashMap::from([("lab/u/x".to_owned(), 99)]),
            runs: vec![run.clone()],
            jobs: vec![job.clone()],
            held: Some(vec![held.clone()]),
        };
        Ledger::open(&path).unwrap().commit(&changes).unwrap();

        let ledger = Ledger::open(&path).unwrap();
        assert_eq!(ledger.journals().unwrap()["n1/a.jsonl"], position);
        assert_eq!(ledger.bad_lines().unwrap(), 2);
        assert_eq!(ledger.stream("s").unwrap(), Some(seen));
        assert_eq!(ledger.stream("t").unwrap(), None);
        assert_eq!(ledger.gaps().unwrap(), [("n1".to_owned(), "s".to_owned(), 2)]);
        assert_eq!(ledger.outputs().unwrap()["lab/u/x"], 99);
        assert_eq!(ledger.open_runs().unwrap(), [run]);
        assert_eq!(ledger.job("lab", 7).unwrap().as_ref(), Some(&job));
        assert_eq!(ledger.open_jobs().unwrap(), [job]);
        assert_eq!(ledger.held().unwrap(), [held]);
    }

    #[test]
    fn two_collectors_cannot_share_a_ledger() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.db");
        let _first = Ledger::open(&path).unwrap();
        assert!(matches!(Ledger::open(&path), Err(LedgerError::InUse(_))));
    }
}
