//! Verdicts that were given before slurmdbd knew the end are given again.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use inquest_journal::{Body, JobStarted, Timestamp};

use super::asker::Learned;
use super::{CollectError, Collector, JobKey};
use crate::runs::RunKey;
use crate::slurm::accounting::News;
use crate::story::{Attempt, EventId, Moment, Story};

/// Between two looks at what slurmdbd has learned.
const LOOK_AGAIN: Duration = Duration::from_secs(300);

/// How far back the first look goes, in microseconds.
const FIRST_LOOK_US: i64 = 86_400_000_000;

/// Of so much time everything that ended is asked for at once, in microseconds: of a busy site, that is
/// much. After a long time without answers it is caught up with piece by piece.
const STRETCH_US: i64 = 6 * 3_600_000_000;

/// Records that are taken in between two looks at the journals.
const AT_ONCE: usize = 1000;

/// Clocks of nodes and controller may differ by so much, in microseconds.
const SLACK_US: i64 = 60_000_000;

/// What the accounting has learned.
#[derive(Debug)]
pub(super) struct Backlog {
    news: VecDeque<News>,
    /// Up to then; in microseconds since 1970.
    until: i64,
    /// There is more, of after that.
    more: bool,
}

impl Collector {
    /// Takes in what ended lately by the accounting, when it is time to. With `last`, all of it, now.
    /// Records that were seen before change nothing, so none is ever skipped to
    /// save a second look.
    pub(super) fn take_news(&mut self, last: bool) -> Result<(), CollectError> {
        if last {
            self.news_due = None;
        }
        loop {
            let done = match self.news {
                Some(_) => !self.revise_some()?,
                None => !self.hear_news(last) && !self.ask_for_news(),
            };
            if done || !last {
                return Ok(());
            }
        }
    }

    /// Has the accounting asked for what ended lately; whether it was.
    fn ask_for_news(&mut self) -> bool {
        let waiting = |at: &Option<Instant>| at.is_some_and(|at| Instant::now() < at);
        let Some(slurm) = self.accounting.as_mut().filter(|s| s.news.is_free()) else { return false };
        if waiting(&self.accounting_retry) || waiting(&self.news_due) {
            return false;
        }
        let now = jiff::Timestamp::now().as_microsecond();
        let since = self.news_since.unwrap_or(now - FIRST_LOOK_US);
        let until = now.min(since + STRETCH_US);
        slurm.news.ask(move |accounting| {
            let news = accounting.news(Timestamp(since), Timestamp(until))?;
            Ok(Learned { until, more: until < now, news })
        });
        true
    }

    /// Takes the accounting's answer, when it is there; whether it was.
    fn hear_news(&mut self, last: bool) -> bool {
        let Some(slurm) = &mut self.accounting else { return false };
        let then = "it is asked again in five minutes, and told what was missed";
        let Some(answer) = slurm.news.hear(last, then) else { return false };
        self.news_due = Some(Instant::now() + LOOK_AGAIN);
        if let Ok(Learned { until, more, news: Some(news) }) = answer {
            self.news = Some(Backlog { news: news.into(), until, more });
        }
        true
    }

    /// Takes in some of what the accounting has learned; whether there is more to do.
    fn revise_some(&mut self) -> Result<bool, CollectError> {
        let Some(Backlog { mut news, until, more }) = self.news.take() else { return Ok(false) };
        for name in self.ledger.clusters()? {
            self.cluster(&name); // Jobs of a cluster that nothing new was read of.
        }
        let mut looked_at = BTreeSet::new();
        for news in news.drain(..news.len().min(AT_ONCE)) {
            self.revise(&news, &mut looked_at)?;
            if self.appender.waiting() >= self.checkpoint_bytes {
                self.checkpoint(false, false)?;
            }
        }
        self.let_go(looked_at);
        if !news.is_empty() {
            self.news = Some(Backlog { news, until, more });
            return Ok(true);
        }
        self.news_since = Some(until);
        if more {
            self.news_due = None;
        }
        Ok(more)
    }

    /// Judges a job again, when the accounting tells more of its end than its
    /// verdict knows. Runs that had to be loaded for a look are put into `loaded`.
    fn revise(&mut self, news: &News, loaded: &mut BTreeSet<i64>) -> Result<(), CollectError> {
        let Some(key) = self.key_of(news) else { return Ok(()) };
        if !news.record.is_final() {
            return Ok(());
        }
        if !self.jobs.contains_key(&key) {
            let cluster = self.clusters[usize::from(key.0)].1.clone();
            let Some(row) = self.ledger.job(&cluster, key.1)? else { return self.never_ran(key, news) };
            let Some(member) = self.ledger.member(row.run, row.chunk)? else { return Ok(()) };
            if self.is_aside(row.run)? {
                return Ok(());
            }
            if !self.runs.contains_key(&row.run) {
                loaded.insert(row.run);
            }
            if !self.load_run(row.run)? {
                return Ok(());
            }
            let known = self.stored_verdict(&member)?;
            let Some(known) = known.map(|v| v.slurm) else { return Ok(()) };
            if known.as_ref().is_some_and(|r| r.agrees(&news.record)) || !self.load_job(row)? {
                return Ok(());
            }
            if let Some(job) = self.jobs.get_mut(&key) {
                job.record = known;
            }
        }
        let story = self.fold(key)?;
        let fits = story.attempts.last().is_some_and(|attempt| is_of(news, attempt));
        let Some(job) = self.jobs.get_mut(&key) else { return Ok(()) };
        let told = job.record.as_ref().is_some_and(|r| r.agrees(&news.record));
        if fits && !told {
            let earlier = job.record.take().unwrap_or_default();
            job.record = Some(news.record.clone().or(&earlier));
            if !job.open {
                self.judge(key, &story)?;
            }
        }
        // A job that was brought here for this alone goes with the next checkpoint.
        if let Some(job) = self.jobs.get_mut(&key).filter(|j| !j.open && !j.changed) {
            job.changed = true;
            self.changed.push(key);
        }
        Ok(())
    }

    /// A job that ended before any node saw it becomes a member of its run, with
    /// what the accounting says as its only fact.
    fn never_ran(&mut self, key: JobKey, news: &News) -> Result<(), CollectError> {
        let Some(submitted) = &news.submitted else { return Ok(()) };
        let Some(end) = news.end.or(submitted.at) else { return Ok(()) };
        let began = submitted.at.unwrap_or(end).min(end);
        let facts = JobStarted {
            uid: submitted.uid,
            name: submitted.name.clone(),
            work_dir: submitted.work_dir.clone(),
            array_job_id: submitted.array,
            array_task_id: submitted.index,
            ..JobStarted::default()
        };
        // No node, no boot, no event of a node.
        let event = EventId { stream: format!("sacct-{}-{}", news.cluster, news.job).into(), seq: 0 };
        let at = |wall| Moment { wall, node: "".into(), boot: "".into(), mono_us: 0, event: event.clone() };
        let mut attempt = Attempt { started: Some(at(began)), last: Some(at(end)), ..Attempt::default() };
        attempt.facts.learn_job(&mut facts.clone());
        let body = Body::JobStarted(facts);
        let run_key = RunKey::of(news.job, &body).unwrap_or_else(|| RunKey::of_job(news.job));
        if !self.begin(key, run_key, Some(&body), submitted.uid, &at(began), 0)? {
            return Ok(());
        }
        if let Some(job) = self.jobs.get_mut(&key) {
            job.record = Some(news.record.clone());
            job.member.last = job.member.last.max(end.0);
        }
        self.judge(key, &Story { attempts: vec![attempt] })
    }

    /// Lets go of runs that were loaded for nothing.
    fn let_go(&mut self, loaded: BTreeSet<i64>) {
        for id in loaded {
            if self.runs.get(&id).is_some_and(|r| r.users == 0 && !r.dirty && !r.stale)
                && let Some(run) = self.runs.remove(&id)
            {
                self.run_names.remove(&run.name);
            }
        }
    }

    fn key_of(&self, news: &News) -> Option<JobKey> {
        let named = |(raw, _): &(String, String)| raw.eq_ignore_ascii_case(&news.cluster);
        let cluster = self.clusters.iter().position(named)?;
        Some((u16::try_from(cluster).ok()?, news.job.0))
    }
}

/// The record tells of this attempt, and not of an earlier one or of another
/// job that had the id.
fn is_of(news: &News, attempt: &Attempt) -> bool {
    let (Some(began), Some(ended)) = (&attempt.started, &attempt.last) else { return false };
    let after = news.end.is_none_or(|end| end.0 >= began.wall.0 - SLACK_US);
    let before = news.start.is_none_or(|start| start.0 <= ended.wall.0 + SLACK_US);
    after && before
}
