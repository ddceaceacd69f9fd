//! One run, and one job of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use jiff::tz::TimeZone;
use maud::{Markup, html};

use super::super::access::Viewer;
use super::super::app::App;
use super::super::data::{Problem, Sources};
use super::super::look::{self, Job, Name};
use super::super::question::{Question, encode};
use super::lists::{job_link, pager, run_link, table};
use super::{Answer, Pairs, counted, number, when};
use crate::report::clean;
use crate::report::failures::failures;
use crate::report::html::{Row, class_name, classes, pill, timeline};
use crate::report::runs::status;
use crate::report::why::{Subject, report};
use crate::runs::Member;
use crate::store::index::{Filter, JobEntry, RunEntry};
use crate::store::{member_of, run_of};
use crate::units::duration;
use crate::verdict::Class;

/// Jobs of a run that are drawn and listed at one time.
const MEMBERS: usize = 200;

struct Run {
    entry: RunEntry,
    /// Whether its figures are of jobs that the viewer may see.
    whole: bool,
    /// Ended jobs by class, each by its last attempt.
    classes: BTreeMap<Class, u32>,
    running: u32,
    failed: Vec<JobEntry>,
    members: Vec<JobEntry>,
    /// Number of the first job of the next page.
    next: Option<u32>,
}

pub(super) async fn page(
    State(app): State<Arc<App>>,
    Extension(viewer): Extension<Viewer>,
    Path(name): Path<Name>,
    super::Query(pairs): Pairs,
) -> Answer {
    let question = Question::read(pairs, &["from"], super::now())?;
    let from = question.from()?;
    let (asker, named, q) = (viewer.clone(), name.clone(), question.clone());
    let mut run = app.data.ask(move |s| look_at(&s, &asker, &named, &q, from)).await?;
    let here = run_link(&name.0, &name.1, &name.2);
    let older = question.cut(&mut run.failed, JobEntry::place);
    let body = draw(&run, &question, &here, older.as_deref(), from);
    Ok(super::page(&viewer, "/runs", &format!("Run {}", clean(&name.2)), &body))
}

fn look_at(
    sources: &Sources<'_>,
    viewer: &Viewer,
    name: &Name,
    question: &Question,
    from: u32,
) -> Result<Run, Problem> {
    let (entry, seen) = look::run(sources, viewer, name)?;
    let index = sources.index;
    let all = look::members_of(name, viewer);
    let (classes, running) = match seen {
        // The run has its own figures; what it has of jobs need not be counted.
        None => (entry.classes.clone(), entry.running),
        Some(_) => index.come_to(&all)?,
    };
    let failed = Filter { failed: true, open: Some(false), before: question.before, ..all.clone() };
    let (members, next) = look::members(sources, &all, from, MEMBERS)?;
    Ok(Run {
        whole: viewer.sees_all_of(&name.1),
        entry,
        classes,
        running,
        failed: index.jobs(&failed, question.limit + 1)?,
        members,
        next,
    })
}

fn draw(run: &Run, question: &Question, here: &str, older: Option<&str>, from: u32) -> Markup {
    let entry = &run.entry;
    let failed: u32 = run.classes.iter().filter(|(c, _)| **c != Class::Ok).map(|(_, n)| n).sum();
    let ended: u32 = run.classes.values().sum();
    let mut shares: Vec<(Option<Class>, usize)> =
        run.classes.iter().map(|(c, n)| (Some(*c), *n as usize)).collect();
    if run.running > 0 {
        shares.push((None, run.running as usize));
    }
    shares.sort_by_key(|(c, n)| (c.is_none(), *c == Some(Class::Ok), std::cmp::Reverse(*n)));
    let first = run.members.iter().map(|j| j.entry.started).min();
    let mut rows: Vec<&JobEntry> = run.members.iter().collect();
    rows.sort_by_key(|j| (j.entry.started, j.id));
    let rows: Vec<Row> = rows.into_iter().filter_map(|j| Some(row(j, first?))).collect();
    let part = (from > 0 || run.next.is_some()).then(|| {
        (run.members.first().map_or(from, |j| j.chunk_id), run.members.last().map_or(from, |j| j.chunk_id))
    });
    let next = run.next.map(|from| format!("{here}?from={from}#jobs"));
    let older = older.map(|before| format!("{here}?before={before}"));
    let name = run.members.first().and_then(|j| j.entry.name.as_deref());
    html! {
        header class="top" {
            h1 { "Run " (clean(&entry.run_id)) small { (clean(name.unwrap_or("-"))) } }
            p class="meta" {
                (clean(&entry.user)) " on " (clean(&entry.cluster))
                @if run.whole {
                    "; " (status(entry.status)) "; started " (when(entry.started)) ", took " (duration(entry.last.since(entry.started)))
                } @else { "; as far as you may see it" }
            }
            p class={ "verdict " (if failed > 0 { "bad" } else { "good" }) } {
                (number(failed.into())) " of " (counted(ended.into(), "job", "jobs")) " failed"
                @if run.running > 0 { ", " (number(run.running.into())) " still running" }
            }
            (classes("classes", &shares))
        }
        main {
            section {
                h2 { "Failures" }
                @if run.failed.is_empty() { p { "None." } } @else {
                    (table(&run.failed, "Newest first"))
                    p class="quiet" {
                        "A row is an attempt: a job that was put back into the queue has one for each that failed. The "
                        "figures above count it once, by its last attempt."
                    }
                }
                (pager(question.before.is_some(), here, older.as_deref()))
            }
            @if !rows.is_empty() {
                section id="jobs" {
                    h2 {
                        "Timeline"
                        @if let Some((first, last)) = part { " " small { "jobs " (number(first.into())) " to " (number(last.into())) } }
                    }
                    (timeline("time", &format!("Jobs of run {} over time", clean(&entry.run_id)), &rows))
                    (turn(here, from, next.as_deref()))
                }
                section {
                    h2 { "Jobs" }
                    details open[run.members.len() <= 20 || from > 0] {
                        summary {
                            @let shown = run.members.chunk_by(|a, b| a.chunk_id == b.chunk_id).count() as i64;
                            @if part.is_some() && run.whole {
                                (number(shown)) " of " (counted(entry.members.into(), "job", "jobs"))
                            } @else { (counted(shown, "job", "jobs")) }
                        }
                        (jobs(&run.members))
                    }
                    (turn(here, from, next.as_deref()))
                }
            }
        }
    }
}

/// To the other pages of the jobs of a run.
fn turn(here: &str, from: u32, next: Option<&str>) -> Markup {
    html! {
        @if from > 0 || next.is_some() {
            p class="pager" {
                @if from > 0 { a href={ (here) "#jobs" } { "First jobs" } " " }
                @if let Some(next) = next { a href=(next) rel="next" { "Next jobs" } }
            }
        }
    }
}

fn row(job: &JobEntry, first: inquest_journal::Timestamp) -> Row {
    let entry = &job.entry;
    let class = job.class();
    let nodes = crate::slurm::hostlist::fold(entry.nodes.iter().map(String::as_str));
    let ran = duration(entry.last.since(entry.started));
    let why = entry.end.as_ref().and_then(|e| e.message.as_deref()).unwrap_or("");
    Row {
        name: format!("{} {}", job.display_id(), clean(&nodes)),
        from_us: entry.started.since(first),
        to_us: entry.last.since(first),
        class,
        title: clean(&format!("{} on {nodes}: {}, {ran}. {why}", job.display_id(), class_name(class))),
        marks: Vec::new(),
    }
}

fn jobs(jobs: &[JobEntry]) -> Markup {
    html! {
        div class="scroll" {
            table {
                thead {
                    tr {
                        th scope="col" { "Job" } th scope="col" { "Class" } th scope="col" { "Node" }
                        th scope="col" { "Started" } th scope="col" class="num" { "Took" }
                    }
                }
                tbody {
                    @for job in jobs {
                        tr {
                            td { a href=(job_link(job)) { (job.display_id()) } @if job.entry.attempt > 1 { " attempt " (job.entry.attempt) } }
                            td { (pill(job.class(), &class_name(job.class()))) }
                            td { (job.entry.node.as_deref().map_or("-".into(), clean)) }
                            td class="time" { (when(job.entry.started)) }
                            td class="num" { (duration(job.entry.last.since(job.entry.started))) }
                        }
                    }
                }
            }
        }
    }
}

pub(super) async fn job(
    State(app): State<Arc<App>>,
    Extension(viewer): Extension<Viewer>,
    Path((cluster, user, run, chunk)): Path<(String, String, String, u32)>,
) -> Answer {
    let name: Name = (cluster, user, run);
    let (asker, named) = (viewer.clone(), name.clone());
    let (title, kind, report) = app
        .data
        .ask(move |s| {
            let job = look::job(&s, &asker, &named, chunk)?;
            let failed = job.verdict.as_ref().filter(|v| v.class != Class::Ok);
            let kind = failed.map(|v| v.fingerprint().to_string());
            let (title, report) = draw_job(job);
            Ok((title, kind, report))
        })
        .await?;
    let body = html! {
        nav class="crumb" aria-label="Where this is" { a href=(run_link(&name.0, &name.1, &name.2)) { "Run " (clean(&name.2)) }
            @if let Some(kind) = &kind { " " a href={ "/fingerprints/" (encode(kind)) } { "Where else it failed so" } }
        }
        (report)
    };
    Ok(super::page(&viewer, "/runs", &title, &body))
}

/// The report that `inquest why` gives, too.
fn draw_job(job: Job) -> (String, Markup) {
    let Job { run, place, story, verdict, cut } = job;
    let name = story.attempts.last().and_then(|a| a.facts.name.clone());
    let member = Member { name, ..member_of(&place, verdict) };
    let title = format!("Job {}", member.display_id());
    let Some(state) = run_of(run, [(place.chunk, member.clone())].into()) else { return (title, html! {}) };
    // The server opens no path that a job has named: it would be read with the
    // server's rights and not with those of whoever asks.
    let failure = if member.failed() { failures(&state, &member, &story, false).pop() } else { None };
    let subject = Subject { number: place.chunk, member: &member, story, failure, closed: false };
    let zone = TimeZone::system();
    let page = report("job", &state, std::slice::from_ref(&subject), None, &zone);
    let markup = html! {
        (page)
        @if cut { main { p class="note" { "This job has more events than are read for a page; 'inquest why' reads all." } } }
    };
    (title, markup)
}
