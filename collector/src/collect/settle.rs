//! When a job is over, and what became of it.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use inquest_journal::{JobId, Severity};
use serde_json::{Map, json};

use super::{CollectError, Collector, JobName, OpenJob, warn};
use crate::runs::RunStatus;
use crate::slurm::accounting::JobRecord;
use crate::verdict::{Class, Verdict, judge};

/// Slurm reports a job's final state within seconds of its end; after this
/// long a verdict is given without it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two questions about the same job.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// After a failed question.
const RETRY: Duration = Duration::from_secs(60);

/// A job that says nothing for so long is asked about, in case it died with
/// its slurmstepd or its node.
const SILENCE: Duration = Duration::from_secs(60);

/// A job that is over must be quiet for so long before it is judged, so that
/// the journals of its other nodes can catch up.
const GRACE: Duration = Duration::from_millis(300);

impl Collector {
    /// Judges the jobs that are over.
    pub(super) fn settle(&mut self, last: bool) -> Result<(), CollectError> {
        self.release_orphans(last)?;
        let over: Vec<JobName> = self
            .jobs
            .iter()
            .filter(|(_, j)| j.row.open && self.seems_over(j, last))
            .map(|(n, _)| n.clone())
            .collect();
        self.ask_slurm(&over, last);
        let mut ready: Vec<JobName> =
            over.into_iter().filter(|n| self.is_ready(&self.jobs[n], last)).collect();
        ready.sort();
        for name in ready {
            self.judge(&name);
        }
        Ok(())
    }

    fn seems_over(&self, job: &OpenJob, last: bool) -> bool {
        let Some(attempt) = job.story.attempts.last() else { return false };
        let quiet = job.touched.elapsed();
        match (attempt.is_over(), attempt.all_steps_ended()) {
            (true, _) => last || quiet >= GRACE,
            (_, true) => last || quiet >= self.options.quiet,
            _ => self.accounting.is_some() && (last || quiet >= SILENCE),
        }
    }

    /// Asks about all of `names` at once, when it is time to.
    fn ask_slurm(&mut self, names: &[JobName], last: bool) {
        let Some(accounting) = &mut self.accounting else { return };
        if self.accounting_retry.is_some_and(|at| Instant::now() < at) {
            return;
        }
        let due = |job: &OpenJob| {
            let again =
                if job.story.attempts.last().is_some_and(|a| a.is_over()) { ASK_AGAIN } else { SILENCE };
            job.record.is_none() && (last || job.asked.is_none_or(|at| at.elapsed() >= again))
        };
        let ids: BTreeSet<JobId> =
            names.iter().filter(|n| self.jobs.get(*n).is_some_and(due)).map(|n| JobId(n.1)).collect();
        if ids.is_empty() {
            return;
        }
        let answer: HashMap<JobId, JobRecord> = match accounting.ask(&ids) {
            Ok(answer) => answer,
            Err(reason) => {
                warn(&format!("{reason}; verdicts are given without Slurm's own for a minute"));
                self.accounting_retry = Some(Instant::now() + RETRY);
                return;
            }
        };
        for name in names {
            let Some(job) = self.jobs.get_mut(name).filter(|_| ids.contains(&JobId(name.1))) else {
                continue;
            };
            job.asked = Some(Instant::now());
            let restart = job.story.attempts.last().map_or(0, |a| a.restart);
            job.record = answer.get(&JobId(name.1)).filter(|r| r.is_final() || r.restarts > restart).cloned();
        }
    }

    fn is_ready(&self, job: &OpenJob, last: bool) -> bool {
        let Some(attempt) = job.story.attempts.last() else { return false };
        if !attempt.all_steps_ended() {
            // Only Slurm can say that a job is over whose steps never ended.
            return job.record.is_some();
        }
        let waiting = self.accounting.is_some()
            && self.accounting_retry.is_none_or(|at| Instant::now() >= at)
            && job.touched.elapsed() < PATIENCE;
        last || job.record.is_some() || !waiting
    }

    fn judge(&mut self, name: &JobName) {
        let Some(job) = self.jobs.get_mut(name) else { return };
        job.row.open = false;
        job.dirty = true;
        let Some(attempt) = job.story.attempts.last() else { return };
        let Some(after) = attempt.last.clone() else { return };
        let verdict = judge(attempt, job.record.as_ref());
        let (run, chunk) = (job.run.clone(), job.row.chunk);
        let duration_us = attempt.elapsed_us();
        let attempt_number = job.story.attempts.len();
        let known = self.runs.get(&run).and_then(|r| r.members.get(&chunk)).and_then(|m| m.verdict.as_ref());
        if known == Some(&verdict) {
            return;
        }
        let revised = known.is_some();
        self.stats.settled += 1;
        let mut fields = Map::new();
        fields.insert("attempt".into(), json!(attempt_number));
        fields.insert("duration_ms".into(), json!(duration_us.map(|us| us / 1000)));
        if revised {
            fields.insert("revised".into(), json!(true));
        }
        // What parade's readers look for, then the verdict whole.
        let n_errors = verdict.consequences.len() + usize::from(verdict.first_failure.is_some());
        fields.insert("n_errors".into(), json!(n_errors));
        if verdict.class != Class::Ok {
            fields.insert("error".into(), json!(verdict.detail));
        }
        fields.insert("verdict".into(), json!(verdict));
        let (event, severity) = match verdict.class {
            Class::Ok => ("chunk_completed", Severity::Info),
            _ => ("chunk_failed", Severity::Error),
        };
        self.derive(&run, event, severity, &after, Some(chunk), Some(JobId(name.1)), fields.into());
        self.close(name, verdict, &after);
    }

    /// Enters the verdict into the run, and ends the run with its last member.
    fn close(&mut self, name: &JobName, verdict: Verdict, after: &crate::story::Moment) {
        let Some(job) = self.jobs.get(name) else { return };
        let (run_name, chunk) = (job.run.clone(), job.row.chunk);
        let end = self.appender.length(&super::events_name(&run_name));
        let Some(run) = self.runs.get_mut(&run_name) else { return };
        if let Some(member) = run.members.get_mut(&chunk) {
            member.verdict = Some(verdict);
            member.range.1 = end;
        }
        let changed = run.recount();
        let (status, failed, classes) = (run.status, run.failed(), run.classes.clone());
        self.dirty_runs.insert(run_name.clone());
        let (event, severity) = match status {
            RunStatus::Running => return,
            RunStatus::Completed => ("run_completed", Severity::Info),
            RunStatus::Failed => ("run_failed", Severity::Error),
        };
        if changed {
            let fields = json!({ "n_errors": failed, "classes": classes });
            self.derive(&run_name, event, severity, after, None, None, fields);
        }
    }
}
