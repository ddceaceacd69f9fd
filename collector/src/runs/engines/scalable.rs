//! Scalable (JGCRI). Workers are started over ssh inside an allocation
//! `<worker>-job` and are Dask workers; where its client exported
//! `SCALABLE_RUNS_DIR`, that is what its allocations have in common.

use crate::runs::evidence::Evidence;
use crate::runs::key::{Candidate, KeyKind};

pub(super) fn find(at: &Evidence<'_>) -> Option<Candidate> {
    let dir = at.env("SCALABLE_RUNS_DIR")?;
    let worker = at.name.strip_suffix("-job");
    Some(Candidate::new(KeyKind::Path, dir, "env:SCALABLE_RUNS_DIR").member(worker))
}
