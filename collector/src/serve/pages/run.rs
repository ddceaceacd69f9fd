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
use super::super::question::{Question, after};
use super::lists::{job_link, pager, run_link, table};
use super::{Answer, Pairs, count, when};
use crate::report::clean;
use crate::report::failures::failures;
use crate::report::html::{Row, class_name, classes, pill, timeline};
use crate::report::runs::status;
use crate::report::why::{Subject, report};
use crate::runs::{Member, RunKey, RunState, SCHEMA};
use crate::store::index::{Filter, Group, JobEntry, RunEntry};
use crate::units::duration;
use crate::verdict::Class;

/// Jobs of a run that are drawn.
const DRAWN: usize = 1000;

struct Run {
    entry: RunEntry,
    classes: BTreeMap<Class, i64>,
    running: usize,
    drawn: Vec<JobEntry>,
    failed: Vec<JobEntry>,
}

pub(super) async fn page(
    State(app): State<Arc<App>>,
    Extension(viewer): Extension<Viewer>,
    Path(name): Path<Name>,
    super::Query(pairs): Pairs,
) -> Answer {
    let question = Question::read(pairs, &[], super::now())?;
    let (asker, limit, before) = (viewer.clone(), question.limit, question.before);
    let named = name.clone();
    let mut run = app.data.ask(move |s| look_at(&s, &asker, &named, limit, before)).await?;
    let more = run.failed.len() > limit;
    run.failed.truncate(limit);
    let here = run_link(&name.0, &name.1, &name.2);
    let next =
        run.failed.last().filter(|_| more).map(|j| format!("{here}?before={}", after(j.ended(), j.id)));
    let body = draw(&run, &here, question.before.is_some(), next.as_deref());
    Ok(super::page(&viewer, "/runs", &format!("Run {}", clean(&name.2)), &body))
}

fn look_at(
    sources: &Sources<'_>,
    viewer: &Viewer,
    name: &Name,
    limit: usize,
    before: Option<(Option<inquest_journal::Timestamp>, i64)>,
) -> Result<Run, Problem> {
    let (entry, _) = look::run(sources, viewer, name)?;
    let index = sources.index;
    let all = look::members_of(name, viewer);
    let counts = index.count(&all, Group::All, 1)?.pop().unwrap_or_default();
    let failed = Filter { failed: true, open: Some(false), before, ..all.clone() };
    Ok(Run {
        entry,
        classes: counts.jobs,
        running: index.jobs(&Filter { open: Some(true), ..all.clone() }, DRAWN)?.len(),
        failed: index.jobs(&failed, limit + 1)?,
        drawn: index.jobs(&all, DRAWN)?,
    })
}

fn draw(run: &Run, here: &str, paged: bool, next: Option<&str>) -> Markup {
    let entry = &run.entry;
    let failed: i64 = run.classes.iter().filter(|(c, _)| **c != Class::Ok).map(|(_, n)| n).sum();
    let ended: i64 = run.classes.values().sum();
    let mut shares: Vec<(Option<Class>, usize)> =
        run.classes.iter().map(|(c, n)| (Some(*c), usize::try_from(*n).unwrap_or(0))).collect();
    if run.running > 0 {
        shares.push((None, run.running));
    }
    shares.sort_by_key(|(c, n)| (c.is_none(), *c == Some(Class::Ok), std::cmp::Reverse(*n)));
    let first = run.drawn.iter().map(|j| j.entry.started).min();
    let mut rows: Vec<&JobEntry> = run.drawn.iter().collect();
    rows.sort_by_key(|j| (j.entry.started, j.id));
    let rows: Vec<Row> = rows.into_iter().filter_map(|j| Some(row(j, first?))).collect();
    html! {
        header class="top" {
            h1 { "Run " (clean(&entry.run_id)) small { (clean(run.drawn.last().and_then(|j| j.entry.name.as_deref()).unwrap_or("-"))) } }
            p class="meta" {
                (clean(&entry.user)) " on " (clean(&entry.cluster)) "; " (status(entry.status)) "; started " (when(entry.started))
                ", took " (duration(entry.last.since(entry.started)))
            }
            p class={ "verdict " (if failed > 0 { "bad" } else { "good" }) } {
                (count(failed)) " of " (count(ended)) " jobs failed" @if run.running > 0 { ", " (run.running) " still running" }
            }
            (classes("classes", &shares))
        }
        main {
            section {
                h2 { "Failures" }
                @if run.failed.is_empty() { p { "None." } } @else { (table(&run.failed, "Newest first")) }
                (pager(paged, here, next))
            }
            @if !rows.is_empty() {
                section {
                    h2 { "Timeline" }
                    (timeline("time", &format!("Jobs of run {} over time", clean(&entry.run_id)), &rows))
                }
            }
            section {
                h2 { "All jobs" }
                details open[run.drawn.len() <= 20] {
                    summary { (run.drawn.len()) " jobs" @if run.drawn.len() == DRAWN { ", the newest" } }
                    (jobs(&run.drawn))
                }
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
    let (title, report) = app
        .data
        .ask(move |s| {
            let job = look::job(&s, &asker, &named, chunk)?;
            Ok(draw_job(job))
        })
        .await?;
    let body = html! {
        nav class="crumb" aria-label="Where this is" { a href=(run_link(&name.0, &name.1, &name.2)) { "Run " (clean(&name.2)) } }
        (report)
    };
    Ok(super::page(&viewer, "/runs", &title, &body))
}

/// The report that `inquest why` gives, too.
fn draw_job(job: Job) -> (String, Markup) {
    let Job { run, place, story, verdict, cut } = job;
    let member = Member {
        job_id: place.job_id,
        name: story.attempts.last().and_then(|a| a.facts.name.clone()),
        array_job_id: place.array_job_id,
        array_task_id: place.array_task_id,
        attempts: place.attempts,
        started: place.started,
        last: place.last,
        state: None,
        verdict,
        range: place.range,
    };
    let title = format!("Job {}", member.display_id());
    let state = RunState {
        schema: SCHEMA,
        run_id: run.run_id,
        cluster: run.cluster,
        user: run.user,
        aliases: Default::default(),
        key: run.key.unwrap_or_else(|| RunKey::of_job(place.job_id)),
        name: run.name,
        started: run.started,
        last: run.last,
        status: run.status,
        classes: BTreeMap::new(),
        members: [(place.chunk, member.clone())].into(),
        next_seq: 0,
    };
    // The server opens no path that a job has named: it would be read with the
    // server's rights and not with those of whoever asks.
    let failure = if member.failed() { failures(&state, &member, &story, false).pop() } else { None };
    let subject = Subject { number: place.chunk, member: &member, story, failure };
    let zone = TimeZone::system();
    let page = report("job", &state, std::slice::from_ref(&subject), None, &zone);
    let markup = html! {
        (page)
        @if cut { main { p class="note" { "This job has more events than are read for a page; 'inquest why' reads all." } } }
    };
    (title, markup)
}
