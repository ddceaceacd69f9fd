//! Dask, as dask-jobqueue submits it. The script runs
//! `python -m distributed.cli.dask_worker tcp://HOST:PORT --name NAME --nanny` (`dask_jobqueue/core.py`);
//! the job is called `dask-worker` unless told otherwise (`jobqueue.yaml`). The
//! scheduler's address is the run; it stands in the command only, so a job that
//! starts its worker without srun is known by its name alone.

use crate::runs::evidence::Evidence;
use crate::runs::key::{Candidate, KeyKind};

pub(super) fn find(at: &Evidence<'_>) -> Option<Candidate> {
    let is_worker = |a: &String| {
        let program = a.rsplit('/').next().unwrap_or(a);
        matches!(program, "distributed.cli.dask_worker" | "dask_worker" | "dask-worker" | "dask_worker.py")
    };
    if at.argv.iter().any(is_worker) {
        let scheme = |a: &&String| ["tcp://", "tls://", "ucx://"].iter().any(|s| a.starts_with(s));
        let address = at.argv.iter().find(scheme)?;
        return Some(Candidate::new(KeyKind::Name, address, "argv").member(at.option("--name")));
    }
    let dir = at.submit_dir.filter(|_| at.name == "dask-worker")?;
    Some(Candidate::new(KeyKind::Group, format!("dask-worker in {dir}"), "name, submit_dir"))
}
