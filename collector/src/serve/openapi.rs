//! The description of the API, in OpenAPI 3.1.

use serde_json::{Map, Value, json};

use super::api::GROUP_NAMES;
use super::question::{LIMIT, LIMIT_MAX, NAMES};
use crate::store::index::CLASSES;

/// A path, what it answers, its parameters and the keys of its answer.
struct Path {
    path: &'static str,
    summary: &'static str,
    filters: bool,
    others: &'static [&'static str],
    keys: &'static [&'static str],
}

const RUN: &str = "/api/v1/runs/{cluster}/{user}/{run}";

const PATHS: [Path; 10] = [
    Path {
        path: "/api/v1/me",
        summary: "Who asks, and as what: user, coordinator or operator.",
        filters: false,
        others: &[],
        keys: &["user", "role", "accounts"],
    },
    Path {
        path: "/api/v1/runs",
        summary: "Runs, newest event first. Of the filters, time, cluster and user count.",
        filters: true,
        others: &["limit", "before", "status"],
        keys: &["runs", "next"],
    },
    Path {
        path: RUN,
        summary: "A run and its jobs, in the order of their numbers.",
        filters: false,
        others: &["limit", "from"],
        keys: &["run", "jobs", "next"],
    },
    Path {
        path: "/api/v1/runs/{cluster}/{user}/{run}/jobs/{chunk}",
        summary: "The verdict on one job of a run, with evidence, and its whole story.",
        filters: false,
        others: &[],
        keys: &["job_id", "array_job_id", "array_task_id", "attempts", "verdict", "story", "cut"],
    },
    Path {
        path: "/api/v1/runs/{cluster}/{user}/{run}/events",
        summary: "Events of a run as they are stored, from a position on.",
        filters: false,
        others: &["limit", "from"],
        keys: &["events", "next"],
    },
    Path {
        path: "/api/v1/jobs",
        summary: "Attempts of jobs: those that run first, then the newest end first.",
        filters: true,
        others: &["limit", "before", "status", "name"],
        keys: &["jobs", "next"],
    },
    Path {
        path: "/api/v1/failures",
        summary: "Counts of jobs and time on nodes by class, in groups; most failures first, times in order. With cut, \
                  of the newest jobs only, because there are more than are read for one answer.",
        filters: true,
        others: &["by"],
        keys: &["by", "since", "until", "groups", "cut"],
    },
    Path {
        path: "/api/v1/nodes",
        summary: "Nodes beside their peers: rate, interval, chance, and which are suspect.",
        filters: true,
        others: &["limit"],
        keys: &["since", "until", "nodes", "false_alarms", "cut"],
    },
    Path {
        path: "/api/v1/health",
        summary: "What the collector met beside events. For operators.",
        filters: false,
        others: &[],
        keys: &["health"],
    },
    Path {
        path: "/api/v1/openapi.json",
        summary: "This description.",
        filters: false,
        others: &[],
        keys: &["openapi", "info", "paths"],
    },
];

/// The description as a document.
pub fn document() -> Value {
    let mut paths = Map::new();
    for path in &PATHS {
        let keys: Map<String, Value> = path.keys.iter().map(|k| ((*k).to_owned(), json!({}))).collect();
        let mut parameters: Vec<Value> = Vec::new();
        for part in path.path.split('/').filter_map(|p| p.strip_prefix('{')?.strip_suffix('}')) {
            let kind = if part == "chunk" { "integer" } else { "string" };
            parameters
                .push(json!({ "name": part, "in": "path", "required": true, "schema": { "type": kind } }));
        }
        let filters = NAMES.iter().filter(|_| path.filters);
        for name in filters.chain(path.others) {
            parameters.push(
                json!({ "name": name, "in": "query", "description": about(name), "schema": schema(name) }),
            );
        }
        let ok = json!({
            "description": "The answer.",
            "content": { "application/json": { "schema": {
                "type": "object", "required": path.keys, "properties": keys,
            } } },
        });
        let problem = |text: &str| {
            json!({ "description": text, "content": { "application/json": { "schema": {
            "$ref": "#/components/schemas/Problem" } } } })
        };
        let get = json!({
            "summary": path.summary,
            "parameters": parameters,
            "responses": {
                "200": ok,
                "400": problem("The question makes no sense."),
                "401": problem("It is not known who asks."),
                "403": problem("Only operators may."),
                "404": problem("It is not there, or not for the one who asks."),
                "429": problem("Too much within a minute; Retry-After says how long to wait."),
                "503": problem("It takes too long, or there is no index at the moment."),
            },
        });
        paths.insert(path.path.into(), json!({ "get": get }));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Inquest",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What became of the jobs of a site. Times are RFC 3339; those that end in _us are microseconds.",
        },
        "paths": paths,
        "components": { "schemas": { "Problem": {
            "type": "object",
            "required": ["schema", "error"],
            "properties": {
                "schema": { "type": "integer" },
                "error": { "type": "object", "required": ["status", "message"], "properties": {
                    "status": { "type": "integer" }, "message": { "type": "string" } } },
            },
        } } },
    })
}

fn about(name: &str) -> &'static str {
    match name {
        "since" => {
            "First moment, of the end of a job: 36h, 7d, 4w ago (from 3d on, midnight UTC), a date, or RFC 3339. Default: 7 days before until."
        }
        "until" => "First moment after. Default: now.",
        "node" => "That had an event on this node.",
        "class" => "One or more classes, separated by commas.",
        "limit" => "Entries of a page.",
        "before" => "What 'next' of the page before said.",
        "from" => "What 'next' of the page before said; 0 for the first page.",
        "by" => "What the groups are.",
        "status" => "Which of them.",
        "name" => "Name of the job.",
        _ => "Exactly this name.",
    }
}

fn schema(name: &str) -> Value {
    match name {
        "limit" => json!({ "type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT }),
        "from" => json!({ "type": "integer", "minimum": 0, "default": 0 }),
        "by" => {
            let names: Vec<&str> = GROUP_NAMES.iter().map(|(name, _)| *name).collect();
            json!({ "type": "string", "enum": names, "default": "class" })
        }
        "status" => json!({ "type": "string", "enum": ["any", "failed", "running"], "default": "any" }),
        "class" => {
            let names: Vec<String> = CLASSES.iter().map(ToString::to_string).collect();
            json!({ "type": "array", "items": { "type": "string", "enum": names } })
        }
        _ => json!({ "type": "string" }),
    }
}
