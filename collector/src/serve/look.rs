//! Runs and jobs, for somebody who may see them.

use std::collections::BTreeSet;

use super::access::Viewer;
use super::data::{Problem, Sources};
use crate::store::index::{Filter, JobEntry, Place, RunEntry};
use crate::store::{EventsFile, read_head, read_line, run_dir};
use crate::story::Story;
use crate::verdict::Verdict;

/// Runs that are looked at together.
const RUNS: usize = 200;

/// Bytes of events that are read of one job.
const BYTES: u64 = 32 << 20;

/// Cluster, user and run id, as a URL names them.
pub type Name = (String, String, String);

/// A run that the viewer may see, and which members of it (`None`: all).
///
/// # Errors
///
/// [`Problem::NotFound`], whether it is not there or not theirs.
pub fn run(
    sources: &Sources<'_>,
    viewer: &Viewer,
    name: &Name,
) -> Result<(RunEntry, Option<Filter>), Problem> {
    let found = sources.index.run(name)?;
    if viewer.sees_all_of(&name.1) {
        return Ok((found.ok_or(Problem::NotFound)?, None));
    }
    let members = members_of(name, viewer);
    match found {
        Some(run) if !viewer.accounts.is_empty() && any(sources, &members)? => Ok((run, Some(members))),
        _ => Err(Problem::NotFound),
    }
}

/// Whether a filter leaves anything of its run.
fn any(sources: &Sources<'_>, members: &Filter) -> Result<bool, Problem> {
    Ok(!sources.index.members(members, 0, 1)?.is_empty())
}

/// The attempts of a run that the viewer may see.
pub fn members_of(name: &Name, viewer: &Viewer) -> Filter {
    Filter {
        cluster: Some(name.0.clone()),
        user: Some(name.1.clone()),
        run_id: Some(name.2.clone()),
        visible: viewer.visible(),
        ..Filter::default()
    }
}

/// Runs, the newest event first, at most `limit`. A run of which the viewer
/// sees some members has the status of those: the index knows that of all.
///
/// # Errors
///
/// When the index cannot be read.
pub fn runs(
    sources: &Sources<'_>,
    viewer: &Viewer,
    filter: &Filter,
    limit: usize,
) -> Result<Vec<RunEntry>, Problem> {
    let any = !filter.failed && filter.open.is_none();
    if any || viewer.sees_all() || viewer.accounts.is_empty() {
        return Ok(sources.index.runs(filter, limit)?);
    }
    let mut page = Filter { failed: false, open: None, ..filter.clone() };
    let mut found = Vec::new();
    loop {
        let runs = sources.index.runs(&page, RUNS)?;
        let next = runs.last().filter(|_| runs.len() == RUNS).map(RunEntry::place);
        for run in runs {
            let (failed, running) = if viewer.sees_all_of(&run.user) {
                (run.failed, run.running)
            } else {
                let name = (run.cluster.clone(), run.user.clone(), run.run_id.clone());
                let (classes, running) = sources.index.come_to(&members_of(&name, viewer))?;
                (crate::runs::failed(&classes), running)
            };
            if (!filter.failed || failed > 0) && filter.open.is_none_or(|open| open == (running > 0)) {
                found.push(run);
            }
            if found.len() >= limit {
                return Ok(found);
            }
        }
        match next {
            Some(place) => page.before = Some(place),
            None => return Ok(found),
        }
    }
}

/// Jobs of a run from member `from` on, nearly `limit`, and the number of the
/// member that comes after them.
///
/// # Errors
///
/// When the index cannot be read.
pub fn members(
    sources: &Sources<'_>,
    filter: &Filter,
    from: u32,
    limit: usize,
) -> Result<(Vec<JobEntry>, Option<u32>), Problem> {
    let mut jobs = sources.index.members(filter, from, limit + 1)?;
    let Some(beyond) = jobs.get(limit).map(|j| j.chunk_id) else { return Ok((jobs, None)) };
    // A page ends between members, unless one of them is longer than a page.
    let whole = jobs.iter().position(|j| j.chunk_id == beyond).filter(|at| *at > 0);
    jobs.truncate(whole.unwrap_or(limit));
    Ok((jobs, Some(if whole.is_some() { beyond } else { beyond.saturating_add(1) })))
}

/// All that is known of one member of a run.
#[derive(Debug)]
pub struct Job {
    /// Its run.
    pub run: RunEntry,
    /// Where its events are.
    pub place: Place,
    /// What happened.
    pub story: Story,
    /// What became of it.
    pub verdict: Option<Verdict>,
    /// More events than are read.
    pub cut: bool,
}

/// One member of a run.
///
/// # Errors
///
/// As [`run`].
pub fn job(sources: &Sources<'_>, viewer: &Viewer, name: &Name, chunk: u32) -> Result<Job, Problem> {
    let (entry, members) = run(sources, viewer, name)?;
    if let Some(members) = members
        && !any(sources, &Filter { chunk: Some(chunk), ..members })?
    {
        return Err(Problem::NotFound);
    }
    let place = sources.index.place(entry.id, chunk)?.ok_or(Problem::NotFound)?;
    let file = EventsFile::open(&sources.root.join(run_dir(&name.0, &name.1, &name.2)))?;
    let mut story = Story::default();
    let cut = each_line(&file, &place.extents, &mut |line| {
        let mut scratch = Vec::new();
        if let Some((head, mut body)) = read_line(line, &mut scratch)
            && head.job_id == Some(place.job_id)
        {
            story.apply(&head, &mut body);
        }
    })?;
    let verdict = match place.verdict {
        Some((at, length)) => serde_json::from_slice(&file.read(at, length as usize)?).ok(),
        None => None,
    };
    Ok(Job { run: entry, place, story, verdict, cut })
}

/// Calls `each` with the job's own lines; true when there were too many.
fn each_line(
    file: &EventsFile,
    extents: &[(u64, u32)],
    each: &mut dyn FnMut(&[u8]),
) -> Result<bool, Problem> {
    let mut left = BYTES;
    for &(at, length) in extents {
        // The part of a line at the end is no event.
        let part = u64::from(length).min(left);
        let bytes = file.read(at, part as usize)?;
        for (_, line) in inquest_journal::Lines::new(&bytes) {
            each(line);
        }
        if part < u64::from(length) {
            return Ok(true);
        }
        left -= part;
    }
    Ok(false)
}

/// A page of the events of a run.
#[derive(Debug)]
pub struct Page {
    /// Events as they are stored.
    pub events: Vec<Box<serde_json::value::RawValue>>,
    /// Where the next page begins, in bytes of the file; absent at its end.
    pub next: Option<u64>,
}

/// Bytes that are read for one page of events.
const PAGE_BYTES: usize = 4 << 20;

/// Events of a run from a position of its file on, at most `limit`.
///
/// # Errors
///
/// As [`run`]; when `from` is not where an event begins.
pub fn events(
    sources: &Sources<'_>,
    viewer: &Viewer,
    name: &Name,
    from: u64,
    limit: usize,
) -> Result<Page, Problem> {
    let (_, members) = run(sources, viewer, name)?;
    let file = EventsFile::open(&sources.root.join(run_dir(&name.0, &name.1, &name.2)))?;
    let before = from.checked_sub(1).map(|at| file.read(at, 1)).transpose()?;
    if from > file.len() || before.is_some_and(|b| b != b"\n") {
        return Err(Problem::Bad("from is what 'next' of another page said, or 0".into()));
    }
    let bytes = file.read(from, PAGE_BYTES)?;
    let mut at = from;
    let mut events = Vec::new();
    let chunks = || bytes.split_inclusive(|b| *b == b'\n').filter_map(|line| read_head(line)?.1);
    let seen = |members: Filter| match (chunks().min(), chunks().max()) {
        (Some(from), Some(to)) => sources.index.member_numbers(&members, from..=to),
        _ => Ok(BTreeSet::new()),
    };
    let members = members.map(seen).transpose()?;
    for line in bytes.split_inclusive(|b| *b == b'\n') {
        if events.len() >= limit || line.last() != Some(&b'\n') {
            break;
        }
        at += line.len() as u64;
        let Some((_, chunk)) = read_head(line) else { continue };
        // Events of the run itself count members that a coordinator may not see.
        let visible = members.as_ref().is_none_or(|m| chunk.is_some_and(|c| m.contains(&c)));
        if visible && let Ok(event) = serde_json::from_slice(line) {
            events.push(event);
        }
    }
    Ok(Page { events, next: (at < file.len() && at > from).then_some(at) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::EVENTS;

    #[test]
    fn a_job_in_one_large_piece_has_its_first_events() {
        let dir = tempfile::tempdir().unwrap();
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        std::fs::write(dir.path().join(EVENTS), line.repeat(33 << 10)).unwrap();
        let file = EventsFile::open(dir.path()).unwrap();
        let count = |extents: &[(u64, u32)]| {
            let mut lines = 0;
            let cut =
                each_line(&file, extents, &mut |line| lines += usize::from(line.len() == 1023)).unwrap();
            (lines, cut)
        };
        assert_eq!(count(&[(0, 33 << 20)]), (32 << 10, true));
        assert_eq!(count(&[(0, 1 << 20), (1 << 20, 32 << 20)]), (32 << 10, true));
        assert_eq!(count(&[(0, 32 << 20)]), (32 << 10, false));
        assert_eq!(count(&[(0, 1 << 20), (32 << 20, 1 << 20)]), (2 << 10, false));
    }
}
