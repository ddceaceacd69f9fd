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

use rustix::process::Pid;

use crate::ledger::RunName;
use crate::store::index::{IndexError, Writer, catch_up};
use crate::units::count;

/// The thread's place among those that want the processor.
const LAST: i32 = 10;

/// It is not let behind for longer than about this: then it waits for the processor like everybody
/// else. On a host with more work than cores it would else get next to nothing.
const BEHIND: Duration = Duration::from_secs(10);

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
    /// When the oldest of what is not in the index yet was told.
    since: Option<Instant>,
    /// The thread, while it lets everybody else go first.
    nice: Option<Pid>,
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
        queue.since.get_or_insert_with(Instant::now);
        if queue.since.is_some_and(|at| at.elapsed() > BEHIND)
            && let Some(thread) = queue.nice.take()
        {
            // Needs LimitNICE, as our unit gives it, or root. Without, the index comes late and
            // is as right.
            match rustix::process::setpriority_process(Some(thread), 0) {
                Ok(()) => tracing::info!("the index is behind by more than {BEHIND:?}: it is hurried"),
                Err(e) => {
                    tracing::debug!("the index is behind by more than {BEHIND:?} and cannot be hurried: {e}")
                }
            }
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
    let mut writer: Option<Writer> = None;
    loop {
        give_way(shared);
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

/// Lets everybody else go first, when nothing waits: events come first, also where there is one
/// core. On Linux this is the thread's own affair.
fn give_way(shared: &Shared) {
    let mut queue = shared.lock();
    if !queue.grown.is_empty() {
        return;
    }
    queue.since = None;
    if queue.nice.is_none() {
        let lower = |thread: &Pid| rustix::process::setpriority_process(Some(*thread), LAST).is_ok();
        queue.nice = this_thread().filter(lower);
    }
}

/// The kernel's number of this thread.
fn this_thread() -> Option<Pid> {
    // SAFETY: no preconditions.
    Pid::from_raw(unsafe { libc::gettid() })
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
            let done = catch_up(writer, &mut { go_on })?;
            for dir in done.closed {
                tracing::warn!("what is in {} is not indexed: it cannot be listed", dir.display());
            }
            if let Some(why) = done.why {
                tracing::warn!(
                    "not indexed, or as before: {}, the first because of: {why}",
                    count(done.unread, "run", "runs")
                );
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn priority(thread: Pid) -> i32 {
        rustix::process::getpriority_process(Some(thread)).unwrap()
    }

    #[test]
    fn an_index_that_is_behind_is_hurried_and_gives_way_again() {
        let shared = Arc::new(Shared::default());
        give_way(&shared);
        let thread = this_thread().unwrap();
        assert_eq!((priority(thread), shared.lock().nice), (LAST, Some(thread)));
        let indexer = Indexer { shared: shared.clone(), thread: None };
        let run = || [(("c".into(), "u".into(), "r".into()), 7)];
        indexer.tell(run());
        assert_eq!(priority(thread), LAST, "it may be late by a little");
        shared.lock().since = Instant::now().checked_sub(BEHIND * 2);
        indexer.tell(run());
        // Only root may always do that, and a service with LimitNICE.
        let allowed = rustix::process::geteuid().is_root();
        assert_eq!(priority(thread), if allowed { 0 } else { LAST });
        give_way(&shared);
        assert_eq!(priority(thread), if allowed { 0 } else { LAST }, "not before nothing waits");
        shared.lock().grown.clear();
        give_way(&shared);
        assert_eq!((priority(thread), shared.lock().since), (LAST, None));
    }
}
