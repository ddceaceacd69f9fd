/*!
Append-only files of the store, with lengths that are either committed or cut
away.

Lines are gathered in one block of memory, in the order in which they come;
each file remembers which parts of the block are its own ([`Tail`]).
[`Appender::flush`] writes a file's parts, [`Appender::sync`] makes all of them
durable; only then may the ledger commit their lengths. Opening cuts every file
back to its committed length, so what a crash left behind it is as if it had
never been written.
*/

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::pack;

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
    /// Somebody has removed a file that was being written.
    #[error(
        "store {path}: somebody has removed it while the collector wrote it. Put it back, or move the directory of \
         its run away too: the collector then goes on, without that run"
    )]
    Removed {
        /// The file.
        path: PathBuf,
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

impl StoreError {
    /// A file that was there before cannot be used.
    fn known(path: &Path, source: io::Error) -> StoreError {
        match source.kind() {
            io::ErrorKind::NotFound => StoreError::Removed { path: path.to_owned() },
            _ => StoreError::io(path, source),
        }
    }

    fn io(path: &Path, source: impl Into<io::Error>) -> StoreError {
        StoreError::Io { path: path.to_owned(), source: source.into() }
    }
}

/// What a file has on disk, and which parts of the block will follow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// Bytes that were flushed.
    flushed: u64,
    waiting: u64,
    /// Offset and length in the block.
    parts: Vec<(u32, u32)>,
}

impl Tail {
    /// The tail of a file of which `flushed` bytes are on disk.
    pub fn new(flushed: u64) -> Tail {
        Tail { flushed, ..Tail::default() }
    }

    /// Length that the file has with everything that waits.
    pub fn length(&self) -> u64 {
        self.flushed + self.waiting
    }

    /// Bytes that are on disk.
    pub fn flushed(&self) -> u64 {
        self.flushed
    }

    /// Whether something waits.
    pub fn waits(&self) -> bool {
        self.waiting > 0
    }
}

/// All append-only files below one store.
#[derive(Debug)]
pub struct Appender {
    root: PathBuf,
    dir: File,
    block: Vec<u8>,
    /// What is written next of a file.
    gathered: Vec<u8>,
    /// Directories that were used lately.
    dirs: HashMap<PathBuf, OwnedFd>,
    unsynced: Unsynced,
}

/// What was written since the last sync.
#[derive(Debug, Default)]
struct Unsynced {
    files: Vec<(PathBuf, File)>,
    /// Directories, below the store, that have new entries.
    dirs: BTreeSet<PathBuf>,
    /// More files than are kept open, or more than files.
    many: bool,
}

/// So many files are synced one by one, which waits for nobody else's bytes.
/// More of them are cheaper with all of their file system.
const FEW: usize = 64;

impl Unsynced {
    fn add(&mut self, path: PathBuf, file: File) {
        if self.many || self.files.len() >= FEW {
            self.files.clear();
            self.many = true;
        } else {
            self.files.push((path, file));
        }
    }
}

/// Open directories at a time; far below what a process may have.
const DIRS: usize = 256;

/// Bytes that are written at once.
const GATHER: usize = 1 << 20;

impl Appender {
    /// Opens the store at `root`.
    ///
    /// # Errors
    ///
    /// When it cannot be opened.
    pub fn open(root: &Path) -> Result<Appender, StoreError> {
        let dir = File::open(root).map_err(|e| StoreError::io(root, e))?;
        Ok(Appender {
            root: root.to_owned(),
            dir,
            block: Vec::new(),
            gathered: Vec::new(),
            dirs: HashMap::new(),
            unsynced: Unsynced::default(),
        })
    }

    /// Cuts a file back to its `committed` length. Says `false` when it was
    /// moved away together with its directory. The length of compressed events
    /// is that of their plain lines; nothing was ever appended to them.
    ///
    /// # Errors
    ///
    /// When it cannot be cut, or is shorter than what was committed.
    pub fn cut_back(&self, name: &Path, committed: u64) -> Result<bool, StoreError> {
        let path = self.root.join(name);
        let found = match fs::metadata(&path) {
            Ok(meta) => meta.len(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                if let Some(found) = pack::packed_length(&path).map_err(|e| StoreError::io(&path, e))? {
                    return match found == committed {
                        true => Ok(true),
                        false => Err(StoreError::Shortened { path, found, committed }),
                    };
                }
                if committed > 0 && path.parent().is_some_and(Path::exists) {
                    return Err(StoreError::Shortened { path, found: 0, committed });
                }
                return Ok(committed == 0);
            }
            Err(e) => return Err(StoreError::io(&path, e)),
        };
        if found < committed {
            return Err(StoreError::Shortened { path, found, committed });
        }
        if found > committed {
            let file = OpenOptions::new().write(true).open(&path).map_err(|e| StoreError::io(&path, e))?;
            file.set_len(committed).and_then(|()| file.sync_all()).map_err(|e| StoreError::io(&path, e))?;
        }
        // A crash between the two files: the plain one is whole.
        pack::drop_packed(&path).map_err(|e| StoreError::io(&path, e))?;
        Ok(true)
    }

    /// Appends what `write` puts into the block to the file of `tail`. Says
    /// where in the block it is: offset and length.
    pub fn append(&mut self, tail: &mut Tail, write: impl FnOnce(&mut Vec<u8>)) -> (u32, u32) {
        let from = self.block.len() as u32;
        write(&mut self.block);
        let length = self.block.len() as u32 - from;
        match tail.parts.last_mut() {
            Some((start, known)) if *start + *known == from => *known += length,
            _ => tail.parts.push((from, length)),
        }
        tail.waiting += u64::from(length);
        (from, length)
    }

    /// Bytes that wait, of all files.
    pub fn waiting(&self) -> usize {
        self.block.len()
    }

    /// A part of the block.
    pub fn part(&self, (from, length): (u32, u32)) -> &[u8] {
        &self.block[from as usize..(from + length) as usize]
    }

    /// Reads `length` bytes at `at` of the file `name`, which may be on disk,
    /// in the block, or both.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn read(&self, name: &Path, tail: &Tail, at: u64, length: usize) -> Result<Vec<u8>, StoreError> {
        let mut out = vec![0; length.min(tail.flushed.saturating_sub(at) as usize)];
        if !out.is_empty() {
            let file = self.open_read(name)?;
            file.read_exact_at(&mut out, at).map_err(|e| StoreError::io(&self.root.join(name), e))?;
        }
        let mut skip = at.saturating_sub(tail.flushed);
        for &(from, known) in &tail.parts {
            if out.len() == length {
                break;
            }
            if skip >= u64::from(known) {
                skip -= u64::from(known);
                continue;
            }
            let part = &self.part((from, known))[skip as usize..];
            skip = 0;
            out.extend_from_slice(&part[..part.len().min(length - out.len())]);
        }
        Ok(out)
    }

    /// Opens a file of the store for reading. Compressed events are made plain:
    /// the collector reads only what it will append to.
    ///
    /// # Errors
    ///
    /// When it cannot be opened.
    pub fn open_read(&self, name: &Path) -> Result<File, StoreError> {
        let path = self.root.join(name);
        let open = || match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && pack::unpack(&path)? => File::open(&path),
            other => other,
        };
        open().map_err(|e| StoreError::known(&path, e))
    }

    /// Writes what waits for the file `name` below the directory `dir`.
    ///
    /// # Errors
    ///
    /// When the file cannot be written. The store must then be opened anew.
    pub fn flush(&mut self, dir: &Path, name: &Path, tail: &mut Tail) -> Result<(), StoreError> {
        let mut file = self.open_append(dir, name, tail.flushed)?;
        let path = || self.root.join(dir).join(name);
        let found = file.metadata().map_err(|e| StoreError::io(&path(), e))?.len();
        if found < tail.flushed {
            return Err(StoreError::Shortened { path: path(), found, committed: tail.flushed });
        }
        if found > tail.flushed {
            file.set_len(tail.flushed).map_err(|e| StoreError::io(&path(), e))?;
        }
        // Gathered first: the kernel is slow at taking thousands of small pieces.
        let mut gathered = std::mem::take(&mut self.gathered);
        let mut written = Ok(());
        let mut parts = tail.parts.iter().peekable();
        while let (Ok(()), Some(part)) = (&written, parts.next()) {
            gathered.extend_from_slice(self.part(*part));
            if gathered.len() >= GATHER || parts.peek().is_none() {
                written = file.write_all(&gathered);
                gathered.clear();
            }
        }
        self.gathered = gathered;
        let path = self.root.join(dir).join(name);
        written.map_err(|e| StoreError::io(&path, e))?;
        // Of thousands of small files, the sync takes all together, which is cheaper.
        if tail.waiting >= GATHER as u64 {
            begin_writing(&file);
        }
        if tail.flushed == 0 {
            self.made(dir, name);
        }
        self.unsynced.add(path, file);
        tail.flushed += tail.waiting;
        tail.waiting = 0;
        tail.parts = Vec::new();
        Ok(())
    }

    fn open_append(&mut self, dir: &Path, name: &Path, flushed: u64) -> Result<File, StoreError> {
        let path = self.root.join(dir).join(name);
        let fd = self.directory(dir)?;
        let parent = name.parent().filter(|p| !p.as_os_str().is_empty());
        let make = |parent: &Path| match rustix::fs::mkdirat(fd, parent, Mode::from(0o750)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
            Err(e) => Err(StoreError::io(&path, e)),
        };
        if let Some(parent) = parent.filter(|_| flushed == 0) {
            make(parent)?;
        }
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        // One that has something must be there: made anew beside its compressed
        // form it would hide that.
        let flags = if flushed == 0 { flags | OFlags::CREATE } else { flags };
        let open = || match rustix::fs::openat(fd, name, flags, Mode::from(0o640)) {
            Err(rustix::io::Errno::NOENT) if flushed > 0 && pack::unpack(&path)? => {
                Ok(rustix::fs::openat(fd, name, flags, Mode::from(0o640))?.into())
            }
            other => Ok(other?.into()),
        };
        open().map_err(|e: io::Error| StoreError::known(&path, e))
    }

    /// Everything was flushed: the block begins anew.
    pub fn clear(&mut self) {
        self.block.clear();
    }

    /// The entry of `name` below `dir` is new, and maybe its directory.
    fn made(&mut self, dir: &Path, name: &Path) {
        if !self.unsynced.many {
            let parent = dir.join(name.parent().unwrap_or(Path::new("")));
            self.unsynced.dirs.extend([dir.to_owned(), parent]);
        }
    }

    /// Returns when everything flushed and replaced is on disk.
    ///
    /// # Errors
    ///
    /// When the disk says no. The store must then be opened anew.
    pub fn sync(&mut self) -> Result<(), StoreError> {
        let Unsynced { files, dirs, many } = std::mem::take(&mut self.unsynced);
        if many {
            return self.sync_all();
        }
        files.iter().for_each(|(_, file)| begin_writing(file));
        for (path, file) in files {
            file.sync_data().map_err(|e| StoreError::io(&path, e))?;
        }
        for dir in dirs {
            let path = self.root.join(dir);
            File::open(&path).and_then(|dir| dir.sync_all()).map_err(|e| StoreError::io(&path, e))?;
        }
        Ok(())
    }

    /// Returns when everything that anybody has written is on disk.
    ///
    /// # Errors
    ///
    /// When the disk says no.
    pub fn sync_all(&self) -> Result<(), StoreError> {
        rustix::fs::syncfs(&self.dir).map_err(|e| StoreError::io(&self.root, e))
    }

    /// Replaces the file `name` below `dir` with `content`, atomically. For
    /// files that can be made again: it is on disk with the next sync.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn replace(&mut self, dir: &Path, name: &Path, content: &[u8]) -> Result<(), StoreError> {
        let file = self.write_anew(dir, name, content)?;
        self.made(dir, name);
        self.unsynced.add(self.root.join(dir).join(name), file);
        Ok(())
    }

    /// Replaces the file `name` of the store itself, atomically, and leaves it
    /// to the system when that is on disk: it is old in a moment.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn tell(&mut self, name: &Path, content: &[u8]) -> Result<(), StoreError> {
        self.write_anew(Path::new(""), name, content).map(drop)
    }

    fn write_anew(&mut self, dir: &Path, name: &Path, content: &[u8]) -> Result<File, StoreError> {
        let path = self.root.join(dir).join(name);
        let new = name.with_extension("new");
        let fd = self.directory(dir)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let write = || -> io::Result<File> {
            let mut file = File::from(rustix::fs::openat(fd, &new, flags, Mode::from(0o640))?);
            file.write_all(content)?;
            rustix::fs::renameat(fd, &new, fd, name)?;
            Ok(file)
        };
        write().map_err(|e| StoreError::known(&path, e))
    }

    /// Forgets open directories: one of them has another name now.
    pub fn forget_dirs(&mut self) {
        self.dirs.clear();
    }

    /// Writes what an append-only file is to be from now on, durably, beside
    /// it. It counts once its length is committed.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn prepare_replacement(&self, name: &Path, content: &[u8]) -> Result<(), StoreError> {
        use std::os::unix::fs::OpenOptionsExt;
        let path = replacement(&self.root.join(name));
        let write = || -> io::Result<()> {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&path)?;
            file.write_all(content)?;
            file.sync_all()
        };
        write().map_err(|e| StoreError::io(&path, e))
    }

    /// Puts the replacement in place when `committed` is its length, and else
    /// takes it away: the commit never came.
    ///
    /// # Errors
    ///
    /// When it cannot be renamed or removed.
    pub fn finish_replacement(&self, name: &Path, committed: u64) -> Result<(), StoreError> {
        let path = self.root.join(name);
        let new = replacement(&path);
        let finish = || match fs::metadata(&new) {
            Ok(meta) if meta.len() == committed => fs::rename(&new, &path),
            Ok(_) => fs::remove_file(&new),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        };
        finish().map_err(|e| StoreError::io(&new, e))
    }

    fn directory(&mut self, dir: &Path) -> Result<&OwnedFd, StoreError> {
        if !self.dirs.contains_key(dir) {
            if self.dirs.len() >= DIRS {
                self.dirs.clear();
            }
            let path = self.root.join(dir);
            // Directories above it may be new, too.
            self.unsynced.many |= !path.exists();
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o750)
                .create(&path)
                .map_err(|e| StoreError::io(&path, e))?;
            let fd = File::open(&path).map_err(|e| StoreError::io(&path, e))?;
            self.dirs.insert(dir.to_owned(), fd.into());
        }
        Ok(&self.dirs[dir])
    }
}

/// Where the replacement of a file waits.
fn replacement(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// Has the kernel begin to write what the file got, so that a sync finds it
/// done. Nothing depends on it.
fn begin_writing(file: &File) {
    // SAFETY: the descriptor is open; the call touches no memory of ours.
    unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(store: &mut Appender, tail: &mut Tail, text: &str) {
        store.append(tail, |out| out.extend_from_slice(text.as_bytes()));
    }

    #[test]
    fn what_was_not_committed_is_cut_away() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (Path::new("a"), Path::new("r/b.jsonl"));
        let mut store = Appender::open(dir.path()).unwrap();
        let mut tail = Tail::default();
        put(&mut store, &mut tail, "one\n");
        assert_eq!(tail.length(), 4);
        store.flush(a, b, &mut tail).unwrap();
        store.clear();
        let committed = tail.flushed();
        put(&mut store, &mut tail, "two\n");
        store.flush(a, b, &mut tail).unwrap();

        let mut store = Appender::open(dir.path()).unwrap();
        assert!(store.cut_back(Path::new("a/r/b.jsonl"), committed).unwrap());
        assert_eq!(fs::read(dir.path().join("a/r/b.jsonl")).unwrap(), b"one\n");
        // A file that no checkpoint ever covered is cut when it is used again.
        fs::write(dir.path().join("a/c.jsonl"), "left over\n").unwrap();
        let mut new = Tail::default();
        put(&mut store, &mut new, "NEW\n");
        store.flush(a, Path::new("c.jsonl"), &mut new).unwrap();
        assert_eq!(fs::read(dir.path().join("a/c.jsonl")).unwrap(), b"NEW\n");
    }

    #[test]
    fn files_share_the_block_and_are_read_through_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Appender::open(dir.path()).unwrap();
        let (mut a, mut b) = (Tail::default(), Tail::default());
        put(&mut store, &mut a, "flushed ");
        store.flush(Path::new(""), Path::new("a"), &mut a).unwrap();
        store.clear();
        for n in 0..3000 {
            put(&mut store, &mut a, &format!("a{n} "));
            put(&mut store, &mut b, &format!("b{n} "));
        }
        let text = store.read(Path::new("a"), &a, 4, 14).unwrap();
        assert_eq!(text, b"hed a0 a1 a2 a");
        store.flush(Path::new(""), Path::new("a"), &mut a).unwrap();
        store.flush(Path::new(""), Path::new("b"), &mut b).unwrap();
        let whole = fs::read_to_string(dir.path().join("a")).unwrap();
        assert!(whole.starts_with("flushed a0 a1 ") && whole.ends_with("a2998 a2999 "));
        assert_eq!(whole.len() as u64, a.length());
    }

    #[test]
    fn a_shortened_file_is_an_error_that_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("x"), "12").unwrap();
        let store = Appender::open(dir.path()).unwrap();
        let error = store.cut_back(Path::new("x"), 3).unwrap_err().to_string();
        assert!(error.contains("2 bytes, but 3 were committed") && error.contains("backup"), "{error}");
        assert!(!store.cut_back(Path::new("moved/away"), 3).unwrap());
    }
}
