//! One line of a journal into the run of its job.

use std::sync::LazyLock;

use inquest_journal::{Body, Head, JobId, Severity, StepId, Timestamp};
use memchr::memmem::Finder;
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64;

use super::course::{Course, restart};
use super::job::Job;
use super::run::Run;
use super::{CollectError, Collector, Held, JobKey};
use crate::follow::Event;
use crate::ledger::{Counts, HeldRow, MemberRow, RunName, Seen};
use crate::runs::{Candidate, KeyKind, RunKey, path_id};
use crate::store::{Derived, SITE, derived_line, event_line, make_cluster, place, share, user_name};
use crate::story::{EventId, Moment};

/// A job id seen again after so long is another job: Slurm wraps its ids.
const REUSE_US: i64 = 7 * 86_400 * 1_000_000;

/// Names that a run may have beside its own: a hostile job has one for each step.
const ALIASES: usize = 16;

/// What begins a run, beside its envelope.
#[derive(Serialize)]
struct RunStarted<'a> {
    backend: &'a str,
    run_key: &'a RunKey,
}

/// What begins a member: why it is in this run.
#[derive(Serialize)]
struct ChunkStarted<'a> {
    run_key: &'a RunKey,
}

#[derive(Serialize)]
struct ChunkRetried {
    attempt: u32,
}

/// A further name of a run.
#[derive(Serialize)]
struct RunAlias<'a> {
    alias: &'a str,
    run_key: &'a RunKey,
}

impl Collector {
    /// Merges one line from the journal of `node`.
    pub(super) fn merge_line(
        &mut self,
        line: &[u8],
        node: &str,
        met: &mut Counts,
    ) -> Result<(), CollectError> {
        let mut event = match Event::parse_next(line, Some(&mut self.usual)) {
            Some(event) => event,
            None => {
                met.bad += 1;
                let Some(event) = Event::salvage(line) else { return Ok(()) };
                event
            }
        };
        if self.see(&event.head)? == Seen::Before {
            met.copies += 1;
            return Ok(());
        }
        met.newer += u64::from(event.head.is_newer());
        met.foreign_node += u64::from(event.head.node != node);
        self.stats.events += 1;
        self.newest = event.head.timestamp;
        let cluster = self.cluster(&event.head.cluster);
        self.met_boot(cluster, &event.head)?;
        let Some(job_id) = event.head.job_id else {
            let cluster = &self.clusters[usize::from(cluster)].1;
            let path = std::path::Path::new(cluster).join(SITE).join(crate::store::EVENTS);
            if !self.others.contains_key(&path) {
                // What comes first here decides whether users can enter it. If it cannot be made, appending says why.
                let _ = make_cluster(&self.options.store, cluster);
            }
            let mut text = Vec::new();
            event_line(&mut text, &event, &place(SITE, None), &mut self.clock);
            return self.append_other(path, |out| out.extend_from_slice(&text));
        };
        self.assign((cluster, job_id.0), &mut event)
    }

    /// Gives a line to its job, or lets it wait until it is known which run that is of.
    pub(super) fn assign(&mut self, key: JobKey, event: &mut Event<'_>) -> Result<(), CollectError> {
        if self.waits_aside(key)? {
            self.put_aside(key, Some(event.line));
            return Ok(());
        }
        if self.recall(key, event.head.timestamp)? {
            self.add(key, event)?;
            return self.look_for_alias(key, event);
        }
        let body = match event.head.event_type.as_ref() {
            "job_started" | "step_started" => event.body(&mut self.scratch),
            _ => None,
        };
        match body.as_ref().and_then(|b| RunKey::of(JobId(key.1), b)) {
            Some(run) => {
                let restart = restart(event).unwrap_or(0);
                if !self.begin(key, run, body.as_deref(), None, &moment(&event.head), restart)? {
                    self.put_aside(key, Some(event.line));
                    return Ok(());
                }
                self.release(key)?;
                self.add(key, event)
            }
            None => {
                self.hold(key, body.as_deref().and_then(uid_of), event);
                Ok(())
            }
        }
    }

    /// Number of a cluster; there are as many as one hand has fingers.
    pub(super) fn cluster(&mut self, name: &str) -> u16 {
        let known = self.clusters.iter().position(|(raw, _)| raw == name);
        let at = known.unwrap_or_else(|| {
            // Two names may not share a number, even if they share a directory.
            self.clusters.push((name.to_owned(), path_id(name)));
            self.clusters.len() - 1
        });
        u16::try_from(at).unwrap_or(u16::MAX)
    }

    fn see(&mut self, head: &Head<'_>) -> Result<Seen, CollectError> {
        // A stream begins with the name of its node and a dash. One that does not is
        // claimed by a second node: its numbers are its own.
        let claimed;
        let rest = head.stream.strip_prefix(head.node.as_ref());
        let name = if rest.is_some_and(|rest| rest.starts_with('-')) {
            head.stream.as_ref()
        } else {
            claimed = format!("{}/{}", head.node, head.stream);
            &claimed
        };
        if let Some((_, state)) = self.streams.get_mut(name) {
            return Ok(state.see(head.seq));
        }
        let mut state = self.ledger.stream(name)?.unwrap_or_default();
        let seen = state.see(head.seq);
        self.streams.insert(name.into(), (head.node.as_ref().into(), state));
        Ok(seen)
    }

    /// Brings the job into memory, if it is known.
    fn recall(&mut self, key: JobKey, at: Timestamp) -> Result<bool, CollectError> {
        let current = |open: bool, last: i64| open || at.0 - last < REUSE_US;
        if let Some(job) = self.jobs.get(&key) {
            return Ok(current(job.open, job.member.last));
        }
        let cluster = &self.clusters[usize::from(key.0)].1;
        let Some(row) = self.ledger.job(cluster, key.1)? else { return Ok(false) };
        let Some(member) = self.ledger.member(row.run, row.chunk)? else { return Ok(false) };
        if !current(row.open, member.last) {
            return Ok(false);
        }
        self.load_job(row)
    }

    /// The run of that name, brought into memory if it is known.
    fn run_named(&mut self, name: &RunName) -> Result<Option<i64>, CollectError> {
        if let Some(id) = self.run_names.get(name) {
            return Ok(Some(*id));
        }
        let Some(row) = self.ledger.run_named(name)? else { return Ok(None) };
        let id = row.id;
        Ok(self.load_run(id)?.then_some(id))
    }

    /// Makes a job, and its run when it is the first of it; not when that is set aside.
    pub(super) fn begin(
        &mut self,
        key: JobKey,
        run_key: RunKey,
        body: Option<&Body>,
        uid: Option<u32>,
        after: &Moment,
        restart: u32,
    ) -> Result<bool, CollectError> {
        let cluster = self.clusters[usize::from(key.0)].1.clone();
        let user = self.user_name(&cluster, body.and_then(uid_of).or(uid));
        let mut name: RunName = (cluster, user, run_key.won.run_id(JobId(key.1)));
        let alike = self.alike(&name, &run_key.won)?;
        let mut known = match alike {
            Some((_, Some(run))) if self.load_run(run)? => Some(run),
            _ => self.run_named(&name)?,
        };
        if let Some(run) = known.and_then(|id| self.runs.get(&id))
            && let Some(idle) = run_key.won.idle_us()
            && !run.is_near(after.wall, idle)
        {
            // An id that came round again names another run.
            known = None;
            if self.run_named(&name)?.is_some() {
                name.2 = format!("{}-{}", name.2, after.wall.day());
                known = self.run_named(&name)?;
            }
        }
        let theirs = known.and_then(|id| self.runs.get(&id)).map_or(&name, |run| &run.name);
        if self.is_named_aside(theirs) {
            return Ok(false);
        }
        let id = known.unwrap_or_else(|| {
            self.last_run += 1;
            let run = Run::new(self.last_run, name.clone(), run_key.clone(), after.wall);
            self.run_names.insert(name, self.last_run);
            self.runs.insert(self.last_run, run);
            self.last_run
        });
        if let Some((group, _)) = alike.filter(|(_, before)| *before != Some(id)) {
            self.alike.insert(group, id);
        }
        self.touched.push(id);
        let (array, task) = body.map_or((None, None), array_of);
        let chunk = self.chunk(id, run_key.won.kind, task)?;
        let Some(run) = self.runs.get_mut(&id) else { return Ok(true) };
        let first = run.tail.length();
        if run.head.count == 0 || run.head.ended.is_some() {
            let fields = RunStarted { backend: "slurm", run_key: &run_key };
            self.derive(id, "run_started", Severity::Info, after, None, None, &fields);
        }
        let member = MemberRow {
            run: id,
            chunk,
            job_id: key.1,
            array_job_id: array,
            array_task_id: task,
            attempts: 1,
            started: after.wall.0,
            last: after.wall.0,
            first,
            end: first,
            verdict: None,
            name: run_key.won.member.clone(),
        };
        let fields = ChunkStarted { run_key: &run_key };
        self.derive(id, "chunk_started", Severity::Info, after, Some(chunk), Some(JobId(key.1)), &fields);
        if let Some(run) = self.runs.get_mut(&id) {
            run.know(&member);
            run.users += 1;
            run.fresh.push(chunk);
            run.head.last_chunk = run.head.last_chunk.max(chunk);
            run.head.count += 1;
            run.head.running += 1;
            if run.head.name.is_none() {
                run.head.name = body.and_then(name_of).map(str::to_owned);
            }
            run.turned |= run.head.ended.take().is_some();
            run.touch();
        }
        let course = Course::new(restart);
        let place = self.runs.get(&id).map_or(Vec::new(), |run| place(&run.name.2, Some(chunk)));
        let mut job = Job::new(member, place, course, self.now);
        job.changed = true;
        if let Some(former) = self.jobs.insert(key, job) {
            // An id that came round while its last bearer was still in memory.
            self.drop_user(former.member.run);
        }
        self.changed.push(key);
        Ok(true)
    }

    /// For a weak key, what it is known by and the newest run of jobs that look so.
    fn alike(&self, name: &RunName, won: &Candidate) -> Result<Option<(i64, Option<i64>)>, CollectError> {
        if won.kind != KeyKind::Group {
            return Ok(None);
        }
        let group = format!("{}\0{}\0{}", name.0, name.1, won.value);
        let group = xxh3_64(group.as_bytes()).cast_signed();
        let known = match self.alike.get(&group) {
            Some(run) => Some(*run),
            None => self.ledger.alike(group)?,
        };
        Ok(Some((group, known)))
    }

    /// Gives the run a further name when `event` has a stronger key for its job
    /// than the one that decided.
    fn look_for_alias(&mut self, key: JobKey, event: &Event<'_>) -> Result<(), CollectError> {
        // Every step of every job passes here: what cannot tell is not parsed.
        if !matches!(event.head.event_type.as_ref(), "step_started" | "job_started") || !may_tell(event.line)
        {
            return Ok(());
        }
        let Some(run) = self.jobs.get(&key).map(|j| j.member.run) else { return Ok(()) };
        let Some(held) = self.runs.get(&run).map(|r| r.head.key.won.kind) else { return Ok(()) };
        if held == KeyKind::Explicit {
            return Ok(());
        }
        let Some(body) = event.body(&mut self.scratch) else { return Ok(()) };
        let Some(found) = RunKey::of(JobId(key.1), &body).filter(|k| k.won.kind < held) else {
            return Ok(());
        };
        let alias = found.won.run_id(JobId(key.1));
        let Some(r) = self.runs.get_mut(&run) else { return Ok(()) };
        if r.name.2 == alias || r.head.aliases.contains(&alias) || r.head.aliases.len() >= ALIASES {
            return Ok(());
        }
        r.head.aliases.push(alias.clone());
        r.turned = true;
        let (after, fields) = (moment(&event.head), RunAlias { alias: &alias, run_key: &found });
        self.touched.push(run);
        self.derive(run, "run_alias", Severity::Info, &after, None, None, &fields);
        Ok(())
    }

    /// The number that a job gets in its run.
    fn chunk(&mut self, run: i64, kind: KeyKind, task: Option<u32>) -> Result<u32, CollectError> {
        let Some(r) = self.runs.get(&run) else { return Ok(1) };
        let next =
            r.head.last_chunk.saturating_add(u32::from(r.head.count > 0 || kind != KeyKind::Array)).max(1);
        let Some(task) = task.filter(|_| kind == KeyKind::Array) else { return Ok(next) };
        let taken = r.fresh.contains(&task) || (r.committed && self.ledger.member(run, task)?.is_some());
        Ok(if taken { next } else { task })
    }

    fn hold(&mut self, key: JobKey, uid: Option<u32>, event: &Event<'_>) {
        let cluster = self.clusters[usize::from(key.0)].1.clone();
        let held = self.held.entry(key).or_default();
        held.ended |= event.head.event_type == "step_ended" && event.head.step == Some(StepId::Extern);
        held.rows.push(HeldRow { key: (cluster, key.1), uid, line: event.line.to_vec() });
    }

    /// Takes a waiting line from the ledger.
    pub(super) fn hold_again(&mut self, row: HeldRow) {
        let Some(event) = Event::parse(&row.line) else { return };
        let key = (self.cluster(&event.head.cluster), row.key.1);
        self.brought_back.insert(xxh3_64(event.head.node.as_bytes()));
        self.hold(key, row.uid, &event);
        if let Some(held) = self.held.get_mut(&key) {
            held.committed = held.rows.len();
        }
    }

    /// Merges the lines that waited for this job's run.
    fn release(&mut self, key: JobKey) -> Result<(), CollectError> {
        let Some(Held { rows, committed, .. }) = self.held.remove(&key) else { return Ok(()) };
        if committed > 0 {
            self.released.push(key);
        }
        for row in rows {
            if let Some(mut event) = Event::parse(&row.line) {
                self.add(key, &mut event)?;
            }
        }
        Ok(())
    }

    /// Gives the jobs of waiting lines runs of their own: nothing better will
    /// become known of them. Unless `all`, only jobs whose extern step ended.
    pub(super) fn release_orphans(&mut self, all: bool) -> Result<(), CollectError> {
        let keys: Vec<JobKey> =
            self.held.iter().filter(|(_, h)| all || h.ended).map(|(key, _)| *key).collect();
        for key in keys {
            let Some(held) = self.held.get(&key) else { continue };
            let Some(line) = held.rows.first().map(|r| r.line.clone()) else { continue };
            let Some(event) = Event::parse(&line) else { continue };
            let uid = held.rows.iter().find_map(|r| r.uid);
            let restart = restart(&event).unwrap_or(0);
            match self.begin(key, RunKey::of_job(JobId(key.1)), None, uid, &moment(&event.head), restart)? {
                true => self.release(key)?,
                false => self.put_aside(key, None),
            }
        }
        Ok(())
    }

    /// Appends an event to its job.
    fn add(&mut self, key: JobKey, event: &mut Event<'_>) -> Result<(), CollectError> {
        let Some(job) = self.jobs.get_mut(&key) else { return Ok(()) };
        let Some(run) = self.runs.get_mut(&job.member.run) else { return Ok(()) };
        let (head, member) = (&event.head, &mut job.member);
        let at = run.tail.length();
        let place = self.appender.append(&mut run.tail, |out| {
            event_line(out, event, &job.place, &mut self.clock);
        });
        member.end = run.tail.length();
        member.last = member.last.max(head.timestamp.0);
        member.started = member.started.min(head.timestamp.0);
        run.head.last = run.head.last.max(head.timestamp);
        run.head.started = run.head.started.min(head.timestamp);
        if !run.dirty {
            self.touched.push(run.id);
        }
        run.touch();
        let flushed = run.tail.flushed();
        job.wrote(at, place, flushed);
        job.open = true;
        if !std::mem::replace(&mut job.changed, true) {
            self.changed.push(key);
        }
        job.touched = self.now;
        job.unsure = true;
        if event.form.is_none() {
            job.story = None; // As it stands in the store is how it is told.
        }
        let hint = job.course.see(event);
        if let Some(story) = &mut job.story
            && let Some(mut body) = event.take_body(&mut self.scratch)
        {
            story.apply(&event.head, &mut body);
        }
        if hint.further {
            self.look_for_attempt(key, event)?;
        }
        if hint.end {
            self.ending.insert(key);
        }
        if hint.complete && self.accounting.is_none() {
            self.settle_complete(key)?;
        }
        Ok(())
    }

    /// Says it when a further attempt of the job has begun with `event`.
    fn look_for_attempt(&mut self, key: JobKey, event: &Event<'_>) -> Result<(), CollectError> {
        let story = self.fold(key)?;
        let attempts = u32::try_from(story.attempts.len()).unwrap_or(u32::MAX);
        let restart = story.attempts.last().map_or(0, |a| a.restart);
        self.unfold(key, story);
        let Some(job) = self.jobs.get_mut(&key) else { return Ok(()) };
        if attempts <= job.member.attempts {
            job.course.restart = restart;
            return Ok(());
        }
        job.course.begin_attempt(restart);
        job.record = None;
        job.requeued = false;
        job.member.attempts = attempts;
        job.member.verdict = None;
        job.verdict = None;
        let (run, chunk) = (job.member.run, job.member.chunk);
        let class = job.class.take();
        if let Some(run) = self.runs.get_mut(&run) {
            run.head.requeued.remove(&chunk);
            if class.is_some() {
                run.count(class, None);
            }
        }
        let (after, fields) = (moment(&event.head), ChunkRetried { attempt: attempts });
        let id = Some(JobId(key.1));
        self.derive(run, "chunk_retried", Severity::Warn, &after, Some(chunk), id, &fields);
        Ok(())
    }

    /// Appends an event of the collector's own to a run. Says where in the
    /// run's file it ends.
    #[allow(clippy::too_many_arguments)] // One flat record, named at every call.
    pub(super) fn derive<T: Serialize>(
        &mut self,
        run: i64,
        event_type: &str,
        severity: Severity,
        after: &Moment,
        chunk_id: Option<u32>,
        job_id: Option<JobId>,
        fields: &T,
    ) -> u64 {
        self.derive_at(run, event_type, severity, after, chunk_id, job_id, fields);
        self.runs.get(&run).map_or(0, |run| run.tail.length())
    }

    /// As [`Collector::derive`]; says where in the appender's block it is.
    #[allow(clippy::too_many_arguments)] // One flat record, named at every call.
    pub(super) fn derive_at<T: Serialize>(
        &mut self,
        run: i64,
        event_type: &str,
        severity: Severity,
        after: &Moment,
        chunk_id: Option<u32>,
        job_id: Option<JobId>,
        fields: &T,
    ) -> (u32, u32) {
        let Some(run) = self.runs.get_mut(&run) else { return (0, 0) };
        let seq = run.head.next_seq;
        run.head.next_seq += 1;
        let event = Derived {
            event_type,
            severity,
            after,
            cluster: &run.name.0,
            run_id: &run.name.2,
            seq,
            chunk_id,
            job_id,
            fields,
        };
        let place = self.appender.append(&mut run.tail, |out| derived_line(out, &event, &mut self.clock));
        run.touch();
        place
    }

    /// The user's name as this machine knows it: the name of a directory, which
    /// is the user's to read from the first job on.
    fn user_name(&mut self, cluster: &str, uid: Option<u32>) -> String {
        let Some(uid) = uid else { return "unknown".into() };
        if let Some(user) = self.users.get(&(cluster.to_owned(), uid)) {
            return user.clone();
        }
        let user = user_name(uid);
        if let Err(e) = share(&self.options.store, cluster, &user, uid) {
            tracing::warn!(
                "{user} cannot read their own runs on {cluster} from the store: {e}; the group of the store can, and \
                 inquest serve shows them"
            );
        }
        self.users.insert((cluster.to_owned(), uid), user.clone());
        user
    }
}

pub(super) fn moment(head: &Head<'_>) -> Moment {
    Moment {
        wall: head.timestamp,
        node: head.node.as_ref().into(),
        boot: head.boot.as_ref().into(),
        mono_us: head.mono_us,
        event: EventId { stream: head.stream.as_ref().into(), seq: head.seq },
    }
}

/// A cheap look at a line: whether it has what engines are recognised by beside
/// the job's name.
fn may_tell(line: &[u8]) -> bool {
    static MARKS: LazyLock<Vec<Finder<'_>>> = LazyLock::new(|| {
        [r#","env":{"#, r#","run":""#, "dask", "submitit", "/session_", "process_worker_pool", "/jobs/"]
            .map(Finder::new)
            .into()
    });
    MARKS.iter().any(|mark| mark.find(line).is_some())
}

fn uid_of(body: &Body) -> Option<u32> {
    match body {
        Body::JobStarted(b) => b.uid,
        Body::StepStarted(b) => b.uid,
        _ => None,
    }
}

/// Array and index in it.
fn array_of(body: &Body) -> (Option<u32>, Option<u32>) {
    match body {
        Body::JobStarted(b) => (b.array_job_id.map(|id| id.0), b.array_task_id),
        Body::StepStarted(b) => (b.array_job_id.map(|id| id.0), b.array_task_id),
        _ => (None, None),
    }
}

fn name_of(body: &Body) -> Option<&str> {
    match body {
        Body::JobStarted(b) => b.name.as_deref(),
        Body::StepStarted(b) => b.name.as_deref(),
        _ => None,
    }
}
