//! The events of a run as bytes, wherever in the file they are.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::EVENTS;
use inquest_journal::Lines;

use super::read::{ReadError, unreadable};

/// The events file of a run, open for reading.
#[derive(Debug)]
pub struct EventsFile {
    path: PathBuf,
    file: File,
    length: u64,
}

impl EventsFile {
    /// Opens the events of the run in `dir`.
    ///
    /// # Errors
    ///
    /// When there are none, or the caller may not read them.
    pub fn open(dir: &Path) -> Result<EventsFile, ReadError> {
        let path = dir.join(EVENTS);
        let open = || -> io::Result<(File, u64)> {
            let file = File::open(&path)?;
            let length = file.metadata()?.len();
            Ok((file, length))
        };
        let (file, length) = open().map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => {
                ReadError::NotFound(format!("there are no events at {}: the run was removed", path.display()))
            }
            _ => unreadable(&path, &e),
        })?;
        Ok(EventsFile { path, file, length })
    }

    /// Bytes of events when it was opened.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether there was no event.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Reads up to `length` bytes at `at`; fewer at the end of the file.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn read(&self, at: u64, length: usize) -> Result<Vec<u8>, ReadError> {
        let mut bytes = vec![0; length.min(self.length.saturating_sub(at) as usize)];
        self.file.read_exact_at(&mut bytes, at).map_err(|e| unreadable(&self.path, &e))?;
        Ok(bytes)
    }

    /// Calls `each` with the whole lines between two positions and where they
    /// begin, reading so many bytes at once.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn lines(
        &self,
        from: u64,
        to: u64,
        piece: usize,
        mut each: impl FnMut(u64, &[u8]),
    ) -> Result<(), ReadError> {
        let (mut at, to, mut limit) = (from, to.min(self.length), piece);
        while at < to {
            let bytes = self.read(at, limit.min((to - at) as usize))?;
            let mut lines = Lines::new(&bytes);
            for (offset, line) in lines.by_ref() {
                each(at + offset as u64, line);
            }
            let consumed = lines.consumed();
            if consumed == 0 && bytes.len() < limit {
                break; // The beginning of a line that is being written.
            }
            limit = if consumed == 0 { limit * 2 } else { piece };
            at += consumed as u64;
        }
        Ok(())
    }
}
