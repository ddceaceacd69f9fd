//! A place for what a job says itself: `INQUEST_NOTE` in its environment is the path of a file to which it may
//! append, and which the node agent reads.
//!
//! The file is the user's and made by the user, in a directory of the user's own that this plugin makes where
//! it is missing. Without such a directory there is no variable, so that nobody writes to a path that
//! cannot be.

use std::ffi::CStr;
use std::os::unix::ffi::OsStrExt;

use inquest_journal::{JobId, StepId};

use crate::abi::Spank;
use crate::args::Config;
use crate::small::{Fixed, own_new_dir};

const VARIABLE: &CStr = c"INQUEST_NOTE";

/// Sets the variable; takes it away where there is no such user, or it cannot be set. The extern step has no tasks
/// to read it.
pub(crate) fn offer(
    spank: &Spank<'_>,
    config: &Config,
    uid: Option<u32>,
    job: JobId,
    step: StepId,
    pid: u32,
) {
    let Some(dir) = &config.note else { return };
    if step == StepId::Extern {
        return;
    }
    let path = uid.and_then(|uid| place(dir.as_os_str().as_bytes(), uid, job, step, pid));
    // The job's environment may hold that of another step or node.
    spank.host.set_env(spank.handle, VARIABLE, path.as_ref().map(Fixed::as_c_str));
}

/// `DIR/<uid>/<job>.<step>.<slurmstepd>`, unique among all steps since the node's start.
fn place(dir: &[u8], uid: u32, job: JobId, step: StepId, pid: u32) -> Option<Fixed<512>> {
    let mut path = Fixed::new();
    path.push(dir)?;
    path.push(b"/")?;
    path.push_number(uid)?;
    if !own_new_dir(path.as_c_str(), uid) {
        return None;
    }
    path.push(b"/")?;
    path.push_number(job.0)?;
    path.push(b".")?;
    match step {
        StepId::Number(n) => path.push_number(n)?,
        other => path.push(other.to_string().as_bytes())?,
    }
    path.push(b".")?;
    path.push_number(pid)?;
    Some(path)
}
