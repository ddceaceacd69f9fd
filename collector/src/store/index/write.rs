//! The one writer of the index.

use std::collections::{BTreeMap, HashMap};

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OptionalExtension, TransactionBehavior, params};

use super::entry::Entry;
use super::scan::{Attempts, Member, RunScan, guard, restore_extents};
use super::schema::{INDEXES, NO_INDEXES, VERSION, class_number, class_of, migrate};
use super::{IndexError, OPEN, machine, path_of};
use crate::ledger::RunName;
use crate::store::{EventsFile, ReadError, run_dir};
use crate::verdict::Class;

/// How long another writer, a rebuild, is waited for.
const BUSY: Duration = Duration::from_secs(30);

const DAY_US: i64 = 86_400_000_000;

/// The index of a store, open for writing. One at a time writes; a second one
/// waits for the first one's transaction.
#[derive(Debug)]
pub struct Writer {
    db: Connection,
    store: PathBuf,
    path: PathBuf,
    /// Device and inode of the file.
    file: (u64, u64),
    memory: Memory,
}

/// What a transaction gathers.
#[derive(Debug, Default)]
struct Memory {
    words: HashMap<String, i64>,
    sums: HashMap<Sum, (i64, i64)>,
}

/// A row of one of the tables by day. The day comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Sum {
    /// Cluster, partition, class.
    Day(i64, [i64; 3]),
    /// User, cluster, account, partition, class.
    User(i64, [i64; 5]),
    /// Cluster, node, class.
    Node(i64, [i64; 3]),
    /// Cluster, fingerprint, class.
    Fingerprint(i64, [i64; 3]),
}

/// What an update did.
#[derive(Debug, Default)]
pub struct Updated {
    /// Runs that were read on.
    pub runs: u64,
    /// Attempts that were written.
    pub jobs: u64,
    /// Runs that could not be read, and why.
    pub unread: Vec<(RunName, ReadError)>,
}

impl Writer {
    /// Opens or makes the index of `store`. A file that is no database, or a
    /// damaged one, is made anew.
    ///
    /// # Errors
    ///
    /// When the file cannot be used, or is of a newer version.
    pub fn open(store: &Path) -> Result<Writer, IndexError> {
        let path = path_of(store);
        match Writer::try_open(store) {
            Err(IndexError::Sql { source, .. })
                if matches!(
                    source.sqlite_error_code(),
                    Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt)
                ) =>
            {
                for name in ["", "-wal", "-shm"] {
                    let mut file = path.clone().into_os_string();
                    file.push(name);
                    let _ = std::fs::remove_file(file); // Opening says what is wrong.
                }
                Writer::try_open(store)
            }
            other => other,
        }
    }

    fn try_open(store: &Path) -> Result<Writer, IndexError> {
        let path = path_of(store);
        let sql = |source| IndexError::Sql { path: path.clone(), source };
        let _ = super::super::for_operators(&path); // What is wrong with it, SQLite says.
        let open = || -> rusqlite::Result<(Connection, u32)> {
            let mut db = Connection::open(&path)?;
            db.busy_timeout(BUSY)?;
            // Else statements are made anew whenever other values are given to them.
            db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
            db.pragma_update(None, "journal_mode", "WAL")?;
            // What a power cut takes away is read again from the stores.
            db.pragma_update(None, "synchronous", "NORMAL")?;
            db.pragma_update(None, "cache_size", -65_536)?;
            db.set_prepared_statement_cache_capacity(64);
            keep_wal(&db);
            let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let found = migrate(&tx)?;
            if found <= VERSION {
                if found == 0 {
                    tx.execute("INSERT OR REPLACE INTO meta VALUES ('building', 1)", [])?;
                }
                tx.pragma_update(None, "application_id", machine())?;
            }
            tx.commit()?;
            // Readers look at the head of the file before they open it.
            db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
            Ok((db, found))
        };
        let (db, found) = open().map_err(sql)?;
        if found > VERSION {
            return Err(IndexError::Newer { path, found });
        }
        let file = inode(&path).unwrap_or_default();
        Ok(Writer { db, store: store.to_owned(), path, file, memory: Memory::default() })
    }

    /// The store that it is the index of.
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// Somebody has deleted or replaced the file; what is written now, nobody
    /// reads.
    pub fn is_gone(&self) -> bool {
        inode(&self.path) != Some(self.file)
    }

    /// Whether the index does not hold everything yet.
    pub fn is_building(&self) -> Result<bool, IndexError> {
        let sql = "SELECT value FROM meta WHERE name = 'building'";
        let value = self.db.query_row(sql, [], |r| r.get::<_, bool>(0)).optional();
        Ok(value.map_err(|source| self.sql(source))?.unwrap_or(false))
    }

    /// Says that the index does not hold everything (`true`), or that it does.
    /// Readers do without it as long as it does not.
    pub(super) fn building(&mut self, building: bool) -> Result<(), IndexError> {
        let tables = if building { NO_INDEXES } else { INDEXES };
        let write = || {
            let tx = self.db.unchecked_transaction()?;
            tx.execute("INSERT OR REPLACE INTO meta VALUES ('building', ?1)", [building])?;
            tx.execute_batch(tables)?;
            tx.commit()
        };
        write().map_err(|source| self.sql(source))
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) -> Result<(), IndexError> {
        self.memory = Memory::default();
        let tables = [
            "run",
            "member",
            "job",
            "job_node",
            "day",
            "day_user",
            "day_node",
            "day_fingerprint",
            "word",
            "alias",
        ];
        let write = || {
            let tx = self.db.unchecked_transaction()?;
            tx.execute("INSERT OR REPLACE INTO meta VALUES ('building', 1)", [])?;
            tx.execute_batch(NO_INDEXES)?;
            for table in tables {
                tx.execute(&format!("DELETE FROM {table}"), [])?;
            }
            tx.commit()
        };
        write().map_err(|source| self.sql(source))
    }

    /// Runs that the index has, with how far they were read.
    pub(super) fn lengths(&self) -> Result<HashMap<RunName, u64>, IndexError> {
        let read = || -> rusqlite::Result<HashMap<RunName, u64>> {
            let mut query = self.db.prepare(
                "SELECT c.text, u.text, run_id, length FROM run \
                 JOIN word c ON c.id = cluster JOIN word u ON u.id = user",
            )?;
            query
                .query_map([], |r| {
                    Ok(((r.get(0)?, r.get(1)?, r.get(2)?), r.get::<_, i64>(3)?.cast_unsigned()))
                })?
                .collect()
        };
        read().map_err(|source| self.sql(source))
    }

    /// Reads on in `runs`, to the length that is given or else to the end of
    /// their events, and forgets those that are no longer there. All of it in
    /// one transaction.
    ///
    /// # Errors
    ///
    /// When the index cannot be written. A run that cannot be read is no
    /// error: it is told in [`Updated::unread`] and stays as it was.
    pub fn update(
        &mut self,
        runs: impl IntoIterator<Item = (RunName, Option<u64>)>,
    ) -> Result<Updated, IndexError> {
        let store = self.store.clone();
        self.transaction(|put| {
            let mut done = Updated::default();
            for (name, to) in runs {
                match put.update(&store, &name, to) {
                    Ok(jobs) => {
                        done.runs += 1;
                        done.jobs += jobs;
                    }
                    Err(Trouble::Read(e)) => done.unread.push((name, e)),
                    Err(Trouble::Sql(e)) => return Err(e),
                }
            }
            Ok(done)
        })
    }

    /// Takes in runs that were read from their beginning.
    pub(super) fn insert(&mut self, runs: Vec<(RunName, RunScan)>) -> Result<u64, IndexError> {
        self.transaction(|put| {
            let mut jobs = 0;
            for (name, scan) in runs {
                put.delete(&name)?;
                jobs += put.apply(&name, None, scan)?;
            }
            Ok(jobs)
        })
    }

    /// Forgets runs.
    ///
    /// # Errors
    ///
    /// When the index cannot be written.
    pub fn forget<'a>(&mut self, runs: impl IntoIterator<Item = &'a RunName>) -> Result<(), IndexError> {
        self.transaction(|put| runs.into_iter().try_for_each(|name| put.delete(name)))
    }

    fn transaction<T>(
        &mut self,
        write: impl FnOnce(&mut Put<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, IndexError> {
        let run = || {
            let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut put = Put { db: &tx, memory: &mut self.memory };
            let done = write(&mut put)?;
            put.flush()?;
            tx.commit()?;
            Ok(done)
        };
        let result = run();
        if result.is_err() {
            // What was numbered in it was never committed.
            self.memory = Memory::default();
        }
        result.map_err(|source| self.sql(source))
    }

    fn sql(&self, source: rusqlite::Error) -> IndexError {
        IndexError::Sql { path: self.path.clone(), source }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // So that what stays beside the file is short. Readers may hinder it.
        let _ = self.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    }
}

/// SQLite would delete the files beside the database with the last writer,
/// and readers who may not write to the directory could not open it then.
fn keep_wal(db: &Connection) {
    let mut on: std::ffi::c_int = 1;
    // SAFETY: the handle is open, the name is the main database's, and the
    // operation reads and writes the one int it is given.
    unsafe {
        rusqlite::ffi::sqlite3_file_control(
            db.handle(),
            c"main".as_ptr(),
            rusqlite::ffi::SQLITE_FCNTL_PERSIST_WAL,
            (&raw mut on).cast(),
        );
    }
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|m| (m.dev(), m.ino()))
}

#[derive(Debug)]
enum Trouble {
    Read(ReadError),
    Sql(rusqlite::Error),
}

impl From<ReadError> for Trouble {
    fn from(e: ReadError) -> Trouble {
        Trouble::Read(e)
    }
}

impl From<rusqlite::Error> for Trouble {
    fn from(e: rusqlite::Error) -> Trouble {
        Trouble::Sql(e)
    }
}

/// One transaction.
struct Put<'a> {
    db: &'a Connection,
    memory: &'a mut Memory,
}

/// A run as the index has it.
struct Known {
    id: i64,
    length: u64,
    guard: u64,
}

impl Put<'_> {
    fn update(&mut self, store: &Path, name: &RunName, to: Option<u64>) -> Result<u64, Trouble> {
        let file = match EventsFile::open(&store.join(run_dir(&name.0, &name.1, &name.2))) {
            Ok(file) => file,
            Err(ReadError::NotFound(_)) => {
                self.delete(name)?;
                return Ok(0);
            }
            Err(e) => return Err(e.into()),
        };
        let to = to.unwrap_or(u64::MAX).min(file.len());
        let mut known = self.known(name)?;
        if let Some(run) = &known {
            if run.length > file.len() || guard(&file, run.length)? != run.guard {
                // It was cut back, or made anew.
                self.delete(name)?;
                known = None;
            } else if run.length >= to {
                return Ok(0);
            }
        }
        let mut scan = RunScan { at: known.as_ref().map_or(0, |r| r.length), ..RunScan::default() };
        let id = known.as_ref().map(|r| r.id);
        scan.read(&file, to, &mut |chunk| match id {
            Some(run) => self.member(run, chunk).map_err(Trouble::Sql),
            None => Ok(None),
        })?;
        Ok(self.apply(name, id, scan)?)
    }

    fn known(&mut self, name: &RunName) -> rusqlite::Result<Option<Known>> {
        let (cluster, user) = (self.word(&name.0)?, self.word(&name.1)?);
        let sql = "SELECT id, length, guard FROM run WHERE cluster = ?1 AND user = ?2 AND run_id = ?3";
        let read = |r: &rusqlite::Row<'_>| {
            let [length, guard] = [r.get::<_, i64>(1)?, r.get(2)?].map(i64::cast_unsigned);
            Ok(Known { id: r.get(0)?, length, guard })
        };
        self.db.prepare_cached(sql)?.query_row(params![cluster, user, name.2], read).optional()
    }

    fn member(&self, run: i64, chunk: u32) -> rusqlite::Result<Option<Member>> {
        let sql = "SELECT job_id, attempts, started, last, first, end, verdict, verdict_length, extents, name \
                   FROM member WHERE run = ?1 AND chunk = ?2";
        let read = |r: &rusqlite::Row<'_>| {
            let verdict = r.get::<_, Option<i64>>(6)?.map(i64::cast_unsigned).zip(r.get(7)?);
            Ok(Member {
                job_id: r.get(0)?,
                attempts: r.get(1)?,
                started: r.get(2)?,
                last: r.get(3)?,
                first: r.get::<_, i64>(4)?.cast_unsigned(),
                end: r.get::<_, i64>(5)?.cast_unsigned(),
                verdict,
                extents: restore_extents(r.get_ref(8)?.as_blob()?),
                name: r.get(9)?,
                ..Member::default()
            })
        };
        self.db.prepare_cached(sql)?.query_row(params![run, chunk], read).optional()
    }

    /// Writes what was read of a run; says how many attempts that were.
    fn apply(&mut self, name: &RunName, id: Option<i64>, scan: RunScan) -> rusqlite::Result<u64> {
        let (cluster, user) = (self.word(&name.0)?, self.word(&name.1)?);
        let first = scan.members.values().min_by_key(|m| m.first);
        let (started, last) = first.map_or((0, 0), |m| (m.started, m.last));
        let id = match id {
            Some(id) => id,
            None => {
                let sql = "INSERT INTO run (cluster, user, run_id, aliases, started, last, members, running, failed, \
                           classes, length, guard) VALUES (?1, ?2, ?3, '[]', ?4, ?5, 0, 0, 0, '{}', 0, 0)";
                self.db.prepare_cached(sql)?.execute(params![cluster, user, name.2, started, last])?;
                self.db.last_insert_rowid()
            }
        };
        let sql = "SELECT members, running, classes FROM run WHERE id = ?1";
        let (mut count, mut running, classes): (i64, i64, String) =
            self.db.prepare_cached(sql)?.query_row([id], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?;
        let mut classes: BTreeMap<Class, i64> = serde_json::from_str(&classes).unwrap_or_default();
        let (mut jobs, mut named) = (0, None::<(u64, String)>);
        for (chunk, attempts) in &scan.entries {
            let Some((member, newest)) = scan.members.get(chunk).zip(attempts.entries.last()) else {
                continue;
            };
            let sql = "SELECT class FROM job WHERE run = ?1 AND chunk = ?2 ORDER BY attempt DESC LIMIT 1";
            let before: Option<Option<i64>> =
                self.db.prepare_cached(sql)?.query_row(params![id, chunk], |r| r.get(0)).optional()?;
            for entry in &attempts.entries {
                self.job(&Place { run: id, chunk: *chunk, cluster, user, member, attempts }, entry)?;
                jobs += 1;
            }
            match before {
                None => count += 1,
                Some(None) => running -= 1,
                Some(Some(class)) => *classes.entry(class_of(class)).or_default() -= 1,
            }
            match &newest.end {
                None => running += 1,
                Some(end) => *classes.entry(end.class).or_default() += 1,
            }
            if let Some(name) = &newest.name
                && named.as_ref().is_none_or(|(first, _)| member.first < *first)
            {
                named = Some((member.first, name.clone()));
            }
        }
        classes.retain(|_, n| *n > 0);
        let failed: i64 = classes.iter().filter(|(class, _)| **class != Class::Ok).map(|(_, n)| n).sum();
        for (chunk, m) in &scan.members {
            let sql =
                "INSERT OR REPLACE INTO member VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
            self.db.prepare_cached(sql)?.execute(params![
                id,
                chunk,
                m.job_id,
                m.attempts,
                m.started,
                m.last,
                m.first.cast_signed(),
                m.end.cast_signed(),
                m.verdict.map(|(at, _)| at.cast_signed()),
                m.verdict.map(|(_, length)| length),
                m.save_extents(),
                m.name
            ])?;
        }
        if !scan.aliases.is_empty() {
            let sql = "SELECT aliases FROM run WHERE id = ?1";
            let known: String = self.db.prepare_cached(sql)?.query_row([id], |r| r.get(0))?;
            let mut known: Vec<String> = serde_json::from_str(&known).unwrap_or_default();
            for alias in &scan.aliases {
                self.db
                    .prepare_cached("INSERT OR IGNORE INTO alias VALUES (?1, ?2)")?
                    .execute(params![alias, id])?;
                known.push(alias.clone());
            }
            let text = serde_json::to_string(&known).unwrap_or_default();
            self.db
                .prepare_cached("UPDATE run SET aliases = ?2 WHERE id = ?1")?
                .execute(params![id, text])?;
        }
        let started = scan.members.values().map(|m| m.started).min().unwrap_or(started);
        let last = scan.members.values().map(|m| m.last).max().unwrap_or(last);
        let sql = "UPDATE run SET run_key = coalesce(run_key, ?2), name = coalesce(name, ?3), \
                   started = min(started, ?4), last = max(last, ?5), members = ?6, running = ?7, failed = ?8, \
                   classes = ?9, length = ?10, guard = ?11 WHERE id = ?1";
        self.db.prepare_cached(sql)?.execute(params![
            id,
            scan.key.as_ref().and_then(|k| serde_json::to_string(k).ok()),
            named.map(|(_, name)| name),
            started,
            last,
            count,
            running,
            failed,
            serde_json::to_string(&classes).unwrap_or_default(),
            scan.at.cast_signed(),
            scan.guard.cast_signed()
        ])?;
        Ok(jobs)
    }

    fn job(&mut self, at: &Place<'_>, entry: &Entry) -> rusqlite::Result<()> {
        let old = self.stored(at.run, at.chunk, entry.attempt)?;
        let account = self.word(entry.account.as_deref().unwrap_or(""))?;
        let partition = self.word(entry.partition.as_deref().unwrap_or(""))?;
        let node = entry.node.as_deref().map(|n| self.word(n)).transpose()?;
        let nodes: Vec<i64> = entry.nodes.iter().map(|n| self.word(n)).collect::<Result<_, _>>()?;
        let end = entry.end.as_ref();
        let fingerprint = end.and_then(|e| e.fingerprint.as_deref()).map(|f| self.word(f)).transpose()?;
        let cause = end.map(|e| self.word(&e.cause)).transpose()?;
        let label = end.map(|e| self.word(&e.label)).transpose()?;
        let sql = "INSERT OR REPLACE INTO job VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, \
                   ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29)";
        self.db.prepare_cached(sql)?.execute(params![
            old.as_ref().map(|o| o.id),
            at.run,
            at.chunk,
            entry.attempt,
            at.cluster,
            at.user,
            at.member.job_id,
            at.attempts.array_job_id,
            at.attempts.array_task_id,
            entry.name,
            account,
            partition,
            entry.started.0,
            entry.last.0,
            end.map_or(OPEN, |e| e.ended.0),
            end.map(|e| class_number(e.class)),
            cause,
            label,
            end.map(|e| e.confidence as i64),
            fingerprint,
            end.and_then(|e| e.message.as_deref()),
            entry.exit_code,
            entry.signal,
            node,
            save_nodes(&nodes),
            entry.node_count,
            entry.node_us,
            entry.peak_bytes.map(u64::cast_signed),
            entry.limit_bytes.map(u64::cast_signed)
        ])?;
        let id = self.db.last_insert_rowid();
        let before = old.as_ref().map_or(&[][..], |o| o.nodes.as_slice());
        let mut put = self.db.prepare_cached("INSERT OR IGNORE INTO job_node VALUES (?1, ?2)")?;
        for node in nodes.iter().filter(|n| !before.contains(n)) {
            put.execute([*node, id])?;
        }
        let mut drop = self.db.prepare_cached("DELETE FROM job_node WHERE node = ?1 AND job = ?2")?;
        for node in before.iter().filter(|n| !nodes.contains(n)) {
            drop.execute([*node, id])?;
        }
        if let Some(old) = &old {
            self.count(old, -1);
        }
        let new = Stored {
            id,
            cluster: at.cluster,
            user: at.user,
            account,
            partition,
            ended: end.map_or(OPEN, |e| e.ended.0),
            class: end.map(|e| class_number(e.class)),
            fingerprint,
            node_us: entry.node_us,
            nodes,
        };
        self.count(&new, 1);
        Ok(())
    }

    fn stored(&self, run: i64, chunk: u32, attempt: u32) -> rusqlite::Result<Option<Stored>> {
        let sql = "SELECT id, cluster, user, account, partition, ended, class, fingerprint, node_us, nodes FROM job \
                   WHERE run = ?1 AND chunk = ?2 AND attempt = ?3";
        self.db.prepare_cached(sql)?.query_row(params![run, chunk, attempt], Stored::read).optional()
    }

    /// Adds an attempt that has ended to the sums by day, or takes it out.
    fn count(&mut self, job: &Stored, times: i64) {
        let Some(class) = job.class else { return };
        let day = job.ended.div_euclid(DAY_US);
        let mut add = |sum, node_us: i64| {
            let known = self.memory.sums.entry(sum).or_default();
            known.0 += times;
            known.1 += times * node_us;
        };
        add(Sum::Day(day, [job.cluster, job.partition, class]), job.node_us);
        add(Sum::User(day, [job.user, job.cluster, job.account, job.partition, class]), job.node_us);
        let share = job.node_us / job.nodes.len().max(1) as i64;
        for node in &job.nodes {
            add(Sum::Node(day, [job.cluster, *node, class]), share);
        }
        if let Some(fingerprint) = job.fingerprint {
            add(Sum::Fingerprint(day, [job.cluster, fingerprint, class]), job.node_us);
        }
    }

    fn delete(&mut self, name: &RunName) -> rusqlite::Result<()> {
        let Some(run) = self.known(name)? else { return Ok(()) };
        let sql = "SELECT id, cluster, user, account, partition, ended, class, fingerprint, node_us, nodes FROM job \
                   WHERE run = ?1";
        let jobs: Vec<Stored> =
            self.db.prepare_cached(sql)?.query_map([run.id], Stored::read)?.collect::<Result<_, _>>()?;
        for job in &jobs {
            self.count(job, -1);
            let mut drop = self.db.prepare_cached("DELETE FROM job_node WHERE node = ?1 AND job = ?2")?;
            for node in &job.nodes {
                drop.execute([*node, job.id])?;
            }
        }
        for sql in [
            "DELETE FROM job WHERE run = ?1",
            "DELETE FROM member WHERE run = ?1",
            "DELETE FROM run WHERE id = ?1",
        ] {
            self.db.prepare_cached(sql)?.execute([run.id])?;
        }
        Ok(())
    }

    /// Number of a name.
    fn word(&mut self, text: &str) -> rusqlite::Result<i64> {
        if let Some(id) = self.memory.words.get(text) {
            return Ok(*id);
        }
        let sql = "SELECT id FROM word WHERE text = ?1";
        let known = self.db.prepare_cached(sql)?.query_row([text], |r| r.get(0)).optional()?;
        let id = match known {
            Some(id) => id,
            None => {
                self.db.prepare_cached("INSERT INTO word (text) VALUES (?1)")?.execute([text])?;
                self.db.last_insert_rowid()
            }
        };
        self.memory.words.insert(text.to_owned(), id);
        Ok(id)
    }

    /// Writes the sums.
    fn flush(&mut self) -> rusqlite::Result<()> {
        for (sum, (jobs, node_us)) in self.memory.sums.drain().filter(|(_, added)| *added != (0, 0)) {
            let (table, names, key) = sum.row();
            let places: Vec<String> = (1..=names.len()).map(|n| format!("?{n}")).collect();
            let (columns, places) = (names.join(", "), places.join(", "));
            let (a, b) = (names.len() + 1, names.len() + 2);
            let sql = format!(
                "INSERT INTO {table} ({columns}, jobs, node_us) VALUES ({places}, ?{a}, ?{b}) \
                 ON CONFLICT ({columns}) DO UPDATE SET jobs = jobs + ?{a}, node_us = node_us + ?{b}"
            );
            let values = key.iter().chain([&jobs, &node_us]);
            self.db.prepare_cached(&sql)?.execute(rusqlite::params_from_iter(values))?;
            if jobs < 0 {
                let equal: Vec<String> =
                    names.iter().zip(1..).map(|(name, n)| format!("{name} = ?{n}")).collect();
                let sql = format!("DELETE FROM {table} WHERE {} AND jobs <= 0", equal.join(" AND "));
                self.db.prepare_cached(&sql)?.execute(rusqlite::params_from_iter(key.iter()))?;
            }
        }
        Ok(())
    }
}

/// Where an attempt belongs.
struct Place<'a> {
    run: i64,
    chunk: u32,
    cluster: i64,
    user: i64,
    member: &'a Member,
    attempts: &'a Attempts,
}

/// An attempt as the index has it, as far as it is counted.
struct Stored {
    id: i64,
    cluster: i64,
    user: i64,
    account: i64,
    partition: i64,
    ended: i64,
    class: Option<i64>,
    fingerprint: Option<i64>,
    node_us: i64,
    nodes: Vec<i64>,
}

impl Stored {
    fn read(r: &rusqlite::Row<'_>) -> rusqlite::Result<Stored> {
        Ok(Stored {
            id: r.get(0)?,
            cluster: r.get(1)?,
            user: r.get(2)?,
            account: r.get(3)?,
            partition: r.get(4)?,
            ended: r.get(5)?,
            class: r.get(6)?,
            fingerprint: r.get(7)?,
            node_us: r.get(8)?,
            nodes: restore_nodes(r.get_ref(9)?.as_blob()?),
        })
    }
}

impl Sum {
    /// Table, columns of its key, their values.
    fn row(&self) -> (&'static str, &'static [&'static str], Vec<i64>) {
        let (table, names, day, rest): (_, &'static [&'static str], _, &[i64]) = match self {
            Sum::Day(day, rest) => ("day", &["day", "cluster", "partition", "class"], day, rest),
            Sum::User(day, rest) => {
                ("day_user", &["day", "user", "cluster", "account", "partition", "class"], day, rest)
            }
            Sum::Node(day, rest) => ("day_node", &["day", "cluster", "node", "class"], day, rest),
            Sum::Fingerprint(day, rest) => {
                ("day_fingerprint", &["day", "cluster", "fingerprint", "class"], day, rest)
            }
        };
        (table, names, [&[*day], rest].concat())
    }
}

/// Numbers of names, four bytes each.
fn save_nodes(nodes: &[i64]) -> Vec<u8> {
    nodes.iter().flat_map(|n| (*n as u32).to_le_bytes()).collect()
}

pub(super) fn restore_nodes(bytes: &[u8]) -> Vec<i64> {
    bytes.as_chunks::<4>().0.iter().map(|n| i64::from(u32::from_le_bytes(*n))).collect()
}
