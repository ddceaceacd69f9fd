/*!
Finds the journals below one directory and reads what is new in them.

A position is only a hint. Whether an event was seen before is decided by its
identity (see [`crate::ledger`]), so a file that was truncated, replaced,
copied or restored is simply read again from its beginning. To notice that, a
position carries a hash of the bytes just before it.

Plain files are memory-mapped for the length of one pass. If somebody truncates
a file in that moment the kernel ends this process with SIGBUS; nothing is lost
by that, because everything not yet committed is read again at the next start.
*/

mod json;
mod line;

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use memmap2::{Mmap, MmapOptions};
use xxhash_rust::xxh3::xxh3_64;

pub(crate) use line::{Cursor, severity, source};
pub use line::{Event, Form, parse_body};

/// How far a file was read, and what it looked like then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Device and inode of the file.
    pub file: (u64, u64),
    /// Bytes of whole lines consumed. For a compressed file: of its content.
    pub bytes: u64,
    /// Size of the file when it was read, in bytes.
    pub size: u64,
    /// Its time of last change, in nanoseconds: an inode number comes back,
    /// and a line may be as long as another.
    pub changed: i64,
    /// Hash of up to [`GUARD`] bytes before `bytes`.
    pub guard: u64,
}

/// Bytes before a position that must be unchanged for it to hold.
pub const GUARD: u64 = 256;

/// Bytes of new content that are handed over at once; also the bound of what a
/// compressed file holds in memory.
pub const CHUNK: usize = 8 << 20;

/// A journal file as found in the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journal {
    /// Path below the journal directory, `node/day.jsonl`.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// Device and inode.
    pub file: (u64, u64),
    /// Time of last change, in nanoseconds since 1970.
    pub changed: i64,
}

/// Something that keeps a journal from being read. The others go on.
#[derive(Debug, thiserror::Error)]
#[error("cannot read journal {path}: {source}")]
pub struct FollowError {
    /// The file or directory.
    pub path: PathBuf,
    source: io::Error,
}

/// All journal files below `root`, sorted by name, and what could not be looked at.
///
/// # Errors
///
/// When `root` itself cannot be listed.
pub fn find(root: &Path) -> Result<(Vec<Journal>, Vec<FollowError>), FollowError> {
    let fail = |path: &Path, source| FollowError { path: path.to_owned(), source };
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for node in std::fs::read_dir(root).map_err(|e| fail(root, e))? {
        let node = node.map_err(|e| fail(root, e))?;
        let path = node.path();
        if !node.file_type().is_ok_and(|t| t.is_dir()) {
            continue;
        }
        let files = match std::fs::read_dir(&path) {
            Ok(files) => files,
            Err(e) => {
                errors.push(fail(&path, e));
                continue;
            }
        };
        for file in files.flatten() {
            let Some(name) = name_of(&node.file_name(), &file.file_name()) else { continue };
            match file.metadata() {
                Ok(meta) if meta.is_file() => {
                    let file = (meta.dev(), meta.ino());
                    found.push(Journal { name, size: meta.len(), file, changed: changed(&meta) });
                }
                Ok(_) => {}
                // Gone between the listing and the look: compressed or expired.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => errors.push(fail(&file.path(), e)),
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((found, errors))
}

fn changed(meta: &std::fs::Metadata) -> i64 {
    meta.ctime().saturating_mul(1_000_000_000).saturating_add(meta.ctime_nsec())
}

fn name_of(node: &std::ffi::OsStr, file: &std::ffi::OsStr) -> Option<String> {
    let (node, file) = (node.to_str()?, file.to_str()?);
    let journal = file.ends_with(".jsonl") || file.ends_with(".jsonl.zst");
    (journal && !file.starts_with('.')).then(|| format!("{node}/{file}"))
}

/// Whether there may be something new in `journal` since `at`.
pub fn has_news(journal: &Journal, at: Option<&Position>) -> bool {
    at.is_none_or(|at| (at.file, at.size, at.changed) != (journal.file, journal.size, journal.changed))
}

/// The unread content of one journal, chunk by chunk.
#[derive(Debug)]
pub struct Chunks {
    path: PathBuf,
    position: Position,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Plain { map: Option<Mmap>, at: usize },
    // The decoder has no Debug of its own worth printing.
    Zstd { decoder: Decoder, buffer: Vec<u8>, used: usize, end: bool },
}

struct Decoder(zstd::stream::read::Decoder<'static, io::BufReader<File>>);

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("zstd")
    }
}

impl Chunks {
    /// Opens `journal` below `root` at `at`, or at its beginning when the file
    /// is not what it was.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened, mapped or decompressed.
    pub fn open(root: &Path, journal: &Journal, at: Option<&Position>) -> Result<Chunks, FollowError> {
        let path = root.join(&journal.name);
        Chunks::open_at(&path, journal, at).map_err(|source| FollowError { path, source })
    }

    fn open_at(path: &Path, journal: &Journal, at: Option<&Position>) -> io::Result<Chunks> {
        let file = File::open(path)?;
        let meta = file.metadata()?;
        let (file_id, size) = ((meta.dev(), meta.ino()), meta.len());
        let fresh = Position { file: file_id, size, changed: changed(&meta), ..Position::default() };
        let mut chunks = if journal.name.ends_with(".zst") {
            let decoder = Decoder(zstd::stream::read::Decoder::new(file)?);
            let content = Content::Zstd { decoder, buffer: Vec::new(), used: 0, end: false };
            Chunks { path: path.to_owned(), position: fresh.clone(), content }
        } else {
            // An empty file cannot be mapped.
            let map = if meta.len() == 0 {
                None
            } else {
                // SAFETY: the map is read only, and only through this type. A
                // truncation under it ends the process, which loses nothing
                // (see the head of this file); other changes of a file that
                // is only ever appended to cannot be seen as anything but
                // bytes.
                Some(unsafe {
                    MmapOptions::new().len(usize::try_from(meta.len()).unwrap_or(usize::MAX)).map(&file)?
                })
            };
            Chunks { path: path.to_owned(), position: fresh.clone(), content: Content::Plain { map, at: 0 } }
        };
        if let Some(at) = at.filter(|at| at.bytes > 0) {
            chunks.resume(at)?;
        }
        Ok(chunks)
    }

    /// Skips what was read before, if it is still what it was.
    fn resume(&mut self, at: &Position) -> io::Result<()> {
        match &mut self.content {
            Content::Plain { map, at: start } => {
                let bytes = map.as_deref().unwrap_or_default();
                let end = usize::try_from(at.bytes).unwrap_or(usize::MAX);
                if end <= bytes.len() && guard(&bytes[..end]) == at.guard {
                    *start = end;
                    self.position.bytes = at.bytes;
                    self.position.guard = at.guard;
                }
            }
            // Compressed content does not grow: the same file was read to its end.
            Content::Zstd { decoder, .. }
                if at.file == self.position.file && at.size == self.position.size =>
            {
                io::copy(&mut decoder.0.by_ref().take(at.bytes), &mut io::sink())?;
                self.position.bytes = at.bytes;
                self.position.guard = at.guard;
            }
            Content::Zstd { .. } => {}
        }
        Ok(())
    }

    /// The next piece of content. The last piece may end inside a line;
    /// [`Chunks::consume`] says how much of a piece was whole lines, and the
    /// rest begins the next piece. `None` when there is nothing more.
    ///
    /// # Errors
    ///
    /// When a compressed file is damaged.
    pub fn piece(&mut self) -> Result<Option<&[u8]>, FollowError> {
        match &mut self.content {
            Content::Plain { map, at } => {
                let bytes = map.as_deref().unwrap_or_default();
                let rest = &bytes[*at..];
                Ok(if rest.is_empty() { None } else { Some(&rest[..line_chunk(rest)]) })
            }
            Content::Zstd { decoder, buffer, used, end } => {
                buffer.drain(..*used);
                *used = 0;
                if !*end {
                    let room = CHUNK.saturating_sub(buffer.len()).max(CHUNK / 8) as u64;
                    let got = decoder.0.by_ref().take(room).read_to_end(buffer);
                    match got {
                        Ok(n) => *end = n == 0,
                        Err(source) => return Err(FollowError { path: self.path.clone(), source }),
                    }
                }
                Ok(if buffer.is_empty() { None } else { Some(buffer) })
            }
        }
    }

    /// Says that the first `bytes` of the last piece are done.
    pub fn consume(&mut self, bytes: usize) {
        let hash = match &mut self.content {
            Content::Plain { map, at } => {
                *at += bytes;
                guard(&map.as_deref().unwrap_or_default()[..*at])
            }
            Content::Zstd { buffer, used, .. } => {
                *used = bytes;
                guard(&buffer[..bytes])
            }
        };
        if bytes > 0 {
            self.position.bytes += bytes as u64;
            self.position.guard = hash;
        }
    }

    /// Where reading stands.
    pub fn position(&self) -> &Position {
        &self.position
    }
}

/// Up to [`CHUNK`] bytes that end with a line if any line ends in them; a
/// longer line is handed over whole, so that it can be counted as one bad line.
fn line_chunk(rest: &[u8]) -> usize {
    if rest.len() <= CHUNK {
        return rest.len();
    }
    match rest[..CHUNK].iter().rposition(|&b| b == b'\n') {
        Some(end) => end + 1,
        None => rest[CHUNK..].iter().position(|&b| b == b'\n').map_or(rest.len(), |n| CHUNK + n + 1),
    }
}

fn guard(read: &[u8]) -> u64 {
    xxh3_64(&read[read.len().saturating_sub(GUARD as usize)..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use inquest_journal::Lines;
    use std::io::Write;

    /// Reads on from `at`; yields the lines and the new position.
    fn read(root: &Path, name: &str, at: Option<&Position>) -> (Vec<String>, Position) {
        let (found, errors) = find(root).unwrap();
        assert!(errors.is_empty());
        let journal = found.iter().find(|j| j.name == name).unwrap();
        let mut chunks = Chunks::open(root, journal, at).unwrap();
        let mut got = Vec::new();
        while let Some(piece) = chunks.piece().unwrap() {
            let mut lines = Lines::new(piece);
            got.extend(lines.by_ref().map(|(_, l)| String::from_utf8(l.to_vec()).unwrap()));
            let done = lines.consumed();
            chunks.consume(done);
            if done == 0 {
                break;
            }
        }
        (got, chunks.position().clone())
    }

    fn journal(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("n1")).unwrap();
        let file = dir.path().join("n1/2026-11-21.jsonl");
        std::fs::write(&file, text).unwrap();
        (dir, file)
    }

    const NAME: &str = "n1/2026-11-21.jsonl";

    #[test]
    fn a_growing_file_is_read_once() {
        let (dir, file) = journal("one\ntwo\nthr");
        let (lines, at) = read(dir.path(), NAME, None);
        assert_eq!(lines, ["one", "two"]);
        let mut f = std::fs::OpenOptions::new().append(true).open(&file).unwrap();
        f.write_all(b"ee\nfour\n").unwrap();
        let (lines, at) = read(dir.path(), NAME, Some(&at));
        assert_eq!(lines, ["three", "four"]);
        assert!(!has_news(&find(dir.path()).unwrap().0[0], Some(&at)));
    }

    #[test]
    fn a_rewritten_file_is_read_from_its_beginning() {
        let (dir, file) = journal("one\ntwo\n");
        let (_, at) = read(dir.path(), NAME, None);
        std::fs::write(&file, "ONE\nTWO\nthree\n").unwrap();
        assert_eq!(read(dir.path(), NAME, Some(&at)).0, ["ONE", "TWO", "three"]);
        std::fs::write(&file, "x\n").unwrap();
        assert_eq!(read(dir.path(), NAME, Some(&at)).0, ["x"]);
        std::fs::write(&file, "").unwrap();
        assert!(read(dir.path(), NAME, Some(&at)).0.is_empty());
    }

    #[test]
    fn a_compressed_file_is_read_like_a_plain_one() {
        let (dir, file) = journal("");
        std::fs::remove_file(&file).unwrap();
        let text: String = (0..200_000).map(|n| format!("line {n} of a file of several chunks\n")).collect();
        std::fs::write(dir.path().join("n1/old.jsonl.zst"), zstd::encode_all(text.as_bytes(), 1).unwrap())
            .unwrap();
        let (lines, at) = read(dir.path(), "n1/old.jsonl.zst", None);
        assert_eq!(lines.len(), 200_000);
        assert_eq!(lines[199_999], "line 199999 of a file of several chunks");
        assert_eq!(at.bytes as usize, text.len());
        assert!(read(dir.path(), "n1/old.jsonl.zst", Some(&at)).0.is_empty());
    }

    #[test]
    fn a_line_longer_than_a_chunk_does_not_stop_the_next() {
        let long = "x".repeat(CHUNK + 5);
        let (dir, _) = journal(&format!("a\n{long}\nb\n"));
        let (lines, _) = read(dir.path(), NAME, None);
        assert_eq!(lines.iter().map(String::len).collect::<Vec<_>>(), [1, CHUNK + 5, 1]);
    }

    #[test]
    fn other_files_are_left_alone() {
        let (dir, _) = journal("a\n");
        for name in ["n1/notes.txt", "n1/.hidden.jsonl", "stray.jsonl"] {
            std::fs::write(dir.path().join(name), "x\n").unwrap();
        }
        std::fs::create_dir(dir.path().join("n1/dir.jsonl")).unwrap();
        let names: Vec<_> = find(dir.path()).unwrap().0.into_iter().map(|j| j.name).collect();
        assert_eq!(names, [NAME]);
    }
}
