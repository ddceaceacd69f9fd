/*!
The course of an open job, as far as it can be seen from the heads of its
lines: which slurmstepds are at work, on which nodes.

It decides nothing. It says when it is worth folding the job's story, which
does decide, so that a job costs one fold and not one per event.
*/

use std::sync::LazyLock;

use inquest_journal::{Body, StepId};
use memchr::memmem::Finder;
use xxhash_rust::xxh3::xxh3_64;

use crate::follow::Event;

/// What the heads say of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Course {
    /// Restart count of the newest attempt, as far as known.
    pub(super) restart: u32,
    /// Nodes of the allocation, as far as known.
    node_count: Option<u32>,
    /// A step that lasts as long as the job has begun, or the job's end was seen.
    lasting: bool,
    /// Nodes with at least one event, hashed.
    nodes: Vec<u64>,
    /// Steps at work, and lasting ones that have ended.
    steps: Vec<StepAt>,
}

/// A step on one node.
#[derive(Clone, Debug, PartialEq, Eq)]
struct StepAt {
    /// Step and node, hashed.
    place: u64,
    /// Stream of its slurmstepd, hashed.
    stream: u64,
    open: bool,
}

/// What an event may mean for its job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Hint {
    /// It may have begun a further attempt.
    pub(super) further: bool,
    /// It may have been the end of the job, or of the last of its steps.
    pub(super) end: bool,
    /// Everything that is known to have begun has ended, on all nodes of the
    /// allocation.
    pub(super) complete: bool,
}

impl Course {
    /// The course of a job that was restarted so often before.
    pub(super) fn new(restart: u32) -> Course {
        Course { restart, ..Course::default() }
    }

    /// Takes in the job's next event.
    pub(super) fn see(&mut self, event: &Event<'_>) -> Hint {
        let head = &event.head;
        let node = xxh3_64(head.node.as_bytes());
        if self.nodes.last() != Some(&node) && !self.nodes.contains(&node) {
            self.nodes.push(node);
        }
        let mut hint = Hint::default();
        match head.event_type.as_ref() {
            "step_started" => {
                hint.further = restart(event).is_some_and(|n| n > self.restart);
                if let Some(step) = head.step {
                    hint.further |= self.begin(step, node, xxh3_64(head.stream.as_bytes()));
                }
            }
            "job_started" => {
                hint.further = restart(event).is_some_and(|n| n > self.restart);
                self.node_count = node_count(event).or(self.node_count);
            }
            "step_ended" => {
                if let Some(step) = head.step {
                    self.end(step, xxh3_64(head.stream.as_bytes()));
                }
                // As long as another is at work, its end is waited for.
                hint.end = self.steps.iter().all(|s| !s.open);
            }
            "job_ended" => {
                hint.further = restart(event).is_some_and(|n| n > self.restart);
                self.lasting = true;
                hint.end = true;
            }
            _ => {}
        }
        hint.complete = hint.end
            && self.lasting
            && self.steps.iter().all(|s| !s.open)
            && self.node_count.is_some_and(|n| self.nodes.len() >= n as usize);
        hint
    }

    /// Says whether another slurmstepd has run this step here before.
    fn begin(&mut self, step: StepId, node: u64, stream: u64) -> bool {
        self.lasting |= lasts(step);
        let place = place(step, node);
        let before = self.steps.iter().any(|s| s.place == place && s.stream != stream);
        self.steps.retain(|s| s.place != place);
        self.steps.push(StepAt { place, stream, open: true });
        before
    }

    fn end(&mut self, step: StepId, stream: u64) {
        let Some(at) = self.steps.iter().rposition(|s| s.stream == stream) else { return };
        if lasts(step) {
            self.steps[at].open = false;
        } else {
            self.steps.swap_remove(at);
        }
    }

    /// A further attempt has begun with the newest step: what was at work in
    /// the one before is no longer waited for.
    pub(super) fn begin_attempt(&mut self, restart: u32) {
        self.restart = restart;
        self.steps.drain(..self.steps.len().saturating_sub(1));
    }

    /// Something that lasts as long as the job does has been seen of it, or its end.
    pub(super) fn lasting(&self) -> bool {
        self.lasting
    }

    /// Nodes on which something of the job has been seen, hashed.
    pub(super) fn nodes(&self) -> &[u64] {
        &self.nodes
    }

    /// Something is at work, and something of the job has been seen on this
    /// node (hashed).
    pub(super) fn may_be_on(&self, node: u64) -> bool {
        self.nodes.contains(&node) && self.steps.iter().any(|s| s.open)
    }

    /// For the ledger.
    pub(super) fn save(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16 + 8 * self.nodes.len() + 17 * self.steps.len());
        out.push(u8::from(self.lasting));
        out.extend_from_slice(&self.restart.to_le_bytes());
        out.extend_from_slice(&self.node_count.unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(&(self.nodes.len() as u32).to_le_bytes());
        for node in &self.nodes {
            out.extend_from_slice(&node.to_le_bytes());
        }
        for step in &self.steps {
            out.extend_from_slice(&step.place.to_le_bytes());
            out.extend_from_slice(&step.stream.to_le_bytes());
            out.push(u8::from(step.open));
        }
        out
    }

    /// From the ledger; `None` for what this version did not write.
    pub(super) fn restore(mut bytes: &[u8]) -> Option<Course> {
        let lasting = take::<1>(&mut bytes)? == [1];
        let restart = u32::from_le_bytes(take(&mut bytes)?);
        let node_count = Some(u32::from_le_bytes(take(&mut bytes)?)).filter(|n| *n != u32::MAX);
        let count = u32::from_le_bytes(take(&mut bytes)?);
        let mut course = Course { restart, node_count, lasting, ..Course::default() };
        for _ in 0..count {
            course.nodes.push(u64::from_le_bytes(take(&mut bytes)?));
        }
        while !bytes.is_empty() {
            let (place, stream) = (take(&mut bytes)?, take(&mut bytes)?);
            let (place, stream) = (u64::from_le_bytes(place), u64::from_le_bytes(stream));
            course.steps.push(StepAt { place, stream, open: take::<1>(&mut bytes)? == [1] });
        }
        Some(course)
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*first)
}

fn lasts(step: StepId) -> bool {
    matches!(step, StepId::Batch | StepId::Extern | StepId::Interactive)
}

fn place(step: StepId, node: u64) -> u64 {
    let step = match step {
        StepId::Number(n) => u64::from(n),
        StepId::Batch => 1 << 32,
        StepId::Extern => 2 << 32,
        StepId::Interactive => 3 << 32,
    };
    // A script runs once in each attempt, on whichever node.
    let node = if step == 1 << 32 { 0 } else { node };
    node ^ step.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// How often the job was restarted before, by an event that says so.
pub(super) fn restart(event: &Event<'_>) -> Option<u32> {
    match event.read() {
        Some(Body::StepStarted(b)) => b.restart,
        Some(Body::JobStarted(b)) => b.restart,
        Some(Body::JobEnded(b)) => b.restart,
        _ => RESTART.number(event.line),
    }
}

fn node_count(event: &Event<'_>) -> Option<u32> {
    match event.read() {
        Some(Body::JobStarted(b)) => b.node_count,
        _ => NODE_COUNT.number(event.line),
    }
}

/// Finds one field of a line. A quote inside a string has a backslash before
/// it, never a comma, so it cannot be fooled by one.
pub(super) struct Field(LazyLock<Finder<'static>>);

static RESTART: Field = Field(LazyLock::new(|| Finder::new(",\"restart\":")));
static NODE_COUNT: Field = Field(LazyLock::new(|| Finder::new(",\"node_count\":")));
pub(super) static JOB_ID: Field = Field(LazyLock::new(|| Finder::new(",\"job_id\":")));

impl Field {
    /// The number in the field.
    pub(super) fn number(&self, line: &[u8]) -> Option<u32> {
        digits(self.find(line)?)
    }

    /// The number in quotes in the field.
    pub(super) fn quoted(&self, line: &[u8]) -> Option<u32> {
        digits(self.find(line)?.strip_prefix(b"\"")?)
    }

    fn find<'a>(&self, line: &'a [u8]) -> Option<&'a [u8]> {
        Some(&line[self.0.find(line)? + self.0.needle().len()..])
    }
}

fn digits(text: &[u8]) -> Option<u32> {
    let end = text.iter().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    std::str::from_utf8(&text[..end]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_field_is_not_found_inside_a_string() {
        assert_eq!(RESTART.number(br#"{"a":1,"restart":3}"#), Some(3));
        assert_eq!(RESTART.number(br#"{"a":"x,\"restart\":3","restart":4}"#), Some(4));
        assert_eq!(RESTART.number(br#"{"a":"x,\"restart\":3"}"#), None);
        assert_eq!(RESTART.number(br#"{"a":1,"restart":null}"#), None);
    }

    /// A line of a slurmstepd of job 7 on n1.
    fn line(event_type: &str, step: &str) -> String {
        format!(
            "{{\"v\":1,\"timestamp\":\"2026-11-21T14:30:01.234567Z\",\"event_type\":\"{event_type}\",\"severity\":\
             \"info\",\"source\":\"plugin\",\"cluster\":\"lab\",\"node\":\"n1\",\"boot\":\"b\",\"mono_us\":9,\
             \"stream\":\"n1-{step}\",\"seq\":0,\"job_id\":\"7\",\"step\":\"{step}\"}}"
        )
    }

    #[test]
    fn a_step_that_ends_in_a_job_that_goes_on_is_no_reason_to_fold_it() {
        let mut course = Course::default();
        let mut ends =
            |event_type, step| course.see(&Event::parse(line(event_type, step).as_bytes()).unwrap()).end;
        assert!(!ends("step_started", "batch"));
        for step in ["0", "1", "2"] {
            assert!(!ends("step_started", step));
            assert!(!ends("step_ended", step), "{step}");
        }
        assert!(ends("step_ended", "batch"));
    }

    proptest! {
        #[test]
        fn a_course_survives_the_ledger(
            restart in any::<u32>(), node_count in proptest::option::of(0..u32::MAX), lasting in any::<bool>(),
            nodes in proptest::collection::vec(any::<u64>(), 0..5),
            steps in proptest::collection::vec(any::<(u64, u64, bool)>(), 0..5),
        ) {
            let steps = steps.into_iter().map(|(place, stream, open)| StepAt { place, stream, open }).collect();
            let course = Course { restart, node_count, lasting, nodes, steps };
            prop_assert_eq!(Course::restore(&course.save()), Some(course));
        }

        #[test]
        fn any_bytes_are_restored_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Course::restore(&bytes);
        }
    }
}
