//! From the stores to the index: what is missing in it, what has grown, what
//! is gone.

use std::collections::HashMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::scan::RunScan;
use super::{IndexError, Updated, Writer};
use crate::ledger::RunName;
use crate::store::read::subdirectories;
use crate::store::{EventsFile, ReadError, run_dir};

/// Runs that are written in one transaction.
const BATCH: usize = 500;

/// Bytes of events in one.
const BATCH_BYTES: u64 = 64 << 20;

/// Threads that read runs.
const THREADS: usize = 8;

/// How far it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Runs that were looked at.
    pub runs: u64,
    /// Runs to look at.
    pub of: u64,
    /// Attempts that were written.
    pub jobs: u64,
    /// Bytes of events that were read.
    pub bytes: u64,
    /// Runs that could not be read.
    pub unread: u64,
    /// Why the first of them could not.
    pub why: Option<String>,
    /// Directories that could not be listed, and so no run in them be looked at.
    pub closed: Vec<PathBuf>,
}

impl Progress {
    fn unread(&mut self, e: &ReadError) {
        self.unread += 1;
        self.why.get_or_insert_with(|| e.to_string());
    }
}

/// Makes the whole index again. Readers do without it meanwhile.
///
/// # Errors
///
/// When the index cannot be written, or nothing of the store be listed. What is there
/// then is no index for readers until this, or [`catch_up`], has succeeded.
pub fn rebuild(
    writer: &mut Writer,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Progress, IndexError> {
    writer.clear()?;
    catch_up(writer, progress)
}

/// Brings the index to what the stores hold, unless `progress` says to stop;
/// what was done until then stays done. Costs a look at every run, and
/// reading those that have grown since they were indexed.
///
/// # Errors
///
/// As [`rebuild`].
pub fn catch_up(
    writer: &mut Writer,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Progress, IndexError> {
    // Before the first look: what is emptied later, this does not fill.
    let building = writer.building()?;
    let mut known = writer.lengths()?;
    let mut behind: Vec<(RunName, u64, bool)> = Vec::new();
    let mut at = Progress::default();
    let closed = each_run(writer.store(), &mut |name, length| {
        at.of += 1;
        match (length, known.remove(&name)) {
            (Ok(length), Some(indexed)) if indexed == length => at.runs += 1,
            (Ok(length), indexed) => behind.push((name, length, indexed.is_none())),
            // It stays in the index as it was.
            (Err(e), _) => {
                at.runs += 1;
                at.unread(&e);
            }
        }
    })?;
    at.closed = closed;
    let store = writer.store();
    let is_closed = |(cluster, user, _): &RunName| {
        let dir = store.join(cluster).join(user).join("runs");
        at.closed.iter().any(|closed| dir.starts_with(closed))
    };
    let gone: Vec<RunName> = known.into_keys().filter(|name| !is_closed(name)).collect();
    for some in gone.chunks(BATCH) {
        writer.forget(some)?;
    }
    let mut rest = behind.as_slice();
    while progress(at.clone()).is_continue() {
        if rest.is_empty() {
            if let Some(building) = building {
                writer.is_whole(building)?;
            }
            break;
        }
        let mut bytes = 0;
        let count = rest.iter().take(BATCH).take_while(|(_, length, _)| {
            let fits = bytes == 0 || bytes + length <= BATCH_BYTES;
            bytes += length;
            fits
        });
        let (now, later) = rest.split_at(count.count().max(1));
        let fresh: Vec<&(RunName, u64, bool)> = now.iter().filter(|(.., fresh)| *fresh).collect();
        let (scans, unread) = read(writer.store(), &fresh);
        unread.iter().for_each(|e| at.unread(e));
        at.jobs += writer.insert(scans)?;
        let grown = now.iter().filter(|(.., fresh)| !fresh).map(|(name, ..)| (name.clone(), None));
        let Updated { jobs, unread, .. } = writer.update(grown)?;
        at.jobs += jobs;
        unread.iter().for_each(|(_, e)| at.unread(e));
        at.runs += now.len() as u64;
        at.bytes += now.iter().map(|(_, length, _)| length).sum::<u64>();
        rest = later;
    }
    Ok(at)
}

/// Reads runs from their beginning, several at once; why some could not be read.
fn read(store: &Path, runs: &[&(RunName, u64, bool)]) -> (Vec<(RunName, RunScan)>, Vec<ReadError>) {
    let next = AtomicUsize::new(0);
    let one = || {
        let (mut scans, mut unread) = (Vec::new(), Vec::new());
        while let Some((name, length, _)) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut scan = RunScan::default();
            let done = EventsFile::open(&store.join(run_dir(&name.0, &name.1, &name.2)))
                .and_then(|file| scan.read::<ReadError>(&file, *length, &mut |_| Ok(None)));
            match done {
                Ok(()) => scans.push((name.clone(), scan)),
                Err(ReadError::NotFound(_)) => {} // It was removed since.
                Err(e) => unread.push(e),
            }
        }
        (scans, unread)
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS).min(runs.len());
    let mut all = (Vec::with_capacity(runs.len()), Vec::new());
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(one)).collect();
        let mut take = |(scans, unread): (Vec<_>, Vec<_>)| {
            all.0.extend(scans);
            all.1.extend(unread);
        };
        take(one());
        for other in others {
            match other.join() {
                Ok(done) => take(done),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    // The order in which they are numbered is that of the store.
    let order: HashMap<&RunName, usize> = runs.iter().enumerate().map(|(n, (name, ..))| (name, n)).collect();
    all.0.sort_by_key(|(name, _)| order.get(name).copied());
    all
}

/// Calls `each` with every run of the store and the length of its events, or why that cannot be seen. Says which
/// directories could not be listed: one that is closed must not cost the index of all others.
fn each_run(
    store: &Path,
    each: &mut dyn FnMut(RunName, Result<u64, ReadError>),
) -> Result<Vec<PathBuf>, ReadError> {
    let mut closed = Vec::new();
    for cluster in subdirectories(store)? {
        let dir = store.join(&cluster);
        let Ok(users) = subdirectories(&dir) else {
            closed.push(dir);
            continue;
        };
        for user in users {
            let runs = dir.join(&user).join("runs");
            let entries = match fs::read_dir(&runs) {
                Ok(entries) => entries,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(_) => {
                    closed.push(runs);
                    continue;
                }
            };
            for entry in entries {
                let Ok(entry) = entry else {
                    closed.push(runs);
                    break;
                };
                let Ok(run) = entry.file_name().into_string() else { continue };
                if run.starts_with('.') || entry.file_type().is_ok_and(|t| t.is_file()) {
                    continue; // It is being removed, or is no run.
                }
                match EventsFile::open(&entry.path()) {
                    Err(ReadError::NotFound(_)) => {}
                    file => each((cluster.clone(), user.clone(), run), file.map(|f| f.len())),
                }
            }
        }
    }
    Ok(closed)
}
