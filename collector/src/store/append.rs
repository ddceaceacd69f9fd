/*!
Append-only files of the store, with lengths that are either committed or cut
away.

Bytes are gathered in memory, written by [`Appender::flush`] and made durable
by [`Appender::sync`]; only then may the ledger commit their lengths. Opening
cuts every file back to its committed length, so what a crash left behind it
is as if it had never been written.
*/

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file of the store could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system's reason.
    #[error("store {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody has shortened a file; what is missing cannot be made again.
    #[error(
        "store {path}: {found} bytes, but {committed} were committed; somebody has changed the file. \
         Restore it from a backup, or move the run's directory away to go on without it"
    )]
    Shortened {
        /// The file.
        path: PathBuf,
        /// Length found.
        found: u64,
        /// Length committed.
        committed: u64,
    },
}

/// All append-only files below one store.
#[derive(Debug)]
pub struct Appender {
    root: PathBuf,
    dir: File,
    /// Committed and flushed lengths of the files used so far.
    lengths: HashMap<String, u64>,
    pending: HashMap<String, Vec<u8>>,
    pending_bytes: usize,
}

impl Appender {
    /// Opens the store at `root` and cuts its files back to `committed`
    /// lengths. A directory that was moved away as a whole is accepted and
    /// begins anew.
    ///
    /// # Errors
    ///
    /// When a file cannot be cut, or is shorter than what was committed.
    pub fn open(root: &Path, committed: HashMap<String, u64>) -> Result<Appender, StoreError> {
        let io = |path: &Path, source| StoreError::Io { path: path.to_owned(), source };
        let mut lengths = HashMap::with_capacity(committed.len());
        for (name, committed) in committed {
            let path = root.join(&name);
            let found = match fs::metadata(&path) {
                Ok(meta) => meta.len(),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    if path.parent().is_some_and(Path::exists) {
                        return Err(StoreError::Shortened { path, found: 0, committed });
                    }
                    lengths.insert(name, 0);
                    continue;
                }
                Err(e) => return Err(io(&path, e)),
            };
            if found < committed {
                return Err(StoreError::Shortened { path, found, committed });
            }
            if found > committed {
                let file = OpenOptions::new().write(true).open(&path).map_err(|e| io(&path, e))?;
                file.set_len(committed).and_then(|()| file.sync_all()).map_err(|e| io(&path, e))?;
            }
            lengths.insert(name, committed);
        }
        let dir = File::open(root).map_err(|e| io(root, e))?;
        Ok(Appender { root: root.to_owned(), dir, lengths, pending: HashMap::new(), pending_bytes: 0 })
    }

    /// The buffer of the file `name` (relative to the store): what is put
    /// there will follow what the file has.
    pub fn buffer(&mut self, name: &str) -> &mut Vec<u8> {
        self.pending.entry(name.to_owned()).or_default()
    }

    /// Length that the file has with everything in its buffer.
    pub fn length(&mut self, name: &str) -> u64 {
        let waiting = self.pending.get(name).map_or(0, |b| b.len() as u64);
        self.known_length(name) + waiting
    }

    /// A file that the ledger never heard of has no committed bytes: what it
    /// holds was left by a crash before the first commit.
    fn known_length(&self, name: &str) -> u64 {
        self.lengths.get(name).copied().unwrap_or(0)
    }

    /// Notes that about `bytes` more are waiting, and says how many are.
    pub fn grew(&mut self, bytes: usize) -> usize {
        self.pending_bytes += bytes;
        self.pending_bytes
    }

    /// Writes all buffers to their files; says the new lengths.
    ///
    /// # Errors
    ///
    /// When a file cannot be written. The store must then be opened anew.
    pub fn flush(&mut self) -> Result<HashMap<String, u64>, StoreError> {
        let mut changed = HashMap::with_capacity(self.pending.len());
        for (name, bytes) in std::mem::take(&mut self.pending) {
            let path = self.root.join(&name);
            let from = self.known_length(&name);
            append(&path, from, &bytes).map_err(|source| StoreError::Io { path, source })?;
            let length = from + bytes.len() as u64;
            self.lengths.insert(name.clone(), length);
            changed.insert(name, length);
        }
        self.pending_bytes = 0;
        Ok(changed)
    }

    /// Returns when everything flushed is on disk.
    ///
    /// # Errors
    ///
    /// When the disk says no.
    pub fn sync(&self) -> Result<(), StoreError> {
        rustix::fs::syncfs(&self.dir)
            .map_err(|e| StoreError::Io { path: self.root.clone(), source: e.into() })
    }

    /// Replaces the file `name` with `content`, atomically. For files that can
    /// be made again: it is not synced.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn replace(&self, name: &str, content: &[u8]) -> Result<(), StoreError> {
        let path = self.root.join(name);
        let new = path.with_extension("new");
        let write = || -> io::Result<()> {
            make_parent(&path)?;
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&new)?;
            file.write_all(content)?;
            fs::rename(&new, &path)
        };
        write().map_err(|source| StoreError::Io { path: path.clone(), source })
    }
}

fn append(path: &Path, from: u64, bytes: &[u8]) -> io::Result<()> {
    make_parent(path)?;
    let mut file = OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
    if file.metadata()?.len() != from {
        file.set_len(from)?;
    }
    file.write_all(bytes)
}

fn make_parent(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    match path.parent() {
        Some(dir) if !dir.is_dir() => fs::DirBuilder::new().recursive(true).mode(0o750).create(dir),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_committed_is_cut_away() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Appender::open(dir.path(), HashMap::new()).unwrap();
        store.buffer("a/b.jsonl").extend_from_slice(b"one\n");
        assert_eq!(store.length("a/b.jsonl"), 4);
        let committed = store.flush().unwrap();
        store.buffer("a/b.jsonl").extend_from_slice(b"two\n");
        store.buffer("c.jsonl").extend_from_slice(b"new\n");
        store.flush().unwrap();

        let mut store = Appender::open(dir.path(), committed).unwrap();
        assert_eq!(fs::read(dir.path().join("a/b.jsonl")).unwrap(), b"one\n");
        store.buffer("c.jsonl").extend_from_slice(b"NEW\n");
        store.flush().unwrap();
        assert_eq!(fs::read(dir.path().join("c.jsonl")).unwrap(), b"NEW\n");
    }

    #[test]
    fn a_shortened_file_is_an_error_that_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("x"), "12").unwrap();
        let error = Appender::open(dir.path(), HashMap::from([("x".to_owned(), 3)])).unwrap_err().to_string();
        assert!(error.contains("2 bytes, but 3 were committed") && error.contains("backup"), "{error}");
    }
}
