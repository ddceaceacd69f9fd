//! Cromwell. A call works in
//! `cromwell-executions/<workflow>/<uuid>/call-<task>[/shard-N][/attempt-N]/execution`;
//! the documented Slurm backend names its job `cromwell_<8 hex of the uuid>_<task>`.

use crate::runs::evidence::{Evidence, around, is_hex, is_uuid};
use crate::runs::key::{Candidate, KeyKind};

pub(super) fn find(at: &Evidence<'_>) -> Option<Candidate> {
    at.paths().find_map(|(from, path)| by_path(from, path)).or_else(|| {
        let (short, task) = at.name.strip_prefix("cromwell_")?.split_once('_')?;
        is_hex(short, 8).then(|| Candidate::new(KeyKind::Name, short, "name").member(Some(task)))
    })
}

fn by_path(from: &str, path: &str) -> Option<Candidate> {
    let (before, call) = around(path, "/call-")?;
    // A subworkflow has its own uuid below a call of the workflow above: the
    // first uuid is the one that was submitted.
    let (root, _) = before.split_once("/call-").unwrap_or((before, ""));
    let uuid = root.rsplit('/').next().filter(|id| is_uuid(id))?;
    let parts: Vec<&str> = call.split('/').take_while(|p| *p != "execution").collect();
    Some(Candidate::new(KeyKind::Path, uuid, from).member(Some(parts.join("/"))))
}
