//! Nodes on which jobs fail that succeed elsewhere.

use std::collections::BTreeMap;

use serde::Serialize;

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

/// Nodes with at least two failures and at least twice the rate of all other
/// nodes together. `ends` names, for each job that ended, its node and
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
        (failed >= 2 && more).then_some(BadNode { node, failed, jobs, failed_elsewhere, jobs_elsewhere })
    };
    nodes.into_iter().filter_map(judge).collect()
}

#[cfg(test)]
mod tests {
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
        assert_eq!(names(&[("n1", 2, 8), ("n2", 4, 8)]), ["n2"]);
    }
}
