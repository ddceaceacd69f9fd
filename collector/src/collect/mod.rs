/*!
The collector: moves events from journals into run stores, exactly once.

One pass looks at every journal, merges what is new and settles jobs that are
over. A checkpoint makes the result durable: run files are appended to, the
file system is synced, and then positions, seen events, file lengths and the
state of jobs and runs are committed to the ledger in one transaction. Killed
at any moment, the collector continues from the last checkpoint as if nothing
had happened.
*/

mod merge;
mod settle;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded, select, tick};
use inquest_journal::{JobId, Lines};
use jiff::tz::TimeZone;

use crate::follow::{self, Chunks, FollowError, Position};
use crate::ledger::{Changes, HeldRow, JobRow, Ledger, LedgerError, RunRow, StreamState};
use crate::runs::{RunState, RunStatus};
use crate::slurm::accounting::{Accounting, JobRecord};
use crate::slurm::target::fold_ranges;
use crate::store::{Appender, LEDGER, RUN, ReadError, RegistryEntry, StoreError, run_dir, user_dir};
use crate::story::Story;

/// What keeps the collector from going on.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum CollectError {
    #[error(transparent)]
    Follow(#[from] FollowError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("cannot make the store {path}: {source}; make the directory and give it to the collector's user")]
    NoStore { path: PathBuf, source: std::io::Error },
    #[error("cannot watch for signals: {0}")]
    Signals(std::io::Error),
}

/// Bytes merged before a checkpoint is made even inside a pass. Bounds the
/// memory of one.
const CHECKPOINT_BYTES: usize = 32 << 20;

/// Where the collector reads and writes.
#[derive(Clone, Debug)]
pub struct Options {
    /// Journal directory, one subdirectory per node.
    pub journal: PathBuf,
    /// Store directory.
    pub store: PathBuf,
    /// How long a job without a lasting step (script, extern) must be quiet
    /// before it counts as ended.
    pub quiet: Duration,
}

/// What a pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Lines merged.
    pub events: u64,
    /// Lines that had been merged before.
    pub copies: u64,
    /// Lines that are no events.
    pub bad: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Jobs judged.
    pub settled: u64,
}

type RunName = (String, String, String);
type JobName = (String, u32);

/// A job whose story is in memory.
#[derive(Debug)]
struct OpenJob {
    row: JobRow,
    run: RunName,
    story: Story,
    /// When the newest event was merged, by this process' clock.
    touched: Instant,
    /// When Slurm was last asked about it.
    asked: Option<Instant>,
    /// Slurm's final word on the current attempt.
    record: Option<JobRecord>,
    dirty: bool,
}

/// The collector's state between two checkpoints.
pub struct Collector {
    options: Options,
    accounting: Option<Box<dyn Accounting>>,
    accounting_retry: Option<Instant>,
    zone: TimeZone,
    ledger: Ledger,
    appender: Appender,
    positions: HashMap<String, Position>,
    moved: HashMap<String, u64>,
    streams: HashMap<String, (String, StreamState)>,
    jobs: HashMap<JobName, OpenJob>,
    runs: HashMap<RunName, RunState>,
    dirty_runs: HashSet<RunName>,
    held: Vec<HeldRow>,
    held_changed: bool,
    stats: Stats,
}

impl std::fmt::Debug for Collector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Collector").field("options", &self.options).field("stats", &self.stats).finish()
    }
}

impl Collector {
    /// Opens store and ledger and takes up where the last collector stopped.
    ///
    /// # Errors
    ///
    /// When another collector has the store, or it cannot be used.
    pub fn open(
        options: Options,
        accounting: Option<Box<dyn Accounting>>,
    ) -> Result<Collector, CollectError> {
        let no_store = |source| CollectError::NoStore { path: options.store.clone(), source };
        std::fs::create_dir_all(&options.store).map_err(no_store)?;
        let ledger = Ledger::open(&options.store.join(LEDGER))?;
        let appender = Appender::open(&options.store, ledger.outputs()?)?;
        let mut collector = Collector {
            positions: ledger.journals()?,
            held: ledger.held()?,
            options,
            accounting,
            accounting_retry: None,
            zone: TimeZone::system(),
            ledger,
            appender,
            moved: HashMap::new(),
            streams: HashMap::new(),
            jobs: HashMap::new(),
            runs: HashMap::new(),
            dirty_runs: HashSet::new(),
            held_changed: false,
            stats: Stats::default(),
        };
        for row in collector.ledger.open_jobs()? {
            let job = collector.load_job(row)?;
            collector.jobs.insert(job.row.key.clone(), job);
        }
        Ok(collector)
    }

    /// Merges what is new in all journals and settles what is over. With
    /// `last`, nothing more is waited for: jobs whose steps have all ended are
    /// judged now.
    ///
    /// # Errors
    ///
    /// When a journal, the store or the ledger fails in a way that going on
    /// would lose something. The collector must then be opened anew.
    pub fn pass(&mut self, last: bool) -> Result<Stats, CollectError> {
        self.stats = Stats::default();
        let (journals, errors) = follow::find(&self.options.journal)?;
        for error in errors {
            warn(&error.to_string());
        }
        for journal in &journals {
            if !follow::has_news(journal, self.positions.get(&journal.name)) {
                continue;
            }
            // One unreadable journal must not stop the others; it is looked at
            // again in the next pass, because its position stays as it was.
            if let Err(error) = self.merge_journal(journal) {
                match error {
                    CollectError::Follow(e) => warn(&e.to_string()),
                    fatal => return Err(fatal),
                }
            }
        }
        self.settle(last)?;
        self.checkpoint()?;
        Ok(self.stats)
    }

    fn merge_journal(&mut self, journal: &follow::Journal) -> Result<(), CollectError> {
        let mut chunks = Chunks::open(&self.options.journal, journal, self.positions.get(&journal.name))?;
        while let Some(piece) = chunks.piece()? {
            let mut lines = Lines::new(piece);
            let mut bad = 0;
            for (_, line) in lines.by_ref() {
                self.stats.bytes += line.len() as u64 + 1;
                if !self.merge_line(line)? {
                    bad += 1;
                }
            }
            let consumed = lines.consumed();
            chunks.consume(consumed);
            self.stats.bad += bad;
            *self.moved.entry(journal.name.clone()).or_default() += bad;
            self.positions.insert(journal.name.clone(), chunks.position().clone());
            if consumed == 0 {
                break; // Only the beginning of a line is left.
            }
            if self.appender.grew(consumed) >= CHECKPOINT_BYTES {
                self.checkpoint()?;
            }
        }
        // Also when nothing was consumed: the size was seen.
        self.positions.insert(journal.name.clone(), chunks.position().clone());
        self.moved.entry(journal.name.clone()).or_default();
        Ok(())
    }

    /// Makes everything merged so far durable. Order is the whole point: see
    /// the head of this file.
    fn checkpoint(&mut self) -> Result<(), CollectError> {
        if self.moved.is_empty()
            && self.dirty_runs.is_empty()
            && self.streams.is_empty()
            && !self.held_changed
        {
            return Ok(());
        }
        let mut changes = Changes::default();
        for name in self.dirty_runs.drain() {
            let Some(run) = self.runs.get(&name) else { continue };
            let open = run.status == RunStatus::Running;
            let state = serde_json::to_string(run).unwrap_or_default();
            let mut registry = serde_json::to_vec(&registry_entry(run)).unwrap_or_default();
            registry.push(b'\n');
            let file = user_dir(&run.cluster, &run.user).join(crate::store::REGISTRY);
            self.appender.buffer(&file.to_string_lossy()).extend_from_slice(&registry);
            let file = run_dir(&run.cluster, &run.user, &run.run_id).join(RUN);
            self.appender.replace(&file.to_string_lossy(), state.as_bytes())?;
            changes.runs.push(RunRow { key: name, state, open });
        }
        for job in self.jobs.values_mut().filter(|j| j.dirty) {
            changes.jobs.push(job.row.clone());
            job.dirty = false;
        }
        for (name, bad) in self.moved.drain() {
            if let Some(position) = self.positions.get(&name) {
                changes.journals.insert(name, (position.clone(), bad));
            }
        }
        changes.streams = std::mem::take(&mut self.streams);
        changes.held = std::mem::take(&mut self.held_changed).then(|| self.held.clone());
        changes.outputs = self.appender.flush()?;
        self.appender.sync()?;
        self.ledger.commit(&changes)?;
        // What is settled and durable need not stay in memory.
        self.jobs.retain(|_, job| job.row.open);
        let used: HashSet<&RunName> = self.jobs.values().map(|j| &j.run).collect();
        self.runs.retain(|name, _| used.contains(name));
        Ok(())
    }

    /// Passes until `stop` says so, one every `interval`.
    ///
    /// # Errors
    ///
    /// As [`Collector::pass`].
    pub fn follow(&mut self, interval: Duration, stop: &Receiver<()>) -> Result<(), CollectError> {
        let ticks = tick(interval);
        loop {
            self.pass(false)?;
            select! {
                recv(stop) -> _ => return Ok(()),
                recv(ticks) -> _ => {}
            }
        }
    }
}

/// A channel that speaks when the process is asked to end.
///
/// # Errors
///
/// When signals cannot be watched.
pub fn stop_on_signals() -> Result<Receiver<()>, CollectError> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let mut signals =
        signal_hook::iterator::Signals::new([SIGINT, SIGTERM]).map_err(CollectError::Signals)?;
    let (say, stop) = bounded(1);
    std::thread::spawn(move || {
        for _ in signals.forever() {
            let _ = say.try_send(()); // Full: it was said before.
        }
    });
    Ok(stop)
}

fn registry_entry(run: &RunState) -> RegistryEntry {
    let members = run.members.values();
    RegistryEntry {
        run_id: run.run_id.clone(),
        submitted_at: run.started,
        updated_at: run.last,
        status: run.status,
        backend: "slurm".into(),
        n_chunks: u32::try_from(run.members.len()).unwrap_or(u32::MAX),
        n_failed: run.failed(),
        classes: run.classes.clone(),
        name: run.name.clone(),
        jobs: fold_ranges(members.clone().map(|m| m.job_id.0)),
        arrays: fold_ranges(members.filter_map(|m| m.array_job_id).map(|JobId(id)| id)),
    }
}

/// One line for the service manager's log.
fn warn(text: &str) {
    eprintln!("inquest collect: {}", text.escape_debug());
}

/// The store's path of a run's events, relative to the store.
fn events_name(run: &RunName) -> String {
    let dir = run_dir(&run.0, &run.1, &run.2);
    Path::new(&dir).join(crate::store::EVENTS).to_string_lossy().into_owned()
}
