//! The index, open for questions.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use rusqlite::{Connection, InterruptHandle, OpenFlags, OptionalExtension};

use super::schema::VERSION;
use super::{IndexError, machine, path_of};

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

    /// What stops a question of this index from another thread.
    pub fn interrupter(&self) -> InterruptHandle {
        self.db.get_interrupt_handle()
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
