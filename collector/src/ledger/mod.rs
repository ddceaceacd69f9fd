/*!
What has been merged, in one SQLite file: positions in journals, which events
of which stream were seen, committed lengths of the store's files, jobs and
runs.

This is the collector's memory across crashes. A checkpoint appends to run
files, syncs them and then commits here, in that order, in one
transaction ([`Ledger::put`], [`Ledger::commit`]). After a crash the run files are cut back to
the committed lengths and the journals are read on from the committed
positions. The ledger belongs to one collector at a time; the lock is SQLite's.

Nothing here is rewritten as a whole: a checkpoint writes the rows of what it
changed, so its cost follows the events in it and not the history.
*/

mod blocks;
mod hash;
mod rows;
mod stream;
mod varint;

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use blocks::{Blocks, Kind};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};

pub use hash::{FastHash, Quick};
pub use rows::{Changes, Counts, HeldRow, JobRow, MemberRow, RunName, RunRow};
pub use stream::{Seen, StreamState};
pub(crate) use varint::{take_varint, varint};

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
    /// Written by another version.
    #[error(
        "ledger {path} has version {found}, this program knows {VERSION}; use the program that wrote it, \
         or move the store away and let it be made again from the journals"
    )]
    Version {
        /// File of the ledger.
        path: String,
        /// Version found.
        found: u32,
    },
}

const VERSION: u32 = 4;

const TABLES: &str = "
CREATE TABLE journal (
    name TEXT PRIMARY KEY, dev INTEGER, ino INTEGER, bytes INTEGER, size INTEGER,
    changed INTEGER, guard INTEGER, bad INTEGER NOT NULL, newer INTEGER NOT NULL,
    copies INTEGER NOT NULL, foreign_node INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX journal_odd ON journal (name) WHERE bad + newer + copies + foreign_node > 0;
CREATE TABLE output (path TEXT PRIMARY KEY, length INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE run (
    id INTEGER PRIMARY KEY, cluster TEXT NOT NULL, user TEXT NOT NULL, run_id TEXT NOT NULL,
    length INTEGER NOT NULL, state TEXT NOT NULL, stale INTEGER NOT NULL, UNIQUE (cluster, user, run_id));
CREATE INDEX run_stale ON run (stale) WHERE stale;
CREATE TABLE cursor (source INTEGER PRIMARY KEY, at INTEGER NOT NULL);
CREATE TABLE alike (grouped INTEGER PRIMARY KEY, run INTEGER NOT NULL);
CREATE TABLE held (
    n INTEGER PRIMARY KEY, cluster TEXT NOT NULL, job_id INTEGER NOT NULL, uid INTEGER, line BLOB NOT NULL);
CREATE INDEX held_job ON held (cluster, job_id);
";

/// An open ledger.
#[derive(Debug)]
pub struct Ledger {
    db: Connection,
    path: String,
    streams: Blocks,
    jobs: Blocks,
    members: Blocks,
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
        // A statement is planned once, and not anew for every value that is bound to it.
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(sql)?;
        // Exclusive: the lock taken by the first write is kept until the end.
        db.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(sql)?;
        db.pragma_update(None, "journal_mode", "WAL").map_err(sql)?;
        db.pragma_update(None, "synchronous", "FULL").map_err(sql)?;
        let tx = db.transaction_with_behavior(TransactionBehavior::Exclusive).map_err(sql)?;
        let found: u32 = tx.pragma_query_value(None, "user_version", |r| r.get(0)).map_err(sql)?;
        match found {
            0 => {
                tx.execute_batch(TABLES).map_err(sql)?;
                tx.execute_batch(blocks::TABLES).map_err(sql)?;
                tx.pragma_update(None, "user_version", VERSION).map_err(sql)?;
            }
            VERSION => {}
            found => return Err(LedgerError::Version { path: name, found }),
        }
        tx.commit().map_err(sql)?;
        // Streams and jobs of a site's working day stay in the cache (KiB).
        db.pragma_update(None, "cache_size", -32_768).map_err(sql)?;
        db.pragma_update(None, "wal_autocheckpoint", 16_384).map_err(sql)?;
        db.set_prepared_statement_cache_capacity(32);
        let [streams, jobs, members] = [Kind::Stream, Kind::Job, Kind::Member].map(Blocks::new);
        Ok(Ledger { db, path: name, streams, jobs, members })
    }

    fn wrap<T>(&self, result: rusqlite::Result<T>) -> Result<T, LedgerError> {
        result.map_err(|source| LedgerError::Sql { path: self.path.clone(), source })
    }

    fn rows<T>(
        &self,
        sql: &str,
        given: impl rusqlite::Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, LedgerError> {
        self.wrap((|| self.db.prepare_cached(sql)?.query_map(given, read)?.collect())())
    }

    fn row<T>(
        &self,
        sql: &str,
        given: impl rusqlite::Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, LedgerError> {
        self.wrap((|| self.db.prepare_cached(sql)?.query_row(given, read).optional())())
    }

    /// Positions of all journals.
    pub fn journals(&self) -> Result<HashMap<String, Position>, LedgerError> {
        let rows = self.rows("SELECT name, dev, ino, bytes, size, changed, guard FROM journal", [], |r| {
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

    /// What was met in each journal over all time, for journals in which
    /// something other than new events was met.
    pub fn oddities(&self) -> Result<Vec<(String, Counts)>, LedgerError> {
        let sql = "SELECT name, bad, newer, copies, foreign_node FROM journal \
                   WHERE bad + newer + copies + foreign_node > 0 ORDER BY name";
        self.rows(sql, [], |r| Ok((r.get(0)?, counts(r, 1)?)))
    }

    /// The sum over all journals.
    pub fn totals(&self) -> Result<Counts, LedgerError> {
        let sql = "SELECT coalesce(sum(bad), 0), coalesce(sum(newer), 0), coalesce(sum(copies), 0), \
                   coalesce(sum(foreign_node), 0) FROM journal WHERE bad + newer + copies + foreign_node > 0";
        Ok(self.row(sql, [], |r| counts(r, 0))?.unwrap_or_default())
    }

    /// What was seen of a stream.
    pub fn stream(&mut self, name: &str) -> Result<Option<StreamState>, LedgerError> {
        let found = self.streams.get(&self.db, name.as_bytes());
        let state = found.and_then(|value| value.map(|value| Ok(rows::stream(value)?.1)).transpose());
        self.wrap(state)
    }

    /// Streams with gaps: node, stream, lost events.
    pub fn gaps(&self) -> Result<Vec<(String, String, u64)>, LedgerError> {
        let mut gaps = Vec::new();
        self.wrap(self.streams.marked(&self.db, |name, value| {
            let (node, state) = rows::stream(value)?;
            gaps.push((node.to_owned(), String::from_utf8_lossy(name).into_owned(), state.lost()));
            Ok(())
        }))?;
        gaps.sort_unstable();
        Ok(gaps)
    }

    /// Committed length of a file of the store that is no run's.
    pub fn output(&self, path: &str) -> Result<u64, LedgerError> {
        let sql = "SELECT length FROM output WHERE path = ?1";
        Ok(self.row(sql, [path], |r| unsigned(r, 0))?.unwrap_or(0))
    }

    /// Calls `each` with every file of the store and its committed length.
    /// Runs are named by cluster, user and run id, other files by their path.
    ///
    /// # Errors
    ///
    /// What `each` says, and what SQLite says.
    pub fn lengths<E: From<LedgerError>>(
        &self,
        mut each: impl FnMut(Output<'_>, u64) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut walk = || -> rusqlite::Result<Result<(), E>> {
            let mut runs = self.db.prepare_cached("SELECT cluster, user, run_id, length FROM run")?;
            let mut rows = runs.query([])?;
            while let Some(r) = rows.next()? {
                let name = [0, 1, 2].map(|n| r.get_ref(n).and_then(|v| Ok(v.as_str()?)));
                let [cluster, user, run_id] = name;
                if let Err(e) = each(Output::Run(cluster?, user?, run_id?), unsigned(r, 3)?) {
                    return Ok(Err(e));
                }
            }
            let mut others = self.db.prepare_cached("SELECT path, length FROM output")?;
            let mut rows = others.query([])?;
            while let Some(r) = rows.next()? {
                if let Err(e) = each(Output::Other(r.get_ref(0)?.as_str()?), unsigned(r, 1)?) {
                    return Ok(Err(e));
                }
            }
            Ok(Ok(()))
        };
        let result = walk();
        self.wrap(result).map_err(E::from)?
    }

    /// The highest number given to a run so far.
    pub fn last_run(&self) -> Result<i64, LedgerError> {
        Ok(self.row("SELECT coalesce(max(id), 0) FROM run", [], |r| r.get(0))?.unwrap_or(0))
    }

    /// One run by its name.
    pub fn run_named(&self, name: &RunName) -> Result<Option<RunRow>, LedgerError> {
        let sql = "SELECT id, cluster, user, run_id, length, state, stale FROM run \
                   WHERE cluster = ?1 AND user = ?2 AND run_id = ?3";
        self.row(sql, params![name.0, name.1, name.2], rows::run)
    }

    /// One run by its number.
    pub fn run(&self, id: i64) -> Result<Option<RunRow>, LedgerError> {
        let sql = "SELECT id, cluster, user, run_id, length, state, stale FROM run WHERE id = ?1";
        self.row(sql, [id], rows::run)
    }

    /// Clusters that have jobs.
    pub fn clusters(&self) -> Result<Vec<String>, LedgerError> {
        self.rows("SELECT DISTINCT cluster FROM run", [], |r| r.get(0))
    }

    /// Up to when the accounting's news were read, in microseconds since 1970.
    pub fn cursor(&self) -> Result<Option<i64>, LedgerError> {
        self.row("SELECT at FROM cursor", [], |r| r.get(0))
    }

    /// The newest run of a weak group.
    pub fn alike(&self, group: i64) -> Result<Option<i64>, LedgerError> {
        // A run that was moved away is forgotten; its group begins anew.
        let sql = "SELECT run FROM alike JOIN run ON run.id = alike.run WHERE grouped = ?1";
        self.row(sql, [group], |r| r.get(0))
    }

    /// Numbers of the runs whose `run.json` and registry line are older than
    /// what is known.
    pub fn stale_runs(&self) -> Result<Vec<i64>, LedgerError> {
        self.rows("SELECT id FROM run WHERE stale ORDER BY id", [], |r| r.get(0))
    }

    /// Calls `each` with every member of a run, in the order of their numbers.
    ///
    /// # Errors
    ///
    /// When SQLite fails.
    pub fn members(&self, run: i64, mut each: impl FnMut(MemberRow)) -> Result<(), LedgerError> {
        let range = (&rows::member_key(run, 0)[..], &rows::member_key(run + 1, 0)[..]);
        self.wrap(self.members.range(&self.db, range, |key, value| {
            each(rows::member(key, value)?);
            Ok(())
        }))
    }

    /// One member of a run.
    pub fn member(&mut self, run: i64, chunk: u32) -> Result<Option<MemberRow>, LedgerError> {
        let key = rows::member_key(run, chunk);
        let found = self.members.get(&self.db, &key);
        let member = found.and_then(|value| value.map(|value| rows::member(&key, value)).transpose());
        self.wrap(member)
    }

    /// Jobs that are not settled.
    pub fn open_jobs(&self) -> Result<Vec<JobRow>, LedgerError> {
        let mut jobs = Vec::new();
        self.wrap(self.jobs.marked(&self.db, |key, value| {
            jobs.push(rows::job(key, value)?);
            Ok(())
        }))?;
        Ok(jobs)
    }

    /// One job.
    pub fn job(&mut self, cluster: &str, job_id: u32) -> Result<Option<JobRow>, LedgerError> {
        let key = rows::job_key(cluster, job_id);
        let found = self.jobs.get(&self.db, &key);
        let job = found.and_then(|value| value.map(|value| rows::job(&key, value)).transpose());
        self.wrap(job)
    }

    /// Lines that wait for their run, in the order in which they were read.
    pub fn held(&self) -> Result<Vec<HeldRow>, LedgerError> {
        self.rows("SELECT cluster, job_id, uid, line FROM held ORDER BY n", [], |r| {
            Ok(HeldRow { key: (r.get(0)?, r.get(1)?), uid: r.get(2)?, line: r.get(3)? })
        })
    }

    /// Forgets a run and its jobs: somebody has moved it away.
    ///
    /// # Errors
    ///
    /// When SQLite cannot commit.
    pub fn forget_run(&mut self, name: &RunName) -> Result<(), LedgerError> {
        let Some(run) = self.run_named(name)? else { return Ok(()) };
        let mut members = Vec::new();
        self.members(run.id, |m| members.push((m.chunk, m.job_id)))?;
        let mut jobs = Vec::new();
        for (_, job_id) in &members {
            // The job of that id may be another one by now, in another run.
            if self.job(&name.0, *job_id)?.is_some_and(|job| job.run == run.id) {
                jobs.push((rows::job_key(&name.0, *job_id).into(), None));
            }
        }
        let member = |(chunk, _)| (rows::member_key(run.id, chunk).to_vec().into(), None);
        let members = members.into_iter().map(member).collect();
        let result = (|| {
            let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            self.members.put(&tx, members)?;
            self.jobs.put(&tx, jobs)?;
            for table in ["alike WHERE run", "run WHERE id"] {
                tx.execute(&format!("DELETE FROM {table} = ?1"), [run.id])?;
            }
            tx.commit()
        })();
        self.wrap(result)
    }

    /// Writes all of `changes`, so that this ledger knows them from now on.
    /// They are durable with [`Ledger::commit`], all or none.
    ///
    /// # Errors
    ///
    /// When SQLite cannot write. The ledger must then be opened anew.
    pub fn put(&mut self, changes: &Changes) -> Result<(), LedgerError> {
        let blocks = (&mut self.streams, &mut self.jobs, &mut self.members);
        let result = rows::put(&self.db, blocks, changes);
        self.wrap(result)
    }

    /// Forgets what was put and not committed.
    ///
    /// # Errors
    ///
    /// When SQLite fails.
    pub fn roll_back(&mut self) -> Result<(), LedgerError> {
        for blocks in [&mut self.streams, &mut self.jobs, &mut self.members] {
            blocks.forget();
        }
        match self.db.is_autocommit() {
            true => Ok(()),
            false => self.wrap(self.db.execute_batch("ROLLBACK")),
        }
    }

    /// Makes durable what was put.
    ///
    /// # Errors
    ///
    /// When SQLite cannot commit. The ledger must then be opened anew.
    pub fn commit(&mut self) -> Result<(), LedgerError> {
        self.wrap(self.db.execute_batch("COMMIT"))
    }
}

/// A file of the store whose length is committed.
#[derive(Clone, Copy, Debug)]
pub enum Output<'a> {
    /// Events of a run: cluster, user, run id.
    Run(&'a str, &'a str, &'a str),
    /// A path below the store.
    Other(&'a str),
}

fn counts(r: &Row<'_>, from: usize) -> rusqlite::Result<Counts> {
    Ok(Counts {
        bad: unsigned(r, from)?,
        newer: unsigned(r, from + 1)?,
        copies: unsigned(r, from + 2)?,
        foreign_node: unsigned(r, from + 3)?,
    })
}

/// SQLite has signed integers only; the bits are kept.
fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(i64::cast_unsigned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn commit(ledger: &mut Ledger, changes: &Changes) {
        ledger.put(changes).unwrap();
        ledger.commit().unwrap();
    }

    /// Names as they are, and such as nobody gives.
    fn stream_name() -> impl Strategy<Value = String> {
        prop_oneof![
            6 => "n[12]-[ab]{2}-[0-9]{1,3}-[0-9]{1,7}",
            1 => Just(String::new()),
            1 => "[n12-]{0,6}",
            1 => "n1-aa-[0-9]{30,90}-[0-9]{30,90}",
            1 => "(n1)?\\PC{0,9}",
            1 => "n1/\u{0}{0,3}[a-zé-]{0,2000}",
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        // A state for each stream, which nothing is done to but seeing, is the model.
        #[test]
        fn streams_are_as_if_each_had_a_row(
            lines in vec((stream_name(), 0u64..5), 1..300), checkpoint in 1usize..200,
        ) {
            let mut ledger = Ledger::open(Path::new(":memory:")).unwrap();
            let mut model: HashMap<&str, StreamState> = HashMap::new();
            // Each line comes twice, mostly in different checkpoints.
            let lines: Vec<&(String, u64)> = lines.iter().chain(&lines).collect();
            for lines in lines.chunks(checkpoint) {
                let mut changes = Changes::default();
                for (name, seq) in lines {
                    let (_, state) = changes.streams.entry(name.as_str().into()).or_insert_with(|| {
                        ("n1".into(), ledger.stream(name).unwrap().unwrap_or_default())
                    });
                    let seen = state.see(*seq);
                    prop_assert_eq!(seen, model.entry(name).or_default().see(*seq), "{} {}", name, seq);
                }
                commit(&mut ledger, &changes);
            }
            let gaps = model.iter().filter(|(_, state)| state.lost() > 0);
            let mut gaps: Vec<_> = gaps.map(|(n, s)| ("n1".to_owned(), (*n).to_owned(), s.lost())).collect();
            gaps.sort_unstable();
            prop_assert_eq!(ledger.gaps().unwrap(), gaps);
            for (name, state) in model {
                prop_assert_eq!(ledger.stream(name).unwrap(), Some(state));
            }
        }
    }

    #[test]
    fn a_run_that_is_forgotten_takes_its_own_jobs_with_it() {
        let mut ledger = Ledger::open(Path::new(":memory:")).unwrap();
        let name = |id| ("lab".to_owned(), "u".to_owned(), format!("run-{id}"));
        let mut changes = Changes::default();
        for run in 1..=2 {
            let row = RunRow { id: run, name: name(run), length: 0, state: String::new(), stale: false };
            changes.runs.push(row);
            for job_id in 0..1000 {
                changes.members.push(MemberRow { run, chunk: job_id, job_id, ..MemberRow::default() });
                // The second run took over most of the ids.
                if run == 1 || job_id > 100 {
                    let key = ("lab".to_owned(), job_id);
                    changes.jobs.push(JobRow { key, run, chunk: job_id, open: false, course: None });
                }
            }
        }
        commit(&mut ledger, &changes);
        ledger.forget_run(&name(1)).unwrap();
        assert_eq!(ledger.run_named(&name(1)).unwrap(), None);
        for (run, left) in [(1, 0), (2, 1000)] {
            let mut members = 0;
            ledger.members(run, |_| members += 1).unwrap();
            assert_eq!(members, left);
        }
        for job_id in 0..1000 {
            let run = ledger.job("lab", job_id).unwrap().map(|job| job.run);
            assert_eq!(run, (job_id > 100).then_some(2), "{job_id}");
        }
    }

    #[test]
    fn what_was_committed_is_there_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.db");
        let position =
            Position { file: (1, u64::MAX), bytes: 10, size: 12, changed: -3, guard: u64::MAX - 1 };
        let counts = Counts { bad: 2, newer: 1, copies: 4, foreign_node: 0 };
        let mut seen = StreamState::default();
        assert_eq!(seen.see(2), Seen::New);
        let course = Some(vec![1, 2, 3]);
        let job = JobRow { key: ("lab".into(), 7), run: 1, chunk: 1, open: true, course };
        let run = RunRow {
            id: 1,
            name: ("lab".into(), "u".into(), "job-7".into()),
            length: 90,
            state: "{}".into(),
            stale: true,
        };
        let member = MemberRow {
            run: 1,
            chunk: 1,
            job_id: 7,
            end: 90,
            verdict: Some((40, 9)),
            ..MemberRow::default()
        };
        let held = |id| HeldRow { key: ("lab".into(), id), uid: Some(1), line: b"{}".to_vec() };
        let mut changes = Changes {
            journals: vec![("n1/a.jsonl".to_owned(), position.clone(), counts)],
            outputs: vec![("lab/u/x".to_owned(), 99)],
            runs: vec![run.clone()],
            members: vec![member.clone()],
            jobs: vec![job.clone()],
            held: vec![held(8), held(9)],
            alike: vec![(-5, 1), (6, 2)],
            cursor: Some(77),
            ..Changes::default()
        };
        changes.streams.insert("s".into(), ("n1".into(), seen.clone()));
        let mut ledger = Ledger::open(&path).unwrap();
        commit(&mut ledger, &changes);
        drop(ledger);

        let mut ledger = Ledger::open(&path).unwrap();
        assert_eq!(ledger.journals().unwrap()["n1/a.jsonl"], position);
        assert_eq!(ledger.totals().unwrap(), counts);
        assert_eq!(ledger.oddities().unwrap(), [("n1/a.jsonl".to_owned(), counts)]);
        assert_eq!(ledger.stream("s").unwrap(), Some(seen));
        assert_eq!(ledger.stream("t").unwrap(), None);
        assert_eq!(ledger.gaps().unwrap(), [("n1".to_owned(), "s".to_owned(), 2)]);
        assert_eq!(ledger.output("lab/u/x").unwrap(), 99);
        assert_eq!(ledger.run(1).unwrap().as_ref(), Some(&run));
        assert_eq!(ledger.run_named(&run.name).unwrap().as_ref(), Some(&run));
        assert_eq!(ledger.stale_runs().unwrap(), [1]);
        assert_eq!(ledger.member(1, 1).unwrap(), Some(member));
        assert_eq!(ledger.job("lab", 7).unwrap().as_ref(), Some(&job));
        assert_eq!(ledger.open_jobs().unwrap(), [job]);
        assert_eq!(ledger.cursor().unwrap(), Some(77));
        assert_eq!((ledger.alike(-5).unwrap(), ledger.alike(6).unwrap()), (Some(1), None));
        assert_eq!(ledger.held().unwrap(), [held(8), held(9)]);

        let release = Changes { released: vec![("lab".into(), 8)], ..Changes::default() };
        commit(&mut ledger, &release);
        assert_eq!(ledger.held().unwrap(), [held(9)]);
        let mut lengths = Vec::new();
        ledger
            .lengths(|file, length| -> Result<(), LedgerError> {
                lengths.push((format!("{file:?}"), length));
                Ok(())
            })
            .unwrap();
        assert_eq!(lengths.iter().map(|(_, n)| *n).collect::<Vec<_>>(), [90, 99]);
    }

    #[test]
    fn two_collectors_cannot_share_a_ledger() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.db");
        let _first = Ledger::open(&path).unwrap();
        assert!(matches!(Ledger::open(&path), Err(LedgerError::InUse(_))));
    }
}
