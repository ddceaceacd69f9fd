//! GNU parallel. What it starts has `PARALLEL_PID`, `PARALLEL_SEQ` and
//! `PARALLEL_JOBSLOT` (parallel(1), ENVIRONMENT VARIABLES). Inside a job these tell its tasks apart
//! and the job is the run already; only jobs that parallel itself has submitted
//! belong together by them. The process id means nothing without the directory.

use crate::runs::evidence::Evidence;
use crate::runs::key::{Candidate, KeyKind};

pub(super) fn find(at: &Evidence<'_>) -> Option<Candidate> {
    let pid = at.env("PARALLEL_PID").filter(|_| at.submitted)?;
    let run = format!("{pid} in {}", at.submit_dir?);
    Some(Candidate::new(KeyKind::Path, run, "env:PARALLEL_PID").member(at.env("PARALLEL_SEQ")))
}
