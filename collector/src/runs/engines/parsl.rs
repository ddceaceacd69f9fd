//! Parsl. A block is a job `parsl.<executor>.block-<N>.<epoch>`, also as
//! `JOBNAME`, whose script and output are in `<run directory>/submit_scripts/`
//! (`parsl/providers/slurm/slurm.py`, `parsl/executors/status_handling.py`); workers get
//! `--logdir=<run directory>/<executor>` (`executors/high_throughput/executor.py`).

use crate::runs::evidence::{Evidence, around};
use crate::runs::key::{Candidate, KeyKind};

pub(super) fn find(at: &Evidence<'_>) -> Option<Candidate> {
    let name = [Some(at.name), at.env("JOBNAME")].into_iter().flatten().find(|n| n.starts_with("parsl."));
    let block = name.and_then(block);
    let (executor, number) = block.unzip();
    let member = number.map(|n| format!("block-{n}"));
    if let Some((run, _)) = at.option("--logdir").and_then(|dir| around(dir, "/"))
        && at.argv.iter().any(|a| a.contains("process_worker_pool"))
    {
        return Some(Candidate::new(KeyKind::Name, run, "argv").member(member));
    }
    let executor = executor?;
    if let Some((run, _)) = at.stdout.and_then(|log| around(log, "/submit_scripts/")) {
        return Some(Candidate::new(KeyKind::Path, run, "stdout").member(member));
    }
    let alike = format!("{executor} in {}", at.submit_dir?);
    Some(Candidate::new(KeyKind::Group, alike, "name, submit_dir").member(member))
}

/// Executor and block of `parsl.<executor>.block-<N>.<epoch>`.
fn block(name: &str) -> Option<(&str, &str)> {
    let (executor, rest) = name.strip_prefix("parsl.")?.rsplit_once(".block-")?;
    let (number, _) = rest.split_once('.').unwrap_or((rest, ""));
    Some((executor, number)).filter(|(e, n)| !e.is_empty() && crate::runs::evidence::is_number(n))
}
