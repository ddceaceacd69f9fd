//! When a job is over, and what became of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use inquest_journal::{JobId, Severity};
use serde::Serialize;
use serde_json::value::RawValue;

use super::asker::{Asker, Reason, SILENCE, Told, which_are};
use super::job::Job;
use super::{CollectError, Collector, JobKey};
use crate::runs::{KeyKind, RunStatus};
use crate::story::{Attempt, Moment, Story};
use crate::verdict::{Class, judge};

/// Slurm reports a job's final state within seconds of its end; after this
/// long a verdict is given without it.
const PATIENCE: Duration = Duration::from_secs(10);

/// After a failed question.
const RETRY: Duration = Duration::from_secs(60);

/// Slurm ends a job at its time limit, at the latest after OverTimeLimit, KillWait and
/// UnkillableStepTimeout, which are minutes. A job that was silent for so long after the limit that
/// its steps knew is not running any more, unless somebody gave it more time: should it speak
/// again, the verdict is revised.
const OVERDUE_US: i64 = 3_600_000_000;

/// A job that is over must be quiet for so long before it is judged, so that
/// the journals of its other nodes can catch up.
const GRACE: Duration = Duration::from_millis(300);

/// The end of an attempt, beside its envelope: what parade's readers look for,
/// then the verdict whole, last so that its place in the line is known.
#[derive(Serialize)]
struct ChunkEnded<'a> {
    attempt: u32,
    duration_ms: Option<i64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    revised: bool,
    n_errors: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    verdict: &'a RawValue,
}

/// An attempt is over, and the job waits in the queue again.
#[derive(Serialize)]
struct ChunkRequeued<'a> {
    attempt: u32,
    state: &'a str,
    reason: &'a str,
}

#[derive(Serialize)]
struct RunEnded<'a> {
    n_errors: u32,
    classes: &'a BTreeMap<Class, u32>,
}

impl Collector {
    /// Judges the jobs that are over.
    pub(super) fn settle(&mut self, last: bool) -> Result<(), CollectError> {
        self.release_orphans(last)?;
        let mut over = Vec::new();
        for key in self.candidates(last) {
            self.look(key, last)?;
            if self.jobs.get(&key).is_some_and(|j| j.open && self.seems_over(j, last)) {
                over.push(key);
            }
        }
        self.ask_slurm(&over, last);
        self.hear_slurm(last);
        for key in over {
            if self.waits_again(key)? {
                continue;
            }
            if self.jobs.get(&key).is_some_and(|j| self.is_ready(key, j, last)) {
                let story = self.fold(key)?;
                self.judge(key, &story)?;
                if self.appender.waiting() >= self.checkpoint_bytes {
                    self.checkpoint(false, false)?;
                }
            }
        }
        self.take_news(last)?;
        self.end_runs();
        Ok(())
    }

    /// Judges a job that is complete on all its nodes, at the line that made
    /// it so. Nothing that other journals hold can change it.
    pub(super) fn settle_complete(&mut self, key: JobKey) -> Result<(), CollectError> {
        let story = self.fold(key)?;
        let whole =
            |a: &Attempt| a.is_over() && a.facts.node_count.is_some_and(|n| a.nodes.len() >= n as usize);
        if story.attempts.last().is_some_and(whole) {
            self.judge(key, &story)?;
        }
        self.unfold(key, story);
        Ok(())
    }

    /// Open jobs that may be over, in the order of their ids; those without any
    /// sign of an end when they have been silent for a while.
    fn candidates(&mut self, last: bool) -> Vec<JobKey> {
        self.ending.retain(|key| self.jobs.get(key).is_some_and(|j| j.open));
        let silent = |j: &Job| last || j.touched.elapsed() >= SILENCE;
        let silent = self.jobs.iter().filter(|(_, j)| j.open && silent(j)).map(|(key, _)| *key);
        self.ending.iter().copied().chain(silent).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Folds a job's story again if an event since the last time may have
    /// changed whether it is over.
    fn look(&mut self, key: JobKey, last: bool) -> Result<(), CollectError> {
        // Not before it can be judged: a story is folded from all events of the job.
        let quiet = |j: &Job| {
            let needed = if j.course.lasting() { GRACE } else { self.options.quiet.min(SILENCE) };
            last || j.touched.elapsed() >= needed
        };
        if self.jobs.get(&key).is_none_or(|j| !j.unsure || !quiet(j)) {
            return Ok(());
        }
        let story = self.fold(key)?;
        let Some(job) = self.jobs.get_mut(&key) else { return Ok(()) };
        job.unsure = false;
        job.over = story.attempts.last().is_some_and(Attempt::is_over);
        job.steps_ended = story.attempts.last().is_some_and(Attempt::all_steps_ended);
        job.limit = story.attempts.last().and_then(|a| a.facts.end_limit);
        self.unfold(key, story);
        Ok(())
    }

    fn seems_over(&self, job: &Job, last: bool) -> bool {
        let quiet = job.touched.elapsed();
        match (job.over, job.steps_ended) {
            (true, _) => last || quiet >= GRACE,
            (_, true) => last || quiet >= self.options.quiet,
            _ if is_overdue(job) => last || quiet >= SILENCE,
            _ => self.accounting.is_some() && (last || quiet >= SILENCE),
        }
    }

    /// Has Slurm asked about those of `keys` that it is time to ask about, all at once.
    fn ask_slurm(&mut self, keys: &[JobKey], last: bool) {
        let now = Instant::now();
        let Some(slurm) = &mut self.accounting else { return };
        let waiting = self.accounting_retry.is_some_and(|at| now < at) || !slurm.jobs.is_free();
        if waiting || !(last || slurm.turns.may_ask(now)) {
            return;
        }
        let answered_for = slurm.answers_for(&self.clusters);
        let mut silent = false;
        let mut due = |key: &JobKey| {
            let job = self.jobs.get(key).filter(|j| j.record.is_none() && answered_for[usize::from(key.0)]);
            let Some(job) = job else { return false };
            let reason = match job.requeued {
                false if job.over => Reason::Over,
                false if job.steps_ended || is_overdue(job) => Reason::Ending,
                _ => Reason::Silent,
            };
            let due = last || slurm.turns.is_due(reason, job.asked, now);
            silent |= due && reason == Reason::Silent;
            due
        };
        let keys: Vec<JobKey> = keys.iter().copied().filter(|key| due(key)).collect();
        if keys.is_empty() {
            return;
        }
        slurm.turns.asked(silent, now);
        for key in &keys {
            if let Some(job) = self.jobs.get_mut(key) {
                job.asked = Some(now);
            }
        }
        let (here, clusters) = (slurm.here.clone(), self.clusters.clone());
        slurm.jobs.ask(move |accounting| {
            let here = here.map_or_else(|| accounting.cluster(), Ok)?;
            let is_here = which_are(&here, &clusters);
            let keys: Vec<JobKey> = keys.into_iter().filter(|key| is_here[usize::from(key.0)]).collect();
            let ids: BTreeSet<JobId> = keys.iter().map(|key| JobId(key.1)).collect();
            let records = if ids.is_empty() { HashMap::new() } else { accounting.ask(&ids)? };
            Ok(Told { here, keys, asked: now, records })
        });
    }

    /// Takes in what Slurm has answered; with `last`, its answer is waited for.
    fn hear_slurm(&mut self, last: bool) {
        let Some(slurm) = &mut self.accounting else { return };
        let then = "verdicts are given without Slurm's own until it answers; it is asked every minute";
        let Some(answer) = slurm.jobs.hear(last, then) else { return };
        slurm.turns.answered(Instant::now());
        let Ok(Told { here, keys, asked, records }) = answer else {
            self.accounting_retry = Some(Instant::now() + RETRY);
            return;
        };
        slurm.here = Some(here);
        for key in keys {
            // Of one that has spoken since, the answer may be of an earlier attempt.
            let Some(job) = self.jobs.get_mut(&key).filter(|j| j.open && j.touched <= asked) else {
                continue;
            };
            let restart = job.course.restart;
            let known = records.get(&JobId(key.1));
            job.record = known.filter(|r| r.is_final() || r.restarts > restart).cloned();
            // Of a job that Slurm has forgotten, nothing more will be known than what its nodes said.
            job.requeued &= known.is_some();
        }
    }

    /// Whether the attempt that is over was put back into the queue, by what
    /// Slurm says now: what became of the job is not known before its next
    /// attempt ends. Says so in the run, once.
    fn waits_again(&mut self, key: JobKey) -> Result<bool, CollectError> {
        let Some(job) = self.jobs.get_mut(&key) else { return Ok(false) };
        let Some(record) = job.record.take_if(|r| !r.is_final()) else {
            return Ok(job.requeued && job.record.is_none());
        };
        job.requeued = true;
        let (run, chunk) = (job.member.run, job.member.chunk);
        if self.runs.get(&run).is_none_or(|r| r.head.requeued.contains(&chunk)) {
            return Ok(true);
        }
        let story = self.fold(key)?;
        let Some(after) = story.attempts.last().and_then(|a| a.last.clone()) else { return Ok(true) };
        if let Some(run) = self.runs.get_mut(&run) {
            run.head.requeued.insert(chunk);
            run.turned = true;
        }
        let attempt = u32::try_from(story.attempts.len()).unwrap_or(u32::MAX);
        let fields = ChunkRequeued { attempt, state: &record.state, reason: &record.reason };
        self.touched.push(run);
        self.derive(run, "chunk_requeued", Severity::Warn, &after, Some(chunk), Some(JobId(key.1)), &fields);
        Ok(true)
    }

    fn is_ready(&self, key: JobKey, job: &Job, last: bool) -> bool {
        if !job.steps_ended {
            // Only Slurm and the clock can say that a job is over whose steps never ended.
            return job.record.is_some() || is_overdue(job);
        }
        let asked = |slurm: &Asker| slurm.answers_for(&self.clusters)[usize::from(key.0)];
        let waiting = self.accounting.as_ref().is_some_and(asked)
            && self.accounting_retry.is_none_or(|at| Instant::now() >= at)
            && job.touched.elapsed() < PATIENCE;
        last || job.record.is_some() || !waiting
    }

    pub(super) fn judge(&mut self, key: JobKey, story: &Story) -> Result<(), CollectError> {
        let Some(job) = self.jobs.get_mut(&key) else { return Ok(()) };
        let Some(attempt) = story.attempts.last() else { return Ok(()) };
        let Some(after) = attempt.last.clone() else { return Ok(()) };
        job.open = false;
        job.unsure = false;
        if !std::mem::replace(&mut job.changed, true) {
            self.changed.push(key);
        }
        self.ending.remove(&key);
        job.requeued = false;
        let (run, chunk) = (job.member.run, job.member.chunk);
        if let Some(run) = self.runs.get_mut(&run) {
            run.head.requeued.remove(&chunk);
        }
        let Some(job) = self.jobs.get_mut(&key) else { return Ok(()) };
        let verdict = judge(attempt, job.record.as_ref());
        let nodes: Vec<&str> = attempt.nodes.iter().map(AsRef::as_ref).collect();
        let verdict = self.rules.refine(&attempt.facts, &nodes, &verdict, None).unwrap_or(verdict);
        let (run, chunk, before) = (job.member.run, job.member.chunk, job.class);
        job.member.attempts = u32::try_from(story.attempts.len()).unwrap_or(u32::MAX);
        job.member.array_job_id = job.member.array_job_id.or(attempt.facts.array_job_id.map(|id| id.0));
        job.member.array_task_id = job.member.array_task_id.or(attempt.facts.array_task_id);
        let member = job.member.clone();
        let text = serde_json::value::to_raw_value(&verdict).map_err(std::io::Error::from);
        let text =
            text.map_err(|source| CollectError::NoStore { path: self.options.store.clone(), source })?;
        let known = self.stored_verdict_text(&member)?;
        if known.as_deref() == Some(text.get().as_bytes()) {
            return Ok(());
        }
        self.stats.settled += 1;
        let fields = ChunkEnded {
            attempt: member.attempts,
            duration_ms: attempt.elapsed_us().map(|us| us / 1000),
            revised: known.is_some(),
            n_errors: verdict.consequences.len() + usize::from(verdict.first_failure.is_some()),
            error: (verdict.class != Class::Ok).then_some(verdict.detail.as_str()),
            verdict: &text,
        };
        let (event, severity) = match verdict.class {
            Class::Ok => ("chunk_completed", Severity::Info),
            _ => ("chunk_failed", Severity::Error),
        };
        let id = Some(JobId(key.1));
        let end = self.derive(run, event, severity, &after, Some(chunk), id, &fields);
        if let Some(job) = self.jobs.get_mut(&key) {
            let length = text.get().len();
            job.class = Some(verdict.class);
            // Behind it stand the object's brace and the newline.
            job.member.verdict = Some((end - 2 - length as u64, length as u32));
            job.member.end = end;
            job.verdict = Some(text);
        }
        self.close(run, before, verdict.class, &after);
        Ok(())
    }

    /// Enters a verdict into the run.
    fn close(&mut self, id: i64, before: Option<Class>, class: Class, after: &Moment) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        run.count(before, Some(class));
        self.touched.push(id);
        // Members are judged in another order than they ended in.
        let known = run.head.last_end.as_ref().map(|end| (end.wall, &end.event));
        if known < Some((after.wall, &after.event)) {
            run.head.last_end = Some(after.clone());
        }
        if run.status() != RunStatus::Running {
            run.head.closing.clone_from(&run.head.last_end);
            // A run of one job has no further members to wait for, and nobody
            // knows which jobs will look like these.
            match run.head.key.won.kind {
                KeyKind::Job | KeyKind::Group => self.end_run(id),
                _ => _ = self.closing.insert(id),
            }
        }
    }

    /// Ends the runs whose members have all ended, as far as all journals
    /// together say.
    fn end_runs(&mut self) {
        for id in std::mem::take(&mut self.closing) {
            self.end_run(id);
        }
    }

    fn end_run(&mut self, id: i64) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let status = run.status();
        let Some(after) = run.head.closing.take() else { return };
        if !run.dirty {
            self.touched.push(id);
        }
        run.touch();
        let (event, severity) = match status {
            RunStatus::Running => return,
            RunStatus::Completed => ("run_completed", Severity::Info),
            RunStatus::Failed => ("run_failed", Severity::Error),
        };
        if run.head.ended != Some(status) {
            run.head.ended = Some(status);
            run.turned = true;
            let classes = run.head.classes.clone();
            let fields = RunEnded { n_errors: crate::runs::failed(&classes), classes: &classes };
            self.derive(id, event, severity, &after, None, None, &fields);
        }
    }
}

/// The time limit that its steps knew passed long ago.
fn is_overdue(job: &Job) -> bool {
    let now = jiff::Timestamp::now().as_microsecond();
    job.limit.is_some_and(|limit| now.saturating_sub(limit.0) > OVERDUE_US)
}
