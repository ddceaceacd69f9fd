/*!
The index follows behind the checkpoints, in a thread of its own.

The collector says which runs have grown and how much of them is committed, and
goes on. The thread reads the runs up to there and writes the index. What it is
told waits in a map with one entry per run, so it is bounded by the runs and not
by the events; when even that grows too large, or something fails, everything
told is dropped and the thread looks at all stores instead. The result is the
same, so nothing here can make the collector wait or fail.
*/

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::ledger::RunName;
use crate::store::index::{IndexError, Writer, catch_up};

/// The thread's place among those that want the processor.
const LAST: i32 = 10;

/// Runs that wait; beyond, all stores are looked at instead.
const WAITING: usize = 200_000;

/// Runs that are written in one transaction.
const BATCH: usize = 500;

/// After a failure.
const RETRY: Duration = Duration::from_secs(60);

/// Between two looks at whether the file is still there.
const LOOK: Duration = Duration::from_secs(5);

/// The thread that writes the index. Dropping it ends the thread after the
/// transaction that it is in; what waits then is found by the next collector.
#[derive(Debug)]
pub(super) struct Indexer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    /// Committed length of the events of runs that have grown.
    grown: HashMap<RunName, u64>,
    /// All stores are to be looked at.
    all: bool,
    /// The collector ends, when all that waits is done.
    finish: bool,
    /// It ends now.
    end: bool,
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        // A map is whole whoever panicked beside it.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Indexer {
    /// Begins with a look at all stores.
    pub(super) fn start(store: &Path) -> Indexer {
        let shared = Arc::new(Shared::default());
        shared.lock().all = true;
        let (theirs, store) = (shared.clone(), store.to_owned());
        let spawned = std::thread::Builder::new().name("index".into()).spawn(move || work(&theirs, &store));
        if let Err(e) = &spawned {
            tracing::warn!("no thread for the index: {e}; it is not kept, stores are read instead");
        }
        Indexer { shared, thread: spawned.ok() }
    }

    /// Says how much of some runs is committed. Returns at once.
    pub(super) fn tell(&self, grown: impl IntoIterator<Item = (RunName, u64)>) {
        let mut queue = self.shared.lock();
        queue.grown.extend(grown);
        if queue.grown.len() > WAITING {
            queue.grown = HashMap::new();
            queue.all = true;
        }
        self.shared.news.notify_one();
    }

    /// Returns when everything told is in the index, or cannot be.
    pub(super) fn finish(mut self) {
        self.shared.lock().finish = true;
        self.shared.news.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // It has said what went wrong.
        }
    }
}

impl Drop for Indexer {
    fn drop(&mut self) {
        self.shared.lock().end = true;
        self.shared.news.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What is to be done next.
enum Next {
    All,
    Runs(Vec<(RunName, Option<u64>)>),
    /// Nothing for a while.
    Look,
    End,
}

fn next(shared: &Shared) -> Next {
    let mut queue = shared.lock();
    if queue.grown.is_empty() && !queue.all && !queue.finish && !queue.end {
        queue = shared.news.wait_timeout(queue, LOOK).unwrap_or_else(PoisonError::into_inner).0;
    }
    if queue.end {
        return Next::End;
    }
    if std::mem::take(&mut queue.all) {
        // A look at everything sees these too.
        queue.grown.clear();
        return Next::All;
    }
    if !queue.grown.is_empty() {
        let some: Vec<RunName> = queue.grown.keys().take(BATCH).cloned().collect();
        let take = some.into_iter().filter_map(|name| queue.grown.remove_entry(&name));
        return Next::Runs(take.map(|(name, length)| (name, Some(length))).collect());
    }
    if queue.finish { Next::End } else { Next::Look }
}

fn work(shared: &Shared, store: &Path) {
    // Events come first, also where there is one core. On Linux this is the
    // thread's own affair.
    let _ = rustix::process::nice(LAST);
    let mut writer: Option<Writer> = None;
    loop {
        let next = next(shared);
        if matches!(next, Next::End) {
            return;
        }
        if writer.as_ref().is_some_and(Writer::is_gone) {
            // Somebody deleted it: a new one, from everything.
            writer = None;
            shared.lock().all = true;
            continue;
        }
        if let Err(e) = write(shared, &mut writer, store, next) {
            tracing::warn!("{e}; the collector goes on without the index and tries again");
            writer = None;
            if !pause(shared) {
                return;
            }
        }
    }
}

/// Waits after a failure; says whether to go on.
fn pause(shared: &Shared) -> bool {
    let until = Instant::now() + RETRY;
    let mut queue = shared.lock();
    while !queue.end && !queue.finish {
        let Some(left) = until.checked_duration_since(Instant::now()) else {
            queue.all = true;
            return true;
        };
        queue = shared.news.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
    }
    false
}

fn write(shared: &Shared, writer: &mut Option<Writer>, store: &Path, next: Next) -> Result<(), IndexError> {
    let writer = match writer {
        Some(writer) => writer,
        None => writer.insert(Writer::open(store)?),
    };
    match next {
        Next::All => {
            let go_on =
                |_| if shared.lock().end { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
            catch_up(writer, &mut { go_on })?;
        }
        Next::Runs(runs) => {
            let done = writer.update(runs)?;
            if let Some((name, e)) = done.unread.into_iter().next() {
                tracing::warn!("run {} of {} is not indexed: {e}", name.2, name.1);
            }
        }
        Next::Look | Next::End => {}
    }
    Ok(())
}
