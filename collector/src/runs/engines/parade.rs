//! parade (R). Scripts set `PARADE_RUN_ID`. A flow sets nothing: its chunks are
//! jobs `<label>-c0001` (or `-c0001-0004`) that log to
//! `<registry>/<label>-<8 hex>/logs/`, and a script to `<registry>/script-<8 hex>/`.

use crate::runs::evidence::{Evidence, is_hex, is_number};
use crate::runs::key::{Candidate, KeyKind};

pub(super) fn find(at: &Evidence<'_>) -> Option<Candidate> {
    if let Some(id) = at.env("PARADE_RUN_ID") {
        return Some(Candidate::new(KeyKind::Env, id, "env:PARADE_RUN_ID").member(at.env("PARADE_CHUNK_ID")));
    }
    let registry = |name: &'_ str| {
        let (label, id) = name.rsplit_once('-')?;
        is_hex(id, 8).then(|| (label == "script", id.to_owned()))
    };
    let chunk = chunk(at.name);
    let found = |from: &str, path: &str| {
        if !path.contains("/logs") && !path.contains("/jobs") {
            return None; // As most have it, told at once.
        }
        let mut above = "";
        path.split('/').find_map(|part| {
            let above = std::mem::replace(&mut above, part);
            if !matches!(part, "logs" | "jobs") {
                return None;
            }
            let (script, id) = registry(above)?;
            (script || chunk.is_some())
                .then(|| Candidate::new(KeyKind::Path, id, from).member(chunk.filter(|_| !script)))
        })
    };
    let argument = at.argv.iter().find_map(|a| found("argv", a));
    argument.or_else(|| at.paths().find_map(|(from, path)| found(from, path)))
}

/// `0001-0004` of `model-c0001-0004`.
fn chunk(name: &str) -> Option<&str> {
    let (_, chunk) = name.rsplit_once("-c")?;
    let digits = |part: &str| part.len() == 4 && is_number(part);
    chunk.split('-').all(digits).then_some(chunk)
}
