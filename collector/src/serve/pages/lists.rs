//! Lists of failures and of runs.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, response::Html};
use maud::{Markup, html};

use super::super::access::Viewer;
use super::super::app::App;
use super::super::look;
use super::super::question::{Question, encode};
use super::{Answer, Pairs, asked, filters, number, when};
use crate::report::clean;
use crate::report::html::{class_name, pill};
use crate::report::runs::status;
use crate::store::index::{JobEntry, RunEntry};
use crate::units::{bytes, duration};

/// Newest failures of the list that keeps itself up to date.
const NEWEST: usize = 10;

/// The address of a job.
pub(super) fn job_link(job: &JobEntry) -> String {
    format!("{}/jobs/{}", run_link(&job.cluster, &job.user, &job.run_id), job.chunk_id)
}

/// The address of a run.
pub(super) fn run_link(cluster: &str, user: &str, run: &str) -> String {
    format!("/runs/{}/{}/{}", encode(cluster), encode(user), encode(run))
}

pub(super) async fn failures(
    State(app): State<Arc<App>>,
    Extension(viewer): Extension<Viewer>,
    super::Query(pairs): Pairs,
) -> Answer {
    let question = Question::read(pairs, &["name"], super::now())?;
    let (filter, limit) = (question.failures(&viewer), question.limit);
    let mut jobs = app.data.ask(move |s| Ok(s.index.jobs(&filter, limit + 1)?)).await?;
    let next = question.cut(&mut jobs, JobEntry::place).map(|cursor| {
        let name = question.other("name").unwrap_or("");
        question.link("/failures", &[("before", &cursor), ("name", name)])
    });
    let body = html! {
        main {
            h1 class="page" { "Failures" @if let Some(name) = question.other("name") { small { (clean(name)) } } }
            (filters(&question, "/failures", &[]))
            section {
                @if jobs.is_empty() { p { "Nothing failed." } } @else { (table(&jobs, "Newest first")) }
                (pager(question.before.is_some(), &question.link("/failures", &[]), next.as_deref()))
            }
        }
    };
    Ok(super::page(&viewer, "/failures", "Failures", &body))
}

pub(super) fn pager(paged: bool, first: &str, next: Option<&str>) -> Markup {
    html! {
        @if paged || next.is_some() {
            p class="pager" {
                @if paged { a href=(first) { "Newest" } " " }
                @if let Some(next) = next { a href=(next) rel="next" { "Older" } }
            }
        }
    }
}

/// Failures as a table.
pub(super) fn table(jobs: &[JobEntry], caption: &str) -> Markup {
    html! {
        div class="scroll" {
            table {
                caption { (caption) }
                thead {
                    tr {
                        th scope="col" { "Ended" } th scope="col" { "Job" } th scope="col" { "User" }
                        th scope="col" { "Node" } th scope="col" { "Class" } th scope="col" { "What" }
                    }
                }
                tbody { @for job in jobs { (row(job)) } }
            }
        }
    }
}

fn row(job: &JobEntry) -> Markup {
    let entry = &job.entry;
    let end = entry.end.as_ref();
    html! {
        tr data-key=(format!("{}-{}-{}", job.cluster, job.id, entry.attempt)) {
            td class="time" { (when(end.map_or(entry.last, |e| e.ended))) }
            td class="name" {
                a href=(job_link(job)) { (job.display_id()) }
                @if entry.attempt > 1 { span class="quiet" { " attempt " (entry.attempt) } }
                @if let Some(name) = &entry.name { br; span class="quiet" { (clean(name)) } }
            }
            td class="name" { (clean(&job.user)) }
            td class="name" {
                (entry.node.as_deref().map_or("-".into(), clean))
                @if entry.node_count > 1 { span class="quiet" { " of " (entry.node_count) } }
            }
            td { (pill(job.class(), &class_name(job.class()))) }
            td class="wide" {
                (end.and_then(|e| e.message.as_deref()).map_or("-".into(), clean))
                @if let (Some(peak), Some(limit)) = (entry.peak_bytes, entry.limit_bytes) {
                    br; span class="quiet" { "peak " (bytes(peak)) " of " (bytes(limit)) }
                }
            }
        }
    }
}

/// The newest failures, with what the script needs to ask for them again.
pub(super) fn live(question: &Question, jobs: &[JobEntry]) -> Markup {
    html! {
        section data-live=(question.link("/failures/newest", &[])) {
            h2 { "Newest failures" }
            @if jobs.is_empty() {
                p class="quiet" { "Nothing failed." }
            }
            (table(jobs, ""))
            p class="quiet" {
                a href=(question.link("/failures", &[])) { "All of them" } " "
                span data-live-state role="status" {}
            }
        }
    }
}

pub(super) async fn newest(
    State(app): State<Arc<App>>,
    Extension(viewer): Extension<Viewer>,
    pairs: Pairs,
) -> Answer {
    let question = asked(pairs)?;
    let filter = question.failures(&viewer);
    let jobs = app.data.ask(move |s| Ok(s.index.jobs(&filter, NEWEST)?)).await?;
    Ok(Html(table(&jobs, "").into_string()))
}

pub(super) async fn runs(
    State(app): State<Arc<App>>,
    Extension(viewer): Extension<Viewer>,
    super::Query(pairs): Pairs,
) -> Answer {
    let question = Question::read(pairs, &["status"], super::now())?;
    let (filter, limit) = (question.of_status(&viewer)?, question.limit);
    let asker = viewer.clone();
    let mut runs = app.data.ask(move |s| look::runs(&s, &asker, &filter, limit + 1)).await?;
    let next = question.cut(&mut runs, RunEntry::place).map(|cursor| {
        let status = question.other("status").unwrap_or("");
        question.link("/runs", &[("before", &cursor), ("status", status)])
    });
    let body = html! {
        main {
            h1 class="page" { "Runs" }
            form class="filters" method="get" action="/runs" role="search" aria-label="Filters" {
                @for (name, words) in [("since", "Since"), ("cluster", "Cluster"), ("user", "User")] {
                    label { (words) input type="text" name=(name) value=(question.word(name)) maxlength="256"; }
                }
                label {
                    "Status"
                    select name="status" {
                        @for word in ["any", "failed", "running"] {
                            option value=(word) selected[question.other("status") == Some(word)] { (word) }
                        }
                    }
                }
                button type="submit" { "Show" }
            }
            section {
                @if runs.is_empty() { p { "There are none." } } @else { (run_table(&runs, &viewer)) }
                (pager(question.before.is_some(), &question.link("/runs", &[]), next.as_deref()))
            }
        }
    };
    Ok(super::page(&viewer, "/runs", "Runs", &body))
}

/// Figures of a whole run are for those who may see all of it.
fn run_table(runs: &[RunEntry], viewer: &Viewer) -> Markup {
    html! {
        div class="scroll" {
            table {
                caption { "Newest first" }
                thead {
                    tr {
                        th scope="col" { "Run" } th scope="col" { "User" } th scope="col" { "Cluster" }
                        th scope="col" { "Status" } th scope="col" class="num" { "Jobs" }
                        th scope="col" class="num" { "Failed" } th scope="col" { "Classes" }
                        th scope="col" { "Started" } th scope="col" class="num" { "Took" }
                    }
                }
                tbody {
                    @for run in runs {
                        @let whole = viewer.sees_all_of(&run.user);
                        tr {
                            td class="name" {
                                a href=(run_link(&run.cluster, &run.user, &run.run_id)) { (clean(&run.run_id)) }
                                @if let (true, Some(name)) = (whole, &run.name) {
                                    br; span class="quiet" { (clean(name)) }
                                }
                            }
                            td class="name" { (clean(&run.user)) }
                            td class="name" { (clean(&run.cluster)) }
                            @if whole {
                                td { (status(run.status)) }
                                td class="num" { (number(run.members.into())) }
                                td class="num" { (number(run.failed.into())) }
                                td {
                                    @for (class, n) in run.classes.iter().filter(|(c, _)| **c != crate::verdict::Class::Ok) {
                                        (pill(Some(*class), &format!("{class} {n}"))) " "
                                    }
                                }
                                td class="time" { (when(run.started)) }
                                td class="num" { (duration(run.last.since(run.started))) }
                            } @else {
                                td colspan="6" class="quiet" { "as far as you may see it" }
                            }
                        }
                    }
                }
            }
        }
    }
}
