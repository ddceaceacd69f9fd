//! Ray. Every process of a cluster has the session's directory in its command,
//! `/tmp/ray/session_<stamp>_<pid>` (`python/ray/_private/node.py`); jobs that join a running
//! cluster have its address as `RAY_ADDRESS`.

use crate::runs::evidence::Evidence;
use crate::runs::key::{Candidate, KeyKind};

pub(super) fn find(at: &Evidence<'_>) -> Option<Candidate> {
    let member = at.env("RAY_JOB_ID");
    let session = at.argv.iter().find_map(|a| {
        let (_, rest) = a.split_once("/session_")?;
        let id = rest.split(['/', ' ']).next().filter(|id| id.len() >= 20)?;
        id.starts_with("20").then(|| format!("session_{id}"))
    });
    if let Some(session) = session {
        return Some(Candidate::new(KeyKind::Name, session, "argv").member(member));
    }
    let address = at.env("RAY_ADDRESS").filter(|a| a.contains(':'))?;
    Some(Candidate::new(KeyKind::Path, address, "env:RAY_ADDRESS").member(member))
}
