/*!
Abnormal ends whose step could not be told at once.

A child and its parent often die together. When the parent is gone by the time
the child's record is read, the parent's own record, if it ended abnormally
too, is close behind and knows better.
*/

use std::collections::VecDeque;

use inquest_journal::Stamp;

use super::taskstats::Ended;

/// How long a record waits for its parent's.
pub(super) const PATIENCE_US: u64 = 500_000;
/// Records that may wait.
const MOST_WAITING: usize = 1024;

/// A record that waits.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub(super) ended: Ended,
    pub(super) stamp: Stamp,
}

/// Those that wait, oldest first.
#[derive(Debug, Default)]
pub(super) struct Deaths(VecDeque<Waiting>);

impl Deaths {
    /// Lets a record wait. Gives the one that has to leave for it.
    pub(super) fn wait(&mut self, ended: Ended, stamp: Stamp) -> Option<Waiting> {
        let full = self.0.len() >= MOST_WAITING;
        let out = if full { self.0.pop_front() } else { None };
        self.0.push_back(Waiting { ended, stamp });
        out
    }

    /// The waiting descendants of `pid`, whose step is now known: the deepest first.
    pub(super) fn take_family(&mut self, pid: u32) -> Vec<Waiting> {
        if !self.0.iter().any(|w| w.ended.ppid == pid) {
            return Vec::new();
        }
        let mut family = Vec::new();
        let mut parents = vec![pid];
        while let Some(parent) = parents.pop() {
            let (children, others) = self.0.drain(..).partition(|w| w.ended.ppid == parent);
            self.0 = others;
            let children: VecDeque<Waiting> = children;
            parents.extend(children.iter().map(|c| c.ended.pid));
            family.extend(children);
        }
        family.sort_by_key(|w| w.stamp.mono_us);
        family
    }

    /// Those that have waited long enough.
    pub(super) fn take_expired(&mut self, now_us: u64) -> Vec<Waiting> {
        let expired = self.0.iter().take_while(|w| w.stamp.mono_us + PATIENCE_US <= now_us).count();
        self.0.drain(..expired).collect()
    }

    /// When the first one will have.
    pub(super) fn deadline(&self) -> Option<u64> {
        self.0.front().map(|w| w.stamp.mono_us + PATIENCE_US)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(pid: u32, ppid: u32) -> Ended {
        let command = "x".into();
        Ended { pid, ppid, uid: 1, command, exit_code: Some(1), signal: None, core: false, peak_rss_bytes: 0 }
    }

    fn at(mono_us: u64) -> Stamp {
        Stamp { mono_us, ..Stamp::default() }
    }

    #[test]
    fn a_parent_speaks_for_its_descendants_in_the_order_of_their_ends() {
        let mut deaths = Deaths::default();
        deaths.wait(ended(12, 11), at(1));
        deaths.wait(ended(99, 98), at(2));
        deaths.wait(ended(13, 10), at(3));
        deaths.wait(ended(11, 10), at(4));
        let pids: Vec<u32> = deaths.take_family(10).iter().map(|w| w.ended.pid).collect();
        assert_eq!(pids, [12, 13, 11]);
        assert_eq!(deaths.0.len(), 1);
    }

    #[test]
    fn waiting_has_an_end() {
        let mut deaths = Deaths::default();
        deaths.wait(ended(1, 5), at(0));
        deaths.wait(ended(2, 5), at(10));
        assert_eq!(deaths.deadline(), Some(PATIENCE_US));
        assert_eq!(deaths.take_expired(PATIENCE_US + 9).len(), 1);
        assert_eq!(deaths.take_expired(PATIENCE_US + 10).len(), 1);
        assert_eq!(deaths.deadline(), None);
        for n in 0..MOST_WAITING as u32 {
            assert!(deaths.wait(ended(n, 5), at(0)).is_none());
        }
        assert_eq!(deaths.wait(ended(7, 5), at(0)).unwrap().ended.pid, 0);
    }
}
