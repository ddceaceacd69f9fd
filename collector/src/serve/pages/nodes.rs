//! Nodes beside their peers.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use maud::html;

use super::super::access::Viewer;
use super::super::app::App;
use super::super::counts::failures;
use super::super::data::{Problem, ROWS, Sources};
use super::super::pictures::share;
use super::super::question::Question;
use super::super::suspects::{COUNTED, FALSE_ALARMS, NODES, NodeStanding, judge};
use super::{Answer, Pairs, asked, cut_note, filters, number, percent};
use crate::report::clean;
use crate::store::index::{Counts, Filter, Group};
use crate::units::count;

/// Nodes that are listed.
const LISTED: usize = 500;

/// A share of failures of one cause above which it is said that they share it.
const SHARED: f64 = 0.5;

/// What is known of the nodes in some time.
pub(super) struct Standing {
    nodes: Vec<NodeStanding>,
    /// The commonest fingerprint of the suspects' counted failures: its name,
    /// how many it explains, of how many.
    shared: Vec<(String, String, i64, i64)>,
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
    let suspects = found.nodes.iter().filter(|n| n.suspect).count();
    let body = html! {
        main {
            h1 class="page" { "Nodes" }
            (filters(&question, "/nodes", &["class"]))
            @if found.cut { (cut_note(&question.link("/failures", &[]))) }
            section {
                h2 {
                    @match suspects {
                        0 => "No node is worse than chance explains",
                        n => { (count(n, "node is", "nodes are")) " worse than chance explains" }
                    }
                }
                @for (node, cause, of, all) in &found.shared {
                    p class="note" {
                        (clean(node)) ": " (of) " of its " (count(*all, "counted failure is", "counted failures are")) " one kind, " code { (clean(cause)) }
                        ". One program that fails everywhere in the same way is not the node's fault: "
                        a href=(question.link(&format!("/fingerprints/{}", super::super::question::encode(cause)), &[("node", "")])) {
                            "where else it happened"
                        }
                    }
                }
                @if found.nodes.is_empty() { p { "No job ended in this time." } } @else { (table(&question, &found.nodes)) }
                @if found.nodes.len() > LISTED { p class="quiet" { "and " (found.nodes.len() - LISTED) " more" } }
            }
            section {
                h2 { "How this is meant" }
                p {
                    "Failed are all that did not end well; counted are those failures that can be a node's fault: memory, crashes, errors of programs, infrastructure and what "
                    "nobody could explain; not time limits, cancelled, preempted or dependent jobs. An attempt of a job that was on several nodes counts on "
                    "each. The interval holds the true rate in 95 of 100 cases (Wilson). Chance is how often a node like all the others "
                    "would have so many failures (exact test, one-sided), corrected for the number of nodes tested (Benjamini-Hochberg): "
                    "of the nodes that are named, at most about " (percent(FALSE_ALARMS)) " are named by chance. A user whose jobs all "
                    "fail and who was given one node looks like a bad node, too: look at the kinds of failure before you drain it."
                }
            }
        }
    };
    Ok(super::page(&viewer, "/nodes", "Nodes", &body))
}

fn look(sources: &Sources<'_>, viewer: &Viewer, question: &Question) -> Result<Standing, Problem> {
    let filter = Filter { classes: Vec::new(), ..question.filter(viewer) };
    let tally = sources.index.tally(&filter, &[(Group::Node, NODES)], ROWS)?;
    let nodes = judge(&tally.groups.concat());
    let mut shared = Vec::new();
    for node in nodes.iter().filter(|n| n.suspect).take(5) {
        let there = Filter { node: Some(node.node.clone()), classes: COUNTED.to_vec(), ..filter.clone() };
        let kinds: Vec<Counts> =
            sources.index.tally(&there, &[(Group::Fingerprint, 1)], ROWS)?.groups.concat();
        if let Some(kind) = kinds.first()
            && kind.failed() as f64 >= SHARED * node.counted as f64
        {
            shared.push((node.node.clone(), kind.key.clone(), kind.failed(), node.counted));
        }
    }
    Ok(Standing { nodes, shared, cut: tally.cut })
}

fn table(question: &Question, nodes: &[NodeStanding]) -> maud::Markup {
    let most = nodes.iter().map(|n| n.failed).max().unwrap_or(1);
    html! {
        div class="scroll" {
            table {
                caption { "Least explained by chance first" }
                thead {
                    tr {
                        th scope="col" { "Node" } th scope="col" class="num" { "Jobs" } th scope="col" class="num" { "Failed" }
                        th scope="col" class="num" { "Counted" } th scope="col" class="num" { "Rate" } th scope="col" { "95 % interval" }
                        th scope="col" class="num" { "Peers" } th scope="col" class="num" { "Chance" }
                        th scope="col" class="num" { "Corrected" } th scope="col" { "By class" }
                    }
                }
                tbody {
                    @for node in nodes.iter().take(LISTED) {
                        tr class=[node.suspect.then_some("suspect")] {
                            td {
                                a href=(question.link("/", &[("node", &node.node)])) { (clean(&node.node)) }
                                @if node.suspect { " " strong { "suspect" } }
                            }
                            td class="num" { (number(node.jobs)) }
                            td class="num" { (number(node.failed)) }
                            td class="num" { (number(node.counted)) }
                            td class="num" { (percent(node.rate)) }
                            td { (percent(node.interval.0)) " to " (percent(node.interval.1)) }
                            td class="num" { (node.peers_rate.map_or("-".into(), percent)) }
                            td class="num" { (chance(node.chance)) }
                            td class="num" { (chance(node.corrected)) }
                            td class="bar" { (share(&failures(&node.classes), most)) }
                        }
                    }
                }
            }
        }
    }
}

fn chance(p: f64) -> String {
    match p {
        p if p < 1e-6 => "< 0.000001".into(),
        p if p < 0.01 => format!("{p:.6}"),
        p => format!("{p:.2}"),
    }
}
