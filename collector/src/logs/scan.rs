//! One pass over a log of any size with bounded memory.
//!
//! Only lines with a hit of [`super::trigger`] are looked at, and lines of one
//! kind ([`super::kinds`]) are searched once. What is kept: the first lines, every
//! kind of hit a few times with the lines around it ([`super::kept`]), the latest
//! hits, and the last lines.

use std::io::{self, Read};

use serde::Serialize;

use super::finding::Finding;
use super::kept::{Kept, cut};
use super::kinds::{Kinds, Seen, kind};
use super::{analyze_numbered, text, trigger};

/// What a scan may keep.
#[derive(Clone, Debug)]
pub struct ScanOptions {
    /// Lines of the log's end that are kept and returned.
    pub tail: usize,
    /// Lines before and after the root cause in the excerpt.
    pub context: usize,
    /// Bytes that wait for the end of their line. A line longer than this is
    /// looked at in pieces.
    pub block: usize,
    /// Texts by which this site's jobs say that all their work was done: a
    /// line that holds one counts like a tool's own statement of success.
    pub success: Vec<String>,
}

impl Default for ScanOptions {
    fn default() -> Self {
        ScanOptions { tail: 20, context: 5, block: 1 << 20, success: Vec::new() }
    }
}

/// What a scan found.
#[derive(Clone, Debug, Serialize)]
pub struct ScanReport {
    /// The root cause.
    #[serde(flatten)]
    pub finding: Finding,
    /// Lines read.
    pub lines: u64,
    /// Bytes read.
    pub bytes: u64,
    /// The lines around the root cause with their numbers; the lines that
    /// were kept, so that gaps in the numbers are possible.
    pub excerpt: Vec<(u64, String)>,
    /// The last lines.
    pub tail: Vec<String>,
}

/// Lines kept from the beginning.
const HEAD: usize = 60;
/// Lines kept from the end, as far as they lie in [`HISTORY`].
const TAIL: usize = 400;
/// Bytes that stay in memory after they were searched: what stood before a hit,
/// and the log's last lines.
const HISTORY: usize = 256 << 10;
/// Bytes that are read at once, and searched while a core's own cache holds
/// them.
const READ: usize = 128 << 10;
/// Lines by which it is judged whether a log repeats itself.
const SAMPLE: u32 = 256;
/// Bytes of a log that does not, before it is asked again.
const BLIND: usize = 1 << 20;
/// A longer line is no repetition of another.
const LONG: usize = 1024;

/// Reads a log to its end and finds the root cause.
///
/// Memory is bounded by the options and constants of this file, whatever the
/// log holds; time is linear in its size.
///
/// # Errors
///
/// Any error of the reader except an interrupt.
pub fn scan_reader(mut reader: impl Read, options: &ScanOptions) -> io::Result<ScanReport> {
    let mut pass = Pass::new(options.block.max(4096));
    loop {
        match reader.read(pass.room()) {
            Ok(0) => return Ok(pass.finish(options)),
            Ok(n) => pass.read(n),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

struct Pass {
    // What was searched last, what is to be searched, and room for more.
    buffer: Vec<u8>,
    searched: usize,
    filled: usize,
    /// The buffer begins within a line.
    torn: bool,
    /// Lines before what is to be searched.
    number: u64,
    bytes: u64,
    head: Vec<(u64, Vec<u8>)>,
    kept: Kept,
    kinds: Kinds,
    // Lines of the sample, how many of them were of a new kind, and bytes to be
    // searched as a whole because there were too many.
    sampled: u32,
    new: u32,
    blind: usize,
}

impl Pass {
    fn new(block: usize) -> Self {
        Pass {
            buffer: vec![0; HISTORY + block],
            searched: 0,
            filled: 0,
            torn: false,
            number: 0,
            bytes: 0,
            head: Vec::new(),
            kept: Kept::default(),
            kinds: Kinds::default(),
            sampled: 0,
            new: 0,
            blind: 0,
        }
    }

    /// Where the next bytes go; never empty.
    fn room(&mut self) -> &mut [u8] {
        if self.filled == self.buffer.len() {
            if self.filled - self.searched >= self.buffer.len() - HISTORY {
                self.search(self.filled);
            }
            self.make_room();
        }
        let end = self.buffer.len().min(self.filled + READ);
        &mut self.buffer[self.filled..end]
    }

    fn make_room(&mut self) {
        let least = self.searched.saturating_sub(HISTORY);
        let whole = memchr::memchr(b'\n', &self.buffer[least..self.searched]).map(|p| least + p + 1);
        let from = whole.unwrap_or(least);
        self.torn = whole.is_none();
        self.kept.take(&self.buffer, self.searched, self.number, self.searched - from);
        self.buffer.copy_within(from..self.filled, 0);
        self.searched -= from;
        self.filled -= from;
    }

    /// The next `n` bytes are there.
    fn read(&mut self, n: usize) {
        self.bytes += n as u64;
        self.filled += n;
        if let Some(last) = memchr::memrchr(b'\n', &self.buffer[self.filled - n..self.filled]) {
            self.search(self.filled - n + last + 1);
        }
    }

    /// Searches everything before `end`, which is the end of a line, or of what
    /// there is room for.
    fn search(&mut self, end: usize) {
        if self.head.len() < HEAD {
            let lines = self.buffer[self.searched..end].split_inclusive(|&b| b == b'\n');
            let lines = lines.take(HEAD - self.head.len()).map(|l| cut(l.strip_suffix(b"\n").unwrap_or(l)));
            self.head.extend((self.number + 1..).zip(lines.map(|l| l.into_owned())));
        }
        while self.searched < end {
            if self.blind > 0 {
                let to = self.search_whole(end);
                self.blind = self.blind.saturating_sub(to - self.searched);
                self.searched = to;
            } else {
                self.search_line(end);
            }
        }
    }

    /// One line, which is not searched when its kind is known.
    fn search_line(&mut self, end: usize) {
        let at = self.searched;
        let newline = memchr::memchr(b'\n', &self.buffer[at..end]);
        let to = newline.map_or(end, |p| at + p);
        let line = &self.buffer[at..to];
        self.sampled += 1;
        let worth = if line.len() > LONG {
            trigger::may_matter(line)
        } else {
            let kind = kind(line);
            match self.kinds.seen(kind) {
                Seen::Plain => false,
                Seen::Hit(worth) => worth,
                Seen::New => {
                    let hit = trigger::may_matter(line);
                    self.kinds.learn(kind, hit);
                    self.new += 1;
                    hit
                }
            }
        };
        if worth {
            self.kept.hit(&self.buffer, self.number, at);
        }
        if self.sampled == SAMPLE {
            if self.new > SAMPLE / 2 {
                self.blind = BLIND;
            }
            (self.sampled, self.new) = (0, 0);
        }
        self.number += u64::from(newline.is_some());
        self.searched = newline.map_or(end, |p| at + p + 1);
    }

    /// Up to the first line with a hit, that included: for logs whose lines are
    /// all different, faster than line by line. Gives where it came to.
    fn search_whole(&mut self, end: usize) -> usize {
        let buffer = &self.buffer;
        let at = self.searched;
        let Some(hit) = trigger::find(&buffer[at..end]) else {
            self.number += memchr::memchr_iter(b'\n', &buffer[at..end]).count() as u64;
            return end;
        };
        let from = memchr::memrchr(b'\n', &buffer[at..at + hit.start]).map_or(at, |p| at + p + 1);
        let newline = memchr::memchr(b'\n', &buffer[at + hit.end..end]).map(|p| at + hit.end + p);
        self.number += memchr::memchr_iter(b'\n', &buffer[at..from]).count() as u64;
        let line = &buffer[from..newline.unwrap_or(end)];
        let kind = kind(&line[..line.len().min(LONG)]);
        let worth = match self.kinds.seen(kind) {
            Seen::Hit(worth) => worth,
            Seen::Plain | Seen::New => {
                self.kinds.learn(kind, true);
                true
            }
        };
        if worth {
            self.kept.hit(buffer, self.number, from);
        }
        self.number += u64::from(newline.is_some());
        newline.map_or(end, |p| p + 1)
    }

    fn finish(mut self, options: &ScanOptions) -> ScanReport {
        self.search(self.filled);
        self.kept.take(&self.buffer, self.filled, self.number, 0);
        let tail = self.tail();
        let last = tail.last().map_or(0, |(n, _)| *n);
        let mut all = self.head;
        all.extend(self.kept.lines());
        all.extend(tail.iter().cloned());
        // Stable: pieces of one long line keep their order.
        all.sort_by_key(|a| a.0);
        all.dedup();
        let lines: Vec<(u64, String)> = all.iter().map(|(n, l)| (*n, text::repair(l).into_owned())).collect();
        let finding = analyze_numbered(lines.iter().map(|(n, l)| (*n, l.as_str())), &options.success);
        let shown = |l: &str| text::strip_controls(text::last_state(l)).trim_end().to_owned();
        let excerpt = match finding.line_number {
            Some(at) => {
                let context = options.context as u64;
                lines
                    .iter()
                    .filter(|(n, _)| *n + context >= at && *n <= at + context)
                    .map(|(n, l)| (*n, shown(l)))
                    .collect()
            }
            None => Vec::new(),
        };
        let skip = tail.len().saturating_sub(options.tail);
        ScanReport {
            finding,
            lines: last,
            bytes: self.bytes,
            excerpt,
            tail: tail[skip..].iter().map(|(_, l)| shown(&text::repair(l))).collect(),
        }
    }

    /// The last lines that are in memory.
    fn tail(&self) -> Vec<(u64, Vec<u8>)> {
        let text = &self.buffer[..self.filled];
        if text.is_empty() {
            return Vec::new();
        }
        let closed = text.ends_with(b"\n");
        let last = self.number + u64::from(!closed);
        let body = text.strip_suffix(b"\n").unwrap_or(text);
        let lines = body.rsplit(|&b| b == b'\n').take(TAIL).zip(0..);
        let mut tail: Vec<_> =
            lines.map(|(l, back)| (last.saturating_sub(back), cut(l).into_owned())).collect();
        // What is left of a line is no line, unless nothing else is left.
        if self.torn && 1 < tail.len() && tail.len() < TAIL {
            tail.pop();
        }
        tail.reverse();
        tail
    }
}
