/*!
Nodes that are worse than their peers, with honest statistics.

A node is compared with all other nodes that ran jobs in the same time: rate of
failures with a 95 % confidence interval (Wilson), and the chance that so many
or more of its jobs failed if it were like the others (one-sided exact test,
hypergeometric). Hundreds of nodes are tested at once, so a small chance alone
says little: Benjamini-Hochberg keeps the share of false alarms among the named
nodes below [`FALSE_ALARMS`].

Failures that are a job's own affair whatever the node (cancelled, preempted,
time limit, validation, dependency) are not counted against a node.
*/

use std::collections::BTreeMap;

use serde::Serialize;

use crate::store::index::Counts;
use crate::units::count;
use crate::verdict::Class;

/// Share of false alarms among the nodes that are named.
pub const FALSE_ALARMS: f64 = 0.01;

/// Nodes that are judged.
pub const NODES: usize = 20_000;

/// Fewer failures never make a node suspect.
const FAILURES_MIN: i64 = 3;

/// Classes that can be a node's fault.
pub const COUNTED: [Class; 5] = [Class::Oom, Class::AppError, Class::Crash, Class::Infra, Class::Unknown];

/// What is known of a node in some time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeStanding {
    /// Its name.
    pub node: String,
    /// Jobs that ended there.
    pub jobs: i64,
    /// Of them, those that failed.
    pub failed: i64,
    /// Of these, those that failed in a way that can be a node's fault.
    pub counted: i64,
    /// Share of the counted ones.
    pub rate: f64,
    /// 95 % confidence interval of the rate.
    pub interval: (f64, f64),
    /// Rate of all other nodes together; absent when there are none.
    pub peers_rate: Option<f64>,
    /// Chance of so many failures if the node were like the others.
    pub chance: f64,
    /// That chance, corrected for how many nodes were tested.
    pub corrected: f64,
    /// The node is worse than its peers.
    pub suspect: bool,
    /// Jobs by class.
    pub classes: BTreeMap<Class, i64>,
}

impl NodeStanding {
    /// `14 of 319 jobs failed there, 11 of them in a way that can be a node's fault`.
    pub fn says(&self) -> String {
        let jobs = count(self.jobs, "job", "jobs");
        let fault = match self.counted {
            all if all == self.failed => String::new(),
            some => format!(", {some} of them in a way that can be a node's fault"),
        };
        format!("{} of {jobs} failed there{fault}", self.failed)
    }
}

/// Judges all nodes; the most suspect first.
pub fn judge(counts: &[Counts]) -> Vec<NodeStanding> {
    let counted = |c: &Counts| COUNTED.iter().filter_map(|class| c.jobs.get(class)).sum::<i64>();
    let all_jobs: i64 = counts.iter().map(Counts::total).sum();
    let all_counted: i64 = counts.iter().map(counted).sum();
    let factorials = LnFactorials::new(all_jobs);
    let mut nodes: Vec<NodeStanding> = counts
        .iter()
        .filter(|c| c.total() > 0)
        .map(|c| {
            let (jobs, bad) = (c.total(), counted(c));
            let elsewhere = all_jobs - jobs;
            let peers_rate = (elsewhere > 0).then(|| (all_counted - bad) as f64 / elsewhere as f64);
            let chance = match peers_rate {
                Some(_) => factorials.tail(all_jobs, all_counted, jobs, bad),
                None => 1.0,
            };
            NodeStanding {
                node: c.key.clone(),
                jobs,
                failed: c.failed(),
                counted: bad,
                rate: bad as f64 / jobs as f64,
                interval: wilson(bad, jobs),
                peers_rate,
                chance,
                corrected: 1.0,
                suspect: false,
                classes: c.jobs.clone(),
            }
        })
        .collect();
    nodes.sort_by(|a, b| a.chance.total_cmp(&b.chance).then_with(|| a.node.cmp(&b.node)));
    let tests = nodes.len() as f64;
    let mut least = 1.0f64;
    for (rank, node) in nodes.iter_mut().enumerate().rev() {
        least = least.min(node.chance * tests / (rank + 1) as f64);
        node.corrected = least;
        let worse = node.peers_rate.is_some_and(|peers| node.rate > peers);
        node.suspect = worse && node.counted >= FAILURES_MIN && node.corrected < FALSE_ALARMS;
    }
    nodes.sort_by(|a, b| {
        b.suspect.cmp(&a.suspect).then(a.chance.total_cmp(&b.chance)).then_with(|| a.node.cmp(&b.node))
    });
    nodes
}

/// The 95 % interval of a share, by Wilson's score.
pub fn wilson(hits: i64, of: i64) -> (f64, f64) {
    if of <= 0 {
        return (0.0, 1.0);
    }
    const Z: f64 = 1.959_963_984_540_054;
    let (n, p) = (of as f64, hits as f64 / of as f64);
    let centre = p + Z * Z / (2.0 * n);
    let spread = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    (((centre - spread) / scale).max(0.0), ((centre + spread) / scale).min(1.0))
}

/// Logarithms of factorials: a table where it is short, Stirling's series
/// beyond, which is exact to a double there.
struct LnFactorials(Vec<f64>);

impl LnFactorials {
    fn new(up_to: i64) -> LnFactorials {
        let mut table = vec![0.0f64];
        for n in 1..=up_to.clamp(0, 1024) {
            table.push(table[table.len() - 1] + (n as f64).ln());
        }
        LnFactorials(table)
    }

    fn ln(&self, n: i64) -> f64 {
        match usize::try_from(n).ok().and_then(|n| self.0.get(n)) {
            Some(ln) => *ln,
            None => {
                let x = n as f64;
                x * x.ln() - x + 0.5 * (std::f64::consts::TAU * x).ln() + 1.0 / (12.0 * x)
                    - 1.0 / (360.0 * x * x * x)
            }
        }
    }

    fn choose(&self, n: i64, k: i64) -> f64 {
        self.ln(n) - self.ln(k) - self.ln(n - k)
    }

    /// Chance that at least `hits` of `drawn` failed, when `failed` of
    /// `total` did and the drawn ones are any.
    fn tail(&self, total: i64, failed: i64, drawn: i64, hits: i64) -> f64 {
        let (least, most) = ((drawn - (total - failed)).max(0), failed.min(drawn));
        if hits <= least {
            return 1.0;
        }
        let all = self.choose(total, drawn);
        let term = |k: i64| (self.choose(failed, k) + self.choose(total - failed, drawn - k) - all).exp();
        let mut sum = 0.0;
        for k in hits..=most {
            let t = term(k);
            sum += t;
            // Past the middle the terms only fall.
            if t < sum * 1e-16 && k as f64 > drawn as f64 * failed as f64 / total as f64 {
                break;
            }
        }
        sum.min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, failed: i64, jobs: i64) -> Counts {
        let classes = [(Class::Ok, jobs - failed), (Class::Crash, failed)];
        Counts { key: name.into(), jobs: classes.into(), ..Counts::default() }
    }

    #[test]
    fn intervals_and_chances_as_in_a_table() {
        // R: binom::binom.confint(5, 50, methods = "wilson"); (0, 10)
        let (low, high) = wilson(5, 50);
        assert!((low - 0.043_476).abs() < 1e-4 && (high - 0.213_601).abs() < 1e-4, "{low} {high}");
        let (low, high) = wilson(0, 10);
        assert!(low == 0.0 && (high - 0.277_532).abs() < 1e-4, "{high}");
        // R: phyper(2, 3, 9, 3, lower.tail = FALSE), phyper(4, 5, 19, 16, lower.tail = FALSE)
        let f = LnFactorials::new(24);
        assert!((f.tail(12, 3, 3, 3) - 1.0 / 220.0).abs() < 1e-9);
        assert!((f.tail(24, 5, 16, 5) - 0.102_766_8).abs() < 1e-6);
        assert_eq!(f.tail(10, 10, 4, 4), 1.0);
    }

    #[test]
    fn the_series_goes_on_where_the_table_ends() {
        let (table, series) = (LnFactorials::new(1024), LnFactorials(Vec::new()));
        for n in [100, 500, 1024] {
            assert!((table.ln(n) - series.ln(n)).abs() < 1e-9, "{n}");
        }
    }

    #[test]
    fn one_bad_node_among_many_is_named_and_chance_is_not() {
        let mut counts: Vec<Counts> = (0..400).map(|n| node(&format!("n{n:03}"), 4 + n % 5, 200)).collect();
        assert!(judge(&counts).iter().all(|n| !n.suspect));
        counts.push(node("bad", 60, 200));
        let judged = judge(&counts);
        assert_eq!(judged.iter().filter(|n| n.suspect).map(|n| n.node.as_str()).collect::<Vec<_>>(), ["bad"]);
        assert!(judged[0].interval.0 > judged[0].peers_rate.unwrap());
    }

    #[test]
    fn a_fault_that_all_share_makes_no_node_suspect() {
        let counts: Vec<Counts> = (0..50).map(|n| node(&format!("n{n}"), 80 + n % 7, 100)).collect();
        assert!(judge(&counts).iter().all(|n| !n.suspect));
        assert!(judge(&[node("only", 9, 9)]).iter().all(|n| !n.suspect));
        assert!(judge(&[]).is_empty());
    }

    #[test]
    fn what_is_the_jobs_own_affair_does_not_count() {
        let mut bad = node("n1", 0, 0);
        bad.jobs = [(Class::Timeout, 90), (Class::Cancelled, 10)].into();
        let judged = judge(&[bad, node("n2", 1, 100)]);
        assert!(judged.iter().all(|n| !n.suspect));
        let n1 = judged.iter().find(|n| n.node == "n1").unwrap();
        assert_eq!((n1.failed, n1.counted), (100, 0));
    }
}
