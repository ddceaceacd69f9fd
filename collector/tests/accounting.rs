//! What Slurm's accounting says later revises a verdict, once.

mod support;

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::time::Duration;

use inquest::collect::{Collector, Options};
use inquest::slurm::accounting::{Accounting, JobRecord, News};
use inquest_journal::{JobId, Timestamp};
use serde_json::{Value, json};

use support::{EPOCH, End, Job, Lab};

/// squeue at first, and slurmdbd when the test says so.
#[derive(Clone)]
struct Told {
    now: HashMap<u32, JobRecord>,
    later: Rc<RefCell<Result<Vec<News>, String>>>,
}

impl Accounting for Told {
    fn ask(&mut self, jobs: &BTreeSet<JobId>) -> Result<HashMap<JobId, JobRecord>, String> {
        Ok(jobs.iter().filter_map(|id| Some((*id, self.now.get(&id.0)?.clone()))).collect())
    }

    fn news(&mut self, _: Timestamp) -> Result<Option<Vec<News>>, String> {
        self.later.borrow().clone().map(Some)
    }
}

impl Told {
    fn of(job: u32, state: &str) -> Told {
        Told { now: [(job, record(state))].into(), later: Rc::new(RefCell::new(Ok(Vec::new()))) }
    }
}

fn record(state: &str) -> JobRecord {
    JobRecord { state: state.into(), ..JobRecord::default() }
}

fn news(job: u32, end: i64, record: JobRecord) -> News {
    let at = |s: i64| Some(Timestamp(EPOCH + s * 1_000_000));
    News { cluster: "LAB".into(), job: JobId(job), start: at(end - 10), end: at(end), record }
}

fn collect(lab: &Lab, told: &Told) {
    let options = Options { journal: lab.journal(), store: lab.store(), quiet: Duration::from_secs(1) };
    Collector::open(options, Some(Box::new(told.clone()))).unwrap().pass(true).unwrap();
}

fn ends(lab: &Lab, run: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(lab.events_of(run)).unwrap();
    let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.filter(|e| e["event_type"].as_str().unwrap().starts_with("chunk_")).skip(1).collect()
}

#[test]
fn who_cancelled_comes_late_and_is_said_once() {
    let lab = Lab::new();
    lab.job(&Job::new(7, End::Signal(15)));
    let told = Told::of(7, "CANCELLED");
    *told.later.borrow_mut() = Err("slurmdbd is down".into());
    collect(&lab, &told);
    assert_eq!(ends(&lab, "job-7").len(), 1);

    let by = JobRecord { cancelled_by: Some(0), ..record("CANCELLED") };
    *told.later.borrow_mut() = Ok(vec![
        news(7, 10, by),
        // Of jobs that nobody knows, of another cluster, and one that still runs.
        news(8, 10, record("COMPLETED")),
        News { cluster: "other".into(), ..news(7, 10, record("COMPLETED")) },
        news(7, 10, record("RUNNING")),
        // Of the last bearer of the id.
        news(7, -90_000, record("TIMEOUT")),
    ]);
    for _ in 0..3 {
        collect(&lab, &told);
    }
    let ends = ends(&lab, "job-7");
    let causes: Vec<&str> = ends.iter().map(|e| e["verdict"]["cause"].as_str().unwrap()).collect();
    assert_eq!(causes, ["cancelled", "cancelled_admin"], "{ends:#?}");
    assert_eq!((&ends[0]["revised"], &ends[1]["revised"]), (&Value::Null, &json!(true)));
    let member = &lab.json(&["run", "job-7", "--json"])["run"]["members"]["1"];
    assert_eq!(member["verdict"]["slurm"]["cancelled_by"], 0, "{member}");
}

#[test]
fn a_run_that_seemed_well_fails_when_the_accounting_says_so() {
    let lab = Lab::new();
    lab.job(&Job::new(7, End::Code(0)));
    let told = Told::of(7, "COMPLETED");
    collect(&lab, &told);
    assert_eq!(lab.json(&["runs", "--json"])["runs"][0]["status"], "completed");
    *told.later.borrow_mut() = Ok(vec![news(7, 10, record("NODE_FAIL"))]);
    collect(&lab, &told);
    let run = &lab.json(&["runs", "--json"])["runs"][0];
    assert_eq!((&run["status"], &run["classes"]), (&json!("failed"), &json!({"infra": 1})));
}
