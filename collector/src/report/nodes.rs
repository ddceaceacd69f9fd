//! Nodes on which jobs fail that succeed elsewhere.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::serve::suspects::judge;
use crate::store::index::Counts;
use crate::units::count;
use crate::verdict::Class;

/// A node on which more failed than elsewhere.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BadNode {
    /// Its name.
    pub node: String,
    /// Jobs that failed there, in a way that can be a node's fault.
    pub failed: i64,
    /// Jobs that ended there.
    pub jobs: i64,
    /// Jobs that failed so elsewhere.
    pub failed_elsewhere: i64,
    /// Jobs that ended elsewhere.
    pub jobs_elsewhere: i64,
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

/// Nodes that are worse than the others of the same run, as the server judges those of the site. `ends` names,
/// for each job that ended, its node and the class of its end.
pub fn bad<'a>(ends: impl IntoIterator<Item = (&'a str, Class)>) -> Vec<BadNode> {
    let mut nodes: BTreeMap<&str, BTreeMap<Class, i64>> = BTreeMap::new();
    for (node, class) in ends {
        *nodes.entry(node).or_default().entry(class).or_default() += 1;
    }
    let counts = nodes.into_iter().map(|(node, jobs)| Counts { key: node.into(), jobs, ..Counts::default() });
    let standings = judge(&counts.collect::<Vec<_>>());
    let all = standings.iter().fold((0, 0), |sum, n| (sum.0 + n.counted, sum.1 + n.jobs));
    let mut bad: Vec<BadNode> = standings
        .into_iter()
        .filter(|n| n.suspect)
        .map(|n| BadNode {
            failed: n.counted,
            jobs: n.jobs,
            failed_elsewhere: all.0 - n.counted,
            jobs_elsewhere: all.1 - n.jobs,
            node: n.node,
        })
        .collect();
    bad.sort_by(|a, b| a.node.cmp(&b.node));
    bad
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_chance_does_not_explain_among_so_many_nodes() {
        let names = |spec: &[(&'static str, i64, i64)], class| {
            let ends = spec.iter().flat_map(|&(node, bad, all)| {
                (0..all).map(move |i| (node, if i < bad { class } else { Class::Ok }))
            });
            bad(ends).into_iter().map(|n| n.node).collect::<Vec<_>>()
        };
        let crashes = |spec| names(spec, Class::Crash);
        assert_eq!(crashes(&[("n1", 0, 9), ("n2", 3, 3)]), ["n2"]);
        assert_eq!(crashes(&[("n1", 3, 9), ("n2", 3, 9)]), [""; 0]);
        assert_eq!(crashes(&[("n1", 5, 5)]), [""; 0], "there are no others");
        assert_eq!(crashes(&[("n1", 2, 8), ("n2", 4, 8)]), [""; 0], "that is chance");
        assert_eq!(crashes(&[("n1", 20, 80), ("n2", 45, 80)]), ["n2"]);
        // What nobody blames a node for.
        assert_eq!(names(&[("n1", 0, 9), ("n2", 9, 9)], Class::Cancelled), [""; 0]);
        // Three of nine is odd for one node of two, and to be expected of one of a hundred.
        let mut many: Vec<(&'static str, i64, i64)> = vec![("odd", 3, 9)];
        let others: Vec<String> = (0..100).map(|n| format!("n{n}")).collect();
        many.extend(others.iter().map(|name| (&*name.clone().leak(), 0, 9)));
        many[1..20].iter_mut().for_each(|n| n.1 = 1);
        assert_eq!(crashes(&many), [""; 0]);
    }
}
