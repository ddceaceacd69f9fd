//! The events of a run as bytes, plain or compressed, wherever in the file
//! they are. Positions are those of the plain lines.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use inquest_journal::Lines;

use super::read::{ReadError, unreadable};
use super::seekable::Decoder;
use super::{EVENTS, PACKED};

/// The events of a run, open for reading.
#[derive(Debug)]
pub struct EventsFile {
    path: PathBuf,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Plain(File, u64),
    Packed(Decoder),
}

impl EventsFile {
    /// Opens the events of the run in `dir`.
    ///
    /// # Errors
    ///
    /// When there are none, or the caller may not read them.
    pub fn open(dir: &Path) -> Result<EventsFile, ReadError> {
        // The plain file is taken away only after the other one is there, and
        // comes back before that is taken away: looking again finds one.
        for _ in 0..2 {
            for (name, packed) in [(EVENTS, false), (PACKED, true)] {
                let path = dir.join(name);
                match Form::open(&path, packed) {
                    Ok(form) => return Ok(EventsFile { path, form }),
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => return Err(unreadable(&path, &e)),
                }
            }
        }
        Err(ReadError::NotFound(format!(
            "there is no {EVENTS} in {}: the run may have been removed",
            dir.display()
        )))
    }

    /// Bytes of events when it was opened, as plain lines.
    pub fn len(&self) -> u64 {
        match &self.form {
            Form::Plain(_, length) => *length,
            Form::Packed(decoder) => decoder.len(),
        }
    }

    /// Whether there was no event.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the events are compressed.
    pub fn is_packed(&self) -> bool {
        matches!(self.form, Form::Packed(_))
    }

    /// Looks again how long a file is that others append to.
    ///
    /// # Errors
    ///
    /// When it cannot be looked at.
    pub fn look(&mut self) -> Result<(), ReadError> {
        if let Form::Plain(file, length) = &mut self.form {
            *length = file.metadata().map_err(|e| unreadable(&self.path, &e))?.len();
        }
        Ok(())
    }

    /// Reads up to `length` bytes at `at`; fewer at the end of the file.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn read(&self, at: u64, length: usize) -> Result<Vec<u8>, ReadError> {
        let left = usize::try_from(self.len().saturating_sub(at)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; length.min(left)];
        let read = match &self.form {
            Form::Plain(file, _) => file.read_exact_at(&mut bytes, at),
            Form::Packed(decoder) => decoder.read_exact_at(&mut bytes, at),
        };
        read.map_err(|e| unreadable(&self.path, &e))?;
        Ok(bytes)
    }

    /// Calls `each` with the whole lines between two positions and where they
    /// begin, reading so many bytes at once. Says where the next line begins.
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
    ) -> Result<u64, ReadError> {
        let (mut at, to, mut limit) = (from, to.min(self.len()), piece);
        while at < to {
            let bytes = self.read(at, limit.min(usize::try_from(to - at).unwrap_or(usize::MAX)))?;
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
        Ok(at)
    }
}

impl Form {
    fn open(path: &Path, packed: bool) -> io::Result<Form> {
        let file = File::open(path)?;
        if packed {
            return Ok(Form::Packed(Decoder::open(file)?));
        }
        let length = file.metadata()?.len();
        Ok(Form::Plain(file, length))
    }
}
