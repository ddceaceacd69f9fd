//! Which failures a handler was called for, and how far runs were looked through, remembered over restarts.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use inquest_journal::Timestamp;
use serde::{Deserialize, Serialize};

/// A failure by its name: cluster, user, run, fingerprint.
pub type Key = (String, String, String, String);

/// A run by its place: cluster, user, id.
pub type RunPlace = (String, String, String);

/// What a handler was called for.
#[derive(Debug, Default)]
pub struct Told {
    keys: HashSet<Key>,
    /// Newest event of runs when they were looked through and handlers were done with what had failed.
    looked: HashMap<RunPlace, Timestamp>,
    file: Option<File>,
    /// The file was made by this life.
    new: bool,
    since: Option<Timestamp>,
}

/// Lines beyond those that say something new, with which the file is written anew when it is opened.
const STALE_MAX: usize = 10_000;

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Since { since: Timestamp },
    Key { told: Key },
    Looked { looked: RunPlace, until: Timestamp },
}

impl Told {
    /// Remembers in this file too. A new file remembers `newest`: nothing
    /// that had happened by then is told.
    ///
    /// # Errors
    ///
    /// When it cannot be read or written.
    pub fn open(path: &Path, newest: Timestamp) -> io::Result<Told> {
        let (mut told, lines) = Told::read(path)?;
        if lines > told.keys.len() + told.looked.len() + STALE_MAX {
            told.write_anew(path)?;
        }
        if told.since.is_none() {
            told.since = Some(newest);
            told.new = true;
            told.write(&Line::Since { since: newest })?;
        }
        Ok(told)
    }

    /// What the file says, and in how many lines.
    fn read(path: &Path) -> io::Result<(Told, usize)> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let mut told = Told::default();
        for line in text.lines() {
            match serde_json::from_str(line) {
                Ok(Line::Since { since }) => told.since = Some(since),
                Ok(Line::Key { told: key }) => drop(told.keys.insert(key)),
                Ok(Line::Looked { looked, until }) => drop(told.looked.insert(looked, until)),
                // A line that was cut off by a kill: told again rather than never.
                Err(_) => {}
            }
        }
        if !text.is_empty() && !text.ends_with('\n') {
            file.write_all(b"\n")?;
        }
        told.file = Some(file);
        Ok((told, text.lines().count()))
    }

    /// Writes what is known into a new file, which takes the place of the old one.
    fn write_anew(&mut self, path: &Path) -> io::Result<()> {
        let mut name = path.as_os_str().to_owned();
        name.push(".new");
        let mut text = Vec::new();
        let since = self.since.map(|since| Line::Since { since });
        let keys = self.keys.iter().map(|key| Line::Key { told: key.clone() });
        let looked = self.looked.iter().map(|(run, &until)| Line::Looked { looked: run.clone(), until });
        for line in since.into_iter().chain(keys).chain(looked) {
            serde_json::to_writer(&mut text, &line)?;
            text.push(b'\n');
        }
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(&name)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&name, path)?;
        self.file = Some(OpenOptions::new().append(true).open(path)?);
        Ok(())
    }

    /// From when on failures are told; without a file, nobody remembers.
    pub fn since(&self) -> Option<Timestamp> {
        self.since
    }

    /// Whether nobody has remembered anything before.
    pub fn is_new(&self) -> bool {
        self.new
    }

    /// Whether it was told.
    pub fn knows(&self, key: &Key) -> bool {
        self.keys.contains(key)
    }

    /// Marks a failure, for this life of the process.
    pub fn mark(&mut self, key: Key) {
        self.keys.insert(key);
    }

    /// Remembers a failure for later lives too.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn keep(&mut self, key: Key) -> io::Result<()> {
        self.write(&Line::Key { told: key })
    }

    /// Until when a run was looked through in any life.
    pub fn looked(&self, run: &RunPlace) -> Option<Timestamp> {
        self.looked.get(run).copied()
    }

    /// Remembers that everything in this run until then was told.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn keep_looked(&mut self, run: RunPlace, until: Timestamp) -> io::Result<()> {
        if self.file.is_none() {
            return Ok(());
        }
        self.write(&Line::Looked { looked: run.clone(), until })?;
        self.looked.insert(run, until);
        Ok(())
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        file.write_all(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_over_a_restart_and_a_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("told");
        let key = |n: &str| ("c".to_owned(), "u".to_owned(), "r".to_owned(), n.to_owned());
        let mut told = Told::open(&path, Timestamp(5)).unwrap();
        assert_eq!(told.since(), Some(Timestamp(5)));
        told.mark(key("a"));
        told.keep(key("a")).unwrap();
        told.mark(key("b"));
        drop(told);
        std::fs::write(&path, std::fs::read_to_string(&path).unwrap() + "{\"told\":[\"c\",").unwrap();
        let mut told = Told::open(&path, Timestamp(9)).unwrap();
        assert_eq!(told.since(), Some(Timestamp(5)));
        assert!(told.knows(&key("a")) && !told.knows(&key("b")));
        told.keep(key("c")).unwrap();
        assert!(Told::open(&path, Timestamp(9)).unwrap().knows(&key("c")));
    }

    #[test]
    fn the_file_does_not_grow_with_every_look() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("told");
        let run = |n: usize| ("c".to_owned(), "u".to_owned(), format!("job-{n}"));
        let mut told = Told::open(&path, Timestamp(5)).unwrap();
        told.keep(("c".into(), "u".into(), "r".into(), "f".into())).unwrap();
        for look in 0..=2 * STALE_MAX {
            told.keep_looked(run(look % 2), Timestamp(look as i64)).unwrap();
        }
        let size = || std::fs::metadata(&path).unwrap().len();
        let before = size();
        let mut told = Told::open(&path, Timestamp(9)).unwrap();
        assert!(size() * 100 < before, "{} of {before}", size());
        told.keep_looked(run(2), Timestamp(7)).unwrap();
        let told = Told::open(&path, Timestamp(9)).unwrap();
        let last = Timestamp(2 * STALE_MAX as i64);
        assert_eq!(
            (told.since(), told.looked(&run(0)), told.looked(&run(2))),
            (Some(Timestamp(5)), Some(last), Some(Timestamp(7)))
        );
        assert!(told.knows(&("c".into(), "u".into(), "r".into(), "f".into())));
    }
}
