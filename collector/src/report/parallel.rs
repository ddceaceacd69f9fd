//! Reading many logs at once.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::units::count;

/// Applies a function to all items, as many at a time as there are processors,
/// and gives the results in the order of the items. `new` makes what a thread
/// keeps from item to item. What takes longer than a second says on a terminal
/// how far it is.
pub fn map<T: Sync, S, R: Send>(
    items: &[T],
    new: impl Fn() -> S + Sync,
    each: impl Fn(&mut S, &T) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let progress = Progress { total: items.len(), done: AtomicUsize::new(0), began: Instant::now() };
    let work = || {
        let mut state = new();
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return done };
            done.push((index, each(&mut state, item)));
            progress.step();
        }
    };
    // A thread costs more than the question of one job.
    if items.len() <= 1 {
        let done = work();
        progress.end();
        return done.into_iter().map(|(_, result)| result).collect();
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(items.len());
    let mut all: Vec<(usize, R)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        // A panic of a worker is a bug and stays one.
        workers.into_iter().flat_map(|w| w.join().unwrap_or_else(|p| std::panic::resume_unwind(p))).collect()
    });
    progress.end();
    all.sort_by_key(|(index, _)| *index);
    all.into_iter().map(|(_, result)| result).collect()
}

struct Progress {
    total: usize,
    done: AtomicUsize,
    began: Instant,
}

impl Progress {
    fn shown(&self) -> bool {
        self.began.elapsed() > Duration::from_secs(1) && io::stderr().is_terminal()
    }

    fn step(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if self.shown() {
            let _ = write!(io::stderr(), "\r{done} of {} read\x1b[K", count(self.total, "job", "jobs"));
        }
    }

    fn end(&self) {
        if self.shown() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn results_stand_where_the_items_stood() {
        let items: Vec<u32> = (0..1000).collect();
        assert_eq!(super::map(&items, || (), |(), n| n * 2), items.iter().map(|n| n * 2).collect::<Vec<_>>());
        assert!(super::map(&[] as &[u32], || (), |(), n| *n).is_empty());
    }
}
