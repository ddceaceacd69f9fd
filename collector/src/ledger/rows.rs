//! The rows of the ledger, and the one transaction that writes them.

use std::collections::HashMap;

use rusqlite::{Connection, Row, params};

use super::FastHash;
use super::{StreamState, unsigned};
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

pub(super) const MEMBERS: &str = "SELECT run, chunk, job_id, array_job_id, array_task_id, attempts, started, last, first, end, \
     verdict, verdict_length, name FROM member WHERE run = ?1 ORDER BY chunk";
pub(super) const MEMBER: &str = "SELECT run, chunk, job_id, array_job_id, array_task_id, attempts, started, last, first, end, \
     verdict, verdict_length, name FROM member WHERE run = ?1 AND chunk = ?2";

pub(super) fn member(r: &Row<'_>) -> rusqlite::Result<MemberRow> {
    let verdict: (Option<i64>, Option<u32>) = (r.get(10)?, r.get(11)?);
    Ok(MemberRow {
        run: r.get(0)?,
        chunk: r.get(1)?,
        job_id: r.get(2)?,
        array_job_id: r.get(3)?,
        array_task_id: r.get(4)?,
        attempts: r.get(5)?,
        started: r.get(6)?,
        last: r.get(7)?,
        first: unsigned(r, 8)?,
        end: unsigned(r, 9)?,
        verdict: verdict.0.map(i64::cast_unsigned).zip(verdict.1),
        name: r.get(12)?,
    })
}

pub(super) fn job(r: &Row<'_>) -> rusqlite::Result<JobRow> {
    Ok(JobRow {
        key: (r.get(0)?, r.get(1)?),
        run: r.get(2)?,
        chunk: r.get(3)?,
        open: r.get(4)?,
        course: r.get(5)?,
    })
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
pub(super) fn put(db: &Connection, changes: &Changes) -> rusqlite::Result<()> {
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
    let mut put = db.prepare_cached("INSERT OR REPLACE INTO stream VALUES (?1, ?2, ?3, ?4)")?;
    for (name, (node, state)) in &changes.streams {
        let (next, missing) = state.save();
        put.execute(params![name, node, next.cast_signed(), missing])?;
    }
    let mut put = db.prepare_cached("INSERT OR REPLACE INTO output VALUES (?1, ?2)")?;
    for (path, length) in &changes.outputs {
        put.execute(params![path, length.cast_signed()])?;
    }
    let mut put = db.prepare_cached("INSERT OR REPLACE INTO run VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
    for run in &changes.runs {
        let (cluster, user, run_id) = &run.name;
        put.execute(params![run.id, cluster, user, run_id, run.length.cast_signed(), run.state, run.stale])?;
    }
    let mut put = db.prepare_cached(
        "INSERT OR REPLACE INTO member VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
    )?;
    for m in &changes.members {
        put.execute(params![
            m.run,
            m.chunk,
            m.job_id,
            m.array_job_id,
            m.array_task_id,
            m.attempts,
            m.started,
            m.last,
            m.first.cast_signed(),
            m.end.cast_signed(),
            m.verdict.map(|(at, _)| at.cast_signed()),
            m.verdict.map(|(_, length)| length),
            m.name
        ])?;
    }
    let mut put = db.prepare_cached("INSERT OR REPLACE INTO job VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
    for job in &changes.jobs {
        put.execute(params![job.key.0, job.key.1, job.run, job.chunk, job.open, job.course])?;
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
