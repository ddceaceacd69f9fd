/*!
Whole lines out of a file that several writers append to, and the head of a
line. A line that does not parse is reported and costs nothing else.
*/

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;

use crate::{JobId, SCHEMA_VERSION, Severity, Source, StepId, Timestamp};

/// The whole lines of a byte slice, in order, each with its position.
///
/// Bytes after the last newline are a line that is still being written, or a
/// torn one that the next writer will end; they are not yielded.
/// Blank lines are skipped: a writer that once got a short write starts its
/// next line with a newline.
#[derive(Clone, Debug)]
pub struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Lines<'a> {
    /// Lines of `bytes`, which begins at the beginning of a line.
    pub fn new(bytes: &'a [u8]) -> Lines<'a> {
        Lines { bytes, at: 0 }
    }

    /// Bytes consumed so far: just behind the newline of the last line.
    pub fn consumed(&self) -> usize {
        self.at
    }
}

impl<'a> Iterator for Lines<'a> {
    /// Position of the first byte, and the line without its newline.
    type Item = (usize, &'a [u8]);

    fn next(&mut self) -> Option<(usize, &'a [u8])> {
        loop {
            let rest = &self.bytes[self.at..];
            let len = find_newline(rest)?;
            let start = self.at;
            self.at += len + 1;
            if !rest[..len].trim_ascii().is_empty() {
                return Some((start, &rest[..len]));
            }
        }
    }
}

fn find_newline(bytes: &[u8]) -> Option<usize> {
    if bytes.is_empty() {
        return None;
    }
    // SAFETY: pointer and length are those of one live slice.
    let p = unsafe { libc::memchr(bytes.as_ptr().cast(), i32::from(b'\n'), bytes.len()) };
    if p.is_null() { None } else { Some(p as usize - bytes.as_ptr() as usize) }
}

/// The fixed part of a line as read back. Unknown fields are ignored; an
/// unknown `event_type` is kept as it is.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Head<'a> {
    /// Schema version of the line.
    pub v: u32,
    /// Wall clock.
    pub timestamp: Timestamp,
    /// What happened.
    #[serde(borrow)]
    pub event_type: Cow<'a, str>,
    /// How much it matters.
    pub severity: Severity,
    /// Who saw it.
    pub source: Source,
    /// Name of the cluster.
    #[serde(borrow)]
    pub cluster: Cow<'a, str>,
    /// Name of the node.
    #[serde(borrow)]
    pub node: Cow<'a, str>,
    /// Short boot id.
    #[serde(borrow)]
    pub boot: Cow<'a, str>,
    /// CLOCK_BOOTTIME in microseconds.
    pub mono_us: u64,
    /// The writer's life.
    #[serde(borrow)]
    pub stream: Cow<'a, str>,
    /// Number of the event in its stream.
    pub seq: u64,
    /// The job.
    #[serde(default)]
    pub job_id: Option<JobId>,
    /// The step.
    #[serde(default)]
    pub step: Option<StepId>,
    /// Rank of the task in its step.
    #[serde(default)]
    pub task: Option<u32>,
}

/// Why a line is no event.
#[derive(Debug)]
pub struct BadLine(serde_json::Error);

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for BadLine {}

impl<'a> Head<'a> {
    /// Reads the head of one line (without its newline).
    ///
    /// # Errors
    ///
    /// When the line is not one JSON object, or lacks a field of the head.
    pub fn parse(line: &'a [u8]) -> Result<Head<'a>, BadLine> {
        serde_json::from_slice(line).map_err(BadLine)
    }

    /// The line was written by a newer version than this reader knows.
    pub fn is_newer(&self) -> bool {
        self.v > SCHEMA_VERSION
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn torn_lines_cost_only_themselves() {
        let text = b"{\"a\":1}\n{\"tor\n{\"b\":2}\n\n\n{\"c\":3}\n{\"tail";
        let mut lines = Lines::new(text);
        let got: Vec<_> = lines.by_ref().map(|(_, l)| l).collect();
        assert_eq!(got, [&b"{\"a\":1}"[..], b"{\"tor", b"{\"b\":2}", b"{\"c\":3}"]);
        assert_eq!(lines.consumed(), text.len() - b"{\"tail".len());
    }

    proptest! {
        #[test]
        fn reading_in_pieces_yields_the_same_lines(
            text in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..300),
            split in 0usize..300,
        ) {
            let whole: Vec<&[u8]> = Lines::new(&text).map(|(_, l)| l).collect();
            let mut first = Lines::new(&text[..split.min(text.len())]);
            let mut pieces: Vec<&[u8]> = first.by_ref().map(|(_, l)| l).collect();
            pieces.extend(Lines::new(&text[first.consumed()..]).map(|(_, l)| l));
            prop_assert_eq!(pieces, whole);
        }

        #[test]
        fn any_bytes_are_parsed_or_refused(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Head::parse(&line);
        }
    }
}
