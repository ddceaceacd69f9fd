/*!
What is kept, and how: which runs are compressed, which are removed.

Deciding is pure, so that `inquest gc --dry-run` says what the collector would
do. A run that has not ended is never touched.
*/

use std::collections::BTreeMap;

use inquest_journal::Timestamp;

use crate::ledger::RunName;

const HOUR_US: i64 = 3_600_000_000;

/// How long and how much, for all users or one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Days after its newest event after which a run is removed.
    pub days: Option<u32>,
    /// Bytes on disk of a user's runs; the oldest ones beyond are removed.
    pub bytes: Option<u64>,
}

/// What is to be kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Hours after its newest event after which a run is compressed.
    pub pack_hours: Option<u32>,
    /// For users that are not named.
    pub everyone: Limits,
    /// For these users, where they say something.
    pub users: BTreeMap<String, Limits>,
    /// Bytes on disk of all runs; the oldest ones beyond are removed.
    pub total_bytes: Option<u64>,
}

/// A run as it lies there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its directory.
    pub name: RunName,
    /// Newest event.
    pub last: Timestamp,
    /// A member is running.
    pub running: bool,
    /// Bytes on disk.
    pub bytes: u64,
    /// Its events are compressed, or not worth it.
    pub packed: bool,
}

/// What is done with a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Its events are compressed.
    Pack,
    /// It is removed: older than it may be.
    TooOld,
    /// It is removed: its user has more than may be.
    UserTooLarge,
    /// It is removed: all users together have more than may be.
    TooLarge,
}

impl Policy {
    /// The limits of a user.
    pub fn of(&self, user: &str) -> Limits {
        let own = self.users.get(user).copied().unwrap_or_default();
        Limits { days: own.days.or(self.everyone.days), bytes: own.bytes.or(self.everyone.bytes) }
    }

    /// Whether any run could ever be touched.
    pub fn is_nothing(&self) -> bool {
        *self == Policy::default()
    }
}

/// What is to be done with which of `runs`, removals first, oldest first.
pub fn plan(runs: &[Seen], policy: &Policy, now: Timestamp) -> Vec<(usize, Act)> {
    let mut oldest: Vec<usize> = (0..runs.len()).collect();
    oldest.sort_by(|a, b| (runs[*a].last, &runs[*a].name).cmp(&(runs[*b].last, &runs[*b].name)));
    let mut acts: Vec<Option<Act>> = vec![None; runs.len()];
    let age_hours = |run: &Seen| now.since(run.last).div_euclid(HOUR_US);
    for (run, act) in runs.iter().zip(&mut acts).filter(|(run, _)| !run.running) {
        let days = policy.of(&run.name.1).days;
        if days.is_some_and(|days| age_hours(run) >= i64::from(days) * 24) {
            *act = Some(Act::TooOld);
        }
    }
    let mut users: BTreeMap<&str, u64> = BTreeMap::new();
    let mut total = 0;
    for (run, _) in runs.iter().zip(&acts).filter(|(_, act)| act.is_none()) {
        *users.entry(&run.name.1).or_default() += run.bytes;
        total += run.bytes;
    }
    for &at in &oldest {
        let run = &runs[at];
        if run.running || acts[at].is_some() {
            continue;
        }
        let user = users.entry(&run.name.1).or_default();
        if policy.of(&run.name.1).bytes.is_some_and(|most| *user > most) {
            acts[at] = Some(Act::UserTooLarge);
        } else if policy.total_bytes.is_some_and(|most| total > most) {
            acts[at] = Some(Act::TooLarge);
        } else {
            continue;
        }
        *user -= run.bytes;
        total -= run.bytes;
    }
    for (run, act) in runs.iter().zip(&mut acts).filter(|(run, act)| !run.running && act.is_none()) {
        if !run.packed && policy.pack_hours.is_some_and(|hours| age_hours(run) >= i64::from(hours)) {
            *act = Some(Act::Pack);
        }
    }
    let mut plan: Vec<(usize, Act)> = oldest.iter().filter_map(|at| Some((*at, acts[*at]?))).collect();
    plan.sort_by_key(|(_, act)| *act == Act::Pack);
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_run() -> impl Strategy<Value = Seen> {
        (0u8..3, 0i64..2000, any::<bool>(), 0u64..1000, any::<bool>()).prop_map(
            |(user, hours, running, bytes, packed)| Seen {
                name: ("lab".into(), format!("u{user}"), format!("r{hours}-{bytes}")),
                last: Timestamp(hours * HOUR_US),
                running,
                bytes,
                packed,
            },
        )
    }

    fn any_limits() -> impl Strategy<Value = Limits> {
        (proptest::option::of(0u32..80), proptest::option::of(0u64..5000))
            .prop_map(|(days, bytes)| Limits { days, bytes })
    }

    proptest! {
        #[test]
        fn what_is_left_is_within_the_limits_and_nothing_goes_for_no_reason(
            runs in proptest::collection::vec(any_run(), 0..40),
            everyone in any_limits(), own in any_limits(),
            total_bytes in proptest::option::of(0u64..9000), pack_hours in proptest::option::of(0u32..2000),
        ) {
            let policy = Policy { pack_hours, everyone, users: [("u1".to_owned(), own)].into(), total_bytes };
            let now = Timestamp(2000 * HOUR_US);
            let plan = plan(&runs, &policy, now);
            let gone: Vec<usize> = plan.iter().filter(|(_, act)| *act != Act::Pack).map(|(at, _)| *at).collect();
            prop_assert!(plan.iter().all(|(at, _)| !runs[*at].running));
            let left = |user: Option<&str>| {
                let kept = runs.iter().enumerate().filter(|(at, _)| !gone.contains(at));
                let kept: Vec<&Seen> = kept.map(|(_, r)| r).filter(|r| user.is_none_or(|u| u == r.name.1)).collect();
                (kept.iter().map(|r| r.bytes).sum::<u64>(), kept.iter().all(|r| r.running))
            };
            for user in ["u0", "u1", "u2"] {
                let (bytes, only_running) = left(Some(user));
                prop_assert!(policy.of(user).bytes.is_none_or(|most| bytes <= most || only_running));
            }
            let (bytes, only_running) = left(None);
            prop_assert!(total_bytes.is_none_or(|most| bytes <= most || only_running));
            for (at, act) in &plan {
                let run = &runs[*at];
                let limits = policy.of(&run.name.1);
                let old = limits.days.is_some_and(|d| now.since(run.last) >= i64::from(d) * 24 * HOUR_US);
                match act {
                    Act::TooOld => prop_assert!(old),
                    Act::UserTooLarge => prop_assert!(!old && limits.bytes.is_some()),
                    Act::TooLarge => prop_assert!(!old && total_bytes.is_some()),
                    Act::Pack => prop_assert!(!old && !run.packed),
                }
                // Nothing younger goes for its size while something older could.
                if *act == Act::TooLarge {
                    let older = runs.iter().enumerate().filter(|(o, r)| r.last < run.last && !r.running && !gone.contains(o));
                    prop_assert_eq!(older.count(), 0);
                }
            }
        }
    }
}
