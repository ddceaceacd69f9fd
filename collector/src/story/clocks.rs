/*!
How far the clocks of a job's nodes stand apart, as far as what they were told at the same time can
say.

No message between nodes carries a time, and nobody knows here how well a clock is kept. But srun
tells all nodes of a step at once to begin it, and slurmctld tells all nodes of a job at once to
begin and to end it (`src/api/step_launch.c`, `src/slurmctld/agent.c`: a tree of messages, each
level some milliseconds). Each node notes by its own clock when it obeyed. The
difference of two such notes is that of the clocks and of two delays. A clock that is wrong is wrong
each time, a delay is another one each time: so the range of the differences bounds how far the
clocks are apart, and what is less than [`NATURAL_US`] beyond it may be the delays alone.
*/

use std::collections::BTreeMap;
use std::fmt;

use inquest_journal::{StepId, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Attempt, Moment};

/// By so much one node may obey later than another each time, being slower: no clock is called
/// wrong for less. In microseconds.
pub const NATURAL_US: i64 = 1_000_000;

/// How far delays may carry a difference that nothing else confirms, in microseconds.
const ALONE_US: i64 = 500_000;

/// The same, beyond the range of several, in microseconds.
const BEYOND_US: i64 = 100_000;

/// What was told first and last is enough: so much of each is looked at.
const LOOKED_AT: usize = 32;

/// Nodes that are named; where more are wrong, the rest is to be compared with is wrong.
const NAMED: usize = 20;

/// The notes of several nodes of what they were told at the same time.
#[derive(Clone, Debug, Default)]
pub struct Clocks {
    told: Vec<Told>,
}

/// One thing that several nodes were told at the same time.
#[derive(Clone, Debug)]
struct Told {
    ends: bool,
    step: StepId,
    at: BTreeMap<String, Timestamp>,
}

/// How far the clock of one node is ahead of another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Apart {
    /// The middle of what can be, in microseconds.
    pub ahead_us: i64,
    /// By so much it can be more or less.
    pub give_us: i64,
}

impl Apart {
    fn of(mut differences: Vec<i64>) -> Option<Apart> {
        differences.sort_unstable();
        // One launch in eight that hung says nothing of a clock.
        let off = differences.len() / 8;
        let (low, high) = (*differences.get(off)?, *differences.get(differences.len() - 1 - off)?);
        let beyond = if differences.len() == 1 { ALONE_US } else { BEYOND_US };
        let half = high.saturating_sub(low) / 2;
        Some(Apart { ahead_us: low.saturating_add(half), give_us: half.saturating_add(beyond) })
    }

    /// More than delays can explain.
    pub fn is_wrong(self) -> bool {
        self.ahead_us.saturating_abs().saturating_sub(self.give_us) > NATURAL_US
    }

    /// By so much times of the two may be wrong against each other, after
    /// [`Apart::correction_us`].
    pub fn bound_us(self) -> i64 {
        if self.is_wrong() {
            self.give_us
        } else {
            self.ahead_us.saturating_abs().saturating_add(self.give_us)
        }
    }

    /// What is to be taken off the time of the one: nothing while the clocks may be right.
    pub fn correction_us(self) -> i64 {
        if self.is_wrong() { self.ahead_us } else { 0 }
    }
}

/// A clock that is wrong, or the other one is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skew {
    /// The node.
    pub node: String,
    /// The one other node; absent when it is against the middle of several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against: Option<String>,
    /// How far it is ahead, in microseconds; negative when it is behind.
    pub ahead_us: i64,
    /// By so much it can be more or less.
    pub give_us: i64,
    /// From so many starts of steps.
    pub starts: usize,
    /// From so many ends of jobs.
    pub ends: usize,
    /// The step, where it is from one start alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepId>,
}

impl fmt::Display for Skew {
    /// `n17's clock is about 3.2 s behind n18's (±0.4 s, from 3 starts of steps)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = if self.ahead_us < 0 { "behind" } else { "ahead of" };
        let by = seconds(self.ahead_us.saturating_abs());
        write!(f, "{}'s clock is about {by} {side} ", self.node)?;
        match &self.against {
            Some(node) => write!(f, "{node}'s")?,
            None => f.write_str("those of the other nodes")?,
        }
        write!(f, " (±{}, from ", seconds(self.give_us))?;
        match (self.starts, self.step) {
            (0, _) => {}
            (1, Some(step)) => write!(f, "the start of step {step}")?,
            (1, None) => f.write_str("1 start of a step")?,
            (n, _) => write!(f, "{n} starts of steps")?,
        }
        if self.starts > 0 && self.ends > 0 {
            f.write_str(" and ")?;
        }
        match self.ends {
            0 => {}
            1 => f.write_str("the end of the job")?,
            n => write!(f, "{n} ends of jobs")?,
        }
        f.write_str(")")
    }
}

/// `3.2 s`, `0.35 s`: as exact as a clock of which only this is known.
pub fn seconds(us: i64) -> String {
    let s = us as f64 / 1e6;
    if s < 1.0 { format!("{s:.2} s") } else { format!("{s:.1} s") }
}

impl Clocks {
    /// What the nodes of an attempt were told: the starts of its steps, and the end of the step
    /// that lasts as long as the job is on the node.
    pub fn of(attempt: &Attempt) -> Clocks {
        let mut clocks = Clocks::default();
        if attempt.nodes.len() < 2 {
            return clocks;
        }
        for (&step, all) in &attempt.steps {
            let notes = |of: fn(&super::StepNode) -> Option<&Moment>| {
                all.nodes
                    .iter()
                    .filter_map(move |(node, part)| Some((node.to_string(), of(part)?.wall)))
                    .collect()
            };
            clocks.add(step, false, notes(|part| part.started.as_ref()));
            if step == StepId::Extern {
                clocks.add(step, true, notes(|part| part.ended.as_ref()));
            }
        }
        let told = clocks.told.len();
        if told > 2 * LOOKED_AT {
            clocks.told.drain(LOOKED_AT..told - LOOKED_AT);
        }
        clocks
    }

    /// Adds when nodes obeyed what they were told at the same time: a step's start, or its end.
    pub fn add(&mut self, step: StepId, ends: bool, at: BTreeMap<String, Timestamp>) {
        if at.len() > 1 {
            self.told.push(Told { ends, step, at });
        }
    }

    /// How far the clock of `node` is ahead of that of `other`; `None` when they were never told
    /// the same.
    pub fn apart(&self, node: &str, other: &str) -> Option<Apart> {
        let difference = |t: &Told| Some(t.at.get(node)?.since(*t.at.get(other)?));
        Apart::of(self.told.iter().filter_map(difference).collect())
    }

    /// Microseconds from `earlier` to `later`, a wrong clock put right; and by how much that can
    /// be wrong, `None` when nobody knows.
    pub fn since(&self, later: &Moment, earlier: &Moment) -> (i64, Option<i64>) {
        let us = later.since(earlier);
        if later.node == earlier.node {
            return (us, Some(0));
        }
        match self.apart(&later.node, &earlier.node) {
            Some(apart) => (us.saturating_sub(apart.correction_us()), Some(apart.bound_us())),
            None => (us, None),
        }
    }

    /// The clocks that are wrong, the worst first. Of two nodes that were only ever told
    /// something together, nobody knows which.
    pub fn wrong(&self) -> Vec<Skew> {
        let mut put_right: BTreeMap<&str, i64> = BTreeMap::new();
        let mut wrong = Vec::new();
        while wrong.len() < NAMED {
            let mut found: Option<(&str, Apart)> = None;
            for (node, differences) in self.differences(&put_right) {
                let Some(apart) = Apart::of(differences).filter(|a| a.is_wrong()) else { continue };
                let size = |a: &Apart| a.ahead_us.saturating_abs().saturating_sub(a.give_us);
                if !put_right.contains_key(node) && found.is_none_or(|(_, f)| size(&apart) > size(&f)) {
                    found = Some((node, apart));
                }
            }
            let Some((node, apart)) = found else { break };
            put_right.insert(node, apart.ahead_us);
            wrong.push(self.skew(node, apart));
        }
        wrong
    }

    /// Of each node, by how much it was later than the middle of the others, each time.
    fn differences<'a>(&'a self, put_right: &BTreeMap<&str, i64>) -> BTreeMap<&'a str, Vec<i64>> {
        let mut differences: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
        for told in &self.told {
            let right = |(node, at): (&'a String, &Timestamp)| {
                (at.0 - put_right.get(node.as_str()).unwrap_or(&0), node)
            };
            let mut sorted: Vec<(i64, &String)> = told.at.iter().map(right).collect();
            sorted.sort_unstable();
            for (index, (at, node)) in sorted.iter().enumerate() {
                let others = sorted.len() - 1;
                let other = |n: usize| sorted[if n < index { n } else { n + 1 }].0;
                let middle = i64::midpoint(other((others - 1) / 2), other(others / 2));
                differences.entry(node).or_default().push(at - middle);
            }
        }
        differences
    }

    fn skew(&self, node: &str, apart: Apart) -> Skew {
        let with: Vec<&Told> = self.told.iter().filter(|t| t.at.contains_key(node)).collect();
        let mut others = with.iter().flat_map(|t| t.at.keys()).filter(|n| *n != node);
        let first = others.next();
        let one = first.filter(|one| others.all(|n| n == *one));
        let starts = || with.iter().filter(|t| !t.ends);
        Skew {
            node: node.to_owned(),
            against: one.cloned(),
            ahead_us: apart.ahead_us,
            give_us: apart.give_us,
            starts: starts().count(),
            ends: with.len() - starts().count(),
            step: starts().next().map(|t| t.step).filter(|_| starts().count() == 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What nodes with these clocks note of things told with these delays, in milliseconds.
    fn noted(ahead_ms: &[i64], delays_ms: &[Vec<i64>]) -> Clocks {
        let mut clocks = Clocks::default();
        for (n, delays) in delays_ms.iter().enumerate() {
            let begin = 1_000_000 + n as i64 * 60_000;
            let at = ahead_ms.iter().zip(delays).enumerate();
            let at = at.map(|(n, (ahead, d))| (format!("n{n}"), Timestamp((begin + ahead + d) * 1000)));
            clocks.add(StepId::Number(n as u32), false, at.collect());
        }
        clocks
    }

    #[test]
    fn a_wrong_clock_is_said_in_words() {
        let clocks = noted(&[0, -3200], &[vec![10, 30]]);
        let said: Vec<String> = clocks.wrong().iter().map(Skew::to_string).collect();
        assert_eq!(said, ["n0's clock is about 3.2 s ahead of n1's (±0.50 s, from the start of step 0)"]);
        let clocks = noted(&[0, 0, -3200], &[vec![10, 30, 0], vec![300, 10, 20], vec![0, 0, 9]]);
        let said: Vec<String> = clocks.wrong().iter().map(Skew::to_string).collect();
        assert_eq!(
            said,
            ["n2's clock is about 3.3 s behind those of the other nodes (±0.17 s, from 3 starts of steps)"]
        );
        // A slow prolog delays the first start and no later one: that is no clock.
        assert!(noted(&[0, 0], &[vec![0, 4000], vec![0, 10], vec![0, 5]]).wrong().is_empty());
        assert!(noted(&[0, 900], &[vec![0, 100]]).wrong().is_empty(), "two slow nodes are no wrong clock");
        assert!(noted(&[0], &[vec![0]]).wrong().is_empty());
        assert_eq!(Clocks::default().apart("n0", "n1"), None);
    }

    #[test]
    fn each_wrong_clock_is_named_once() {
        let quiet = vec![vec![0; 6], vec![5; 6]];
        let clocks = noted(&[0, 7000, 0, 0, -86_400_000, 0], &quiet);
        let named: Vec<String> = clocks.wrong().into_iter().map(|s| s.node).collect();
        assert_eq!(named, ["n4", "n1"]);
    }

    proptest! {
        /// Whatever the clocks, if no delay differs by more than is allowed for, the true
        /// distance of two clocks is inside of what is said, and a right clock is never accused.
        #[test]
        fn the_true_distance_is_inside_the_bound(
            ahead in prop::collection::vec(-10_000_i64..10_000, 2..6),
            delays in prop::collection::vec(prop::collection::vec(0_i64..100, 6), 2..12),
        ) {
            let clocks = noted(&ahead, &delays);
            for (i, a) in ahead.iter().enumerate() {
                for (j, b) in ahead.iter().enumerate().filter(|(j, _)| *j != i) {
                    let apart = clocks.apart(&format!("n{i}"), &format!("n{j}")).unwrap();
                    let wrong_by = ((a - b) * 1000 - apart.ahead_us).abs();
                    prop_assert!(wrong_by <= apart.give_us, "{} {:?}", a - b, apart);
                    prop_assert!(!apart.is_wrong() || (a - b).abs() > 900);
                    let rest = (a - b) * 1000 - apart.correction_us();
                    prop_assert!(rest.abs() <= apart.bound_us());
                }
            }
        }

        /// With right clocks nobody is accused, however slow some launches are, if one was quick.
        #[test]
        fn right_clocks_are_never_wrong(
            mut delays in prop::collection::vec(prop::collection::vec(0_i64..30_000, 5), 1..7),
            quick in prop::collection::vec(0_i64..500, 5),
        ) {
            delays.push(quick);
            prop_assert!(noted(&[0; 5], &delays).wrong().is_empty());
        }
    }
}
