//! What failed, when, where, and what it cost.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, response::Html};
use inquest_journal::Timestamp;
use jiff::tz::TimeZone;
use maud::{Markup, html};

use super::super::access::Viewer;
use super::super::app::App;
use super::super::counts::{failures, wasted};
use super::super::data::{Problem, ROWS, Sources};
use super::super::pictures::{Bin, over_time, share};
use super::super::question::{Question, encode};
use super::super::suspects::{NODES, NodeStanding, judge};
use super::{Answer, Pairs, asked, cut_note, filters, legend, lists, meaning, node_hours, number, percent};
use crate::report::clean;
use crate::store::index::{Counts, Filter, Group, JobEntry};
use crate::units::word;

/// Groups of each list.
const TOP: usize = 8;

/// Newest failures that are shown.
const NEWEST: usize = 10;

const HOUR_US: i64 = 3_600_000_000;
const DAY_US: i64 = 24 * HOUR_US;

/// What the page shows.
struct Overview {
    bins: Vec<Bin>,
    total: Counts,
    lists: Vec<(&'static str, &'static str, Vec<Counts>)>,
    causes: Vec<Counts>,
    /// What the newest failure of each kind in the list says.
    messages: BTreeMap<String, String>,
    suspects: Vec<NodeStanding>,
    newest: Vec<JobEntry>,
    /// Not all of it was counted.
    cut: bool,
}

pub(super) async fn page(
    State(app): State<Arc<App>>,
    Extension(viewer): Extension<Viewer>,
    pairs: Pairs,
) -> Answer {
    let question = asked(pairs)?;
    let (asker, q) = (viewer.clone(), question.clone());
    let found = app.data.ask(move |sources| look(&sources, &asker, &q)).await?;
    Ok(draw(&viewer, &question, &found))
}

fn look(sources: &Sources<'_>, viewer: &Viewer, question: &Question) -> Result<Overview, Problem> {
    let (filter, failed) = (question.filter(viewer), question.failures(viewer));
    let groups = [
        (Group::All, 1),
        (step(question).1, NODES),
        (Group::Partition, TOP),
        (Group::Node, NODES),
        (Group::User, TOP),
        (Group::Fingerprint, TOP),
    ];
    let tally = sources.index.tally(&filter, &groups, ROWS)?;
    let of_failed = sources.index.tally(&failed, &[(Group::Cause, NODES), (Group::Name, TOP)], ROWS)?;
    let mut cut = tally.cut || of_failed.cut;
    let mut groups = tally.groups.into_iter();
    let mut next = || groups.next().unwrap_or_default();
    let (mut total, days, partitions, mut nodes, users, kinds) =
        (next(), next(), next(), next(), next(), next());
    let mut groups = of_failed.groups.into_iter();
    let (mut causes, names) = (groups.next().unwrap_or_default(), groups.next().unwrap_or_default());
    causes.sort_by_key(|c| std::cmp::Reverse(wasted(c)));
    causes.truncate(TOP);
    let suspects = if filter.classes.is_empty() {
        judge(&nodes)
    } else {
        let all = Filter { classes: Vec::new(), ..filter };
        let tally = sources.index.tally(&all, &[(Group::Node, NODES)], ROWS)?;
        cut |= tally.cut;
        judge(&tally.groups.concat())
    };
    nodes.truncate(TOP);
    let mut lists = vec![
        ("Partition", "partition", partitions),
        ("Node", "node", nodes),
        ("User", "user", users),
        ("Application", "name", names),
        ("Fingerprint", "fingerprint", kinds),
    ];
    lists.iter_mut().for_each(|(_, _, counts)| counts.retain(|c| c.failed() > 0));
    let mut messages = BTreeMap::new();
    for kind in lists.iter().filter(|(_, word, _)| *word == "fingerprint").flat_map(|(_, _, counts)| counts) {
        let of_kind = Filter { fingerprint: Some(kind.key.clone()), ..failed.clone() };
        let newest = sources.index.jobs(&of_kind, 1)?.pop();
        let message = newest.and_then(|j| j.entry.end).and_then(|e| e.message);
        messages.insert(kind.key.clone(), message.unwrap_or_default());
    }
    Ok(Overview {
        bins: bins(days, question),
        total: total.pop().unwrap_or_default(),
        lists,
        causes,
        messages,
        suspects: suspects.into_iter().filter(|n| n.suspect).take(TOP).collect(),
        newest: sources.index.jobs(&failed, NEWEST)?,
        cut,
    })
}

/// Width of a bar of the picture in microseconds, and what is counted for it.
fn step(question: &Question) -> (i64, Group) {
    match question.span_us() / DAY_US {
        i64::MIN..=2 => (HOUR_US, Group::Hour),
        3..=62 => (DAY_US, Group::Day),
        63..=730 => (7 * DAY_US, Group::Day),
        _ => (28 * DAY_US, Group::Day),
    }
}

/// The bars of the picture, empty ones too.
fn bins(counts: Vec<Counts>, question: &Question) -> Vec<Bin> {
    let (step, _) = step(question);
    let first = question.since.0 - question.since.0.rem_euclid(step.min(DAY_US));
    let bars = (question.until.0 - first).div_euclid(step) + 1;
    let mut bins: Vec<Bin> = (0..bars.clamp(1, 400))
        .map(|n| {
            let at = Timestamp(first + n * step);
            let (from, to) = (utc(at, "%Y-%m-%dT%H:%M"), utc(Timestamp(at.0 + step), "%Y-%m-%dT%H:%M"));
            let name = utc(at, if step < DAY_US { "%H:%M" } else { "%-d %b" });
            let link = question.link("/", &[("since", &from), ("until", &to)]);
            Bin { at, name, failures: BTreeMap::new(), total: 0, link }
        })
        .collect();
    for counted in counts {
        let at: i64 = counted.key.parse().unwrap_or(first);
        let place = usize::try_from((at - first).div_euclid(step)).unwrap_or(0);
        if let Some(bin) = bins.get_mut(place) {
            bin.total += counted.total();
            for (class, n) in failures(&counted.jobs) {
                *bin.failures.entry(class).or_default() += n;
            }
        }
    }
    if bins.last().is_some_and(|b| b.total == 0 && b.at >= question.until) {
        bins.pop();
    }
    bins
}

fn utc(at: Timestamp, format: &str) -> String {
    let at = jiff::Timestamp::from_microsecond(at.0).unwrap_or_default();
    at.to_zoned(TimeZone::UTC).strftime(format).to_string()
}

fn draw(viewer: &Viewer, question: &Question, found: &Overview) -> Html<String> {
    let total = &found.total;
    let all_us: i64 = total.node_us.values().sum();
    let waste = wasted(total);
    let rate = total.failed() as f64 / total.total().max(1) as f64;
    let title = "Failed jobs by class over time";
    let body = html! {
        main {
            h1 class="page" { "Overview" }
            (filters(question, "/", &[]))
            @if found.cut { (cut_note(&question.link("/failures", &[]))) }
            div class="tiles" {
                (tile(&number(total.failed()), word(total.failed(), "job failed", "jobs failed")))
                (tile(&percent(rate), &format!("of {} that ended", number(total.total()))))
                (tile(&node_hours(waste), "node-hours in failed jobs"))
                (tile(&percent(waste as f64 / all_us.max(1) as f64), "of all node-hours"))
            }
            section {
                h2 { "By class over time" }
                (over_time(&found.bins, title))
                (legend(found.bins.iter().flat_map(|b| b.failures.keys().copied())))
                (as_table(&found.bins))
            }
            @if !found.suspects.is_empty() { (suspects(question, &found.suspects)) }
            (lists::live(question, &found.newest))
            div class="two" {
                (causes(question, &found.causes))
                @for (title, word, counts) in &found.lists {
                    @if !(*word == "user" && !viewer.sees_all() && viewer.accounts.is_empty()) {
                        (list(question, title, word, counts, &found.messages))
                    }
                }
            }
            (meaning())
        }
    };
    super::page(viewer, "/", "Overview", &body)
}

fn tile(figure: &str, words: &str) -> Markup {
    html! { div class="tile" { b { (figure) } span { (words) } } }
}

fn as_table(bins: &[Bin]) -> Markup {
    html! {
        details {
            summary { "The same as a table" }
            div class="scroll" {
                table {
                    thead { tr { th scope="col" { "From" } th scope="col" class="num" { "Ended" } th scope="col" class="num" { "Failed" } th scope="col" { "By class" } } }
                    tbody {
                        @for bin in bins {
                            @let words: Vec<String> = bin.failures.iter().map(|(c, n)| format!("{c} {n}")).collect();
                            tr {
                                td { a href=(bin.link) { (bin.name) } }
                                td class="num" { (number(bin.total)) }
                                td class="num" { (number(bin.failures.values().sum())) }
                                td { (words.join(", ")) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn suspects(question: &Question, nodes: &[NodeStanding]) -> Markup {
    html! {
        section {
            h2 { "Suspect nodes" }
            p {
                "More jobs failed there than chance explains: "
                @for (at, node) in nodes.iter().enumerate() {
                    @if at > 0 { ", " }
                    a href=(question.link("/", &[("node", &node.node)])) { (clean(&node.node)) }
                    " (" (node.says()) ")"
                }
                ". " a href=(question.link("/nodes", &[("node", ""), ("class", "")])) { "The figures" }
            }
        }
    }
}

fn causes(question: &Question, causes: &[Counts]) -> Markup {
    let most = causes.iter().map(wasted).max().unwrap_or(1).max(1);
    html! {
        section {
            h2 { "Node-hours lost, by cause" }
            @if causes.is_empty() { p class="quiet" { "Nothing failed." } } @else {
                div class="scroll" {
                    table {
                        thead { tr { th scope="col" { "Cause" } th scope="col" class="num" { "Node-hours" } th scope="col" class="num" { "Jobs" } th scope="col" { "Share" } } }
                        tbody {
                            @for counted in causes {
                                @let parts = failures(&counted.node_us).into_iter().map(|(c, us)| (c, us / 1_000_000)).collect();
                                tr {
                                    td class="key" { a href=(question.link("/failures", &[("cause", &counted.key)])) { (clean(&counted.key)) } }
                                    td class="num" { (node_hours(wasted(counted))) }
                                    td class="num" { (number(counted.failed())) }
                                    td class="bar" { (share(&parts, most / 1_000_000)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn list(
    question: &Question,
    title: &str,
    word: &str,
    counts: &[Counts],
    messages: &BTreeMap<String, String>,
) -> Markup {
    let most = counts.iter().map(Counts::failed).max().unwrap_or(1);
    let link = |key: &str| match word {
        "fingerprint" => question.link(&format!("/fingerprints/{}", encode(key)), &[]),
        "name" => question.link("/failures", &[("name", key)]),
        _ => question.link("/", &[(word, key)]),
    };
    html! {
        section {
            h2 { "By " (title.to_lowercase()) }
            @if counts.is_empty() { p class="quiet" { "Nothing failed." } } @else {
                div class="scroll" {
                    table {
                        thead { tr { th scope="col" { (title) } th scope="col" class="num" { "Failed" } th scope="col" class="num" { "Rate" } th scope="col" { "By class" } } }
                        tbody {
                            @for counted in counts {
                                tr {
                                    td class="key" {
                                        @if counted.key.is_empty() { span class="quiet" { "not known" } }
                                        @else { a href=(link(&counted.key)) { (clean(&counted.key)) } }
                                        @if let Some(message) = messages.get(&counted.key).filter(|_| word == "fingerprint") {
                                            span class="says" { (clean(message)) }
                                        }
                                    }
                                    td class="num" { (number(counted.failed())) }
                                    td class="num" {
                                        @if matches!(word, "fingerprint" | "name") { "-" }
                                        @else { (percent(counted.failed() as f64 / counted.total().max(1) as f64)) }
                                    }
                                    td class="bar" { (share(&failures(&counted.jobs), most)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::Class;

    #[test]
    fn every_part_of_the_time_has_its_bar() {
        let day = Timestamp(1_795_219_200_000_000); // 2026-11-21 00:00 UTC
        let question = |days: i64| {
            let span = [
                ("since", "2026-11-21".to_owned()),
                ("until", utc(Timestamp(day.0 + days * DAY_US), "%Y-%m-%d")),
            ];
            let pairs = span.into_iter().map(|(n, v)| (n.to_owned(), v)).collect();
            Question::read(pairs, &[], day).unwrap()
        };
        let counted = |at: i64| Counts {
            key: at.to_string(),
            jobs: [(Class::Oom, 2), (Class::Ok, 3)].into(),
            ..Counts::default()
        };
        let bins = super::bins(vec![counted(day.0 + 2 * DAY_US)], &question(7));
        assert_eq!((bins.len(), bins[0].name.as_str()), (7, "21 Nov"));
        assert_eq!((bins[2].total, bins[2].failures[&Class::Oom]), (5, 2));
        assert!(
            bins[2].link.contains("since=2026-11-23T00%3A00&until=2026-11-24T00%3A00"),
            "{}",
            bins[2].link
        );
        let hours = super::bins(vec![counted(day.0 + 23 * HOUR_US)], &question(1));
        assert_eq!((hours.len(), hours[23].total), (24, 5));
        let weeks =
            super::bins(vec![counted(day.0 + 13 * DAY_US), counted(day.0 + 8 * DAY_US)], &question(365));
        assert_eq!((weeks.len(), weeks[1].total), (53, 10));
    }
}
