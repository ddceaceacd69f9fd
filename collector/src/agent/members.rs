/*!
Which step a process belonged to that is no more.

When the record of its end arrives, its own cgroup is usually gone; its parent's
is not, as long as the parent lives. What was once seen of a pid stands in
for what cannot be seen any more, but only for as long as the pid cannot have
become somebody else's.
*/

use std::collections::HashMap;

use super::steps::{Place, Steps};
use super::taskstats::Ended;

/// What looking at a process in /proc gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// It lives, or has not been reaped, in this step.
    In(Place),
    /// It is in a cgroup that is no step's.
    Elsewhere,
    /// It is ending and shows no cgroup any more (v1), but still its family.
    Ending {
        parent: u32,
        /// Its process group, by the pid of the leader. That pid is given to
        /// no other process as long as the group has members.
        group: u32,
    },
    /// Nothing left to see.
    Gone,
}

/// What is known of a process' membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Membership {
    Of(Place),
    /// Not of a step.
    None,
    /// It was not to be found out.
    Unknown,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    place: Option<Place>,
    at_us: u64,
}

/// Processes seen lately.
#[derive(Debug, Default)]
pub(super) struct Members {
    young: HashMap<u32, Seen>,
    old: HashMap<u32, Seen>,
}

/// Pids per generation; two are kept.
const GENERATION: usize = 8192;
/// For so long nobody looks again: a storm of ends with one parent costs one look.
const FRESH_US: u64 = 1_000_000;
/// For so long a pid that is gone counts as what it was. It may be given to
/// another process once all others were: 32,768 forks at the very least.
const GONE_US: u64 = 5_000_000;
/// Generations of ending ancestors that are climbed.
const MOST_ANCESTORS: u32 = 8;

impl Members {
    /// The step of a process. `look` reads /proc.
    pub(super) fn find(
        &mut self,
        ended: &Ended,
        steps: &Steps,
        now_us: u64,
        mut look: impl FnMut(u32) -> Look,
    ) -> Membership {
        let (pid, ppid, uid) = (ended.pid, ended.ppid, Some(ended.uid));
        if let Some(place) = steps.of_task(pid, uid, now_us) {
            return Membership::Of(place);
        }
        // A process whose parent died first is init's child and says nothing
        // by that, so it is asked itself.
        let orphan = ppid <= 1;
        let mut asked = if orphan { pid } else { ppid };
        for _ in 0..MOST_ANCESTORS {
            if let Some(place) = steps.of_task(asked, uid, now_us) {
                return Membership::Of(place);
            }
            let seen = self.get(asked);
            let age_us = seen.map_or(u64::MAX, |s| now_us.saturating_sub(s.at_us));
            if let Some(seen) = seen.filter(|_| age_us < FRESH_US) {
                return seen.place.map_or(Membership::None, Membership::Of);
            }
            let found = look(asked);
            match (found, seen.filter(|_| age_us < GONE_US).and_then(|s| s.place)) {
                (Look::In(place), _) => {
                    self.put(asked, Some(place), now_us);
                    return Membership::Of(place);
                }
                (Look::Elsewhere, _) => {
                    self.put(asked, None, now_us);
                    return Membership::None;
                }
                (Look::Ending { .. } | Look::Gone, Some(place)) => return Membership::Of(place),
                (Look::Ending { parent, .. }, None) if parent > 1 => asked = parent,
                (Look::Ending { .. } | Look::Gone, None) => break,
            }
        }
        // Not reaped yet, it may still be in its cgroup (v2), and in its group.
        let place = match look(pid) {
            Look::In(place) => Some(place),
            Look::Ending { group, .. } => steps.of_group(group, uid, now_us).or_else(|| {
                self.get(group).filter(|s| now_us.saturating_sub(s.at_us) < GONE_US).and_then(|s| s.place)
            }),
            Look::Elsewhere | Look::Gone => None,
        };
        place.map_or(Membership::Unknown, Membership::Of)
    }

    /// Notes where a process was, as somebody else found out.
    pub(super) fn put(&mut self, pid: u32, place: Option<Place>, at_us: u64) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(pid, Seen { place, at_us });
    }

    fn get(&self, pid: u32) -> Option<Seen> {
        self.young.get(&pid).or_else(|| self.old.get(&pid)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use inquest_journal::{JobId, StepId};

    const HERE: Place = Place { key: (JobId(7), StepId::Batch), task: Some(0) };

    fn ended(pid: u32, ppid: u32) -> Ended {
        let command = "x".into();
        Ended { pid, ppid, uid: 1, command, exit_code: Some(1), signal: None, core: false, peak_rss_bytes: 0 }
    }

    #[test]
    fn a_living_parent_is_asked_once_a_second() {
        let (mut members, steps) = (Members::default(), Steps::new("n1"));
        let mut looks = 0;
        for n in 0..100 {
            let found = members.find(&ended(1000 + n, 50), &steps, 1_000 * u64::from(n), |pid| {
                assert_eq!(pid, 50);
                looks += 1;
                Look::In(HERE)
            });
            assert_eq!(found, Membership::Of(HERE));
        }
        assert_eq!(looks, 1);
        let later = members.find(&ended(2000, 50), &steps, 2_000_000, |_| Look::Elsewhere);
        assert_eq!(later, Membership::None);
    }

    #[test]
    fn a_parent_that_is_gone_counts_as_what_it_was_for_a_while() {
        let (mut members, steps) = (Members::default(), Steps::new("n1"));
        members.put(50, Some(HERE), 0);
        let gone = |_| Look::Gone;
        assert_eq!(members.find(&ended(60, 50), &steps, 3_000_000, gone), Membership::Of(HERE));
        assert_eq!(members.find(&ended(60, 50), &steps, 6_000_000, gone), Membership::Unknown);
        let zombie = |pid| if pid == 60 { Look::In(HERE) } else { Look::Gone };
        assert_eq!(members.find(&ended(60, 50), &steps, 6_000_000, zombie), Membership::Of(HERE));
    }

    fn ending(parent: u32, group: u32) -> Look {
        Look::Ending { parent, group }
    }

    #[test]
    fn an_orphan_still_has_its_process_group() {
        let (mut members, steps) = (Members::default(), Steps::new("n1"));
        members.put(40, Some(HERE), 0);
        let orphan = |pid| if pid == 70 { ending(1, 40) } else { Look::Gone };
        assert_eq!(members.find(&ended(70, 1), &steps, 2_000_000, orphan), Membership::Of(HERE));
        assert_eq!(members.find(&ended(70, 60), &steps, 2_000_000, orphan), Membership::Of(HERE));
        assert_eq!(members.find(&ended(70, 60), &steps, 9_000_000, orphan), Membership::Unknown);
    }

    #[test]
    fn ending_ancestors_are_climbed() {
        let (mut members, steps) = (Members::default(), Steps::new("n1"));
        let family = |pid| match pid {
            60 => ending(50, 50),
            50 => ending(40, 50),
            40 => Look::In(HERE),
            _ => Look::Gone,
        };
        assert_eq!(members.find(&ended(70, 60), &steps, 0, family), Membership::Of(HERE));
        assert_eq!(members.find(&ended(71, 61), &steps, 0, |_| ending(61, 61)), Membership::Unknown);
        assert_eq!(members.find(&ended(72, 62), &steps, 0, |_| ending(1, 62)), Membership::Unknown);
    }

    #[test]
    fn an_orphan_is_asked_itself() {
        let (mut members, steps) = (Members::default(), Steps::new("n1"));
        let init = |pid| {
            assert_ne!(pid, 1);
            Look::Gone
        };
        assert_eq!(members.find(&ended(60, 1), &steps, 0, init), Membership::Unknown);
        members.put(60, Some(HERE), 0);
        assert_eq!(members.find(&ended(60, 1), &steps, 2_000_000, init), Membership::Of(HERE));
    }

    #[test]
    fn memory_is_bounded() {
        let mut members = Members::default();
        for pid in 0..100_000 {
            members.put(pid, None, 0);
        }
        assert!(members.young.len() + members.old.len() <= 2 * GENERATION);
        assert!(members.get(99_999).is_some() && members.get(0).is_none());
    }
}
