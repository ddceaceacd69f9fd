//! The unread content of one journal, in pieces of bounded size.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::{CHUNK, FollowError, GUARD, Journal, Position, changed, guard};

/// The unread content of one journal, chunk by chunk.
pub struct Chunks {
    path: PathBuf,
    position: Position,
    content: Box<dyn Read>,
    compressed: bool,
    /// Up to [`GUARD`] bytes before the position.
    before: Vec<u8>,
    buffer: Vec<u8>,
    /// Bytes of the buffer that were consumed.
    used: usize,
    end: bool,
    damaged: bool,
    oversized: u64,
}

impl std::fmt::Debug for Chunks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chunks").field("path", &self.path).field("position", &self.position).finish()
    }
}

impl Chunks {
    /// Opens `journal` below `root` at `at`, or at its beginning when the file
    /// is not what it was. `buffer` is one that another journal has done with.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened or read.
    pub fn open(
        root: &Path,
        journal: &Journal,
        at: Option<&Position>,
        buffer: Vec<u8>,
    ) -> Result<Chunks, FollowError> {
        let path = root.join(&journal.name);
        Chunks::open_at(&path, at, buffer).map_err(|source| FollowError { path, source })
    }

    fn open_at(path: &Path, at: Option<&Position>, mut buffer: Vec<u8>) -> io::Result<Chunks> {
        // Not to wait for the other end, should it have become a FIFO.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
        let mut file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::other(super::watch::NO_FILE));
        }
        buffer.clear();
        let mut position = Position {
            file: (meta.dev(), meta.ino()),
            size: meta.len(),
            changed: changed(&meta),
            ..Position::default()
        };
        let at = at.filter(|at| at.bytes > 0);
        let end = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        let compressed = matches!(end, "zst" | "gz");
        let mut before = Vec::new();
        let resume = match at {
            // Compressed content does not grow: the same file was read to its end.
            Some(at) if compressed => at.file == position.file && at.size == position.size,
            Some(at) => {
                before = bytes_before(&file, at.bytes)?;
                at.bytes <= meta.len() && guard(&before) == at.guard
            }
            None => false,
        };
        if !resume {
            before.clear();
        }
        if let Some(at) = at.filter(|_| resume) {
            position.bytes = at.bytes;
            position.guard = at.guard;
        }
        let (bytes, size) = (position.bytes, meta.len());
        let content: Box<dyn Read> = match end {
            "zst" => Box::new(zstd::stream::read::Decoder::new(file)?),
            "gz" => Box::new(flate2::read::MultiGzDecoder::new(file)),
            _ => {
                file.seek(SeekFrom::Start(bytes))?;
                // What comes while this pass reads is for the next one.
                Box::new(file.take(size.saturating_sub(bytes)))
            }
        };
        let mut chunks = Chunks {
            path: path.to_owned(),
            position,
            content,
            compressed,
            before,
            buffer,
            used: 0,
            end: false,
            damaged: false,
            oversized: 0,
        };
        if compressed && bytes > 0 {
            let skipped = io::copy(&mut chunks.content.by_ref().take(bytes), &mut io::sink());
            if !skipped.is_ok_and(|n| n == bytes) {
                chunks.end = true; // It was damaged when it was read, too.
                chunks.damaged = true;
            }
        }
        Ok(chunks)
    }

    /// The next piece of content. The last piece may end inside a line;
    /// [`Chunks::consume`] says how much of a piece was whole lines, and the
    /// rest begins the next piece. `None` when there is nothing more. A line
    /// that does not fit into a piece is skipped and counted.
    ///
    /// # Errors
    ///
    /// When the system cannot read the file.
    pub fn piece(&mut self) -> Result<Option<&[u8]>, FollowError> {
        self.buffer.drain(..self.used);
        self.used = 0;
        let filled = self.fill().and_then(|()| {
            if self.buffer.len() >= CHUNK && !self.buffer.contains(&b'\n') {
                self.skip_line()?;
            }
            Ok(())
        });
        filled.map_err(|source| FollowError { path: self.path.clone(), source })?;
        Ok(if self.buffer.is_empty() { None } else { Some(&self.buffer) })
    }

    fn fill(&mut self) -> io::Result<()> {
        let room = CHUNK.saturating_sub(self.buffer.len()) as u64;
        if self.end || room == 0 {
            return Ok(());
        }
        match self.content.by_ref().take(room).read_to_end(&mut self.buffer) {
            Ok(n) => self.end = (n as u64) < room,
            Err(e) => self.broken(e)?,
        }
        Ok(())
    }

    /// What the decoder refuses is damage and stays so; what the system
    /// refuses may be better the next time.
    fn broken(&mut self, e: io::Error) -> io::Result<()> {
        if !self.compressed || e.raw_os_error().is_some() {
            return Err(e);
        }
        self.end = true;
        self.damaged = true;
        Ok(())
    }

    /// Skips to behind the end of the line that fills the buffer. A line
    /// without an end is left where it is: it may be one that is being written.
    fn skip_line(&mut self) -> io::Result<()> {
        let mut skipped = 0;
        while !self.end {
            let from = self.buffer.len().saturating_sub(GUARD as usize);
            skipped += from as u64;
            self.buffer.drain(..from);
            let known = self.buffer.len();
            self.fill()?;
            let Some(at) = self.buffer[known..].iter().position(|b| *b == b'\n') else { continue };
            let line = known + at + 1;
            self.position.bytes += skipped;
            self.advance(line);
            self.buffer.drain(..line);
            self.oversized += 1;
            self.fill()?;
            if self.buffer.len() < CHUNK || self.buffer.contains(&b'\n') {
                return Ok(());
            }
            skipped = 0;
        }
        self.buffer.clear();
        Ok(())
    }

    /// Says that the first `bytes` of the last piece are done.
    pub fn consume(&mut self, bytes: usize) {
        self.used = bytes;
        if bytes > 0 {
            self.advance(bytes);
        }
    }

    /// Moves the position over the first `bytes` of the buffer.
    fn advance(&mut self, bytes: usize) {
        let last = &self.buffer[bytes.saturating_sub(GUARD as usize)..bytes];
        let keep = (GUARD as usize - last.len()).min(self.before.len());
        self.before.drain(..self.before.len() - keep);
        self.before.extend_from_slice(last);
        self.position.bytes += bytes as u64;
        self.position.guard = guard(&self.before);
    }

    /// Where reading stands.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// It is a compressed file that ends, or makes no sense, before its end.
    pub fn damaged(&self) -> bool {
        self.damaged
    }

    /// Lines skipped since this was asked last, because they did not fit.
    pub fn take_oversized(&mut self) -> u64 {
        std::mem::take(&mut self.oversized)
    }

    /// The buffer, for the next journal.
    pub fn into_buffer(self) -> Vec<u8> {
        self.buffer
    }
}

/// Up to [`GUARD`] bytes before `end`; none when the file is shorter.
fn bytes_before(file: &File, end: u64) -> io::Result<Vec<u8>> {
    let from = end.saturating_sub(GUARD);
    let mut bytes = vec![0; (end - from) as usize];
    match file.read_exact_at(&mut bytes, from) {
        Ok(()) => Ok(bytes),
        // Cut short, maybe in this moment: not what it was.
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}
