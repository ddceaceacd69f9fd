//! submitit. The script runs `python -u -m submitit.core._submit <folder>` under
//! srun with `SUBMITIT_EXECUTOR=slurm` and logs to `<folder>/%j_%t_log.out`, in
//! an array to `<folder>/%A_%a_%t_log.out` (`submitit/slurm/slurm.py`,
//! `submitit/core/utils.py`). A folder is used again and again; an array in it is one call.

use crate::runs::evidence::{Evidence, around, is_number};
use crate::runs::key::{Candidate, KeyKind};

pub(super) fn find(at: &Evidence<'_>) -> Option<Candidate> {
    let (kind, from, folder) = match folder(at) {
        Some(folder) => (KeyKind::Name, "argv", folder),
        None => (KeyKind::Path, "stdout", logged(at.stdout?)?),
    };
    let folder = without_job(at, folder);
    let run = match at.array {
        Some((array, _)) => format!("{folder} array {array}"),
        None => folder.to_owned(),
    };
    let member = at.array.and_then(|(_, task)| task).map(|n| n.to_string());
    Some(Candidate::new(kind, run, from).member(member))
}

/// The folder in the command.
pub(super) fn folder<'a>(at: &Evidence<'a>) -> Option<&'a str> {
    let module = at.argv.iter().position(|a| a == "submitit.core._submit")?;
    at.argv.get(module + 1).map(|f| f.trim_end_matches('/')).filter(|f| !f.is_empty())
}

/// The folder of a log of the job's script: `<folder>/123_0_log.out`.
fn logged(log: &str) -> Option<&str> {
    let (folder, file) = around(log, "/")?;
    let ids: Vec<&str> = file.strip_suffix("_log.out")?.split('_').collect();
    (matches!(ids.len(), 2 | 3) && ids.into_iter().all(is_number)).then_some(folder)
}

/// A folder may end in one of its job's own, as `%j`, `%A_%a` or what they mean.
fn without_job<'a>(at: &Evidence<'_>, folder: &'a str) -> &'a str {
    let Some((above, last)) = around(folder, "/") else { return folder };
    let own =
        |id: &str| id == at.job.to_string() || at.array.is_some_and(|(array, _)| id == array.to_string());
    if last.starts_with('%') || last.split('_').next().is_some_and(own) { above } else { folder }
}
