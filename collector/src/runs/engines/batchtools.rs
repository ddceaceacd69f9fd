//! batchtools and future.batchtools (R). A job is named by its hash,
//! `job<32 hex>`, or by its user, and logs to `<registry>/logs/<name>.log`
//! (`R/submitJobs.R`, `R/Job.R`). future.batchtools makes a registry for each future,
//! `.future/<stamp>-<6>/<label>_<n>`, so its run is the directory of the
//! session above.

use crate::runs::evidence::{Evidence, around, is_hex};
use crate::runs::key::{Candidate, KeyKind};

pub(super) fn find(at: &Evidence<'_>) -> Option<Candidate> {
    let log = at.stdout?;
    let (registry, file) = around(log, "/logs/")?;
    let hash = file.strip_suffix(".log")?.strip_prefix("job").filter(|h| is_hex(h, 32))?;
    Some(Candidate::new(KeyKind::Path, registry, "stdout").member(Some(hash)))
}

pub(super) fn find_future(at: &Evidence<'_>) -> Option<Candidate> {
    at.paths().find_map(|(from, path)| {
        let (before, after) = around(path, "/.future/")?;
        let mut parts = after.split('/');
        let session =
            parts.next().filter(|s| s.contains('-') && s.starts_with(|c: char| c.is_ascii_digit()))?;
        let run = format!("{before}/.future/{session}");
        Some(Candidate::new(KeyKind::Path, run, from).member(parts.next()))
    })
}
