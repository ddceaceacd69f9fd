//! Jobs whose node came up anew under them.

use inquest_journal::{Head, JobId, Severity, Timestamp};
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64;

use super::merge::moment;
use super::{CollectError, Collector, JobKey};
use crate::story::{Attempt, EventId, Name};

/// The clock of a node may be wrong by so much while it comes up, in microseconds.
const SLACK_US: i64 = 60_000_000;

/// What a job is told when its node came up anew: the fields of the journal's
/// event of this name, and what the collector knows it from.
#[derive(Serialize)]
struct NodeBooted<'a> {
    previous_boot: &'a str,
    booted_at: Timestamp,
    found_by: &'a EventId,
}

impl Collector {
    /// Looks, when a line has another boot id than its node's line before,
    /// which open jobs had steps there that no slurmstepd can end any more,
    /// and tells them.
    ///
    /// What is found depends on the jobs and the line only; the boot ids that
    /// are remembered save looking again.
    pub(super) fn met_boot(&mut self, cluster: u16, head: &Head<'_>) -> Result<(), CollectError> {
        if self.boot.0 == cluster && *self.boot.1 == *head.node && *self.boot.2 == *head.boot {
            return Ok(());
        }
        self.boot = (cluster, head.node.as_ref().into(), head.boot.as_ref().into());
        let place = (cluster, Box::from(head.node.as_ref()));
        let node = xxh3_64(head.node.as_bytes());
        match self.boots.insert(place, head.boot.as_ref().into()) {
            Some(known) if *known == *head.boot => return Ok(()),
            // Nothing was read of this node yet: only jobs of an earlier life can be there.
            None if !self.brought_back.contains(&node) => return Ok(()),
            _ => {}
        }
        let there =
            self.jobs.iter().filter(|(key, j)| key.0 == cluster && j.open && j.course.may_be_on(node));
        let mut keys: Vec<JobKey> = there.map(|(key, _)| *key).collect();
        keys.sort_unstable();
        for key in keys {
            self.look_for_lost(key, head)?;
        }
        Ok(())
    }

    fn look_for_lost(&mut self, key: JobKey, head: &Head<'_>) -> Result<(), CollectError> {
        let booted_at = Timestamp(head.timestamp.0.saturating_sub_unsigned(head.mono_us));
        let story = self.fold(key)?;
        let Some(boot) = story.attempts.last().and_then(|a| boot_before(a, head, booted_at)) else {
            self.unfold(key, story);
            return Ok(());
        };
        let Some(job) = self.jobs.get(&key) else { return Ok(()) };
        let (run, chunk, after) = (job.member.run, job.member.chunk, moment(head));
        let Some(at) = self.runs.get(&run).map(|r| r.tail.length()) else { return Ok(()) };
        let fields = NodeBooted { previous_boot: &boot, booted_at, found_by: &after.event };
        let id = Some(JobId(key.1));
        let place = self.derive_at(run, "node_booted", Severity::Error, &after, Some(chunk), id, &fields);
        let (Some(job), Some(run)) = (self.jobs.get_mut(&key), self.runs.get(&run)) else { return Ok(()) };
        job.wrote(at, place, run.tail.flushed());
        job.member.end = run.tail.length();
        job.unsure = true;
        self.touched.push(run.id);
        if !std::mem::replace(&mut job.changed, true) {
            self.changed.push(key);
        }
        self.ending.insert(key);
        Ok(())
    }
}

/// The boot under which a step began there that is not known to have ended,
/// when it is an earlier one than that of the line.
fn boot_before(attempt: &Attempt, head: &Head<'_>, booted_at: Timestamp) -> Option<Name> {
    let parts = attempt.steps.values().filter_map(|step| step.nodes.get(head.node.as_ref()));
    let open = parts.filter(|part| part.ended.is_none() && part.lost.is_none());
    let began = open.filter_map(|part| part.started.as_ref());
    let earlier = |at: &&crate::story::Moment| *at.boot != *head.boot && booted_at.since(at.wall) > -SLACK_US;
    began.filter(earlier).map(|at| at.boot.clone()).next()
}
