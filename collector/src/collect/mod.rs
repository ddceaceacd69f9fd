/*!
The collector: moves events from journals into run stores, exactly once.

One pass looks at every journal, merges what is new and settles jobs that are
over. What comes out depends on the committed state and on the lines that are
read, in their order, and on nothing else: not on where checkpoints fall and not
on how often the collector was killed. A checkpoint makes the result durable.
Killed at any moment, the collector continues from the last checkpoint as if
nothing had happened. It does the same by itself where single runs cannot be
written, and sets those aside.
*/

mod accounting;
mod aside;
mod asker;
mod checkpoint;
mod course;
mod daemon;
mod gone;
pub mod health;
mod indexer;
mod job;
mod lost;
mod manager;
mod merge;
mod resume;
mod run;
mod settle;
pub mod tidy;
mod window;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use inquest_journal::{Lines, Timestamp};
use jiff::tz::TimeZone;
use serde_json::value::RawValue;

use crate::follow::{self, Chunks, FollowError, Look, Position, Usual, Watch};
use crate::ledger::{Counts, FastHash, HeldRow, Ledger, LedgerError, MemberRow, RunName, StreamState};
use crate::slurm::accounting::Accounting;
use crate::store::{Appender, Clock, LEDGER, ReadError, StoreError, Tail, for_operators};
use crate::verdict::SiteRules;
use accounting::Backlog;
use aside::Aside;
use asker::Asker;
use daemon::Watchman;
pub use daemon::stop_on_signals;
use health::Health;
use indexer::Indexer;
use job::Job;
pub use manager::Manager;
use run::Run;
use tidy::Tidier;

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
    #[error("cannot make the store {path}: {source}; {}", next_step(source))]
    NoStore { path: PathBuf, source: std::io::Error },
    #[error("cannot watch for signals: {0}")]
    Signals(std::io::Error),
    #[error("no thread to ask Slurm: {0}; allow the collector more threads, or set accounting = \"off\"")]
    NoThread(std::io::Error),
}

/// To the collector's unit, all but the default store is read-only, whoever owns it.
fn next_step(no_store: &std::io::Error) -> &'static str {
    if no_store.kind() == std::io::ErrorKind::ReadOnlyFilesystem {
        "as a service it needs the directory in ReadWritePaths= in a drop-in (systemctl edit inquest-collect); else \
         mount the file system for writing"
    } else {
        "make the directory and give it to the collector's user"
    }
}

/// Bytes read or waiting to be written before a checkpoint is made even inside
/// a pass, unless told otherwise. Bounds the memory of one.
pub const CHECKPOINT_BYTES: usize = 64 << 20;

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
    /// Journals that could not be read.
    pub unreadable: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Jobs judged.
    pub settled: u64,
}

/// Number of the cluster among those met, and job id.
type JobKey = (u16, u32);

/// A member that the ledger does not know as it is, with its verdict when that is new.
type Changed = (MemberRow, Option<Box<RawValue>>);

/// Lines of one job that wait until it is known which run it belongs to.
#[derive(Debug, Default)]
struct Held {
    rows: Vec<HeldRow>,
    /// So many of them are in the ledger.
    committed: usize,
    /// The job's extern step has ended: nothing better will be known.
    ended: bool,
}

/// The collector's state between two checkpoints.
pub struct Collector {
    options: Options,
    accounting: Option<Asker>,
    accounting_retry: Option<Instant>,
    rules: SiteRules,
    /// What the accounting has learned and verdicts do not know yet.
    news: Option<Backlog>,
    /// When it is asked for more, and from when on.
    news_due: Option<Instant>,
    news_since: Option<i64>,
    clock: Clock,
    ledger: Ledger,
    appender: Appender,
    positions: BTreeMap<String, Position>,
    /// Since when journals are gone that have a position.
    gone: HashMap<String, Instant>,
    /// Journals that the ledger is to forget.
    forgotten: Vec<String>,
    moved: BTreeMap<String, Counts>,
    streams: HashMap<Box<str>, (Box<str>, StreamState), FastHash>,
    /// Clusters met: name in the journal, name in the store.
    clusters: Vec<(String, String)>,
    jobs: HashMap<JobKey, Job, FastHash>,
    /// Jobs that changed since the last checkpoint.
    changed: Vec<JobKey>,
    /// Open jobs that may be over.
    ending: BTreeSet<JobKey>,
    runs: HashMap<i64, Run, FastHash>,
    run_names: HashMap<RunName, i64>,
    /// Newest run of a weak group, where the ledger does not know it yet.
    alike: HashMap<i64, i64>,
    /// Runs that changed since the last checkpoint.
    touched: Vec<i64>,
    last_run: i64,
    /// Cluster, node and boot of the line before, and the newest boot met of every node.
    boot: (u16, Box<str>, Box<str>),
    boots: HashMap<(u16, Box<str>), Box<str>, FastHash>,
    /// Nodes (hashed) of which something was brought back from the ledger.
    brought_back: HashSet<u64, FastHash>,
    /// Runs whose end is to be told at the end of the pass.
    closing: BTreeSet<i64>,
    /// Files that are no run's: registries, events of no job.
    others: BTreeMap<PathBuf, Tail>,
    held: BTreeMap<JobKey, Held>,
    released: Vec<JobKey>,
    /// Runs that cannot be written.
    aside: Aside,
    /// Bytes read since the last checkpoint.
    read: usize,
    /// A checkpoint was written, in that time, and is to be committed.
    put: Option<Duration>,
    checkpoint_bytes: usize,
    /// When the piece that is being merged was read.
    now: Instant,
    scratch: Vec<u8>,
    usual: Usual,
    watch: Watch,
    /// How long a look at all nodes takes.
    looked: Duration,
    /// What journals are read into.
    buffer: Vec<u8>,
    /// Journals that could not be read when they were looked at last, with their
    /// node, and why.
    failed: BTreeMap<(String, PathBuf), String>,
    /// These, and what could not be looked at; it was said in the log.
    unreadable: BTreeMap<PathBuf, String>,
    health: Health,
    health_due: Instant,
    gaps_due: Instant,
    /// Names of users, which the name service takes its time to tell.
    users: HashMap<(String, u32), String>,
    stats: Stats,
    indexer: Option<Indexer>,
    /// Runs that the indexer is told of when they are committed.
    grown: Vec<(RunName, u64)>,
    tidier: Option<Tidier>,
    /// There when it runs as a daemon.
    watchman: Option<Watchman>,
    /// Time of the event that was merged last.
    newest: Timestamp,
    /// Runs that it goes on without: their directories were gone.
    removed_runs: u64,
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
        let ledger = options.store.join(LEDGER);
        // What else is wrong with it, SQLite says.
        if let Err(e) = for_operators(&ledger)
            && e.kind() == std::io::ErrorKind::ReadOnlyFilesystem
        {
            return Err(no_store(e));
        }
        let ledger = Ledger::open(&ledger)?;
        let appender = Appender::open(&options.store)?;
        let watch = Watch::new(&options.journal);
        let mut collector = Collector {
            positions: BTreeMap::new(),
            gone: HashMap::new(),
            forgotten: Vec::new(),
            last_run: 0,
            options,
            accounting: accounting.map(Asker::start).transpose()?,
            accounting_retry: None,
            rules: SiteRules::default(),
            news: None,
            news_due: None,
            news_since: None,
            clock: Clock::new(TimeZone::system()),
            ledger,
            appender,
            moved: BTreeMap::new(),
            streams: HashMap::default(),
            clusters: Vec::new(),
            jobs: HashMap::default(),
            changed: Vec::new(),
            ending: BTreeSet::new(),
            runs: HashMap::default(),
            run_names: HashMap::new(),
            alike: HashMap::new(),
            boot: (u16::MAX, "".into(), "".into()),
            boots: HashMap::default(),
            brought_back: HashSet::default(),
            touched: Vec::new(),
            closing: BTreeSet::new(),
            others: BTreeMap::new(),
            held: BTreeMap::new(),
            released: Vec::new(),
            aside: Aside::default(),
            read: 0,
            put: None,
            checkpoint_bytes: CHECKPOINT_BYTES,
            now: Instant::now(),
            scratch: Vec::new(),
            usual: Usual::default(),
            watch,
            looked: Duration::ZERO,
            buffer: Vec::new(),
            failed: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            health: Health::default(),
            health_due: Instant::now(),
            gaps_due: Instant::now(),
            users: HashMap::new(),
            stats: Stats::default(),
            indexer: None,
            grown: Vec::new(),
            tidier: None,
            watchman: None,
            newest: Timestamp(0),
            removed_runs: 0,
        };
        collector.load()?;
        Ok(collector)
    }

    /// Makes a checkpoint at least every so many bytes. Less memory, more
    /// waiting for the disk; the result is the same.
    pub fn checkpoint_every(&mut self, bytes: usize) {
        self.checkpoint_bytes = bytes.max(1);
    }

    /// Judges by a site's rules too, as far as they ask for no log.
    pub fn judge_by(&mut self, rules: SiteRules) {
        self.rules = rules;
    }

    /// Keeps the index of the store too, from now on.
    pub fn keep_index(&mut self) {
        self.indexer = Some(Indexer::start(&self.options.store));
    }

    /// Returns when the index holds all that was merged; nothing more is
    /// indexed then.
    pub fn finish_index(&mut self) {
        if let Some(indexer) = self.indexer.take() {
            indexer.finish();
        }
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
        loop {
            let look = self.look_around(last)?;
            match self.merge(&look, last) {
                Err(e) if self.set_aside(&e)? => {}
                done => return done,
            }
        }
    }

    /// Looks at all nodes.
    fn look_around(&mut self, everything: bool) -> Result<Look, CollectError> {
        let began = Instant::now();
        let look = self.watch.look(everything)?;
        let took = began.elapsed();
        // A single one that had to wait for something counts for little.
        self.looked = if self.looked.is_zero() { took } else { (self.looked * 3 + took) / 4 };
        Ok(look)
    }

    fn has_news(&self, journal: &follow::Journal) -> bool {
        follow::has_news(journal, self.positions.get(&journal.name))
    }

    /// Merges what a look has found and settles what is over.
    fn merge(&mut self, look: &Look, last: bool) -> Result<Stats, CollectError> {
        self.stats = Stats::default();
        self.now = Instant::now();
        self.look_aside()?;
        self.merge_back()?;
        self.failed.retain(|(node, _), _| !look.listed.contains(node));
        for journal in &look.journals {
            if !self.has_news(journal) {
                continue;
            }
            if !self.goes_on() {
                // The next life reads on from here.
                self.checkpoint(false, false)?;
                self.commit()?;
                return Ok(self.stats);
            }
            // One unreadable journal must not stop the others; it is looked at
            // again in the next pass, because its position stays as it was.
            if let Err(error) = self.merge_journal(journal) {
                match error {
                    // Compressed, moved or expired since it was listed.
                    CollectError::Follow(e) if e.is_gone() => self.watch.again(journal),
                    CollectError::Follow(e) => {
                        self.watch.again(journal);
                        self.failed.insert((journal.node().to_owned(), e.path.clone()), e.to_string());
                    }
                    fatal => return Err(fatal),
                }
            }
        }
        let failed = self.failed.iter().map(|((_, path), said)| (path.clone(), said.clone()));
        let mut unreadable: BTreeMap<PathBuf, String> = failed.collect();
        unreadable.extend(look.errors.iter().map(|e| (e.path.clone(), e.to_string())));
        self.stats.unreadable = unreadable.len() as u64;
        for (path, said) in &unreadable {
            // Once, and not with every pass.
            if self.unreadable.get(path) != Some(said) {
                tracing::warn!("{said}");
            }
        }
        self.unreadable = unreadable;
        self.forget_gone(look, self.now);
        self.settle(last)?;
        self.checkpoint(true, last)?;
        self.tell_health(last)?;
        self.all_is_well();
        Ok(self.stats)
    }

    fn merge_journal(&mut self, journal: &follow::Journal) -> Result<(), CollectError> {
        let buffer = std::mem::take(&mut self.buffer);
        let at = self.positions.get(&journal.name);
        let mut chunks = Chunks::open(&self.options.journal, journal, at, buffer)?;
        let merged = self.merge_chunks(journal, &mut chunks);
        self.buffer = chunks.into_buffer();
        merged
    }

    fn merge_chunks(&mut self, journal: &follow::Journal, chunks: &mut Chunks) -> Result<(), CollectError> {
        let node = journal.node();
        while let Some(piece) = chunks.piece()? {
            self.now = Instant::now();
            let mut lines = Lines::new(piece);
            let mut met = Counts::default();
            for (_, line) in lines.by_ref() {
                self.merge_line(line, node, &mut met)?;
            }
            let consumed = lines.consumed();
            chunks.consume(consumed);
            met.bad += chunks.take_oversized();
            self.stats.bytes += consumed as u64;
            self.stats.bad += met.bad;
            self.stats.copies += met.copies;
            *self.moved.entry(journal.name.clone()).or_default() += met;
            self.positions.insert(journal.name.clone(), chunks.position().clone());
            if let Some(watchman) = &mut self.watchman {
                watchman.goes_on();
                watchman.saw(node, self.newest);
            }
            if consumed == 0 {
                break; // Only the beginning of a line is left.
            }
            self.read += consumed;
            if self.read.max(self.appender.waiting()) >= self.checkpoint_bytes {
                self.checkpoint(false, false)?;
            }
        }
        // Also when nothing was consumed: the size was seen.
        let odd = chunks.take_oversized() + u64::from(chunks.damaged());
        self.stats.bad += odd;
        self.positions.insert(journal.name.clone(), chunks.position().clone());
        self.moved.entry(journal.name.clone()).or_default().bad += odd;
        Ok(())
    }

    /// Whether it has not been asked to end.
    fn goes_on(&mut self) -> bool {
        self.watchman.as_mut().is_none_or(Watchman::goes_on)
    }
}
