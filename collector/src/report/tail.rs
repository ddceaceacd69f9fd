//! Events of a run as they come in.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::store::{Line, ReadError};

/// Bytes that are read at once.
const BLOCK: usize = 1 << 20;

/// The end of a run's events file. Whole lines only are taken: a collector
/// that was killed cuts the file back to a whole line and writes the same
/// bytes again, so a position at the end of a line stays right.
#[derive(Debug)]
pub struct Tail {
    file: File,
    path: PathBuf,
    at: u64,
}

impl Tail {
    /// Begins at a position, which is the start of a line.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn open(path: &Path, at: u64) -> Result<Tail, ReadError> {
        let file = File::open(path).map_err(|e| error(path, &e))?;
        Ok(Tail { file, path: path.to_owned(), at })
    }

    /// Calls `each` with the events of the next block. Says whether there may
    /// be more at once. Lines that are no events are passed over.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn read(&mut self, mut each: impl FnMut(Line<'_>, &[u8])) -> Result<bool, ReadError> {
        let mut bytes = Vec::new();
        let mut limit = BLOCK as u64;
        loop {
            bytes.clear();
            self.file.seek(SeekFrom::Start(self.at)).map_err(|e| error(&self.path, &e))?;
            (&mut self.file).take(limit).read_to_end(&mut bytes).map_err(|e| error(&self.path, &e))?;
            let full = bytes.len() as u64 == limit;
            match memchr::memrchr(b'\n', &bytes) {
                Some(end) => {
                    for line in bytes[..end].split(|b| *b == b'\n') {
                        if let Ok(head) = serde_json::from_slice::<Line<'_>>(line) {
                            each(head, line);
                        }
                    }
                    self.at += end as u64 + 1;
                    return Ok(full);
                }
                // A line longer than a block.
                None if full => limit *= 2,
                None => return Ok(false),
            }
        }
    }
}

fn error(path: &Path, e: &io::Error) -> ReadError {
    match e.kind() {
        io::ErrorKind::PermissionDenied => ReadError::Denied(path.to_owned()),
        _ => ReadError::Unreadable { path: path.to_owned(), reason: e.to_string() },
    }
}
