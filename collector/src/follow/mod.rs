/*!
Finds the journals below one directory and reads what is new in them.

A position is only a hint. Whether an event was seen before is decided by its
identity (see [`crate::ledger`]), so a file that was truncated, replaced,
copied or restored is simply read again from its beginning. To notice that, a
position carries a hash of the bytes just before it.

Files are read and not mapped: a journal may be cut short at any moment, on a
shared file system too, and a map would then end this process with SIGBUS.
Nothing is waited for: a FIFO or a socket with a journal's name is refused, and
symbolic links are not followed.
*/

mod chunks;
mod hints;
mod json;
mod line;
pub mod manual;
mod watch;

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use xxhash_rust::xxh3::xxh3_64;

pub use chunks::Chunks;
pub use hints::Hints;
pub(crate) use line::Cursor;
pub use line::{Event, Form, TIME, Usual, parse_body};
pub use watch::{Look, Watch, find};

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

impl Journal {
    /// The node in whose directory it lies.
    pub fn node(&self) -> &str {
        self.name.split('/').next().unwrap_or_default()
    }
}

/// Something that keeps a journal from being read. The others go on.
#[derive(Debug, thiserror::Error)]
#[error("cannot read journal {path}: {source}")]
pub struct FollowError {
    /// The file or directory.
    pub path: PathBuf,
    source: io::Error,
}

impl FollowError {
    /// Whether there is no such file any more.
    pub fn is_gone(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

fn changed(meta: &std::fs::Metadata) -> i64 {
    meta.ctime().saturating_mul(1_000_000_000).saturating_add(meta.ctime_nsec())
}

/// Whether there may be something new in `journal` since `at`.
pub fn has_news(journal: &Journal, at: Option<&Position>) -> bool {
    at.is_none_or(|at| (at.file, at.size, at.changed) != (journal.file, journal.size, journal.changed))
}

fn guard(read: &[u8]) -> u64 {
    xxh3_64(&read[read.len().saturating_sub(GUARD as usize)..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use inquest_journal::Lines;
    use std::io::Write;
    use std::path::Path;

    /// Reads on from `at`; yields the lines and the new position.
    fn read(root: &Path, name: &str, at: Option<&Position>) -> (Vec<String>, Position) {
        let (found, errors) = find(root).unwrap();
        assert!(errors.is_empty());
        let journal = found.iter().find(|j| j.name == name).unwrap();
        let mut chunks = Chunks::open(root, journal, at, Vec::new()).unwrap();
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
    fn a_line_longer_than_a_chunk_costs_only_itself() {
        for extra in [0, 1, 5, CHUNK, 2 * CHUNK + 3] {
            let long = "x".repeat(CHUNK + extra);
            let (dir, file) = journal(&format!("a\n{long}\nb\n"));
            let (lines, at) = read(dir.path(), NAME, None);
            assert_eq!(lines, ["a", "b"], "{extra}");
            assert_eq!(at.bytes, std::fs::metadata(&file).unwrap().len());
            assert!(read(dir.path(), NAME, Some(&at)).0.is_empty());
        }
        // Still being written, for all one can know.
        let (dir, _) = journal(&format!("a\n{}", "x".repeat(CHUNK + 9)));
        assert_eq!(read(dir.path(), NAME, None).1.bytes, 2);
    }

    #[test]
    fn a_damaged_archive_gives_what_is_before_the_damage() {
        use std::io::Write;
        let text: String = (0..400_000u64).map(|n| format!("line {n}, {}\n", n * 7919 % 1013)).collect();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(text.as_bytes()).unwrap();
        for (end, packed) in
            [("zst", zstd::encode_all(text.as_bytes(), 1).unwrap()), ("gz", gzip.finish().unwrap())]
        {
            let (dir, file) = journal("");
            std::fs::remove_file(&file).unwrap();
            let name = format!("n1/x.jsonl.{end}");
            std::fs::write(dir.path().join(&name), &packed).unwrap();
            assert_eq!(read(dir.path(), &name, None).0.len(), 400_000);
            std::fs::write(dir.path().join(&name), &packed[..packed.len() * 3 / 4]).unwrap();
            let (found, _) = find(dir.path()).unwrap();
            let mut chunks = Chunks::open(dir.path(), &found[0], None, Vec::new()).unwrap();
            let mut lines = 0;
            while let Some(piece) = chunks.piece().unwrap() {
                let mut whole = Lines::new(piece);
                lines += whole.by_ref().count();
                let done = whole.consumed();
                chunks.consume(done);
                if done == 0 {
                    break;
                }
            }
            assert!(chunks.damaged(), "{end}");
            assert!(lines > 200_000 && lines < 400_000, "{end}: {lines}");
        }
    }

    #[test]
    fn other_files_are_left_alone() {
        let (dir, _) = journal("a\n");
        for name in ["n1/notes.txt", "n1/.hidden.jsonl", "stray.jsonl"] {
            std::fs::write(dir.path().join(name), "x\n").unwrap();
        }
        std::fs::create_dir(dir.path().join("n1/dir.jsonl")).unwrap();
        std::os::unix::fs::symlink("notes.txt", dir.path().join("n1/link.jsonl")).unwrap();
        let (found, errors) = find(dir.path()).unwrap();
        assert_eq!(found.into_iter().map(|j| j.name).collect::<Vec<_>>(), [NAME]);
        let mut said: Vec<_> = errors.iter().map(|e| e.to_string()).collect();
        said.sort();
        assert_eq!(said.len(), 2);
        assert!(said[0].contains("dir.jsonl: it is no regular file"), "{said:?}");
        assert!(said[1].contains("link.jsonl: it is a symbolic link"), "{said:?}");
    }
}
