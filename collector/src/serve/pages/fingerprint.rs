//! One kind of failure.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use maud::html;

use super::super::access::Viewer;
use super::super::app::App;
use super::super::counts::{failures, wasted};
use super::super::data::{Problem, ROWS};
use super::super::pictures::share;
use super::super::question::encode;
use super::{Answer, Pairs, asked, counted, cut_note, filters, lists, meaning, node_hours, number, when};
use crate::report::clean;
use crate::report::html::pill;
use crate::store::index::{Counts, Filter, Group, JobEntry};

/// Groups of each list.
const TOP: usize = 10;

/// Newest examples.
const EXAMPLES: usize = 25;

struct Kind {
    total: Counts,
    lists: Vec<(&'static str, &'static str, Vec<Counts>)>,
    jobs: Vec<JobEntry>,
    /// Not all of it was counted.
    cut: bool,
}

pub(super) async fn page(
    State(app): State<Arc<App>>,
    Extension(viewer): Extension<Viewer>,
    Path(fingerprint): Path<String>,
    pairs: Pairs,
) -> Answer {
    let question = asked(pairs)?;
    let filter = Filter { fingerprint: Some(fingerprint.clone()), ..question.failures(&viewer) };
    let kind = app
        .data
        .ask(move |sources| {
            let index = sources.index;
            let jobs = index.jobs(&filter, EXAMPLES)?;
            if jobs.is_empty() {
                return Err(Problem::NotFound);
            }
            let groups = [(Group::All, 1), (Group::Node, TOP), (Group::User, TOP), (Group::Partition, TOP)];
            let tally = index.tally(&filter, &groups, ROWS)?;
            let mut groups = tally.groups.into_iter();
            let total = groups.next().and_then(|mut all| all.pop()).unwrap_or_default();
            let titles = [("Node", "node"), ("User", "user"), ("Partition", "partition")];
            let lists =
                titles.into_iter().zip(groups).map(|((title, word), counts)| (title, word, counts)).collect();
            Ok(Kind { total, lists, jobs, cut: tally.cut })
        })
        .await?;
    let newest = &kind.jobs[0];
    let end = newest.entry.end.as_ref();
    let path = format!("/fingerprints/{}", encode(&fingerprint));
    let body = html! {
        main {
            h1 class="page" { "One kind of failure" small { (clean(&fingerprint)) } }
            (filters(&question, &path, &["class"]))
            @if kind.cut { (cut_note(&question.link("/failures", &[("fingerprint", &fingerprint)]))) }
            section {
                h2 { (pill(newest.class(), end.map_or("", |e| e.label.as_str()))) " " (end.map_or(String::new(), |e| clean(&e.cause))) }
                p { (end.and_then(|e| e.message.as_deref()).map_or("-".into(), clean)) }
                p class="quiet" {
                    (counted(kind.total.failed(), "job", "jobs")) ", " (node_hours(wasted(&kind.total))) " node-hours; newest "
                    (when(end.map_or(newest.entry.last, |e| e.ended))) ". The words are those of the newest one; sizes, times and names differ."
                }
            }
            div class="two" {
                @for (title, word, counts) in &kind.lists {
                    section {
                        h2 { "By " (title.to_lowercase()) }
                        table {
                            thead { tr { th scope="col" { (title) } th scope="col" class="num" { "Failed" } th scope="col" { "By class" } } }
                            tbody {
                                @for c in counts {
                                    tr {
                                        td class="key" {
                                            @if c.key.is_empty() { span class="quiet" { "not known" } }
                                            @else { a href=(question.link(&path, &[(word, &c.key)])) { (clean(&c.key)) } }
                                        }
                                        td class="num" { (number(c.failed())) }
                                        td class="bar" { (share(&failures(&c.jobs), counts.first().map_or(1, Counts::failed))) }
                                    }
                                }
                            }
                        }
                    }
                }
            }
            section {
                h2 { "Newest examples" }
                (lists::table(&kind.jobs, ""))
                p { a href=(question.link("/failures", &[("fingerprint", &fingerprint)])) { "All of them" } }
            }
            (meaning())
        }
    };
    Ok(super::page(&viewer, "/failures", "One kind of failure", &body))
}
