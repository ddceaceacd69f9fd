//! Nextflow. A task logs to `<work>/<2 hex>/<30 hex>/.command.log` and its job
//! is called `nf-<process>_(<tag>)` (`SlurmExecutor.groovy`, `AbstractGridExecutor.groovy`).
//! No id of the session reaches the task: the work directory is the run, and
//! with it the command that started Nextflow, where the environment has it
//! (`NXF_CLI`, exported by the launcher).

use crate::runs::evidence::{Evidence, around, is_hex};
use crate::runs::key::{Candidate, KeyKind};

pub(super) fn find(at: &Evidence<'_>) -> Option<Candidate> {
    let task = |path: &'_ str| -> Option<(String, String)> {
        let (rest, hash) = around(path, "/")?;
        let (work, two) = around(rest, "/")?;
        (is_hex(two, 2) && is_hex(hash, 30)).then(|| (work.to_owned(), format!("{two}/{}", &hash[..6])))
    };
    let by_log = at.stdout.and_then(|log| task(log.strip_suffix("/.command.log")?));
    let (from, (work, member)) = match by_log {
        Some(found) => ("stdout", found),
        None => ("env:NXF_TASK_WORKDIR", task(at.env("NXF_TASK_WORKDIR")?)?),
    };
    let run = match at.env("NXF_CLI") {
        Some(command) => format!("{work} of {command}"),
        None => work,
    };
    Some(Candidate::new(KeyKind::Path, run, from).member(Some(member)))
}
