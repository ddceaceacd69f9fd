//! What failed on the whole site in some time, as text and as one page that
//! stands alone; and kinds of failure that are new.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use inquest_journal::Timestamp;
use jiff::tz::TimeZone;
use maud::{Markup, html};
use serde_json::{Value, json};

use super::counts::{MEANING, failures, wasted};
use super::pictures::{Bin, over_time, share};
use super::suspects::{NodeStanding, judge};
use crate::report::html::page;
use crate::report::table::{Style, Table};
use crate::report::wrap::hang;
use crate::report::{JSON_SCHEMA, clean, time};
use crate::store::index::{Counts, Filter, Group, Index, IndexError};
use crate::units::count;
use crate::verdict::Class;

/// Groups of a list.
const TOP: usize = 10;

/// Groups that are looked at.
const MANY: usize = 20_000;

const DAY_US: i64 = 86_400_000_000;

/// A kind of failure that did not happen in this time before is new.
const NEW_AFTER_US: i64 = 28 * DAY_US;

/// A kind of failure with an example.
#[derive(Clone, Debug)]
pub struct Kind {
    /// Name of the kind.
    pub fingerprint: String,
    /// Jobs that failed so.
    pub jobs: i64,
    /// Time on nodes that they took, in microseconds.
    pub node_us: i64,
    /// Its class.
    pub class: Option<Class>,
    /// What the newest one says.
    pub message: String,
    /// The newest one.
    pub example: String,
    /// Whether it did not happen in the four weeks before.
    pub new: bool,
}

/// What a report says.
#[derive(Debug)]
pub struct Site {
    /// First moment.
    pub since: Timestamp,
    /// First moment after.
    pub until: Timestamp,
    total: Counts,
    before: Counts,
    days: Vec<Counts>,
    lists: Vec<(&'static str, Vec<Counts>)>,
    suspects: Vec<NodeStanding>,
    kinds: Vec<Kind>,
}

impl Site {
    /// Asks the index.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn ask(
        index: &Index,
        cluster: Option<&str>,
        since: Timestamp,
        until: Timestamp,
    ) -> Result<Site, IndexError> {
        let filter = Filter {
            since: Some(since),
            until: Some(until),
            cluster: cluster.map(str::to_owned),
            ..Filter::default()
        };
        let earlier = Filter {
            since: Some(Timestamp(since.0 - until.since(since))),
            until: Some(since),
            ..filter.clone()
        };
        let all = |filter: &Filter| -> Result<Counts, IndexError> {
            Ok(index.count(filter, Group::All, 1)?.pop().unwrap_or_default())
        };
        let mut lists = Vec::new();
        for (name, group) in [
            ("Cause", Group::Cause),
            ("Partition", Group::Partition),
            ("User", Group::User),
            ("Node", Group::Node),
        ] {
            let mut counts = index.count(&filter, group, MANY)?;
            counts.retain(|c| c.failed() > 0);
            counts.truncate(TOP);
            lists.push((name, counts));
        }
        let nodes = index.count(&filter, Group::Node, MANY)?;
        Ok(Site {
            since,
            until,
            total: all(&filter)?,
            before: all(&earlier)?,
            days: index.count(&filter, Group::Day, MANY)?,
            lists,
            suspects: judge(&nodes).into_iter().filter(|n| n.suspect).collect(),
            kinds: kinds(index, &filter, &|_, _| true, TOP)?,
        })
    }

    /// The report as text.
    pub fn text(&self, zone: &TimeZone) -> String {
        let mut out = String::new();
        let _ = writeln!(out, "Failures from {} to {}\n", time(self.since, zone), time(self.until, zone));
        for line in self.sentences() {
            hang(&mut out, "", 0, 2, &line);
        }
        let mut section = |title: &str, table: &Table| {
            let _ = writeln!(out, "\n{title}\n");
            let page = Style::page();
            let style = Style { width: page.width.map(|columns| columns - 2), ..page };
            for line in table.print(&style).unwrap_or_default().lines() {
                let _ = writeln!(out, "  {}", line.trim_end());
            }
        };
        for (name, counts) in &self.lists {
            let mut table = Table::new(&["NAME", "FAILED", "NODE-HOURS", "CLASSES"]);
            for c in counts {
                table.row(vec![or_unknown(&c.key), c.failed().to_string(), hours(wasted(c)), classes(c)]);
            }
            if !counts.is_empty() {
                section(&format!("By {}", name.to_lowercase()), &table);
            }
        }
        let mut table = Table::new(&["NEW", "JOBS", "NODE-HOURS", "CLASS", "FINGERPRINT", "EXAMPLE", "WHAT"])
            .spare(&["FINGERPRINT", "NODE-HOURS"]);
        for k in &self.kinds {
            let new = if k.new { "new" } else { "" };
            let class = k.class.map_or("-".into(), |c| c.to_string());
            let what = vec![new.into(), k.jobs.to_string(), hours(k.node_us), class, k.fingerprint.clone()];
            table.row([what, vec![k.example.clone(), clean(&k.message)]].concat());
        }
        if !self.kinds.is_empty() {
            section("Kinds of failure", &table);
        }
        out
    }

    fn sentences(&self) -> Vec<String> {
        let (ended, failed) = (self.total.total(), self.total.failed());
        let rate = |c: &Counts| 100.0 * c.failed() as f64 / c.total().max(1) as f64;
        let waste = wasted(&self.total);
        let all: i64 = self.total.node_us.values().sum();
        let mut lines = vec![
            format!(
                "{failed} of {} failed ({:.1} %); in the time before, {} of {} ({:.1} %).",
                count(ended, "job", "jobs"),
                rate(&self.total),
                self.before.failed(),
                self.before.total(),
                rate(&self.before)
            ),
            format!(
                "{} node-hours went into failed jobs, {:.1} % of all.",
                hours(waste),
                100.0 * waste as f64 / all.max(1) as f64
            ),
        ];
        for node in &self.suspects {
            lines.push(format!(
                "Node {} is suspect: {} ({:.1} %, peers {:.1} %).",
                clean(&node.node),
                node.says(),
                100.0 * node.rate,
                100.0 * node.peers_rate.unwrap_or(0.0)
            ));
        }
        lines.push(MEANING.into());
        lines
    }

    /// The report as one page that loads nothing.
    pub fn html(&self, zone: &TimeZone) -> String {
        let bin = |c: &Counts| {
            let at = Timestamp(c.key.parse().unwrap_or(self.since.0));
            let name = time(at, &TimeZone::UTC).chars().skip(5).take(5).collect();
            Bin { at, name, failures: failures(&c.jobs), total: c.total(), link: "#failures".into() }
        };
        let bins: Vec<Bin> = self.days.iter().map(bin).collect();
        let title = "Failures of the site";
        page(
            title,
            &html! {
                header class="top" {
                    h1 { (title) }
                    p class="meta" { (time(self.since, zone)) " to " (time(self.until, zone)) }
                }
                main {
                    section id="failures" {
                        h2 { "By class over time" }
                        figure { (over_time(&bins, "Failed jobs by class and day")) }
                        @for line in self.sentences() { p { (line) } }
                    }
                    @for (name, counts) in &self.lists { (list(name, counts)) }
                    (self.kinds_html())
                }
                footer { p { "Made by inquest " (env!("CARGO_PKG_VERSION")) ". This file loads nothing from elsewhere." } }
            },
        )
    }

    fn kinds_html(&self) -> Markup {
        html! {
            section {
                h2 { "Kinds of failure" }
                @if self.kinds.is_empty() { p { "None." } } @else {
                    div class="scroll" {
                        table {
                            thead {
                                tr {
                                    th scope="col" { "Fingerprint" } th scope="col" class="num" { "Jobs" }
                                    th scope="col" class="num" { "Node-hours" } th scope="col" { "Class" } th scope="col" { "Newest" }
                                }
                            }
                            tbody {
                                @for k in &self.kinds {
                                    tr {
                                        td class="mono" { (clean(&k.fingerprint)) @if k.new { " " strong { "new" } } }
                                        td class="num" { (k.jobs) } td class="num" { (hours(k.node_us)) }
                                        td { (k.class.map_or("-".into(), |c| c.to_string())) }
                                        td class="wide" { (k.example) ": " (clean(&k.message)) }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    /// The report as JSON.
    pub fn json(&self) -> Value {
        let groups = |counts: &[Counts]| -> Value {
            counts.iter().map(|c| json!({ "key": c.key, "jobs": c.jobs, "node_us": c.node_us })).collect()
        };
        let lists: BTreeMap<String, Value> =
            self.lists.iter().map(|(name, c)| (name.to_lowercase(), groups(c))).collect();
        json!({
            "schema": JSON_SCHEMA,
            "since": self.since,
            "until": self.until,
            "ended": self.total.total(),
            "failed": self.total.failed(),
            "ended_before": self.before.total(),
            "failed_before": self.before.failed(),
            "by": lists,
            "suspects": self.suspects,
            "kinds": kinds_json(&self.kinds),
        })
    }
}

/// Kinds as JSON.
pub fn kinds_json(kinds: &[Kind]) -> Value {
    let kind = |k: &Kind| {
        json!({
            "fingerprint": k.fingerprint, "jobs": k.jobs, "node_us": k.node_us, "class": k.class,
            "message": k.message, "example": k.example, "new": k.new,
        })
    };
    kinds.iter().map(kind).collect()
}

/// Kinds of failure since some time that `wanted` does not leave out: it is told the fingerprint of each, and
/// whether it is new.
///
/// # Errors
///
/// When the index cannot be read.
pub fn kinds(
    index: &Index,
    filter: &Filter,
    wanted: &dyn Fn(&str, bool) -> bool,
    limit: usize,
) -> Result<Vec<Kind>, IndexError> {
    let since = filter.since.unwrap_or(Timestamp(0));
    let earlier =
        Filter { since: Some(Timestamp(since.0 - NEW_AFTER_US)), until: Some(since), ..filter.clone() };
    let known: BTreeSet<String> =
        index.count(&earlier, Group::Fingerprint, MANY)?.into_iter().map(|c| c.key).collect();
    let mut kinds = Vec::new();
    for counts in index.count(filter, Group::Fingerprint, MANY)? {
        if kinds.len() >= limit {
            break;
        }
        let new = !known.contains(&counts.key);
        if !wanted(&counts.key, new) {
            continue;
        }
        let newest = Filter {
            fingerprint: Some(counts.key.clone()),
            failed: true,
            open: Some(false),
            ..filter.clone()
        };
        let Some(example) = index.jobs(&newest, 1)?.pop() else { continue };
        kinds.push(Kind {
            jobs: counts.failed(),
            node_us: wasted(&counts),
            class: example.class(),
            message: example.entry.end.as_ref().and_then(|e| e.message.clone()).unwrap_or_default(),
            example: example.display_id(),
            new,
            fingerprint: counts.key,
        });
    }
    Ok(kinds)
}

/// New kinds as the text of a mail.
pub fn new_text(kinds: &[Kind]) -> String {
    let mut out = String::new();
    for k in kinds {
        let class = k.class.map_or("-".into(), |c| c.to_string());
        let jobs = count(k.jobs, "job", "jobs");
        let _ = writeln!(out, "New kind of failure {} ({class}), {jobs} so far", k.fingerprint);
        let _ = writeln!(out, "  {}", clean(&k.message));
        let _ = writeln!(out, "  inquest why {}\n", k.example);
    }
    out
}

fn list(name: &str, counts: &[Counts]) -> Markup {
    let most = counts.iter().map(Counts::failed).max().unwrap_or(1);
    html! {
        @if !counts.is_empty() {
            section {
                h2 { "By " (name.to_lowercase()) }
                table {
                    thead {
                        tr {
                            th scope="col" { (name) } th scope="col" class="num" { "Failed" }
                            th scope="col" class="num" { "Node-hours" } th scope="col" { "By class" }
                        }
                    }
                    tbody {
                        @for c in counts {
                            tr {
                                td { (or_unknown(&c.key)) } td class="num" { (c.failed()) } td class="num" { (hours(wasted(c))) }
                                td { figure { (share(&failures(&c.jobs), most)) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn or_unknown(key: &str) -> String {
    if key.is_empty() { "not known".into() } else { clean(key) }
}

fn classes(counts: &Counts) -> String {
    let each = failures(&counts.jobs).into_iter().map(|(c, n)| format!("{c}:{n}"));
    each.collect::<Vec<_>>().join(" ")
}

fn hours(us: i64) -> String {
    format!("{:.1}", us as f64 / 3.6e9)
}
