//! The JSON API. What it answers is described by [`super::openapi`], which a
//! test holds against these handlers.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router, routing::get};
use serde_json::{Value, json};

use super::access::Viewer;
use super::app::{App, now};
use super::data::{Problem, ROWS};
use super::look::{self, Name};
use super::metrics::health;
use super::question::Question;
use super::suspects::{FALSE_ALARMS, NODES, judge};
use crate::report::JSON_SCHEMA;
use crate::store::index::{Filter, Group, JobEntry, RunEntry};

/// Groups of one answer.
const GROUPS: usize = 1000;

/// What failures can be counted by.
pub const GROUP_NAMES: [(&str, Group); 11] = [
    ("class", Group::All),
    ("day", Group::Day),
    ("hour", Group::Hour),
    ("cluster", Group::Cluster),
    ("partition", Group::Partition),
    ("node", Group::Node),
    ("user", Group::User),
    ("account", Group::Account),
    ("cause", Group::Cause),
    ("name", Group::Name),
    ("fingerprint", Group::Fingerprint),
];

type Pairs = Query<Vec<(String, String)>>;

struct Failed(Problem);

impl From<Problem> for Failed {
    fn from(problem: Problem) -> Failed {
        Failed(problem)
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        self.0.log();
        problem(self.0.status(), &self.0.to_string())
    }
}

type Answer = Result<Response, Failed>;

/// An answer that says why there is none.
pub fn problem(status: StatusCode, text: &str) -> Response {
    let mut response = send(json!({ "error": { "status": status.as_u16(), "message": text } }));
    *response.status_mut() = status;
    response
}

fn send(mut value: Value) -> Response {
    if let Some(map) = value.as_object_mut() {
        map.insert("schema".into(), json!(JSON_SCHEMA));
    }
    ([(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

/// The routes below `/api/v1`.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/me", get(me))
        .route("/runs", get(runs))
        .route("/runs/{cluster}/{user}/{run}", get(run))
        .route("/runs/{cluster}/{user}/{run}/jobs/{chunk}", get(job))
        .route("/runs/{cluster}/{user}/{run}/events", get(events))
        .route("/jobs", get(jobs))
        .route("/failures", get(failures))
        .route("/nodes", get(nodes))
        .route("/health", get(collector))
        .route("/openapi.json", get(openapi))
}

async fn me(Extension(viewer): Extension<Viewer>) -> Answer {
    Ok(send(json!({ "user": viewer.user, "role": viewer.role(), "accounts": viewer.accounts })))
}

async fn openapi() -> Answer {
    Ok(([(header::CONTENT_TYPE, "application/json")], super::openapi().to_string()).into_response())
}

async fn runs(
    State(app): State<Arc<App>>,
    Extension(viewer): Extension<Viewer>,
    Query(pairs): Pairs,
) -> Answer {
    let question = Question::read(pairs, &["status"], now())?;
    let (filter, limit) = (question.of_status(&viewer)?, question.limit);
    let asker = viewer.clone();
    let mut runs = app.data.ask(move |s| look::runs(&s, &asker, &filter, limit + 1)).await?;
    let next = question.cut(&mut runs, RunEntry::place);
    let runs: Vec<Value> = runs.iter().map(|run| shown(run, &viewer)).collect();
    Ok(send(json!({ "runs": runs, "next": next })))
}

async fn run(
    State(app): State<Arc<App>>,
    Extension(viewer): Extension<Viewer>,
    Path(name): Path<Name>,
    Query(pairs): Pairs,
) -> Answer {
    let question = Question::read(pairs, &["from"], now())?;
    let (limit, from) = (question.limit, question.from()?);
    let (run, (jobs, next)) = app
        .data
        .ask(move |s| {
            let (run, members) = look::run(&s, &viewer, &name)?;
            let jobs = look::members(&s, &look::members_of(&name, &viewer), from, limit)?;
            let mut run = shown(&run, &viewer);
            if let Some(members) = members {
                let (ended, running) = s.index.come_to(&members)?;
                run["members"] = json!(ended.values().sum::<u32>() + running);
            }
            Ok((run, jobs))
        })
        .await?;
    Ok(send(json!({ "run": run, "jobs": jobs, "next": next })))
}

/// A run without what tells of members that the viewer may not see.
fn shown(run: &RunEntry, viewer: &Viewer) -> Value {
    let mut value = json!(run);
    if let (false, Some(map)) = (viewer.sees_all_of(&run.user), value.as_object_mut()) {
        map.retain(|key, _| matches!(key.as_str(), "cluster" | "user" | "run_id"));
    }
    value
}

async fn job(
    State(app): State<Arc<App>>,
    Extension(viewer): Extension<Viewer>,
    Path((cluster, user, run, chunk)): Path<(String, String, String, u32)>,
) -> Answer {
    let name = (cluster, user, run);
    let answer = app
        .data
        .ask(move |s| {
            let job = look::job(&s, &viewer, &name, chunk)?;
            Ok(json!({
                "job_id": job.place.job_id,
                "array_job_id": job.place.array_job_id,
                "array_task_id": job.place.array_task_id,
                "attempts": job.place.attempts,
                "verdict": job.verdict,
                "story": job.story,
                "cut": job.cut,
            }))
        })
        .await?;
    Ok(send(answer))
}

async fn events(
    State(app): State<Arc<App>>,
    Extension(viewer): Extension<Viewer>,
    Path(name): Path<Name>,
    Query(pairs): Pairs,
) -> Answer {
    let question = Question::read(pairs, &["from"], now())?;
    let from = question.from()?;
    let limit = question.limit;
    let page = app.data.ask(move |s| look::events(&s, &viewer, &name, from, limit)).await?;
    // As they are stored, without being read once more.
    let events: Vec<&str> = page.events.iter().map(|e| e.get()).collect();
    let next = page.next.map_or("null".to_owned(), |n| n.to_string());
    let text = format!("{{\"schema\":{JSON_SCHEMA},\"events\":[{}],\"next\":{next}}}", events.join(","));
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

async fn jobs(
    State(app): State<Arc<App>>,
    Extension(viewer): Extension<Viewer>,
    Query(pairs): Pairs,
) -> Answer {
    let question = Question::read(pairs, &["name", "status"], now())?;
    let mut filter = question.of_status(&viewer)?;
    match filter.open {
        Some(true) => filter.until = None, // What runs has not ended yet.
        _ if filter.failed => filter.open = Some(false),
        _ => {}
    }
    let limit = question.limit;
    let mut jobs = app.data.ask(move |s| Ok(s.index.jobs(&filter, limit + 1)?)).await?;
    let next = question.cut(&mut jobs, JobEntry::place);
    Ok(send(json!({ "jobs": jobs, "next": next })))
}

async fn failures(
    State(app): State<Arc<App>>,
    Extension(viewer): Extension<Viewer>,
    Query(pairs): Pairs,
) -> Answer {
    let question = Question::read(pairs, &["by"], now())?;
    let by = question.other("by").unwrap_or("class").to_owned();
    let Some((_, group)) = GROUP_NAMES.iter().find(|(name, _)| *name == by) else {
        let names: Vec<&str> = GROUP_NAMES.iter().map(|(name, _)| *name).collect();
        return Err(Problem::Bad(format!("by is one of {}", names.join(", "))).into());
    };
    let (filter, group) = (question.filter(&viewer), *group);
    let tally = app.data.ask(move |s| Ok(s.index.tally(&filter, &[(group, GROUPS)], ROWS)?)).await?;
    let groups: Vec<Value> = tally
        .groups
        .iter()
        .flatten()
        .map(|c| json!({ "key": c.key, "jobs": c.jobs, "node_us": c.node_us, "ended": c.total(), "failed": c.failed() }))
        .collect();
    Ok(send(json!({
        "by": by, "since": question.since, "until": question.until, "groups": groups, "cut": tally.cut,
    })))
}

async fn nodes(
    State(app): State<Arc<App>>,
    Extension(viewer): Extension<Viewer>,
    Query(pairs): Pairs,
) -> Answer {
    let question = Question::read(pairs, &[], now())?;
    let filter = Filter { classes: Vec::new(), ..question.filter(&viewer) };
    let tally = app.data.ask(move |s| Ok(s.index.tally(&filter, &[(Group::Node, NODES)], ROWS)?)).await?;
    let mut nodes = judge(&tally.groups.concat());
    nodes.truncate(question.limit);
    Ok(send(json!({
        "since": question.since, "until": question.until, "nodes": nodes, "false_alarms": FALSE_ALARMS,
        "cut": tally.cut,
    })))
}

async fn collector(State(app): State<Arc<App>>, Extension(viewer): Extension<Viewer>) -> Answer {
    if !viewer.operator {
        return Err(Problem::Denied.into());
    }
    let store = app.data.store().to_owned();
    let read = tokio::task::spawn_blocking(move || health(&store)).await;
    let health = read.map_err(|e| Problem::Broken(e.to_string()))??;
    Ok(send(json!({ "health": health })))
}
