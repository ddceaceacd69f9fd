//! One pass over a log of any size with bounded memory.
//!
//! Blocks are searched as a whole for the literals of [`super::trigger`], as
//! ripgrep does; only lines with a hit are looked at. What is kept: the first
//! lines, every kind of hit a few times with the lines around it, the latest
//! hits, and the last lines.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::io::{self, Read};

use serde::Serialize;

use super::finding::Finding;
use super::{analyze_numbered, text, trigger};

/// What a scan may keep.
#[derive(Clone, Debug)]
pub struct ScanOptions {
    /// Lines of the log's end that are kept and returned.
    pub tail: usize,
    /// Lines before and after the root cause in the excerpt.
    pub context: usize,
    /// Bytes that are read at once. A line longer than this is looked at in
    /// pieces.
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
/// Lines kept from the end.
const TAIL: usize = 400;
/// Lines kept before a hit: enough for the frames of a traceback's end.
const BEFORE: usize = 8;
/// Lines kept after a hit.
const AFTER: usize = 6;
/// Lines kept for the first hits of each kind.
const FIRST: usize = 3000;
/// Lines kept for the latest hits.
const LATEST: usize = 3000;
/// Kinds of hits that are told apart.
const KINDS: usize = 4096;

/// Reads a log to its end and finds the root cause.
///
/// Memory is bounded by the options and constants of this file, whatever the
/// log holds; time is linear in its size.
///
/// # Errors
///
/// Any error of the reader except an interrupt.
pub fn scan_reader(mut reader: impl Read, options: &ScanOptions) -> io::Result<ScanReport> {
    let block = options.block.max(4096);
    let mut buffer = vec![0u8; block];
    let mut filled = 0;
    let mut kept = Kept::default();
    let mut bytes = 0u64;
    loop {
        let n = match reader.read(&mut buffer[filled..]) {
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        bytes += n as u64;
        filled += n;
        let end_of_file = n == 0;
        if !end_of_file && filled < block && memchr::memrchr(b'\n', &buffer[filled - n..filled]).is_none() {
            continue;
        }
        // Whole lines only; at the end of the file or of a full buffer the
        // rest counts as one.
        let whole = match memchr::memrchr(b'\n', &buffer[..filled]) {
            Some(at) if !end_of_file => at + 1,
            _ => filled,
        };
        // Pipes deliver small pieces: go on until the block is worth a search.
        if !end_of_file && filled < block / 2 {
            continue;
        }
        kept.block(&buffer[..whole]);
        buffer.copy_within(whole..filled, 0);
        filled -= whole;
        if end_of_file {
            break;
        }
    }
    Ok(kept.finish(bytes, options))
}

#[derive(Default)]
struct Kept {
    // Number of lines before the current block.
    lines: u64,
    head: Vec<(u64, Vec<u8>)>,
    first: Vec<(u64, Vec<u8>)>,
    latest: VecDeque<(u64, Vec<u8>)>,
    tail: VecDeque<(u64, Vec<u8>)>,
    kinds: HashMap<u64, u32, BuildHasherDefault<Mixed>>,
}

impl Kept {
    fn block(&mut self, block: &[u8]) {
        if block.is_empty() {
            return;
        }
        let newlines = memchr::memchr_iter(b'\n', block).count() as u64;
        let start = self.lines;
        self.keep_ends(block, newlines);
        // Hits, left to right. Line numbers are counted only between hits.
        let (mut at, mut number) = (0usize, start);
        let mut done_until = 0usize;
        while at < block.len() {
            let Some(hit) = trigger::pattern().find_at(block, at) else {
                break;
            };
            let from = memchr::memrchr(b'\n', &block[at..hit.start()]).map_or(at, |p| at + p + 1);
            number += memchr::memchr_iter(b'\n', &block[at..from]).count() as u64;
            let to = memchr::memchr(b'\n', &block[hit.end()..]).map_or(block.len(), |p| hit.end() + p);
            if self.worth(&block[from..to]) {
                self.keep_hit(block, from, to, number, &mut done_until);
            }
            // The next search begins at the next line's first byte.
            at = to + 1;
            number += 1;
        }
        self.lines += newlines;
    }

    /// A kind of hit that was seen often in this log is kept only among the
    /// latest.
    fn worth(&mut self, line: &[u8]) -> bool {
        let h = kind(line);
        if self.kinds.len() >= KINDS && !self.kinds.contains_key(&h) {
            return true;
        }
        let n = self.kinds.entry(h).or_insert(0);
        *n = n.saturating_add(1);
        // The latest of each kind matter too: one in a while is refreshed.
        *n <= 64 || n.is_power_of_two() || n.is_multiple_of(256)
    }

    fn keep_hit(&mut self, block: &[u8], from: usize, to: usize, number: u64, done_until: &mut usize) {
        let early = self.first.len() < FIRST;
        // Lines before.
        let mut begin = from;
        let mut first_number = number;
        for _ in 0..BEFORE {
            if begin == 0 || begin <= *done_until {
                break;
            }
            begin = memchr::memrchr(b'\n', &block[..begin - 1]).map_or(0, |p| p + 1);
            first_number -= 1;
        }
        if begin < *done_until {
            first_number += memchr::memchr_iter(b'\n', &block[begin..*done_until]).count() as u64;
            begin = *done_until;
        }
        // Lines after.
        let mut end = to.min(block.len());
        for _ in 0..AFTER {
            if end + 1 >= block.len() {
                break;
            }
            end = memchr::memchr(b'\n', &block[end + 1..]).map_or(block.len(), |p| end + 1 + p);
        }
        // All of it is kept already.
        if end < begin || begin >= block.len() {
            return;
        }
        for (n, line) in (first_number..).zip(block[begin..end].split(|&b| b == b'\n')) {
            let item = (n + 1, cut(line));
            if early {
                self.first.push(item);
            } else {
                if self.latest.len() == LATEST {
                    self.latest.pop_front();
                }
                self.latest.push_back(item);
            }
        }
        *done_until = (end + 1).min(block.len());
    }

    fn keep_ends(&mut self, block: &[u8], newlines: u64) {
        if self.head.len() < HEAD {
            let want = HEAD - self.head.len();
            let mut lines: Vec<_> = block.split(|&b| b == b'\n').take(want).collect();
            if lines.len() < want && block.ends_with(b"\n") {
                lines.pop();
            }
            let start = self.lines;
            self.head.extend(lines.into_iter().zip(start + 1..).map(|(l, n)| (n, cut(l))));
        }
        // Backwards from the end, at most TAIL lines.
        let body = block.strip_suffix(b"\n").unwrap_or(block);
        let last = self.lines + newlines + u64::from(!block.ends_with(b"\n"));
        let new: Vec<_> = body
            .rsplit(|&b| b == b'\n')
            .take(TAIL)
            .zip(0u64..)
            .map(|(l, back)| (last.saturating_sub(back), cut(l)))
            .collect();
        while !self.tail.is_empty() && self.tail.len() + new.len() > TAIL {
            self.tail.pop_front();
        }
        self.tail.extend(new.into_iter().rev());
    }

    fn finish(self, bytes: u64, options: &ScanOptions) -> ScanReport {
        let mut all: Vec<(u64, Vec<u8>)> = self.head;
        all.extend(self.first);
        all.extend(self.latest);
        let tail: Vec<(u64, Vec<u8>)> = self.tail.into();
        let last = tail.last().map_or(0, |(n, _)| *n);
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
            bytes,
            excerpt,
            tail: tail[skip..].iter().map(|(_, l)| shown(&text::repair(l))).collect(),
        }
    }
}

/// What makes a kind of hit: the first bytes of the line, whatever digits are
/// in it. Eight bytes at a time, for a log in which every line is a hit.
fn kind(line: &[u8]) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let mut h = 0xcbf2_9ce4_8422_2325u64;
    for chunk in line[..line.len().min(80)].chunks(8) {
        let mut bytes = [0u8; 8];
        bytes[..chunk.len()].copy_from_slice(chunk);
        let word = u64::from_le_bytes(bytes);
        // 0x30 to 0x3f: the digits and a few signs become one.
        let high = (word ^ (0x30 * ONES)) & (0xf0 * ONES);
        let other = (((high & (0x70 * ONES)) + 0x70 * ONES) | high) & (0x80 * ONES);
        let keep = (other >> 7).wrapping_mul(0xff);
        h = (h ^ (word & keep)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
    h
}

/// Kinds are mixed already.
#[derive(Default)]
struct Mixed(u64);

impl Hasher for Mixed {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &b in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(b);
        }
    }
    fn write_u64(&mut self, n: u64) {
        self.0 = n;
    }
}

/// At most the part of a line that [`text::clean`] looks at: around the first
/// hit, and the end.
fn cut(line: &[u8]) -> Vec<u8> {
    let max = text::MAX_LINE;
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.len() <= max {
        return line.to_vec();
    }
    // Whole progress states before the end are dropped, one with a hit is
    // kept as a state of its own.
    let end = &line[line.len() - max / 2..];
    match trigger::pattern().find(&line[..line.len() - max / 2]) {
        Some(hit) => {
            let state = memchr::memrchr(b'\r', &line[..hit.start()]).map_or(0, |p| p + 1);
            let from = state.max(hit.start().saturating_sub(max / 4));
            let stop = (from + max / 2 - 1).min(line.len() - max / 2);
            let stop = memchr::memchr(b'\r', &line[from..stop]).map_or(stop, |p| from + p);
            let mut out = line[from..stop].to_vec();
            out.push(b'\r');
            out.extend_from_slice(end);
            out
        }
        None => end.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::kind;

    #[test]
    fn digits_do_not_make_a_kind() {
        assert_eq!(kind(b"step 0123 failed on n07"), kind(b"step 9876 failed on n42"));
        assert_ne!(kind(b"step 0123 failed on n07"), kind(b"step 0123 failed at n07"));
        assert_ne!(kind(b"a"), kind(b"b"));
        assert_ne!(kind("é".as_bytes()), kind("ö".as_bytes()));
    }
}
