//! The one writer of the index.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior};

use super::put::{Memory, Put, Trouble};
use super::scan::RunScan;
use super::schema::{self, INDEXES, VERSION};
use super::{IndexError, machine, path_of};
use crate::ledger::RunName;
use crate::store::{ReadError, run_dir};

/// How long another writer, a rebuild, is waited for.
const BUSY: Duration = Duration::from_secs(30);

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
    /// SQLite's number of what the others have committed, when `memory` was gathered.
    others: i64,
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
    /// Opens or makes the index of `store`. A file that is no database, a damaged
    /// one, or one of an older version, is made anew.
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
            let found: u32 = tx.pragma_query_value(None, "user_version", |r| r.get(0))?;
            if found <= VERSION {
                if found < VERSION {
                    schema::make(&tx)?;
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
        Ok(Writer { db, store: store.to_owned(), path, file, memory: Memory::default(), others: 0 })
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

    /// Which filling of the index has not come to its end yet, if any.
    pub(super) fn building(&self) -> Result<Option<i64>, IndexError> {
        let sql = "SELECT value FROM meta WHERE name = 'building'";
        self.db.query_row(sql, [], |r| r.get(0)).optional().map_err(|source| self.sql(source))
    }

    /// Says that the index holds everything, unless it was emptied again since that filling began. Readers do
    /// without it until then.
    pub(super) fn is_whole(&mut self, building: i64) -> Result<(), IndexError> {
        let write = || {
            let tx = Transaction::new_unchecked(&self.db, TransactionBehavior::Immediate)?;
            if tx.execute("DELETE FROM meta WHERE name = 'building' AND value = ?1", [building])? > 0 {
                tx.execute_batch(INDEXES)?;
            }
            tx.commit()
        };
        write().map_err(|source| self.sql(source))
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) -> Result<(), IndexError> {
        self.memory = Memory::default();
        let write = || {
            let tx = Transaction::new_unchecked(&self.db, TransactionBehavior::Immediate)?;
            schema::make(&tx)?;
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

    /// Takes in runs that were read from their beginning. Another writer may have read further since, or have
    /// forgotten a run that was removed.
    pub(super) fn insert(&mut self, runs: Vec<(RunName, RunScan)>) -> Result<u64, IndexError> {
        let store = self.store.clone();
        self.transaction(|put| {
            let mut jobs = 0;
            for (name, scan) in runs {
                let there = store.join(run_dir(&name.0, &name.1, &name.2)).is_dir();
                if !there || put.length(&name)?.is_some_and(|length| length >= scan.at) {
                    continue;
                }
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
            // Another writer may have made the index again: names have other numbers then.
            let others = tx.pragma_query_value(None, "data_version", |r| r.get(0))?;
            if others != self.others {
                self.memory = Memory::default();
                self.others = others;
            }
            let mut put = Put::new(&tx, &mut self.memory);
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_was_read_before_another_read_on_or_removed_it_is_left() {
        let store = tempfile::tempdir().unwrap();
        let name = |run: &str| -> RunName { ("lab".into(), "ann".into(), run.into()) };
        let dir = |run: &str| store.path().join(run_dir("lab", "ann", run));
        fs::create_dir_all(dir("job-1")).unwrap();
        let mut writer = Writer::open(store.path()).unwrap();
        let mut read = |run: &str, at: u64| {
            writer.insert(vec![(name(run), RunScan { at, ..RunScan::default() })]).unwrap();
            writer.lengths().unwrap().get(&name(run)).copied()
        };
        assert_eq!([20, 10, 30].map(|at| read("job-1", at)), [20, 20, 30].map(Some));
        assert_eq!(read("job-2", 10), None, "it is not there");
    }
}
