//! The lines of a log that are kept for judgement, while the rest passes by.

use std::borrow::Cow;
use std::collections::VecDeque;

use super::{text, trigger};

/// Lines kept before a hit: enough for the frames of a traceback's end.
const BEFORE: u64 = 8;
/// Lines kept after a hit.
const AFTER: u64 = 6;
/// Lines kept around the first hits.
const FIRST: u64 = 3000;
/// Lines kept around the latest hits.
const LATEST: u64 = 3000;

/// Lines that will be kept, while their bytes are in the buffer.
struct Wanted {
    /// Number of the first line, counted from 0, and where it begins.
    first: u64,
    from: usize,
    /// The last hit among them, and where it begins.
    hit: u64,
    at: usize,
    /// The last line wanted.
    until: u64,
}

/// Lines that follow each other.
struct Chunk {
    first: u64,
    lines: u64,
    bytes: Vec<u8>,
}

/// The lines around the first and the latest hits.
#[derive(Default)]
pub(super) struct Kept {
    wanted: Vec<Wanted>,
    first: Vec<Chunk>,
    first_lines: u64,
    latest: VecDeque<Chunk>,
    latest_lines: u64,
    /// Lines before this one are kept already, or no more to be had.
    done: u64,
}

impl Kept {
    /// A line worth keeping, with its number and where it begins.
    pub(super) fn hit(&mut self, buffer: &[u8], number: u64, at: usize) {
        let until = number + AFTER;
        if let Some(last) = self.wanted.last_mut()
            && number <= last.until + BEFORE
        {
            (last.hit, last.at, last.until) = (number, at, until);
            return;
        }
        let (mut first, mut from) = (number, at);
        for _ in 0..BEFORE {
            if first <= self.done || from == 0 || buffer[from - 1] != b'\n' {
                break;
            }
            from = memchr::memrchr(b'\n', &buffer[..from - 1]).map_or(0, |p| p + 1);
            first -= 1;
        }
        self.wanted.push(Wanted { first, from, hit: number, at, until });
    }

    /// Copies what is wanted out of the buffer, of which everything before `end`,
    /// the begin of line `number`, was searched. The lines still wanted after
    /// that begin at `moved` in the future.
    pub(super) fn take(&mut self, buffer: &[u8], end: usize, number: u64, moved: usize) {
        let wanted = std::mem::take(&mut self.wanted);
        let mut rest = None;
        // Only the latest will be left of what is not among the first.
        let mut spare = FIRST.saturating_sub(self.first_lines);
        let mut ahead: u64 = wanted.iter().map(|w| w.until.min(number) + 1 - w.first).sum();
        for w in wanted {
            let lines = w.until.min(number) + 1 - w.first;
            ahead -= lines;
            if spare == 0 && ahead > LATEST {
                continue;
            }
            let (mut to, mut line) = (w.at, w.hit);
            while line <= w.until && to < end {
                to = memchr::memchr(b'\n', &buffer[to..end]).map_or(end, |p| to + p + 1);
                line += 1;
            }
            let chunk = Chunk { first: w.first, lines: line - w.first, bytes: cut_all(&buffer[w.from..to]) };
            self.done = self.done.max(line);
            if line <= w.until {
                rest = Some(Wanted { first: line, from: moved, hit: line, at: moved, until: w.until });
            }
            if spare > 0 {
                spare = spare.saturating_sub(chunk.lines);
                self.first_lines += chunk.lines;
                self.first.push(chunk);
                continue;
            }
            self.latest_lines += chunk.lines;
            self.latest.push_back(chunk);
            while let Some(oldest) = self.latest.front()
                && self.latest_lines - oldest.lines >= LATEST
            {
                self.latest_lines -= oldest.lines;
                self.latest.pop_front();
            }
        }
        self.wanted.extend(rest);
    }

    /// Everything kept, with line numbers counted from 1.
    pub(super) fn lines(self) -> impl Iterator<Item = (u64, Vec<u8>)> {
        self.first.into_iter().chain(self.latest).flat_map(|chunk| {
            let body = chunk.bytes.strip_suffix(b"\n").unwrap_or(&chunk.bytes);
            let lines = body.split(|&b| b == b'\n').map(|l| l.strip_suffix(b"\r").unwrap_or(l).to_vec());
            (chunk.first + 1..).zip(lines).collect::<Vec<_>>()
        })
    }
}

/// Lines, each at most as long as it is looked at.
fn cut_all(lines: &[u8]) -> Vec<u8> {
    if lines.len() <= text::MAX_LINE {
        return lines.to_vec();
    }
    let mut out = Vec::new();
    for line in lines.split_inclusive(|&b| b == b'\n') {
        let (body, end) = line.strip_suffix(b"\n").map_or((line, &b""[..]), |body| (body, b"\n"));
        out.extend_from_slice(&cut(body));
        out.extend_from_slice(end);
    }
    out
}

/// At most the part of a line that [`text::clean`] looks at: around the first
/// hit, and the end.
pub(super) fn cut(line: &[u8]) -> Cow<'_, [u8]> {
    let max = text::MAX_LINE;
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.len() <= max {
        return Cow::Borrowed(line);
    }
    // Whole progress states before the end are dropped, one with a hit is
    // kept as a state of its own.
    let end = &line[line.len() - max / 2..];
    let Some(hit) = trigger::find(&line[..line.len() - max / 2]) else {
        return Cow::Borrowed(end);
    };
    let state = memchr::memrchr(b'\r', &line[..hit.start]).map_or(0, |p| p + 1);
    let from = state.max(hit.start.saturating_sub(max / 4));
    let stop = (from + max / 2 - 1).min(line.len() - max / 2);
    let stop = memchr::memchr(b'\r', &line[from..stop]).map_or(stop, |p| from + p);
    Cow::Owned([&line[from..stop], b"\r", end].concat())
}
