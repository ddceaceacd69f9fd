//! The collector as a daemon: pass after pass, until it is asked to end.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, after, bounded, select};
use inquest_journal::Timestamp;

use super::health::{Daemon, NodeSeen};
use super::manager::Manager;
use super::{CollectError, Collector, Stats};
use crate::follow::Hints;

/// Between two looks at all nodes pass so many times as long as looking takes: on
/// a site of many nodes it may take a tenth of a core.
const LOOK_SHARE: u32 = 9;

/// The same as long as every change was told, too, and looks are for what is not.
const TOLD_SHARE: u32 = 49;

/// A pass that took so long is worth a line in the log.
const LONG: Duration = Duration::from_secs(10);

/// What a daemon has seen since it was started.
#[derive(Debug)]
pub(super) struct Watchman {
    manager: Manager,
    stop: Receiver<()>,
    pub(super) seen: Daemon,
    /// Of every node, its newest event.
    pub(super) nodes: HashMap<String, NodeSeen>,
}

impl Watchman {
    /// Says to the manager that work goes on, and whether it is to go on.
    pub(super) fn goes_on(&mut self) -> bool {
        self.manager.alive();
        self.stop.is_empty()
    }

    /// The newest event of a node has just been read.
    pub(super) fn saw(&mut self, node: &str, newest: Timestamp) {
        let delay_ms = now().since(newest) / 1000;
        match self.nodes.get_mut(node) {
            Some(seen) => (seen.newest, seen.delay_ms) = (seen.newest.max(newest), delay_ms),
            None => {
                let name = node.to_owned();
                self.nodes.insert(name.clone(), NodeSeen { node: name, newest, delay_ms });
            }
        }
    }

    /// A checkpoint was committed; how long all of it took.
    pub(super) fn committed(&mut self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let seen = &mut self.seen;
        seen.checkpoints += 1;
        seen.checkpoint_last_us = us;
        seen.checkpoint_longest_us = seen.checkpoint_longest_us.max(us);
        seen.checkpoint_sum_us += us;
    }

    fn passed(&mut self, stats: &Stats, took: Duration) {
        let seen = &mut self.seen;
        seen.passes += 1;
        seen.events += stats.events;
        seen.bytes += stats.bytes;
        seen.bad += stats.bad;
        seen.copies += stats.copies;
        seen.judged += stats.settled;
        if took >= LONG {
            let seconds = took.as_secs();
            tracing::info!(
                events = stats.events,
                bytes = stats.bytes,
                seconds,
                "caught up with the journals"
            );
        }
    }
}

impl Collector {
    /// Passes until `stop` says so, one every `interval`. When it returns,
    /// everything that was merged is durable.
    ///
    /// # Errors
    ///
    /// As [`Collector::pass`].
    pub fn follow(
        &mut self,
        interval: Duration,
        stop: &Receiver<()>,
        manager: Manager,
    ) -> Result<(), CollectError> {
        let started = now();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let seen =
            Daemon { version, pid: std::process::id(), started, updated: started, ..Daemon::default() };
        self.watchman = Some(Watchman { manager, stop: stop.clone(), seen, nodes: HashMap::new() });
        tracing::info!(
            journal = %self.options.journal.display(),
            store = %self.options.store.display(),
            open_jobs = self.jobs.len(),
            "collecting"
        );
        if let Some(watchman) = &self.watchman {
            watchman.manager.ready();
        }
        let (mut hints, mut due) = (Hints::new(), Instant::now());
        loop {
            let began = Instant::now();
            let told = hints.take();
            let look = if began < due {
                self.watch.look_at(told)
            } else {
                let share = if hints.relied_on() { TOLD_SHARE } else { LOOK_SHARE };
                let look = self.look_around(false)?;
                due = began + interval.max(self.looked * share);
                for journal in look.journals.iter().filter(|j| self.has_news(j)) {
                    let node = journal.node();
                    if !told.contains(node) {
                        hints.was_silent_on(node);
                    }
                }
                hints.listen_to(&self.options.journal, self.watch.nodes());
                look
            };
            let stats = match self.merge(&look, false) {
                Err(e) if self.set_aside(&e)? => {
                    due = Instant::now();
                    continue;
                }
                done => done?,
            };
            let took = began.elapsed();
            if let Err(e) = self.tidy(now())
                && !self.set_aside(&e)?
            {
                return Err(e);
            }
            let Some(watchman) = &mut self.watchman else { return Ok(()) };
            watchman.passed(&stats, took);
            if watchman.goes_on() {
                select! {
                    recv(stop) -> _ => {}
                    recv(after(interval.saturating_sub(began.elapsed()))) -> _ => continue,
                }
            }
            watchman.manager.stopping();
            self.tell_health(true)?;
            let Some(watchman) = self.watchman.take() else { return Ok(()) };
            let Daemon { events, judged, passes, .. } = watchman.seen;
            tracing::info!(events, judged, passes, "ends as it was asked to; all that was merged is durable");
            return Ok(());
        }
    }

    /// Tells the manager in a line how things stand.
    pub(super) fn tell_manager(&self) {
        let Some(watchman) = &self.watchman else { return };
        let (seen, open) = (&watchman.seen, self.jobs.len());
        let (events, judged) = (seen.events, seen.judged);
        watchman.manager.status(&format!(
            "{events} events of {} nodes merged since start, {judged} jobs judged, {open} open",
            watchman.nodes.len()
        ));
    }
}

/// The time of day.
pub(super) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
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
