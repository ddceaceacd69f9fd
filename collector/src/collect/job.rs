//! An open job: where its events are, and its story when it is wanted.

use std::collections::HashMap;
use std::time::Instant;

use inquest_journal::{JobId, Timestamp};
use memchr::memchr_iter;
use serde_json::value::RawValue;

use super::course::{Course, JOB_ID};
use super::run::Run;
use super::{CollectError, Collector, JobKey};
use crate::ledger::{JobRow, MemberRow};
use crate::slurm::accounting::JobRecord;
use crate::store::{Appender, StoreError, place, read_line};
use crate::story::Story;
use crate::verdict::{Class, Verdict};

/// A job that is not settled, or was settled since the last checkpoint.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) member: MemberRow,
    /// Its run and number as its lines say them.
    pub(super) place: Vec<u8>,
    pub(super) open: bool,
    pub(super) course: Course,
    /// Class of its verdict, when it has one.
    pub(super) class: Option<Class>,
    /// Its verdict as it was written since the last checkpoint.
    pub(super) verdict: Option<Box<RawValue>>,
    /// Where its events are in the run's file.
    extents: Vec<Extent>,
    /// Its story with all its events, as long as it was followed from the first
    /// one on: until the next checkpoint, which bounds how many are kept.
    pub(super) story: Option<Story>,
    /// It was brought back from the ledger, which knows that its last line ends
    /// here; where its events before that are is not known yet.
    unknown_before: Option<u64>,
    /// How its story stands, as of the last time it was folded.
    pub(super) over: bool,
    pub(super) steps_ended: bool,
    /// The time limit that its steps know.
    pub(super) limit: Option<Timestamp>,
    /// Slurm has said that it waits in the queue again.
    pub(super) requeued: bool,
    /// An event since then may have changed that.
    pub(super) unsure: bool,
    /// The ledger does not know its newest state.
    pub(super) changed: bool,
    /// When the newest event was merged, by this process' clock.
    pub(super) touched: Instant,
    /// When Slurm was last asked about it.
    pub(super) asked: Option<Instant>,
    /// Slurm's final word on the current attempt.
    pub(super) record: Option<JobRecord>,
}

/// Neighbouring lines of one job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    /// Offset in the run's file.
    at: u64,
    /// Offset in the appender's block, as long as it is not flushed.
    block: u32,
    length: u32,
}

impl Job {
    pub(super) fn new(member: MemberRow, place: Vec<u8>, course: Course, now: Instant) -> Job {
        Job {
            member,
            place,
            open: true,
            course,
            class: None,
            verdict: None,
            extents: Vec::new(),
            story: Some(Story::default()),
            unknown_before: None,
            over: false,
            steps_ended: false,
            limit: None,
            requeued: false,
            unsure: false,
            changed: false,
            touched: now,
            asked: None,
            record: None,
        }
    }

    /// Notes a line of `length` bytes at `at` of the run's file.
    pub(super) fn wrote(&mut self, at: u64, (block, length): (u32, u32), flushed: u64) {
        match self.extents.last_mut() {
            Some(e) if e.at + u64::from(e.length) == at && e.block + e.length == block && e.at >= flushed => {
                e.length += length;
            }
            _ => self.extents.push(Extent { at, block, length }),
        }
    }
}

impl Collector {
    /// Brings a job of the ledger into memory.
    pub(super) fn load_job(&mut self, row: JobRow) -> Result<bool, CollectError> {
        let Some(member) = self.ledger.member(row.run, row.chunk)? else { return Ok(false) };
        if !self.load_run(row.run)? {
            return Ok(false);
        }
        let key = (self.cluster(&row.key.0), row.key.1);
        let course = row.course.as_deref().and_then(Course::restore).unwrap_or_default();
        let place = self.runs.get(&row.run).map_or(Vec::new(), |run| place(&run.name.2, Some(row.chunk)));
        let mut job = Job::new(member, place, course, self.now);
        job.open = row.open;
        job.story = None;
        // What a large run holds behind the job's last line need not be read.
        let end = job.member.end;
        job.unknown_before = self.runs.get(&row.run).map(|r| r.tail.flushed().min(end));
        job.requeued = self.runs.get(&row.run).is_some_and(|r| r.head.requeued.contains(&row.chunk));
        job.unsure = true;
        job.class = self.stored_verdict(&job.member)?.map(|v| v.class);
        if job.open {
            self.ending.insert(key);
            self.brought_back.extend(job.course.nodes());
        }
        if let Some(run) = self.runs.get_mut(&job.member.run) {
            run.users += 1;
        }
        self.jobs.insert(key, job);
        Ok(true)
    }

    /// Brings a run of the ledger into memory.
    pub(super) fn load_run(&mut self, id: i64) -> Result<bool, CollectError> {
        if self.runs.contains_key(&id) {
            return Ok(true);
        }
        let Some(row) = self.ledger.run(id)? else { return Ok(false) };
        let Some(run) = Run::load(row, &self.ledger)? else { return Ok(false) };
        self.run_names.insert(run.name.clone(), id);
        self.runs.insert(id, run);
        Ok(true)
    }

    /// The verdict of a member as its run's file has it.
    pub(super) fn stored_verdict(&self, member: &MemberRow) -> Result<Option<Verdict>, CollectError> {
        let text = self.stored_verdict_text(member)?;
        Ok(text.and_then(|text| serde_json::from_slice(&text).ok()))
    }

    pub(super) fn stored_verdict_text(&self, member: &MemberRow) -> Result<Option<Vec<u8>>, CollectError> {
        let (Some((at, length)), Some(run)) = (member.verdict, self.runs.get(&member.run)) else {
            return Ok(None);
        };
        Ok(Some(self.appender.read(&run.events(), &run.tail, at, length as usize)?))
    }

    /// Takes the story of a job, or folds it from its events.
    pub(super) fn fold(&mut self, key: JobKey) -> Result<Story, CollectError> {
        if let Some(story) = self.jobs.get_mut(&key).and_then(|j| j.story.take()) {
            return Ok(story);
        }
        let mut story = Story::default();
        let Some(run) = self.jobs.get(&key).map(|j| j.member.run) else { return Ok(story) };
        if self.jobs.get(&key).is_some_and(|j| j.unknown_before.is_some()) {
            self.find_events(run)?;
        }
        let (Some(job), Some(run)) = (self.jobs.get(&key), self.runs.get(&run)) else { return Ok(story) };
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut apply = |bytes: &[u8]| {
            for line in lines(bytes) {
                if let Some((head, mut body)) = read_line(line, &mut scratch)
                    && head.job_id == Some(JobId(key.1))
                {
                    story.apply(&head, &mut body);
                }
            }
        };
        let mut file = None;
        for extent in &job.extents {
            if extent.at >= run.tail.flushed() {
                apply(self.appender.part((extent.block, extent.length)));
            } else {
                let bytes = read_flushed(&self.appender, run, &mut file, extent)?;
                apply(&bytes);
            }
        }
        self.scratch = scratch;
        Ok(story)
    }

    /// Puts the story of a job back, which goes on.
    pub(super) fn unfold(&mut self, key: JobKey, story: Story) {
        if let Some(job) = self.jobs.get_mut(&key).filter(|j| j.open) {
            job.story = Some(story);
        }
    }

    /// Finds the events of all jobs of a run of which it is not known where
    /// they are, in one pass over its file.
    fn find_events(&mut self, run: i64) -> Result<(), CollectError> {
        let Some(r) = self.runs.get(&run) else { return Ok(()) };
        let mut found: HashMap<u32, (JobKey, u64, u64, Vec<Extent>)> = HashMap::new();
        for (key, job) in self.jobs.iter().filter(|(_, j)| j.member.run == run) {
            if let Some(end) = job.unknown_before {
                found.insert(key.1, (*key, job.member.first, end, Vec::new()));
            }
        }
        let from = found.values().map(|(_, first, ..)| *first).min().unwrap_or(0);
        let to = found.values().map(|(_, _, end, _)| *end).max().unwrap_or(0);
        let bytes = self.appender.read(&r.events(), &r.tail, from, to.saturating_sub(from) as usize)?;
        let mut at = from;
        for line in lines(&bytes) {
            let length = line.len() as u32 + 1;
            if let Some((_, first, end, extents)) = JOB_ID.quoted(line).and_then(|id| found.get_mut(&id))
                && (*first..*end).contains(&at)
            {
                match extents.last_mut() {
                    Some(e) if e.at + u64::from(e.length) == at => e.length += length,
                    _ => extents.push(Extent { at, block: 0, length }),
                }
            }
            at += u64::from(length);
        }
        for (key, _, _, mut extents) in found.into_values() {
            if let Some(job) = self.jobs.get_mut(&key) {
                extents.append(&mut job.extents);
                job.extents = extents;
                job.unknown_before = None;
            }
        }
        Ok(())
    }
}

/// The lines of a piece of a run's file, without their newlines.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut from = 0;
    memchr_iter(b'\n', bytes).map(move |end| &bytes[std::mem::replace(&mut from, end + 1)..end])
}

fn read_flushed(
    appender: &Appender,
    run: &Run,
    file: &mut Option<std::fs::File>,
    extent: &Extent,
) -> Result<Vec<u8>, StoreError> {
    use std::os::unix::fs::FileExt;
    let path = run.events();
    let file = match file {
        Some(file) => file,
        None => file.insert(appender.open_read(&path)?),
    };
    let mut bytes = vec![0; extent.length as usize];
    file.read_exact_at(&mut bytes, extent.at).map_err(|source| StoreError::Io { path, source })?;
    Ok(bytes)
}
