//! Which members of a run a command is about.

use std::collections::BTreeMap;

use clap::Args;
use inquest_journal::{JobId, StepId};

use super::{FAILURES, GOOD, Where};
use crate::report::failures::{self, Failure};
use crate::report::logfiles::{LogFile, log_files};
use crate::report::parallel;
use crate::runs::Member;
use crate::slurm::target::Target;
use crate::store::Found;
use crate::story::{Attempt, Story};
use crate::units::count;

/// The jobs a command is about: those that failed, unless it is told
/// otherwise or only one was named.
#[derive(Debug, Args)]
pub(super) struct Members {
    /// Job id, members of an array (123_[1-3]), a step (123.0), or run id.
    #[arg(value_name = "JOB|RUN")]
    target: String,
    /// Those that did not fail too.
    #[arg(long)]
    all: bool,
}

/// Members with their stories.
#[derive(Debug)]
pub(super) struct Picked {
    pub(super) found: Found,
    pub(super) stories: BTreeMap<JobId, Story>,
    chosen: Vec<u32>,
    step: Option<StepId>,
}

impl Members {
    pub(super) fn pick(&self, place: &Where) -> anyhow::Result<Picked> {
        let target: Target = self.target.parse()?;
        let found = place.find_members(&target)?;
        let only_one = found.members.len() == 1;
        let wanted = |n: &&u32| self.all || only_one || found.run.members[*n].failed();
        let chosen: Vec<u32> = found.members.iter().filter(wanted).copied().collect();
        // Of a large run, the stories of those that nobody asks about do not fit into memory.
        let stories = super::why::stories_of(&found, &chosen)?;
        if chosen.is_empty() {
            let jobs = count(found.members.len(), "job", "jobs");
            eprintln!("inquest: none of {jobs} failed; --all takes them all");
        }
        Ok(Picked { found, stories, chosen, step: super::events::step_of(&target) })
    }
}

impl Picked {
    pub(super) fn members(&self) -> impl Iterator<Item = &Member> {
        self.chosen.iter().map(|n| &self.found.run.members[n])
    }

    /// The chosen members with their newest attempts.
    pub(super) fn attempts(&self) -> impl Iterator<Item = (&Member, &Attempt)> {
        self.members().filter_map(|m| Some((m, self.stories.get(&m.job_id)?.attempts.last()?)))
    }

    /// The logs of an attempt; of one step only, when one was asked for.
    pub(super) fn logs(&self, member: &Member, attempt: &Attempt) -> Vec<LogFile> {
        let mut files = log_files(&self.found.run, member, attempt);
        files.retain(|f| self.step.is_none_or(|step| f.step == step));
        files
    }

    /// Whether a job that was asked for failed.
    pub(super) fn code(&self) -> u8 {
        if self.found.members.iter().any(|n| self.found.run.members[n].failed()) { FAILURES } else { GOOD }
    }
}

/// The failures of all members that were found, in the order of their numbers.
pub(super) fn failures(found: &Found, logs: bool) -> anyhow::Result<Vec<Failure>> {
    let run = &found.run;
    let may = |n: &u32| run.members[n].failed() || run.members[n].attempts > 1;
    let failed: Vec<u32> = found.members.iter().copied().filter(may).collect();
    let stories = super::why::stories_of(found, &failed)?;
    let each = |(): &mut (), number: &u32| {
        let member = &found.run.members[number];
        let story = stories.get(&member.job_id);
        story.map_or(Vec::new(), |story| failures::failures(&found.run, member, story, logs))
    };
    Ok(parallel::map(&found.members, || (), each).into_iter().flatten().collect())
}
