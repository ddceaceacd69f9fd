//! Events of a run as they come in.

use std::path::{Path, PathBuf};

use crate::store::{EventsFile, Line, ReadError};

/// Bytes that are read at once.
const BLOCK: usize = 1 << 20;

/// The end of a run's events. Whole lines only are taken: a collector that was
/// killed cuts the file back to a whole line and writes the same bytes again,
/// so a position at the end of a line stays right. So it does when the events
/// are compressed, and when they are no longer because more came.
#[derive(Debug)]
pub struct Tail {
    dir: PathBuf,
    file: EventsFile,
    at: u64,
}

impl Tail {
    /// Begins at a position of the events of the run in `dir`, which is the
    /// start of a line.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn open(dir: &Path, at: u64) -> Result<Tail, ReadError> {
        Ok(Tail { dir: dir.to_owned(), file: EventsFile::open(dir)?, at })
    }

    /// Begins at most so many bytes before the end of what is there. That is
    /// inside a line, and what is left of it is no event.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn at_end(dir: &Path, bytes: u64) -> Result<Tail, ReadError> {
        let file = EventsFile::open(dir)?;
        let at = file.len().saturating_sub(bytes);
        Ok(Tail { dir: dir.to_owned(), file, at })
    }

    /// Calls `each` with the events of the next block. Says whether there may
    /// be more at once. Lines that are no events are passed over.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn read(&mut self, mut each: impl FnMut(Line<'_>, &[u8])) -> Result<bool, ReadError> {
        if self.at >= self.file.len() {
            // It may be another file by now.
            self.file = EventsFile::open(&self.dir)?;
        }
        let mut take = |_, line: &[u8]| {
            if let Ok(head) = serde_json::from_slice::<Line<'_>>(line) {
                each(head, line);
            }
        };
        let block = self.at + BLOCK as u64;
        let mut next = self.file.lines(self.at, block, BLOCK, &mut take)?;
        if next == self.at && block < self.file.len() {
            // A line longer than a block.
            next = self.file.lines(self.at, u64::MAX, BLOCK, &mut take)?;
        } else if next == self.at {
            // Half a line, perhaps of a file that has grown since.
            self.file.look()?;
        }
        let moved = next > self.at;
        self.at = next;
        Ok(moved)
    }
}
