//! One line of a journal into the run of its job.

use std::time::Instant;

use inquest_journal::{Body, Head, JobId, Severity, StepId, Timestamp};
use serde_json::json;
use xxhash_rust::xxh3::xxh3_64;

use super::{CollectError, Collector, JobName, OpenJob, RunName, events_name};
use crate::ledger::{HeldRow, JobRow, Seen};
use crate::runs::{KeyKind, Member, RunKey, RunState, RunStatus, path_id};
use crate::store::{Derived, derived_line, event_line, read_events, run_dir};
use crate::story::{EventId, Moment, Story};

/// A job id seen again after so long is another job: Slurm wraps its ids.
const REUSE_US: i64 = 7 * 86_400 * 1_000_000;

/// Store directory of events that are of no job.
const SITE: &str = "_site";

impl Collector {
    /// Merges one line. Says `false` when it is no event.
    pub(super) fn merge_line(&mut self, line: &[u8]) -> Result<bool, CollectError> {
        let Ok(head) = Head::parse(line) else { return Ok(false) };
        if self.see(&head)? == Seen::Before {
            self.stats.copies += 1;
            return Ok(true);
        }
        self.stats.events += 1;
        let body = match Body::parse(&head.event_type, line) {
            Some(Ok(body)) => Some(body),
            // A type of a newer version is kept; a known type whose fields are
            // wrong is kept too, but nothing is concluded from it.
            None | Some(Err(_)) => None,
        };
        let Some(job_id) = head.job_id else {
            let name = format!("{}/{SITE}/events.jsonl", path_id(&head.cluster));
            event_line(self.appender.buffer(&name), &head, line, SITE, None, &self.zone);
            return Ok(true);
        };
        let name = (path_id(&head.cluster), job_id.0);
        if self.recall(&name, head.timestamp)? {
            self.add(&name, &head, body, line)?;
            return Ok(true);
        }
        match body.as_ref().and_then(|b| RunKey::of(job_id, b)) {
            Some(key) => {
                let (uid, task) = (body.as_ref().and_then(uid_of), body.as_ref().and_then(array_task));
                self.begin(&name, key, uid, task, &head)?;
                self.release(&name)?;
                self.add(&name, &head, body, line)?;
            }
            None => {
                let uid = body.as_ref().and_then(uid_of);
                self.held.push(HeldRow { key: name, uid, line: line.to_vec() });
                self.held_changed = true;
            }
        }
        Ok(true)
    }

    fn see(&mut self, head: &Head<'_>) -> Result<Seen, CollectError> {
        if !self.streams.contains_key(head.stream.as_ref()) {
            let state = self.ledger.stream(&head.stream)?.unwrap_or_default();
            self.streams.insert(head.stream.to_string(), (head.node.to_string(), state));
        }
        match self.streams.get_mut(head.stream.as_ref()) {
            Some((_, state)) => Ok(state.see(head.seq)),
            None => Ok(Seen::New),
        }
    }

    /// Brings the job into memory, if it is known.
    fn recall(&mut self, name: &JobName, at: Timestamp) -> Result<bool, CollectError> {
        if let Some(job) = self.jobs.get(name) {
            return Ok(job.row.open || at.0 - job.row.last_us < REUSE_US);
        }
        match self.ledger.job(&name.0, name.1)? {
            Some(row) if row.open || at.0 - row.last_us < REUSE_US => {
                let job = self.load_job(row)?;
                self.jobs.insert(name.clone(), job);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Folds a job's story again from its run's file.
    pub(super) fn load_job(&mut self, row: JobRow) -> Result<OpenJob, CollectError> {
        let run = (row.key.0.clone(), row.user.clone(), row.run_id.clone());
        self.load_run(&run)?;
        let mut story = Story::default();
        let dir = self.options.store.join(run_dir(&run.0, &run.1, &run.2));
        read_events(&dir, Some((row.first, u64::MAX)), |line, bytes| {
            if line.job_id == Some(JobId(row.key.1))
                && let Some(body) = line.body(bytes)
            {
                story.apply(&line.into_head(), body);
            }
        })?;
        Ok(OpenJob { row, run, story, touched: Instant::now(), asked: None, record: None, dirty: false })
    }

    fn load_run(&mut self, name: &RunName) -> Result<bool, CollectError> {
        if self.runs.contains_key(name) {
            return Ok(true);
        }
        let Some(row) = self.ledger.run(name)? else { return Ok(false) };
        let Ok(run) = serde_json::from_str(&row.state) else { return Ok(false) };
        self.runs.insert(name.clone(), run);
        Ok(true)
    }

    /// Makes a job, and its run when it is the first of it.
    fn begin(
        &mut self,
        name: &JobName,
        key: RunKey,
        uid: Option<u32>,
        task: Option<u32>,
        head: &Head<'_>,
    ) -> Result<(), CollectError> {
        let user = user_name(uid);
        let mut run: RunName = (name.0.clone(), user.clone(), key.run_id());
        if self.load_run(&run)?
            && key.kind != KeyKind::Explicit
            && head.timestamp.since(self.runs[&run].last) > REUSE_US
        {
            // An id of Slurm that came round again names another run.
            run.2 = format!("{}-{}", run.2, head.timestamp.day());
        }
        let after = moment(head);
        if !self.load_run(&run)? {
            let state = RunState::new(&run.0, &user, &run.2, key.clone(), head.timestamp);
            self.runs.insert(run.clone(), state);
        }
        let array = key.kind == KeyKind::Array;
        let state = &self.runs[&run];
        let next = state.members.last_key_value().map_or(1, |(n, _)| n + 1);
        let chunk = match task {
            Some(task) if array && !state.members.contains_key(&task) => task,
            _ => next,
        };
        let first = self.appender.length(&events_name(&run));
        if state.members.is_empty() || state.status != RunStatus::Running {
            let fields = json!({ "backend": "slurm", "run_key": &key });
            self.derive(&run, "run_started", Severity::Info, &after, None, None, fields);
        }
        let row = JobRow {
            key: name.clone(),
            user,
            run_id: run.2.clone(),
            chunk,
            first,
            last_us: head.timestamp.0,
            open: true,
        };
        self.derive(
            &run,
            "chunk_started",
            Severity::Info,
            &after,
            Some(chunk),
            Some(JobId(name.1)),
            json!({}),
        );
        if let Some(state) = self.runs.get_mut(&run) {
            let member = Member {
                job_id: JobId(name.1),
                array_job_id: None,
                array_task_id: None,
                attempts: 1,
                started: head.timestamp,
                last: head.timestamp,
                verdict: None,
                range: (first, first),
            };
            state.members.insert(chunk, member);
            state.recount();
        }
        self.dirty_runs.insert(run.clone());
        let story = Story::default();
        let job =
            OpenJob { row, run, story, touched: Instant::now(), asked: None, record: None, dirty: true };
        self.jobs.insert(name.clone(), job);
        Ok(())
    }

    /// Merges the lines that waited for this job's run.
    fn release(&mut self, name: &JobName) -> Result<(), CollectError> {
        let (ours, others) = std::mem::take(&mut self.held).into_iter().partition(|row| row.key == *name);
        self.held = others;
        for row in Vec::<HeldRow>::into_iter(ours) {
            self.held_changed = true;
            if let Ok(head) = Head::parse(&row.line) {
                let body = Body::parse(&head.event_type, &row.line).and_then(Result::ok);
                self.add(name, &head, body, &row.line)?;
            }
        }
        Ok(())
    }

    /// Gives the jobs of waiting lines runs of their own: nothing better will
    /// become known of them. Unless `all`, only jobs whose extern step ended.
    pub(super) fn release_orphans(&mut self, all: bool) -> Result<(), CollectError> {
        let ended = |row: &HeldRow| {
            Head::parse(&row.line)
                .is_ok_and(|h| h.event_type == "step_ended" && h.step == Some(StepId::Extern))
        };
        let names: Vec<JobName> =
            self.held.iter().filter(|r| all || ended(r)).map(|r| r.key.clone()).collect();
        for name in names {
            let Some(row) = self.held.iter().find(|r| r.key == name).cloned() else { continue };
            let Ok(head) = Head::parse(&row.line) else { continue };
            let uid = self.held.iter().filter(|r| r.key == name).find_map(|r| r.uid);
            self.begin(&name, RunKey::of_job(JobId(name.1)), uid, None, &head)?;
            self.release(&name)?;
        }
        Ok(())
    }

    /// Appends an event to its job.
    fn add(
        &mut self,
        name: &JobName,
        head: &Head<'_>,
        body: Option<Body>,
        line: &[u8],
    ) -> Result<(), CollectError> {
        let Some(job) = self.jobs.get_mut(name) else { return Ok(()) };
        let file = events_name(&job.run);
        event_line(self.appender.buffer(&file), head, line, &job.run.2, Some(job.row.chunk), &self.zone);
        let further = body.is_some_and(|body| job.story.apply(head, body));
        job.row.last_us = job.row.last_us.max(head.timestamp.0);
        job.row.open = true;
        job.touched = Instant::now();
        job.dirty = true;
        let (run, chunk) = (job.run.clone(), job.row.chunk);
        let attempts = u32::try_from(job.story.attempts.len()).unwrap_or(u32::MAX).max(1);
        if further {
            job.record = None;
            let fields = json!({ "attempt": attempts });
            self.derive(
                &run,
                "chunk_retried",
                Severity::Warn,
                &moment(head),
                Some(chunk),
                Some(JobId(name.1)),
                fields,
            );
        }
        self.touch(name, head.timestamp, attempts, further);
        Ok(())
    }

    /// Brings the run's entry of a job up to date.
    fn touch(&mut self, name: &JobName, at: Timestamp, attempts: u32, again: bool) {
        let Some(job) = self.jobs.get(name) else { return };
        let end = self.appender.length(&events_name(&job.run));
        let Some(run) = self.runs.get_mut(&job.run) else { return };
        run.last = run.last.max(at);
        run.started = run.started.min(at);
        let facts = job.story.attempts.last().map(|a| &a.facts);
        if run.name.is_none() {
            run.name = facts.and_then(|f| f.name.clone());
        }
        if let Some(member) = run.members.get_mut(&job.row.chunk) {
            member.last = member.last.max(at);
            member.started = member.started.min(at);
            member.range.1 = end;
            member.attempts = attempts;
            member.array_job_id = member.array_job_id.or(facts.and_then(|f| f.array_job_id));
            member.array_task_id = member.array_task_id.or(facts.and_then(|f| f.array_task_id));
            if again {
                member.verdict = None;
                run.recount();
            }
        }
        self.dirty_runs.insert(job.run.clone());
    }

    /// Appends an event of the collector's own to a run.
    #[allow(clippy::too_many_arguments)] // One flat record, named at every call.
    pub(super) fn derive(
        &mut self,
        run: &RunName,
        event_type: &str,
        severity: Severity,
        after: &Moment,
        chunk_id: Option<u32>,
        job_id: Option<JobId>,
        fields: serde_json::Value,
    ) {
        let Some(state) = self.runs.get_mut(run) else { return };
        let seq = state.next_seq;
        state.next_seq += 1;
        let event = Derived {
            event_type,
            severity,
            after,
            cluster: &run.0,
            run_id: &run.2,
            seq,
            chunk_id,
            job_id,
            fields,
        };
        derived_line(self.appender.buffer(&events_name(run)), &event, &self.zone);
    }
}

pub(super) fn moment(head: &Head<'_>) -> Moment {
    Moment {
        wall: head.timestamp,
        node: head.node.to_string(),
        boot: head.boot.to_string(),
        mono_us: head.mono_us,
        event: EventId { stream: head.stream.to_string(), seq: head.seq },
    }
}

fn uid_of(body: &Body) -> Option<u32> {
    match body {
        Body::JobStarted(b) => b.uid,
        Body::StepStarted(b) => b.uid,
        _ => None,
    }
}

fn array_task(body: &Body) -> Option<u32> {
    match body {
        Body::JobStarted(b) => b.array_task_id,
        Body::StepStarted(b) => b.array_task_id,
        _ => None,
    }
}

/// The user's name as this machine knows it: the name of a directory.
fn user_name(uid: Option<u32>) -> String {
    let Some(uid) = uid else { return "unknown".into() };
    let name = uzers::get_user_by_uid(uid).and_then(|u| u.name().to_str().map(str::to_owned));
    match name {
        Some(name) if path_id(&name) == name => name,
        Some(name) => format!("uid-{uid}-{:08x}", xxh3_64(name.as_bytes()) >> 32),
        None => format!("uid-{uid}"),
    }
}
