/*!
This node's journal as the plugin writes it: first what is there, then every
new line. The agent learns from it which steps live, and what an earlier life
of its own has already told.
*/

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use inquest_journal::Lines;

/// How much of the past is read at the start, newest days first. A step that
/// began before is still known by its cgroup, unless Slurm names that by SLUID.
const HISTORY: u64 = 256 << 20;
/// Files that are read on at once.
const OPEN: usize = 3;
/// Bytes read at once; longer lines are none of ours and are skipped.
const CHUNK: usize = 64 << 10;

/// Reads on in the newest files of one directory.
#[derive(Debug)]
pub(super) struct Tail {
    dir: PathBuf,
    /// Today's file, the one before, which may still get a late line, and one of a day when the clock was wrong.
    files: Vec<Open>,
    /// All that were there so far, and how far those are read that are not open.
    known: BTreeMap<String, u64>,
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
        Tail { dir: dir.to_owned(), files: Vec::new(), known: BTreeMap::new(), buffer: Vec::new() }
    }

    /// Hands over every line that has come since the last call. `today` is
    /// the day whose file is being written, `2026-11-21`.
    ///
    /// # Errors
    ///
    /// The first thing that could not be read; the rest is.
    pub(super) fn read(&mut self, today: &str, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        let mut result = Ok(());
        if !self.files.iter().any(|open| open.is_of(today)) {
            result = self.open_new(today);
        }
        for open in &mut self.files {
            result = open.read(&mut self.buffer, &mut each).and(result);
        }
        let old = self.files.len().saturating_sub(OPEN);
        self.known.extend(self.files.drain(..old).map(|open| (open.name, open.at)));
        result
    }

    /// Opens what has come since, and today's file where the clock has gone back to its day.
    fn open_new(&mut self, today: &str) -> io::Result<()> {
        let mut names: Vec<(String, u64)> = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            let (Ok(name), Ok(meta)) = (entry.file_name().into_string(), entry.metadata()) else { continue };
            let new = !self.known.contains_key(&name) || is_of(&name, today);
            if meta.is_file() && name.ends_with(".jsonl") && !name.starts_with('.') && new {
                names.push((name, meta.len()));
            }
        }
        names.sort_by(|a, b| b.cmp(a));
        let mut room = HISTORY;
        let fit = names.iter().take_while(|(_, len)| {
            let fits = room > 0;
            room = room.saturating_sub(*len);
            fits
        });
        let wanted = fit.count();
        for (n, (name, len)) in names.into_iter().enumerate().rev() {
            let read = self.known.insert(name.clone(), len);
            if n < wanted {
                let file = File::open(self.dir.join(&name))?;
                let at = read.unwrap_or(file.metadata()?.len().saturating_sub(HISTORY));
                self.files.push(Open { name, file, at });
            }
        }
        Ok(())
    }
}

fn is_of(name: &str, day: &str) -> bool {
    name.strip_prefix(day) == Some(".jsonl")
}

impl Open {
    fn is_of(&self, day: &str) -> bool {
        is_of(&self.name, day)
    }

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
    fn a_clock_that_was_wrong_does_not_deafen() {
        let dir = tempfile::tempdir().unwrap();
        let d = dir.path();
        append(d, "2026-11-20.jsonl", "a\n");
        append(d, "2036-01-01.jsonl", "ahead\n");
        let mut tail = Tail::new(d);
        assert_eq!(read(&mut tail, "2026-11-20"), ["a", "ahead"]);
        for day in ["2026-11-21", "2026-11-22", "2026-11-23"] {
            append(d, &format!("{day}.jsonl"), &format!("{day}\n"));
            assert_eq!(read(&mut tail, day), [day]);
        }
        // It goes back to a day whose file is not open any more: only what is new there is told.
        append(d, "2026-11-20.jsonl", "back\n");
        assert_eq!(read(&mut tail, "2026-11-20"), ["back"]);
        append(d, "2026-11-24.jsonl", "on\n");
        assert_eq!(read(&mut tail, "2026-11-24"), ["on"]);
    }

    #[test]
    fn a_line_that_is_too_long_costs_only_itself() {
        let dir = tempfile::tempdir().unwrap();
        append(dir.path(), "2026-11-20.jsonl", &format!("a\n{}\nb\n", "x".repeat(3 * CHUNK)));
        let got = read(&mut Tail::new(dir.path()), "2026-11-20");
        assert_eq!((got.first().unwrap().as_str(), got.last().unwrap().as_str()), ("a", "b"));
    }
}
