/*!
Runs that cannot be written for a reason of their own: a file where a directory
is wanted, permissions, something that somebody has taken away or cut.

Such a run, or its user, is set aside, and everything else goes on. What was not
committed is forgotten and read again, as after a crash, and then the lines of
its jobs wait in the ledger, like those of which the run is not known yet. Now
and then it is looked whether the reason has gone; then they are merged, in
their order. What would keep every run from being written ends the collector.
*/

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use inquest_journal::JobId;
use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;

use super::{CollectError, Collector, JobKey};
use crate::follow::Event;
use crate::ledger::{HeldRow, RunName};
use crate::runs::RunKey;
use crate::store::{Appender, LEDGER, SITE, StoreError, run_dir};

/// Between two looks at whether the reasons have gone.
const LOOK: Duration = Duration::from_secs(5);

/// More of them are no matter of single runs.
const MOST: usize = 1000;

/// So many are named in the log; health.json names more.
const NAMED: usize = 20;

/// What is wrong with single runs or users, by errno.
const THEIRS: [Errno; 8] = [
    Errno::ACCESS,
    Errno::PERM,
    Errno::NOENT,
    Errno::NOTDIR,
    Errno::ISDIR,
    Errno::LOOP,
    Errno::NAMETOOLONG,
    Errno::STALE,
];

/// What is set aside.
#[derive(Debug, Default)]
pub(super) struct Aside {
    /// Directories of runs and of users, below the store.
    places: BTreeMap<PathBuf, Reason>,
    /// Jobs whose lines wait for that.
    jobs: BTreeSet<JobKey>,
    /// Such lines, as far as they are not in the ledger.
    pub(super) rows: Vec<HeldRow>,
    /// How many there are, in the ledger or not.
    pub(super) lines: u64,
    /// Lines that have waited, of jobs that nothing is in the way of any more.
    back: Vec<(JobKey, Vec<HeldRow>)>,
    look: Option<Instant>,
    /// So often something was, since all went well.
    times: usize,
}

#[derive(Debug)]
struct Reason {
    said: String,
    /// What could not be used.
    path: PathBuf,
    /// The length that it must have.
    length: Option<u64>,
}

impl Aside {
    fn has(&self, (cluster, user, run_id): &RunName) -> bool {
        !self.places.is_empty()
            && (self.places.contains_key(&run_dir(cluster, user, run_id))
                || self.places.contains_key(&Path::new(cluster).join(user)))
    }

    /// What is set aside, and why.
    pub(super) fn places(&self) -> impl Iterator<Item = (&PathBuf, &String)> {
        self.places.iter().map(|(place, reason)| (place, &reason.said))
    }

    /// Takes in why something below `store` could not be used; `false` when that is no matter of single runs, or of
    /// too many.
    pub(super) fn note(&mut self, store: &Path, error: &StoreError) -> bool {
        let Some(place) =
            place_of(store, error).filter(|p| self.places.len() < MOST || self.places.contains_key(p))
        else {
            return false;
        };
        let (path, length) = match error {
            StoreError::Io { path, .. } | StoreError::Removed { path } => (path, None),
            StoreError::Shortened { path, committed, .. } => (path, Some(*committed)),
        };
        if !self.places.contains_key(&place) {
            if self.places.len() < NAMED {
                tracing::warn!(
                    "{error}. {} is set aside, everything else goes on; its events wait in the ledger until that is \
                     mended",
                    place.display()
                );
            }
            self.look = Some(Instant::now() + LOOK);
        }
        self.places.insert(place, Reason { said: error.to_string(), path: path.clone(), length });
        true
    }
}

/// The run or the user, below the store, whose own matter an error is.
fn place_of(store: &Path, error: &StoreError) -> Option<PathBuf> {
    let (path, theirs) = match error {
        StoreError::Io { path, source } => (path, is_theirs(source)),
        StoreError::Removed { path } | StoreError::Shortened { path, .. } => (path, true),
    };
    let parts: Vec<_> = path.strip_prefix(store).ok().filter(|_| theirs)?.iter().collect();
    let length = match parts[..] {
        // What begins with an underscore is no run.
        [_, _, runs, run, ..] if runs == "runs" && !run.as_encoded_bytes().starts_with(b"_") => 4,
        [_, user, ..] if user != SITE => 2,
        _ => return None,
    };
    Some(parts[..length].iter().collect())
}

fn is_theirs(error: &io::Error) -> bool {
    // Without a number it is what was read that is wrong: a damaged archive, an early end.
    Errno::from_io_error(error).is_none_or(|e| THEIRS.contains(&e))
}

/// Whether what was in the way seems to have gone: tried without changing anything.
fn is_mended(place: &Path, reason: &Reason) -> bool {
    let is_there = |path: &Path| path.symlink_metadata().is_ok();
    let writable = |dir: &Path| {
        accessat(CWD, dir, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS).is_ok()
            && fs::metadata(dir).is_ok_and(|m| m.is_dir())
    };
    let path = reason.path.as_path();
    if !is_there(path) {
        // It is made anew where that can be done, or forgotten with all of its run.
        return (reason.length.is_none() || !is_there(place))
            && path.ancestors().find(|dir| is_there(dir)).is_some_and(writable);
    }
    let whole = match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => writable(path) && (path == place || path.ends_with("runs")),
        Ok(meta) => {
            meta.len() >= reason.length.unwrap_or(0)
                && fs::OpenOptions::new().read(true).append(true).open(path).is_ok()
        }
        Err(_) => false,
    };
    whole && path.parent().is_none_or(writable)
}

impl Collector {
    /// Sets aside what `error` is about, when that is a single run or user, and
    /// begins again from what is committed; says whether.
    pub(super) fn set_aside(&mut self, error: &CollectError) -> Result<bool, CollectError> {
        let CollectError::Store(error) = error else { return Ok(false) };
        let Some(place) = place_of(&self.options.store, error) else { return Ok(false) };
        self.aside.times += 1;
        // What was moved away is gone on without, as at a start.
        let removed = match error {
            StoreError::Removed { .. } => true,
            StoreError::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
            StoreError::Shortened { .. } => false,
        };
        let gone = removed && self.options.store.join(&place).symlink_metadata().is_err();
        let known = self.aside.places.contains_key(&place);
        // Without its ledger, all of the store is gone.
        if !self.options.store.join(LEDGER).exists() {
            return Ok(false);
        }
        if self.aside.times > MOST || !gone && (known || !self.aside.note(&self.options.store, error)) {
            return Ok(false);
        }
        self.begin_again()?;
        Ok(true)
    }

    /// Everything could be written.
    pub(super) fn all_is_well(&mut self) {
        self.aside.times = 0;
    }

    /// Brings back what nothing is in the way of any more, when it is time to look.
    pub(super) fn look_aside(&mut self) -> Result<(), CollectError> {
        if self.aside.places.is_empty() || self.aside.look.is_some_and(|at| Instant::now() < at) {
            return Ok(());
        }
        self.aside.look = Some(Instant::now() + LOOK);
        let store = &self.options.store;
        let mended = self.aside.places.iter().filter(|(place, why)| is_mended(&store.join(place), why));
        let mended: Vec<PathBuf> = mended.map(|(place, _)| place.clone()).collect();
        if mended.is_empty() {
            return Ok(());
        }
        for place in mended {
            tracing::info!("{} can be used again", place.display());
            self.aside.places.remove(&place);
        }
        self.begin_again()
    }

    /// Forgets everything that is not committed, as a crash does.
    fn begin_again(&mut self) -> Result<(), CollectError> {
        self.ledger.roll_back()?;
        self.appender = Appender::open(&self.options.store)?;
        self.load()
    }

    /// The run of that number is set aside.
    pub(super) fn is_aside(&self, run: i64) -> Result<bool, CollectError> {
        if self.aside.places.is_empty() {
            return Ok(false);
        }
        Ok(self.ledger.run(run)?.is_some_and(|row| self.aside.has(&row.name)))
    }

    /// The run of that name is set aside.
    pub(super) fn is_named_aside(&self, name: &RunName) -> bool {
        self.aside.has(name)
    }

    /// Lines of this job wait until its run is not aside any more.
    pub(super) fn waits_aside(&mut self, key: JobKey) -> Result<bool, CollectError> {
        if self.aside.places.is_empty() || self.jobs.contains_key(&key) {
            return Ok(false);
        }
        if self.aside.jobs.contains(&key) {
            return Ok(true);
        }
        let cluster = &self.clusters[usize::from(key.0)].1;
        let Some(row) = self.ledger.job(cluster, key.1)? else { return Ok(false) };
        self.is_aside(row.run)
    }

    /// Lets a line wait for its run, and with it all of its job that wait to know it.
    pub(super) fn put_aside(&mut self, key: JobKey, line: Option<&[u8]>) {
        if let Some(held) = self.held.remove(&key) {
            self.aside.lines += held.rows.len() as u64;
            self.aside.rows.extend(held.rows.into_iter().skip(held.committed));
        }
        self.aside.jobs.insert(key);
        if let Some(line) = line {
            let cluster = self.clusters[usize::from(key.0)].1.clone();
            self.aside.lines += 1;
            self.aside.rows.push(HeldRow { key: (cluster, key.1), uid: None, line: line.to_vec() });
        }
    }

    /// Takes the waiting lines from the ledger, each to where it waits.
    pub(super) fn load_held(&mut self) -> Result<(), CollectError> {
        let mut all: BTreeMap<JobKey, Vec<HeldRow>> = BTreeMap::new();
        for row in self.ledger.held()? {
            let Some(event) = Event::parse(&row.line) else { continue };
            let key = (self.cluster(&event.head.cluster), row.key.1);
            all.entry(key).or_default().push(row);
        }
        for (key, rows) in all {
            let cluster = &self.clusters[usize::from(key.0)].1;
            let known = self.ledger.job(cluster, key.1)?;
            let aside = known.as_ref().map_or(Ok(false), |row| self.is_aside(row.run))?;
            if aside {
                self.aside.lines += rows.len() as u64;
                self.aside.jobs.insert(key);
            } else if known.is_some() || rows.iter().any(|row| tells_run(row, key)) {
                // They would have been merged, had their run not been aside.
                self.aside.back.push((key, rows));
            } else {
                rows.into_iter().for_each(|row| self.hold_again(row));
            }
        }
        Ok(())
    }

    /// Merges lines that have waited for runs that are not aside any more.
    pub(super) fn merge_back(&mut self) -> Result<(), CollectError> {
        for (key, rows) in std::mem::take(&mut self.aside.back) {
            self.released.push(key);
            for row in rows {
                if let Some(mut event) = Event::parse(&row.line) {
                    self.assign(key, &mut event)?;
                }
            }
            if self.appender.waiting() >= self.checkpoint_bytes {
                self.checkpoint(false, false)?;
            }
        }
        Ok(())
    }

    /// So many places are set aside.
    pub(super) fn count_aside(&self) -> usize {
        self.aside.places.len()
    }

    /// Nothing waits for what is set aside, as far as memory goes.
    pub(super) fn forget_waiting(&mut self) {
        self.aside.jobs.clear();
        self.aside.rows.clear();
        self.aside.back.clear();
        self.aside.lines = 0;
    }
}

/// A line from which the run of its job is known.
fn tells_run(row: &HeldRow, key: JobKey) -> bool {
    let Some(event) = Event::parse(&row.line) else { return false };
    matches!(event.head.event_type.as_ref(), "job_started" | "step_started")
        && event.body(&mut Vec::new()).is_some_and(|body| RunKey::of(JobId(key.1), &body).is_some())
}
