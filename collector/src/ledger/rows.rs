//! The rows of the ledger and the entries of its blocks, and the one transaction that writes them.

use std::collections::HashMap;

use rusqlite::{Connection, Row, params};

use super::blocks::{Blocks, damaged};
use super::varint::{take_varint, varint};
use super::{FastHash, StreamState, unsigned};
use crate::follow::Position;

/// Cluster, user and run id: the directory of a run in the store.
pub type RunName = (String, String, String);

/// Lines of a journal that were not simply new events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// No events: torn, overwritten, of another program.
    pub bad: u64,
    /// Of a newer schema version; merged as far as they are understood.
    pub newer: u64,
    /// Merged before.
    pub copies: u64,
    /// Of another node than the directory that they lie in; merged.
    pub foreign_node: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.bad += other.bad;
        self.newer += other.newer;
        self.copies += other.copies;
        self.foreign_node += other.foreign_node;
    }
}

/// A run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunRow {
    /// Its number in this ledger.
    pub id: i64,
    /// Its directory in the store.
    pub name: RunName,
    /// Committed length of its events in bytes.
    pub length: u64,
    /// What the collector keeps of it beside its members, as JSON.
    pub state: String,
    /// `run.json` and the registry do not show it yet.
    pub stale: bool,
}

/// A job as a member of its run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberRow {
    /// The run.
    pub run: i64,
    /// Its number in the run.
    pub chunk: u32,
    /// Job id.
    pub job_id: u32,
    /// The array it belongs to.
    pub array_job_id: Option<u32>,
    /// Index in that array.
    pub array_task_id: Option<u32>,
    /// Attempts so far.
    pub attempts: u32,
    /// Time of its first event, in microseconds since 1970.
    pub started: i64,
    /// Time of its newest event, in microseconds since 1970.
    pub last: i64,
    /// Offset of its first event in the run's file, in bytes.
    pub first: u64,
    /// End of its last event there.
    pub end: u64,
    /// Where in the run's file its verdict stands: offset and length.
    pub verdict: Option<(u64, u32)>,
    /// What its workflow engine calls it.
    pub name: Option<String>,
}

/// Which member of which run a job is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRow {
    /// Cluster and job id.
    pub key: (String, u32),
    /// The run.
    pub run: i64,
    /// Its number in the run.
    pub chunk: u32,
    /// Not yet settled.
    pub open: bool,
    /// What the collector keeps of an open job's course.
    pub course: Option<Vec<u8>>,
}

/// A line that waits until it is known which run its job belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldRow {
    /// Cluster and job id.
    pub key: (String, u32),
    /// User, when the line itself did say.
    pub uid: Option<u32>,
    /// The line as it stands in the journal.
    pub line: Vec<u8>,
}

/// Everything one checkpoint changes.
#[derive(Debug, Default)]
pub struct Changes {
    /// New positions and what was met since the last checkpoint.
    pub journals: Vec<(String, Position, Counts)>,
    /// Journals that are gone, to be forgotten.
    pub gone: Vec<String>,
    /// Streams that moved, with their node.
    pub streams: HashMap<Box<str>, (Box<str>, StreamState), FastHash>,
    /// New lengths of store files that are no run's.
    pub outputs: Vec<(String, u64)>,
    /// Runs that changed.
    pub runs: Vec<RunRow>,
    /// Members that changed.
    pub members: Vec<MemberRow>,
    /// Jobs that changed.
    pub jobs: Vec<JobRow>,
    /// Up to when the accounting's news were read, in microseconds since 1970.
    pub cursor: Option<i64>,
    /// Newest runs of weak groups.
    pub alike: Vec<(i64, i64)>,
    /// Jobs whose waiting lines wait no more; they go before `held` comes.
    pub released: Vec<(String, u32)>,
    /// Lines that wait from now on.
    pub held: Vec<HeldRow>,
}

/// The entry of a stream: whether it has gaps, its next number, and where it
/// has gaps its node and them.
pub(super) fn stream_value(node: &str, state: &StreamState) -> Vec<u8> {
    let (next, missing) = state.save();
    let mut value = vec![u8::from(!missing.is_empty())];
    varint(&mut value, next);
    if !missing.is_empty() {
        varint(&mut value, node.len() as u64);
        value.extend_from_slice(node.as_bytes());
        value.extend_from_slice(missing.as_bytes());
    }
    value
}

/// Node, where it has gaps, and what was seen of a stream.
pub(super) fn stream(value: &[u8]) -> rusqlite::Result<(&str, StreamState)> {
    let read = || {
        let (_, mut rest) = value.split_first()?;
        let next = take_varint(&mut rest)?;
        let node = if rest.is_empty() { 0 } else { take_varint(&mut rest)? };
        let (node, missing) =
            std::str::from_utf8(rest).ok()?.split_at_checked(usize::try_from(node).ok()?)?;
        Some((node, StreamState::restore(next, missing)))
    };
    read().ok_or_else(damaged)
}

pub(super) fn member_key(run: i64, chunk: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&run.to_be_bytes());
    key[8..].copy_from_slice(&chunk.to_be_bytes());
    key
}

/// The entry of a member: which parts it has, and them. Times and places are
/// told by their distance from the first of them.
pub(super) fn member_value(m: &MemberRow) -> Vec<u8> {
    let has = [m.array_job_id.is_some(), m.array_task_id.is_some(), m.verdict.is_some(), m.name.is_some()];
    let mut value = Vec::with_capacity(40 + m.name.as_ref().map_or(0, String::len));
    // The lowest bit would mark it.
    value.push(has.iter().rev().fold(0, |bits, has| bits << 1 | u8::from(*has)) << 1);
    let mut put = |n: u64| varint(&mut value, n);
    put(m.job_id.into());
    put(m.attempts.into());
    put(m.started.cast_unsigned());
    put(m.last.wrapping_sub(m.started).cast_unsigned());
    put(m.first);
    put(m.end.wrapping_sub(m.first));
    for id in [m.array_job_id, m.array_task_id].into_iter().flatten() {
        put(id.into());
    }
    if let Some((at, length)) = m.verdict {
        put(at.wrapping_sub(m.first));
        put(length.into());
    }
    value.extend_from_slice(m.name.as_deref().unwrap_or_default().as_bytes());
    value
}

pub(super) fn member(key: &[u8], value: &[u8]) -> rusqlite::Result<MemberRow> {
    let read = || {
        let (run, chunk) = key.split_first_chunk::<8>()?;
        let (has, mut rest) = value.split_first()?;
        let has = |part: u32| has >> (part + 1) & 1 == 1;
        let mut take = || take_varint(&mut rest);
        let (job_id, attempts) = (small(take()?)?, small(take()?)?);
        let started = take()?.cast_signed();
        let last = started.wrapping_add(take()?.cast_signed());
        let first = take()?;
        let end = first.wrapping_add(take()?);
        let array_job_id = if has(0) { Some(small(take()?)?) } else { None };
        let array_task_id = if has(1) { Some(small(take()?)?) } else { None };
        let verdict = if has(2) { Some((first.wrapping_add(take()?), small(take()?)?)) } else { None };
        let name = if has(3) { Some(std::str::from_utf8(rest).ok()?.to_owned()) } else { None };
        Some(MemberRow {
            run: i64::from_be_bytes(*run),
            chunk: u32::from_be_bytes(chunk.try_into().ok()?),
            job_id,
            array_job_id,
            array_task_id,
            attempts,
            started,
            last,
            first,
            end,
            verdict,
            name,
        })
    };
    read().ok_or_else(damaged)
}

fn small(n: u64) -> Option<u32> {
    n.try_into().ok()
}

pub(super) fn job_key(cluster: &str, job_id: u32) -> Vec<u8> {
    let mut key = Vec::with_capacity(cluster.len() + 5);
    key.extend_from_slice(cluster.as_bytes());
    key.push(0);
    key.extend_from_slice(&job_id.to_be_bytes());
    key
}

/// The entry of a job: whether it is open and has a course, its run, its
/// number there, and its course.
pub(super) fn job_value(job: &JobRow) -> Vec<u8> {
    let course = job.course.as_deref();
    let mut value = Vec::with_capacity(12 + course.map_or(0, <[u8]>::len));
    value.push(u8::from(job.open) | u8::from(course.is_some()) << 1);
    varint(&mut value, job.run.cast_unsigned());
    varint(&mut value, job.chunk.into());
    value.extend_from_slice(course.unwrap_or_default());
    value
}

pub(super) fn job(key: &[u8], value: &[u8]) -> rusqlite::Result<JobRow> {
    let read = || {
        let (cluster, id) = key.split_last_chunk::<4>()?;
        let cluster = std::str::from_utf8(cluster.strip_suffix(b"\0")?).ok()?;
        let (has, mut rest) = value.split_first()?;
        Some(JobRow {
            key: (cluster.to_owned(), u32::from_be_bytes(*id)),
            run: take_varint(&mut rest)?.cast_signed(),
            chunk: small(take_varint(&mut rest)?)?,
            open: has & 1 == 1,
            course: (has & 2 == 2).then(|| rest.to_vec()),
        })
    };
    read().ok_or_else(damaged)
}

pub(super) fn run(r: &Row<'_>) -> rusqlite::Result<RunRow> {
    Ok(RunRow {
        id: r.get(0)?,
        name: (r.get(1)?, r.get(2)?, r.get(3)?),
        length: unsigned(r, 4)?,
        state: r.get(5)?,
        stale: r.get(6)?,
    })
}

/// Begins a transaction and writes all of `changes` in it.
pub(super) fn put(
    db: &Connection,
    (streams, jobs, members): (&mut Blocks, &mut Blocks, &mut Blocks),
    changes: &Changes,
) -> rusqlite::Result<()> {
    db.execute_batch("BEGIN IMMEDIATE")?;
    let mut put = db.prepare_cached(
        "INSERT INTO journal VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) \
             ON CONFLICT (name) DO UPDATE SET dev = ?2, ino = ?3, bytes = ?4, size = ?5, changed = ?6, \
             guard = ?7, bad = bad + ?8, newer = newer + ?9, copies = copies + ?10, \
             foreign_node = foreign_node + ?11",
    )?;
    for (name, at, met) in &changes.journals {
        let (dev, ino) = at.file;
        let [dev, ino, bytes, size, guard] = [dev, ino, at.bytes, at.size, at.guard].map(u64::cast_signed);
        let [bad, newer, copies, foreign] =
            [met.bad, met.newer, met.copies, met.foreign_node].map(u64::cast_signed);
        put.execute(params![name, dev, ino, bytes, size, at.changed, guard, bad, newer, copies, foreign])?;
    }
    // What was met in one stays in the sums.
    let mut drop =
        db.prepare_cached("DELETE FROM journal WHERE name = ?1 AND bad + newer + copies + foreign_node = 0")?;
    for name in &changes.gone {
        drop.execute([name])?;
    }
    let met = changes.streams.iter();
    let met = met.map(|(name, (node, state))| (name.as_bytes().into(), Some(stream_value(node, state))));
    streams.put(db, met.collect())?;
    let member = |m: &MemberRow| (member_key(m.run, m.chunk).to_vec().into(), Some(member_value(m)));
    members.put(db, changes.members.iter().map(member).collect())?;
    let job = |job: &JobRow| (job_key(&job.key.0, job.key.1).into(), Some(job_value(job)));
    jobs.put(db, changes.jobs.iter().map(job).collect())?;
    let mut put = db.prepare_cached("INSERT OR REPLACE INTO output VALUES (?1, ?2)")?;
    for (path, length) in &changes.outputs {
        put.execute(params![path, length.cast_signed()])?;
    }
    let mut put = db.prepare_cached("INSERT OR REPLACE INTO run VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
    for run in &changes.runs {
        let (cluster, user, run_id) = &run.name;
        put.execute(params![run.id, cluster, user, run_id, run.length.cast_signed(), run.state, run.stale])?;
    }
    if let Some(at) = changes.cursor {
        db.prepare_cached("INSERT OR REPLACE INTO cursor VALUES (0, ?1)")?.execute([at])?;
    }
    let mut put = db.prepare_cached("INSERT OR REPLACE INTO alike VALUES (?1, ?2)")?;
    for group in &changes.alike {
        put.execute(params![group.0, group.1])?;
    }
    let mut drop = db.prepare_cached("DELETE FROM held WHERE cluster = ?1 AND job_id = ?2")?;
    for (cluster, job_id) in &changes.released {
        drop.execute(params![cluster, job_id])?;
    }
    let mut put =
        db.prepare_cached("INSERT INTO held (cluster, job_id, uid, line) VALUES (?1, ?2, ?3, ?4)")?;
    for row in &changes.held {
        put.execute(params![row.key.0, row.key.1, row.uid, row.line])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::option::of;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_member_survives(
            (run, chunk, job_id, attempts) in any::<(i64, u32, u32, u32)>(),
            (array_job_id, array_task_id) in (of(any::<u32>()), of(any::<u32>())),
            (started, last, first, end) in any::<(i64, i64, u64, u64)>(),
            verdict in of(any::<(u64, u32)>()),
            name in of("\\PC{0,9}"),
        ) {
            let member = MemberRow {
                run, chunk, job_id, array_job_id, array_task_id, attempts, started, last, first, end, verdict, name
            };
            prop_assert_eq!(super::member(&member_key(run, chunk), &member_value(&member)).unwrap(), member);
        }

        #[test]
        fn a_job_survives(
            key in ("\\PC{0,9}", any::<u32>()), run in any::<i64>(), chunk in any::<u32>(), open in any::<bool>(),
            course in of(proptest::collection::vec(any::<u8>(), 0..40)),
        ) {
            let job = JobRow { key, run, chunk, open, course };
            prop_assert_eq!(super::job(&job_key(&job.key.0, job.key.1), &job_value(&job)).unwrap(), job);
        }

        #[test]
        fn any_bytes_are_read_or_refused(
            key in proptest::collection::vec(any::<u8>(), 0..20),
            value in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let _ = (super::member(&key, &value), super::job(&key, &value), stream(&value));
        }
    }
}
