//! What the metrics ask of the index.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use inquest_journal::Timestamp;

use super::JobLabels;
use crate::serve::data::{Problem, Sources};
use crate::serve::suspects::judge;
use crate::store::index::{CLASSES, Filter, Group};

/// Days whose sums are watched: what is merged later than this is not counted.
const DAYS: i64 = 3;

const DAY_US: i64 = 86_400_000_000;

/// Partitions and clusters that have labels; the rest of the partitions is summed up as `other`.
const LABELS: usize = 64;

/// Bytes of one.
pub(super) const LABEL_MAX: usize = 128;

/// Nodes that are judged.
const NODES: usize = 20_000;

/// Days without the end of a job after which a node that had some is silent.
const SILENT_DAYS: i64 = 1;

/// Days in which it had some.
const ACTIVE_DAYS: i64 = 8;

/// What is asked of the index for the metrics.
pub(super) struct Found {
    pub(super) sums: HashMap<(i64, JobLabels), (i64, i64)>,
    pub(super) newest: BTreeMap<String, Timestamp>,
    pub(super) suspects: BTreeMap<String, Vec<String>>,
    pub(super) silent: BTreeMap<String, Vec<String>>,
}

/// Asks it.
pub(super) fn look(sources: &Sources<'_>, now: Timestamp) -> Result<Found, Problem> {
    let index = sources.index;
    let today = now.0.div_euclid(DAY_US);
    let day = |n: i64| Some(Timestamp((today + n) * DAY_US));
    let mut found = Found {
        sums: HashMap::new(),
        newest: BTreeMap::new(),
        suspects: BTreeMap::new(),
        silent: BTreeMap::new(),
    };
    let week = Filter { since: day(1 - ACTIVE_DAYS), ..Filter::default() };
    let clusters = index.count(&week, Group::Cluster, LABELS)?;
    for cluster in clusters.into_iter().map(|c| c.key) {
        let here = Filter { cluster: Some(cluster.clone()), ..Filter::default() };
        for n in 0..DAYS {
            let of_day = Filter { since: day(-n), until: day(1 - n), ..here.clone() };
            for (at, counted) in index.count(&of_day, Group::Partition, NODES)?.into_iter().enumerate() {
                let partition = if at < LABELS { counted.key.clone() } else { "other".into() };
                for class in CLASSES {
                    let jobs = counted.jobs.get(&class).copied().unwrap_or(0);
                    let us = counted.node_us.get(&class).copied().unwrap_or(0);
                    let labels = JobLabels {
                        cluster: label(&cluster),
                        partition: label(&partition),
                        class: class.to_string(),
                    };
                    let sum = found.sums.entry((today - n, labels)).or_default();
                    *sum = (sum.0 + jobs, sum.1 + us);
                }
            }
        }
        let ended = Filter { open: Some(false), until: day(2), ..here.clone() };
        if let Some(newest) = index.jobs(&ended, 1)?.first() {
            found.newest.insert(label(&cluster), newest.entry.last);
        }
        let of_week = Filter { since: day(1 - ACTIVE_DAYS), ..here.clone() };
        let counts = index.count(&of_week, Group::Node, NODES)?;
        let suspects = judge(&counts).into_iter().filter(|n| n.suspect).map(|n| n.node);
        found.suspects.insert(label(&cluster), suspects.map(|n| label(&n)).collect());
        let recent = Filter { since: Some(Timestamp(now.0 - SILENT_DAYS * DAY_US)), ..here.clone() };
        let mut alive: BTreeSet<String> =
            index.count(&recent, Group::Node, NODES)?.into_iter().map(|c| c.key).collect();
        let running = Filter { open: Some(true), ..here };
        alive.extend(index.jobs(&running, NODES)?.into_iter().flat_map(|j| j.entry.nodes));
        let silent = counts.into_iter().map(|c| c.key).filter(|n| !alive.contains(n));
        found.silent.insert(label(&cluster), silent.map(|n| label(&n)).collect());
    }
    Ok(found)
}

/// A name as the value of a label: the encoder writes it as it is.
pub(super) fn label(name: &str) -> String {
    let name = crate::report::clean(name);
    let name = &name[..name.floor_char_boundary(LABEL_MAX)];
    name.replace('\\', "\\\\").replace('"', "\\\"")
}
