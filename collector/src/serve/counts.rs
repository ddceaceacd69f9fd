//! What attempts come to, for pages and reports. A page counts attempts: a job that was put back into the
//! queue counts once for each time that it ran.

use std::collections::BTreeMap;

use crate::store::index::Counts;
use crate::verdict::Class;

/// What is counted, for whoever reads figures.
pub(super) const MEANING: &str = "Counted are attempts of jobs: one that was put back into the queue counts for each time \
    that it ran. Failed is whatever did not end well, cancelled and preempted jobs too. On several nodes, a job counts \
    on each of them.";

/// Failures by class.
pub(super) fn failures(classes: &BTreeMap<Class, i64>) -> BTreeMap<Class, i64> {
    classes.iter().filter(|(c, n)| **c != Class::Ok && **n > 0).map(|(c, n)| (*c, *n)).collect()
}

/// Time on nodes of jobs that failed, in microseconds.
pub(super) fn wasted(counts: &Counts) -> i64 {
    failures(&counts.node_us).values().sum()
}
