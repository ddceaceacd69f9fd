//! Reading many logs at once.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Applies a function to all items, as many at a time as there are processors,
/// and gives the results in the order of the items. `new` makes what a thread
/// keeps from item to item.
pub fn map<T: Sync, S, R: Send>(
    items: &[T],
    new: impl Fn() -> S + Sync,
    each: impl Fn(&mut S, &T) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut state = new();
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return done };
            done.push((index, each(&mut state, item)));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(items.len());
    let mut all: Vec<(usize, R)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        // A panic of a worker is a bug and stays one.
        workers.into_iter().flat_map(|w| w.join().unwrap_or_else(|p| std::panic::resume_unwind(p))).collect()
    });
    all.sort_by_key(|(index, _)| *index);
    all.into_iter().map(|(_, result)| result).collect()
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
