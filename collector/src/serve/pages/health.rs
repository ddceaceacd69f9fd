//! Whether everything arrives.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use maud::html;

use super::super::access::Viewer;
use super::super::app::App;
use super::super::data::Problem;
use super::super::metrics::health;
use super::{Answer, number, when};
use crate::report::clean;
use crate::units::word;

/// Journals and streams that are listed.
const LISTED: usize = 100;

pub(super) async fn page(State(app): State<Arc<App>>, Extension(viewer): Extension<Viewer>) -> Answer {
    if !viewer.operator {
        return Err(Problem::Denied.into());
    }
    let store = app.data.store().to_owned();
    let read = tokio::task::spawn_blocking(move || health(&store)).await;
    let health = read.map_err(|e| Problem::Broken(e.to_string()))??;
    let met = health.totals;
    let sums = [
        (health.lost, "event that has a number but never came", "events that have a number but never came"),
        (met.bad, "line that is no event", "lines that are no events"),
        (met.copies, "line that had been merged before", "lines that had been merged before"),
        (
            met.foreign_node,
            "line of another node than its directory",
            "lines of another node than their directory",
        ),
        (met.newer, "line of a newer version", "lines of a newer version"),
    ];
    let body = html! {
        main {
            h1 class="page" { "Collector" }
            p class="quiet" { "As of " @match health.at { Some(at) => (when(at)), None => "an unknown time" } }
            div class="tiles" {
                @for (n, one, many) in sums {
                    div class="tile" { b { (number(i64::try_from(n).unwrap_or(i64::MAX))) } span { (word(n, one, many)) } }
                }
            }
            section {
                h2 { "Journals that cannot be read" }
                @if health.unreadable.is_empty() { p { "None." } } @else {
                    table {
                        thead { tr { th scope="col" { "Journal" } th scope="col" { "Why" } } }
                        tbody {
                            @for (journal, why) in health.unreadable.iter().take(LISTED) {
                                tr { td class="wide" { (clean(journal)) } td class="wide" { (clean(why)) } }
                            }
                        }
                    }
                }
            }
            section {
                h2 { "Events that never came" }
                @if health.gaps.is_empty() { p { "None." } } @else {
                    table {
                        thead { tr { th scope="col" { "Node" } th scope="col" { "Stream" } th scope="col" class="num" { "Events" } } }
                        tbody {
                            @for gap in health.gaps.iter().take(LISTED) {
                                tr { td { (clean(&gap.node)) } td class="wide" { (clean(&gap.stream)) } td class="num" { (gap.lost) } }
                            }
                        }
                    }
                }
            }
            section {
                h2 { "Journals with more than new events in them" }
                @if health.journals.is_empty() { p { "None." } } @else {
                    table {
                        thead {
                            tr {
                                th scope="col" { "Journal" } th scope="col" class="num" { "Bad" } th scope="col" class="num" { "Copies" }
                                th scope="col" class="num" { "Foreign" } th scope="col" class="num" { "Newer" }
                            }
                        }
                        tbody {
                            @for journal in health.journals.iter().take(LISTED) {
                                tr {
                                    td class="wide" { (clean(&journal.name)) } td class="num" { (journal.met.bad) }
                                    td class="num" { (journal.met.copies) } td class="num" { (journal.met.foreign_node) }
                                    td class="num" { (journal.met.newer) }
                                }
                            }
                        }
                    }
                }
            }
        }
    };
    Ok(super::page(&viewer, "/health", "Collector", &body))
}
