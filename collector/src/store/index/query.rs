//! The index, open for questions.

use std::cell::{Cell, RefCell};
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
    /// SQLite's number of what had been committed, when `words` were read.
    state: Cell<i64>,
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
        let open = || -> rusqlite::Result<Connection> {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let db = Connection::open_with_flags(&path, flags)?;
            db.busy_timeout(BUSY)?;
            db.pragma_update(None, "mmap_size", 1i64 << 40)?;
            Ok(db)
        };
        let index = match open() {
            Ok(db) => Index { db, path, words: RefCell::default(), state: Cell::default() },
            Err(source) => return Err(Standing::Broken(IndexError::Sql { path, source })),
        };
        match index.wrap(|| Ok(())) {
            Ok(()) => Ok(index),
            Err(IndexError::Building) => Err(Standing::Building),
            Err(e) => Err(Standing::Broken(e)),
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

    /// Asks one state of the index, and none that is being filled. When it was made again since the last question,
    /// names have other numbers.
    pub(super) fn wrap<T>(&self, ask: impl FnOnce() -> rusqlite::Result<T>) -> Result<T, IndexError> {
        let ask = || {
            let tx = self.db.unchecked_transaction()?;
            let state = tx.pragma_query_value(None, "data_version", |r| r.get(0))?;
            if self.state.replace(state) != state {
                self.words.borrow_mut().clear();
            }
            let sql = "SELECT value FROM meta WHERE name = 'building'";
            let building = tx.prepare_cached(sql)?.exists([])?;
            Ok(if building { None } else { Some(ask()?) })
        };
        let answer = ask().map_err(|source| IndexError::Sql { path: self.path.clone(), source })?;
        answer.ok_or(IndexError::Building)
    }
}
