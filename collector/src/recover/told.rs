//! Which failures a handler was called for, remembered over restarts.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use inquest_journal::Timestamp;
use serde::{Deserialize, Serialize};

/// A failure by its name: cluster, user, run, fingerprint.
pub type Key = (String, String, String, String);

/// What a handler was called for.
#[derive(Debug, Default)]
pub struct Told {
    keys: HashSet<Key>,
    file: Option<File>,
    since: Option<Timestamp>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Since { since: Timestamp },
    Key { told: Key },
}

impl Told {
    /// Remembers in this file too. A new file remembers `newest`: nothing
    /// that had happened by then is told.
    ///
    /// # Errors
    ///
    /// When it cannot be read or written.
    pub fn open(path: &Path, newest: Timestamp) -> io::Result<Told> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let mut told = Told::default();
        for line in text.lines() {
            match serde_json::from_str(line) {
                Ok(Line::Since { since }) => told.since = Some(since),
                Ok(Line::Key { told: key }) => drop(told.keys.insert(key)),
                // A line that was cut off by a kill: told again rather than never.
                Err(_) => {}
            }
        }
        if !text.is_empty() && !text.ends_with('\n') {
            file.write_all(b"\n")?;
        }
        told.file = Some(file);
        if told.since.is_none() {
            told.since = Some(newest);
            told.write(&Line::Since { since: newest })?;
        }
        Ok(told)
    }

    /// From when on failures are told; without a file, nobody remembers.
    pub fn since(&self) -> Option<Timestamp> {
        self.since
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
}
