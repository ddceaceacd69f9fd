/*!
This node's journal as the plugin writes it: first what is there, then every
new line. The agent learns from it which steps live, and what an earlier life
of its own has already told.
*/

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use inquest_journal::Lines;

/// How much of the past is read at the start, newest days first. A step that
/// began before is still known by its cgroup, unless Slurm names that by SLUID.
const HISTORY: u64 = 256 << 20;
/// Bytes read at once; longer lines are none of ours and are skipped.
const CHUNK: usize = 64 << 10;

/// Reads on in the newest files of one directory.
#[derive(Debug)]
pub(super) struct Tail {
    dir: PathBuf,
    /// Today's file and the one before, which may still get a late line.
    files: Vec<Open>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Open {
    name: String,
    file: File,
    at: u64,
}

impl Tail {
    /// Follows the journal files in `dir`.
    pub(super) fn new(dir: &Path) -> Tail {
        Tail { dir: dir.to_owned(), files: Vec::new(), buffer: Vec::new() }
    }

    /// Hands over every line that has come since the last call. `today` is
    /// the day whose file is being written, `2026-11-21`.
    ///
    /// # Errors
    ///
    /// The first thing that could not be read; the rest is.
    pub(super) fn read(&mut self, today: &str, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        let mut result = Ok(());
        if self.files.last().is_none_or(|open| open.name.as_str() < today) {
            result = self.open_newer();
        }
        for open in &mut self.files {
            result = open.read(&mut self.buffer, &mut each).and(result);
        }
        let old = self.files.len().saturating_sub(2);
        self.files.drain(..old);
        result
    }

    fn open_newer(&mut self) -> io::Result<()> {
        let mut names: Vec<(String, u64)> = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            let (Ok(name), Ok(meta)) = (entry.file_name().into_string(), entry.metadata()) else { continue };
            let known = self.files.last().is_some_and(|open| name <= open.name);
            if meta.is_file() && name.ends_with(".jsonl") && !name.starts_with('.') && !known {
                names.push((name, meta.len()));
            }
        }
        names.sort_by(|a, b| b.cmp(a));
        let mut room = HISTORY;
        let wanted = names.iter().take_while(|(_, len)| {
            let fits = room > 0;
            room = room.saturating_sub(*len);
            fits
        });
        let wanted: Vec<&String> = wanted.map(|(name, _)| name).collect();
        for name in wanted.into_iter().rev() {
            let file = File::open(self.dir.join(name))?;
            let at = file.metadata()?.len().saturating_sub(HISTORY);
            self.files.push(Open { name: name.clone(), file, at });
        }
        Ok(())
    }
}

impl Open {
    fn read(&mut self, buffer: &mut Vec<u8>, each: &mut impl FnMut(&[u8])) -> io::Result<()> {
        if self.file.metadata()?.len() < self.at {
            self.at = 0;
        }
        loop {
            buffer.resize(CHUNK, 0);
            let n = self.file.read_at(buffer, self.at)?;
            let mut lines = Lines::new(&buffer[..n]);
            lines.by_ref().for_each(|(_, line)| each(line));
            let done = lines.consumed();
            match done {
                0 if n < CHUNK => return Ok(()),
                0 => self.at += n as u64,
                done => self.at += done as u64,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn append(dir: &Path, name: &str, text: &str) {
        let path = dir.join(name);
        File::options().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn read(tail: &mut Tail, today: &str) -> Vec<String> {
        let mut got = Vec::new();
        tail.read(today, |l| got.push(String::from_utf8(l.to_vec()).unwrap())).unwrap();
        got
    }

    #[test]
    fn every_line_once_over_midnight() {
        let dir = tempfile::tempdir().unwrap();
        let d = dir.path();
        append(d, "2026-11-19.jsonl", "old\n");
        append(d, "2026-11-20.jsonl", "a\nb\nhal");
        append(d, "notes.txt", "no\n");
        let mut tail = Tail::new(d);
        assert_eq!(read(&mut tail, "2026-11-20"), ["old", "a", "b"]);
        append(d, "2026-11-20.jsonl", "f\nc\n");
        assert_eq!(read(&mut tail, "2026-11-20"), ["half", "c"]);
        append(d, "2026-11-21.jsonl", "d\n");
        append(d, "2026-11-20.jsonl", "late\n");
        assert_eq!(read(&mut tail, "2026-11-21"), ["late", "d"]);
        assert!(read(&mut tail, "2026-11-21").is_empty());
    }

    #[test]
    fn a_line_that_is_too_long_costs_only_itself() {
        let dir = tempfile::tempdir().unwrap();
        append(dir.path(), "2026-11-20.jsonl", &format!("a\n{}\nb\n", "x".repeat(3 * CHUNK)));
        let got = read(&mut Tail::new(dir.path()), "2026-11-20");
        assert_eq!((got.first().unwrap().as_str(), got.last().unwrap().as_str()), ("a", "b"));
    }
}
