//! The events of one run, read for the index: which jobs it has, where their
//! events are, and what became of them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use inquest_journal::{Lines, Source};
use serde::Deserialize;
use serde_json::value::RawValue;
use xxhash_rust::xxh3::xxh3_64;

use super::entry::{self, entries};
use crate::ledger::{take_varint, varint};
use crate::runs::RunKey;
use crate::store::{EventsFile, ReadError, read_head, read_line};
use crate::story::Story;
use crate::verdict::Verdict;

/// Bytes that are read at once.
const PIECE: usize = 8 << 20;

/// Bytes before a position that tell whether the file is still the same.
const GUARD: u64 = 256;

/// Places of a job that are told apart; beyond, neighbours are joined and the
/// lines between them are read with them.
const EXTENTS: usize = 512;

/// A job of a run, as far as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) job_id: u32,
    /// Offset of its first line in the run's events.
    pub(super) first: u64,
    /// End of its last one.
    pub(super) end: u64,
    /// Where its own events are: offset and length.
    pub(super) extents: Vec<(u64, u32)>,
    /// Time of its first event, in microseconds since 1970.
    pub(super) started: i64,
    /// Time of its newest event, in microseconds since 1970.
    pub(super) last: i64,
    pub(super) attempts: u32,
    /// Where its verdict stands: offset and length. None while it runs.
    pub(super) verdict: Option<(u64, u32)>,
    /// What its workflow engine calls it.
    pub(super) name: Option<String>,
    /// Its entries do not show what was read last.
    pub(super) dirty: bool,
}

/// A run, as far as it was read.
#[derive(Debug, Default)]
pub(super) struct RunScan {
    /// What decided that its jobs belong together.
    pub(super) key: Option<RunKey>,
    /// Further names that it got.
    pub(super) aliases: Vec<String>,
    /// Read so far, in bytes.
    pub(super) at: u64,
    /// [`guard`] of that.
    pub(super) guard: u64,
    /// Members that were met: what was known of them and what is read now.
    pub(super) members: BTreeMap<u32, Member>,
    /// Attempts of members that changed.
    pub(super) entries: Vec<(u32, Attempts)>,
}

/// All attempts of a job, and the arrays's ids that they tell.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    pub(super) entries: Vec<entry::Entry>,
    pub(super) array_job_id: Option<u32>,
    pub(super) array_task_id: Option<u32>,
}

/// Of a run, and of a member.
#[derive(Deserialize)]
struct Started {
    run_key: RunKey,
}

#[derive(Deserialize)]
struct RunAlias {
    alias: String,
}

#[derive(Deserialize)]
struct ChunkEnded<'a> {
    #[serde(borrow)]
    verdict: &'a RawValue,
}

#[derive(Deserialize)]
struct ChunkRetried {
    attempt: u32,
}

/// A hash of what stands before `at`.
pub(super) fn guard(file: &EventsFile, at: u64) -> Result<u64, ReadError> {
    let from = at.saturating_sub(GUARD);
    Ok(xxh3_64(&file.read(from, (at - from) as usize)?))
}

impl RunScan {
    /// Reads on to `to`. `known` tells of a member that was met before.
    pub(super) fn read<E: From<ReadError>>(
        &mut self,
        file: &EventsFile,
        to: u64,
        known: &mut dyn FnMut(u32) -> Result<Option<Member>, E>,
    ) -> Result<(), E> {
        let mut limit = PIECE;
        while self.at < to {
            let bytes = file.read(self.at, limit.min((to - self.at) as usize))?;
            let mut lines = Lines::new(&bytes);
            for (at, line) in lines.by_ref() {
                self.line(self.at + at as u64, line, known)?;
            }
            let consumed = lines.consumed();
            if consumed == 0 && bytes.len() < limit {
                break; // The beginning of a line that is being written.
            }
            limit = if consumed == 0 { limit * 2 } else { PIECE };
            self.fold(file, self.at, &bytes)?;
            self.at += consumed as u64;
        }
        self.guard = guard(file, self.at)?;
        self.fold_rest(file)?;
        Ok(())
    }

    fn line<E: From<ReadError>>(
        &mut self,
        at: u64,
        line: &[u8],
        known: &mut dyn FnMut(u32) -> Result<Option<Member>, E>,
    ) -> Result<(), E> {
        let Some((head, chunk)) = read_head(line) else { return Ok(()) };
        let Some(chunk) = chunk else {
            match head.event_type.as_ref() {
                "run_started" => {
                    if let Ok(started) = serde_json::from_slice::<Started>(line) {
                        self.key.get_or_insert(started.run_key);
                    }
                }
                "run_alias" => {
                    self.aliases.extend(serde_json::from_slice::<RunAlias>(line).ok().map(|a| a.alias));
                }
                _ => {}
            }
            return Ok(());
        };
        let member = match self.members.entry(chunk) {
            Entry::Occupied(met) => met.into_mut(),
            Entry::Vacant(place) => place.insert(known(chunk)?.unwrap_or_else(|| Member {
                first: at,
                started: head.timestamp.0,
                last: head.timestamp.0,
                attempts: 1,
                ..Member::default()
            })),
        };
        member.job_id = head.job_id.map_or(member.job_id, |id| id.0);
        member.end = at + line.len() as u64 + 1;
        if head.source != Source::Collector {
            member.started = member.started.min(head.timestamp.0);
            member.last = member.last.max(head.timestamp.0);
            // What changes an ended job, or says what kind of job it is.
            member.dirty |= member.verdict.is_some() || head.event_type == "job_started";
            member.add(at, line.len() as u32 + 1);
            return Ok(());
        }
        member.dirty = true;
        match head.event_type.as_ref() {
            "chunk_completed" | "chunk_failed" => {
                if let Ok(ended) = serde_json::from_slice::<ChunkEnded<'_>>(line) {
                    let text = ended.verdict.get();
                    let offset = text.as_ptr() as usize - line.as_ptr() as usize;
                    member.verdict = Some((at + offset as u64, text.len() as u32));
                }
            }
            "chunk_started" => {
                member.name = serde_json::from_slice::<Started>(line).ok().and_then(|s| s.run_key.won.member);
            }
            "node_booted" => member.add(at, line.len() as u32 + 1),
            "chunk_retried" => {
                member.verdict = None;
                if let Ok(retried) = serde_json::from_slice::<ChunkRetried>(line) {
                    member.attempts = retried.attempt;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Judges the members that ended inside the piece that is in memory; they
    /// are most of all.
    fn fold(&mut self, file: &EventsFile, from: u64, piece: &[u8]) -> Result<(), ReadError> {
        for (chunk, member) in &mut self.members {
            if member.dirty && member.verdict.is_some() {
                member.dirty = false;
                let attempts = attempts(file, member, Some((from, piece)))?;
                self.entries.push((*chunk, attempts));
            }
        }
        Ok(())
    }

    fn fold_rest(&mut self, file: &EventsFile) -> Result<(), ReadError> {
        for (chunk, member) in self.members.iter_mut().filter(|(_, m)| m.dirty) {
            member.dirty = false;
            self.entries.push((*chunk, attempts(file, member, None)?));
        }
        Ok(())
    }
}

impl Member {
    fn add(&mut self, at: u64, length: u32) {
        match self.extents.last_mut() {
            Some((from, known)) if *from + u64::from(*known) == at => *known += length,
            _ => self.extents.push((at, length)),
        }
        if self.extents.len() > EXTENTS {
            let join = |pair: &[(u64, u32)]| {
                let (first, last) = (pair[0], pair[pair.len() - 1]);
                let length = last.0 + u64::from(last.1) - first.0;
                (first.0, u32::try_from(length).unwrap_or(u32::MAX))
            };
            self.extents = self.extents.chunks(2).map(join).collect();
        }
    }

    /// For the index: pairs of numbers of variable length, gap and length.
    pub(super) fn save_extents(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.extents.len() * 4);
        let mut end = 0;
        for (at, length) in &self.extents {
            varint(&mut out, at - end);
            varint(&mut out, u64::from(*length));
            end = at + u64::from(*length);
        }
        out
    }
}

/// Reads back what [`Member::save_extents`] wrote.
pub(super) fn restore_extents(mut bytes: &[u8]) -> Vec<(u64, u32)> {
    let mut extents = Vec::new();
    let mut end = 0u64;
    while let (Some(gap), Some(length)) = (take_varint(&mut bytes), take_varint(&mut bytes)) {
        let at = end.saturating_add(gap);
        extents.push((at, u32::try_from(length).unwrap_or(u32::MAX)));
        end = at.saturating_add(length);
    }
    extents
}

/// Folds a member's events. What lies in the piece need not be read again.
fn attempts(file: &EventsFile, member: &Member, piece: Option<(u64, &[u8])>) -> Result<Attempts, ReadError> {
    let (mut story, mut scratch) = (Story::default(), Vec::new());
    for &(at, length) in &member.extents {
        for (_, line) in Lines::new(&bytes(file, piece, at, length)?) {
            if let Some((head, mut body)) = read_line(line, &mut scratch)
                && head.job_id.is_some_and(|id| id.0 == member.job_id)
            {
                story.apply(&head, &mut body);
            }
        }
    }
    let verdict = match member.verdict {
        Some((at, length)) => serde_json::from_slice::<Verdict>(&bytes(file, piece, at, length)?).ok(),
        None => None,
    };
    let facts = |f: fn(&crate::story::Facts) -> Option<u32>| story.attempts.iter().find_map(|a| f(&a.facts));
    Ok(Attempts {
        array_job_id: facts(|f| f.array_job_id.map(|id| id.0)),
        array_task_id: facts(|f| f.array_task_id),
        entries: entries(&story, verdict.as_ref()),
    })
}

fn bytes<'a>(
    file: &EventsFile,
    piece: Option<(u64, &'a [u8])>,
    at: u64,
    length: u32,
) -> Result<Cow<'a, [u8]>, ReadError> {
    if let Some((from, piece)) = piece
        && let Some(start) = at.checked_sub(from)
        && let Some(part) = piece.get(start as usize..).and_then(|p| p.get(..length as usize))
    {
        return Ok(part.into());
    }
    Ok(file.read(at, length as usize)?.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn extents_survive_the_index(steps in proptest::collection::vec((0u64..1 << 40, 1u32..1 << 30), 0..40)) {
            let mut member = Member::default();
            let mut at = 0;
            for (gap, length) in steps {
                at += gap;
                member.extents.push((at, length));
                at += u64::from(length);
            }
            prop_assert_eq!(restore_extents(&member.save_extents()), member.extents);
        }

        #[test]
        fn any_bytes_are_some_extents(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = restore_extents(&bytes);
        }

        /// However many places, their number is bounded and none is lost.
        #[test]
        fn joined_extents_cover_all(gaps in proptest::collection::vec(0u64..3, 0..3000)) {
            let mut member = Member::default();
            let (mut at, mut places) = (0, Vec::new());
            for gap in gaps {
                at += gap;
                member.add(at, 10);
                places.push(at);
                at += 10;
            }
            prop_assert!(member.extents.len() <= EXTENTS);
            for place in places {
                let inside = |(from, length): &(u64, u32)| *from <= place && place + 10 <= from + u64::from(*length);
                prop_assert!(member.extents.iter().any(inside));
            }
        }
    }
}
