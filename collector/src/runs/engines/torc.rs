//! torc. Its steps have `TORC_WORKFLOW_ID`, `TORC_RUN_ID`, `TORC_JOB_ID`,
//! `TORC_ATTEMPT_ID` and `TORC_API_URL`; the allocation they run in is a job
//! `<prefix>wf<W>_<pid>_<n>` that logs to `slurm_output_wf<W>_sl%j.o` in the
//! workflow's output directory (`src/client/hpc/slurm_interface.rs`).
//! Workflow ids count from 1 on every server.

use crate::runs::evidence::{Evidence, around, is_number};
use crate::runs::key::{Candidate, KeyKind};

pub(super) fn find(at: &Evidence<'_>) -> Option<Candidate> {
    if let Some(workflow) = at.env("TORC_WORKFLOW_ID") {
        let run = at.env("TORC_RUN_ID").map_or(String::new(), |r| format!(" run {r}"));
        let server = at.env("TORC_API_URL").map_or(String::new(), |u| format!(" at {u}"));
        let member = at.env("TORC_JOB_ID").map(|job| match at.env("TORC_ATTEMPT_ID") {
            Some(attempt) => format!("job {job} attempt {attempt}"),
            None => format!("job {job}"),
        });
        let key =
            Candidate::new(KeyKind::Env, format!("workflow {workflow}{run}{server}"), "env:TORC_WORKFLOW_ID");
        return Some(key.member(member));
    }
    let (_, ids) = at.name.rsplit_once("wf")?;
    let ids: Vec<&str> = ids.split('_').collect();
    let [workflow, pid, n] = ids[..] else { return None };
    if ![workflow, pid, n].into_iter().all(is_number) {
        return None;
    }
    let (output, log) = around(at.stdout?, "/")?;
    log.starts_with(&format!("slurm_output_wf{workflow}_")).then(|| {
        Candidate::new(KeyKind::Name, format!("workflow {workflow} in {output}"), "name, stdout")
            .member(Some(n))
    })
}
