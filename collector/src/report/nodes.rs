//! Nodes on which jobs fail that succeed elsewhere.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::units::count;

/// A node on which more failed than elsewhere.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BadNode {
    /// Its name.
    pub node: String,
    /// Jobs that failed there.
    pub failed: usize,
    /// Jobs that ended there.
    pub jobs: usize,
    /// Jobs that failed elsewhere.
    pub failed_elsewhere: usize,
    /// Jobs that ended elsewhere.
    pub jobs_elsewhere: usize,
}

impl BadNode {
    /// `3 of 4 jobs failed there, 0 of 9 elsewhere`.
    pub fn says(&self) -> String {
        let jobs = count(self.jobs, "job", "jobs");
        format!(
            "{} of {jobs} failed there, {} of {} elsewhere",
            self.failed, self.failed_elsewhere, self.jobs_elsewhere
        )
    }
}

/// A node is named when chance alone would give it so many failures in less
/// than one of so many runs.
const CHANCE: f64 = 0.05;

/// Nodes with at least two failures, at least twice the rate of all other
/// nodes together, and more failures than chance explains (Fisher's exact
/// test, one-sided). `ends` names, for each job that ended, its node and
/// whether it failed.
pub fn bad<'a>(ends: impl IntoIterator<Item = (&'a str, bool)>) -> Vec<BadNode> {
    let mut nodes: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (node, failed) in ends {
        let counts = nodes.entry(node).or_default();
        counts.0 += usize::from(failed);
        counts.1 += 1;
    }
    let all = nodes.values().fold((0, 0), |sum, n| (sum.0 + n.0, sum.1 + n.1));
    let judge = |(node, (failed, jobs)): (&str, (usize, usize))| {
        let (failed_elsewhere, jobs_elsewhere) = (all.0 - failed, all.1 - jobs);
        // failed / jobs >= 2 * failed_elsewhere / jobs_elsewhere; a node
        // without any others has nothing to be compared with.
        let more = jobs_elsewhere > 0 && failed * jobs_elsewhere >= 2 * failed_elsewhere * jobs;
        let node = node.to_owned();
        let bad = failed >= 2 && more && tail(all.1, all.0, jobs, failed) < CHANCE;
        bad.then_some(BadNode { node, failed, jobs, failed_elsewhere, jobs_elsewhere })
    };
    nodes.into_iter().filter_map(judge).collect()
}

/// The chance that at least `hits` of `drawn` jobs failed, when `failed` of
/// all `total` did and the drawn ones are any.
fn tail(total: usize, failed: usize, drawn: usize, hits: usize) -> f64 {
    let mut ln = vec![0.0f64; total + 1];
    for n in 1..=total {
        ln[n] = ln[n - 1] + (n as f64).ln();
    }
    let choose = |n: usize, k: usize| ln[n] - ln[k] - ln[n - k];
    let most = failed.min(drawn);
    // With fewer misses than are left over, some combinations do not exist.
    (hits..=most)
        .filter(|k| total - failed >= drawn - k)
        .map(|k| (choose(failed, k) + choose(total - failed, drawn - k) - choose(total, drawn)).exp())
        .sum()
}

#[cfg(test)]
mod tests {
    #[test]
    fn chance_as_in_a_table() {
        // R: phyper(2, 3, 9, 3, lower.tail = FALSE), phyper(4, 5, 19, 16, lower.tail = FALSE)
        assert!((super::tail(12, 3, 3, 3) - 1.0 / 220.0).abs() < 1e-9);
        assert!((super::tail(24, 5, 16, 5) - 0.102_766_8).abs() < 1e-6);
        assert!((super::tail(10, 10, 4, 4) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn twice_the_rate_of_the_others() {
        let ends = |spec: &[(&'static str, usize, usize)]| -> Vec<(&'static str, bool)> {
            spec.iter().flat_map(|&(node, bad, all)| (0..all).map(move |i| (node, i < bad))).collect()
        };
        let names = |spec| super::bad(ends(spec)).into_iter().map(|n| n.node).collect::<Vec<_>>();
        assert_eq!(names(&[("n1", 0, 9), ("n2", 3, 3)]), ["n2"]);
        assert_eq!(names(&[("n1", 3, 9), ("n2", 3, 9)]), [""; 0]);
        assert_eq!(names(&[("n1", 1, 9), ("n2", 1, 1)]), [""; 0]);
        assert_eq!(names(&[("n1", 5, 5)]), [""; 0]);
        assert_eq!(names(&[("n1", 2, 8), ("n2", 4, 8)]), [""; 0], "that is chance");
        assert_eq!(names(&[("n1", 20, 80), ("n2", 40, 80)]), ["n2"]);
    }
}
