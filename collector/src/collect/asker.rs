//! Slurm is asked in threads of its own: it may take minutes to answer, or hang, and events do not wait for that.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use inquest_journal::JobId;

use super::{CollectError, JobKey};
use crate::runs::path_id;
use crate::slurm::accounting::{Accounting, JobRecord, News};

/// At least this passes between an answer and the next question.
const BETWEEN: Duration = Duration::from_secs(1);

/// A job that says nothing for so long is asked about, in case it died with
/// its slurmstepd or its node; so often all such jobs are, together.
pub(super) const SILENCE: Duration = Duration::from_secs(60);

/// What the plugin writes where it does not find the name of the cluster.
const NAMELESS: &str = "unknown";

type Question<A> = Box<dyn FnOnce(&dyn Accounting) -> Result<A, String> + Send>;

/// Those who ask: one for jobs that end, one for what slurmdbd learned, which takes longer.
#[derive(Debug)]
pub(super) struct Asker {
    pub(super) jobs: Desk<Told>,
    pub(super) news: Desk<Learned>,
    pub(super) turns: Turns,
    /// The cluster that Slurm answers for.
    pub(super) here: Option<String>,
}

/// What Slurm said of jobs.
#[derive(Debug)]
pub(super) struct Told {
    /// The cluster that it answers for.
    pub(super) here: String,
    /// The jobs that it was asked about.
    pub(super) keys: Vec<JobKey>,
    /// When.
    pub(super) asked: Instant,
    pub(super) records: HashMap<JobId, JobRecord>,
}

/// What slurmdbd learned.
#[derive(Debug)]
pub(super) struct Learned {
    /// Up to then; in microseconds since 1970.
    pub(super) until: i64,
    /// There is more, of after that.
    pub(super) more: bool,
    /// `None` when nobody keeps a history.
    pub(super) news: Option<Vec<News>>,
}

impl Asker {
    pub(super) fn start(accounting: Box<dyn Accounting>) -> Result<Asker, CollectError> {
        let accounting: Arc<dyn Accounting> = Arc::from(accounting);
        Ok(Asker {
            jobs: Desk::open("squeue", &accounting)?,
            news: Desk::open("sacct", &accounting)?,
            turns: Turns::default(),
            here: None,
        })
    }

    /// Which of `clusters`, as named in the journals and in the store, Slurm answers for.
    pub(super) fn answers_for(&self, clusters: &[(String, String)]) -> Vec<bool> {
        match &self.here {
            Some(here) => which_are(here, clusters),
            None => vec![true; clusters.len()], // Its first answer tells.
        }
    }

    /// Why there was no answer, of each that got none the last time.
    pub(super) fn failed(&self) -> impl Iterator<Item = &String> {
        self.jobs.failed.iter().chain(&self.news.failed)
    }
}

/// Which of `clusters` are `here`. Slurm writes names of clusters in small letters.
pub(super) fn which_are(here: &str, clusters: &[(String, String)]) -> Vec<bool> {
    let stored = path_id(here);
    let is = |(raw, place): &(String, String)| {
        raw.eq_ignore_ascii_case(here) || *place == stored || raw == NAMELESS && clusters.len() == 1
    };
    clusters.iter().map(is).collect()
}

/// One thread, which answers one question at a time.
#[derive(Debug)]
pub(super) struct Desk<A> {
    ask: Sender<Question<A>>,
    told: Receiver<Result<A, String>>,
    waits: bool,
    /// Why there was no answer the last time.
    failed: Option<String>,
}

impl<A: Send + 'static> Desk<A> {
    fn open(name: &str, accounting: &Arc<dyn Accounting>) -> Result<Desk<A>, CollectError> {
        let (ask, questions) = bounded::<Question<A>>(1);
        let (answer, told) = bounded(1);
        let accounting = accounting.clone();
        let work = move || {
            for question in questions {
                if answer.send(question(&*accounting)).is_err() {
                    break; // Nobody wants to know any more.
                }
            }
        };
        std::thread::Builder::new().name(name.into()).spawn(work).map_err(CollectError::NoThread)?;
        Ok(Desk { ask, told, waits: false, failed: None })
    }

    /// Nothing was asked that has no answer yet.
    pub(super) fn is_free(&self) -> bool {
        !self.waits
    }

    /// Asks; whoever is not free must not be asked.
    pub(super) fn ask(
        &mut self,
        question: impl FnOnce(&dyn Accounting) -> Result<A, String> + Send + 'static,
    ) {
        self.waits = true;
        let _ = self.ask.try_send(Box::new(question)); // When the thread is gone, the answer says so.
    }

    /// The answer to the last question, when it is there; with `wait`, it is waited for. The log has it once
    /// when there is none, with `then`, and once when there is one again.
    pub(super) fn hear(&mut self, wait: bool, then: &str) -> Option<Result<A, ()>> {
        if !self.waits {
            return None;
        }
        let gone = || Err("nobody asks Slurm any more; start the collector again".to_owned());
        let answer = match wait {
            true => self.told.recv().unwrap_or_else(|_| gone()),
            false => match self.told.try_recv() {
                Ok(answer) => answer,
                Err(TryRecvError::Empty) => return None,
                Err(TryRecvError::Disconnected) => gone(),
            },
        };
        self.waits = false;
        let answer = answer.map_err(|reason| {
            if self.failed.as_ref() != Some(&reason) {
                tracing::warn!("{reason}; {then}");
                self.failed = Some(reason);
            }
        });
        if answer.is_ok() && self.failed.take().is_some() {
            tracing::info!("Slurm answers again");
        }
        Some(answer)
    }
}

/// Why a job is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// It is over, and Slurm will soon say how it ended.
    Over,
    /// It seems to be over.
    Ending,
    /// It has said nothing for long, or waits in the queue again.
    Silent,
}

/// When Slurm is asked about which jobs: about all of them together.
#[derive(Debug, Default)]
pub(super) struct Turns {
    last: Option<Instant>,
    silent: Option<Instant>,
}

impl Turns {
    /// Whether anything may be asked now.
    pub(super) fn may_ask(&self, now: Instant) -> bool {
        is_past(self.last, BETWEEN, now)
    }

    /// Whether a job is to be asked about that was asked about then.
    pub(super) fn is_due(&self, reason: Reason, asked: Option<Instant>, now: Instant) -> bool {
        match reason {
            Reason::Over => true,
            Reason::Ending => is_past(asked, SILENCE, now),
            Reason::Silent => is_past(self.silent, SILENCE, now),
        }
    }

    /// It was asked, `silent` jobs among others.
    pub(super) fn asked(&mut self, silent: bool, now: Instant) {
        self.last = Some(now);
        if silent {
            self.silent = Some(now);
        }
    }

    /// It has answered.
    pub(super) fn answered(&mut self, now: Instant) {
        self.last = Some(now);
    }
}

fn is_past(at: Option<Instant>, wait: Duration, now: Instant) -> bool {
    at.is_none_or(|at| now.saturating_duration_since(at) >= wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silent_jobs_are_asked_about_together() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut turns = Turns::default();
        // 600 jobs that fall silent one after the other, looked at ten times a second for ten minutes.
        let silent_from = |job: u64| job * 97;
        let mut asked: Vec<Option<Instant>> = vec![None; 600];
        let (mut questions, mut last) = (0, None);
        for now in (0..600_000).step_by(100) {
            let due: Vec<usize> = (0..600)
                .filter(|&job| silent_from(job as u64) <= now)
                .filter(|&job| turns.may_ask(at(now)) && turns.is_due(Reason::Silent, asked[job], at(now)))
                .collect();
            if due.is_empty() {
                continue;
            }
            questions += 1;
            assert!(last.is_none_or(|before| now - before >= 60_000), "{last:?} {now}");
            last = Some(now);
            turns.asked(true, at(now));
            due.into_iter().for_each(|job| asked[job] = Some(at(now)));
        }
        assert_eq!(questions, 10);
        assert!(asked.iter().all(|a| a.is_some_and(|a| a >= at(500_000))), "none is left out");
    }

    #[test]
    fn what_ends_is_asked_about_soon_and_never_more_than_once_a_second() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut turns = Turns::default();
        turns.asked(true, at(0));
        assert!(!turns.may_ask(at(900)) && turns.may_ask(at(1000)));
        // One that took its time has its second of rest too.
        turns.answered(at(5000));
        assert!(!turns.may_ask(at(5900)) && turns.may_ask(at(6000)));
        assert!(turns.is_due(Reason::Over, Some(at(5000)), at(6000)));
        assert!(turns.is_due(Reason::Ending, None, at(6000)));
        assert!(!turns.is_due(Reason::Ending, Some(at(0)), at(6000)));
        assert!(!turns.is_due(Reason::Silent, None, at(6000)));
        assert!(turns.is_due(Reason::Silent, None, at(60_000)));
    }

    #[test]
    fn slurm_answers_for_its_own_cluster() {
        let clusters = |names: &[&str]| -> Vec<(String, String)> {
            names.iter().map(|name| ((*name).to_owned(), path_id(name))).collect()
        };
        assert_eq!(which_are("lab", &clusters(&["other", "Lab", "unknown"])), [false, true, false]);
        // As it is after a restart, when only the name in the store is known.
        let odd = path_id("a lab");
        assert_eq!(which_are("a lab", &[(odd.clone(), odd)]), [true]);
        // Where the plugin knows no name, and there is one cluster only.
        assert_eq!(which_are("lab", &clusters(&["unknown"])), [true]);
    }
}
