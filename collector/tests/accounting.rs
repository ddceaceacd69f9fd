//! What Slurm's accounting says later revises a verdict, once.

mod support;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use inquest::collect::{Collector, Options};
use inquest::slurm::accounting::{Accounting, JobRecord, News, Submitted};
use inquest_journal::{JobId, Timestamp};
use serde_json::{Value, json};

use support::{EPOCH, End, Job, Lab};

const SOON: Duration = Duration::from_secs(60);

/// squeue at first, and slurmdbd when the test says so.
#[derive(Clone)]
struct Told {
    now: HashMap<u32, JobRecord>,
    later: Arc<Mutex<Result<Vec<News>, String>>>,
}

impl Accounting for Told {
    fn cluster(&self) -> Result<String, String> {
        Ok("lab".into())
    }

    fn ask(&self, jobs: &BTreeSet<JobId>) -> Result<HashMap<JobId, JobRecord>, String> {
        Ok(jobs.iter().filter_map(|id| Some((*id, self.now.get(&id.0)?.clone()))).collect())
    }

    fn news(&self, _: Timestamp, _: Timestamp) -> Result<Option<Vec<News>>, String> {
        self.later.lock().unwrap().clone().map(Some)
    }
}

impl Told {
    fn of(job: u32, state: &str) -> Told {
        Told { now: [(job, record(state))].into(), later: Arc::new(Mutex::new(Ok(Vec::new()))) }
    }
}

fn record(state: &str) -> JobRecord {
    JobRecord { state: state.into(), ..JobRecord::default() }
}

fn news(job: u32, end: i64, record: JobRecord) -> News {
    let at = |s: i64| Some(Timestamp(EPOCH + s * 1_000_000));
    News {
        cluster: "LAB".into(),
        job: JobId(job),
        start: at(end - 10),
        end: at(end),
        record,
        submitted: None,
    }
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
    *told.later.lock().unwrap() = Err("slurmdbd is down".into());
    collect(&lab, &told);
    assert_eq!(ends(&lab, "job-7").len(), 1);

    let by = JobRecord { cancelled_by: Some(0), ..record("CANCELLED") };
    *told.later.lock().unwrap() = Ok(vec![
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
fn slurm_speaks_of_its_own_cluster_only() {
    let lab = Lab::new();
    lab.job(&Job { cluster: "other", ..Job::new(7, End::Code(3)) });
    lab.job(&Job { cluster: "Lab", ..Job::new(8, End::Code(3)) });
    let mut told = Told::of(7, "CANCELLED");
    told.now.insert(8, record("CANCELLED"));
    collect(&lab, &told);
    let class =
        |job: &str| lab.json(&["run", job, "--json"])["run"]["members"]["1"]["verdict"]["class"].clone();
    assert_eq!((class("7"), class("8")), (json!("app_error"), json!("cancelled")));
}

#[test]
fn a_run_that_seemed_well_fails_when_the_accounting_says_so() {
    let lab = Lab::new();
    lab.job(&Job::new(7, End::Code(0)));
    let told = Told::of(7, "COMPLETED");
    collect(&lab, &told);
    assert_eq!(lab.json(&["runs", "--json"])["runs"][0]["status"], "completed");
    *told.later.lock().unwrap() = Ok(vec![news(7, 10, record("NODE_FAIL"))]);
    collect(&lab, &told);
    let run = &lab.json(&["runs", "--json"])["runs"][0];
    assert_eq!((&run["status"], &run["classes"]), (&json!("failed"), &json!({"infra": 1})));
}

#[test]
fn a_requeued_job_waits_and_has_no_verdict_before_its_next_end() {
    let lab = Lab::new();
    lab.job(&Job::new(7, End::Signal(15)));
    let waiting = JobRecord { restarts: 1, reason: "BeginTime".into(), ..record("PENDING") };
    let mut told = Told::of(7, "PENDING");
    told.now.insert(7, waiting);
    for _ in 0..3 {
        collect(&lab, &told);
    }
    let run = &lab.json(&["runs", "--json"])["runs"][0];
    assert_eq!((&run["status"], &run["n_failed"]), (&json!("running"), &json!(0)));
    let member = &lab.json(&["run", "job-7", "--json"])["run"]["members"]["1"];
    assert_eq!((&member["state"], &member["verdict"]), (&json!("requeued"), &Value::Null), "{member}");
    let (code, table, _) = lab.run(&["run", "7"]);
    assert!(code == 0 && table.contains("REQUEUED"), "{table}");
    let ends_now = ends(&lab, "job-7");
    assert_eq!(ends_now.len(), 1, "said once: {ends_now:?}");
    assert_eq!(
        (&ends_now[0]["event_type"], &ends_now[0]["state"]),
        (&json!("chunk_requeued"), &json!("PENDING"))
    );

    // The next attempt ends well.
    lab.job(&Job { restart: 1, start: 60, ..Job::new(7, End::Code(0)) });
    told.now.insert(7, JobRecord { restarts: 1, ..record("COMPLETED") });
    collect(&lab, &told);
    let types: Vec<String> =
        ends(&lab, "job-7").iter().map(|e| e["event_type"].as_str().unwrap().to_owned()).collect();
    assert_eq!(types, ["chunk_requeued", "chunk_retried", "chunk_completed"]);
    let member = &lab.json(&["run", "job-7", "--json"])["run"]["members"]["1"];
    assert_eq!((&member["state"], &member["attempts"]), (&Value::Null, &json!(2)), "{member}");
}

#[test]
fn a_requeued_job_that_is_cancelled_in_the_queue_was_cancelled() {
    let lab = Lab::new();
    lab.job(&Job::new(7, End::Signal(9)));
    let mut told = Told::of(7, "PENDING");
    told.now.insert(7, JobRecord { restarts: 1, ..record("REQUEUE_HOLD") });
    collect(&lab, &told);
    told.now.insert(7, JobRecord { restarts: 1, cancelled_by: Some(0), ..record("CANCELLED") });
    collect(&lab, &told);
    let ends = ends(&lab, "job-7");
    let last = &ends.last().unwrap()["verdict"];
    assert_eq!((&last["class"], &last["first_failure"]), (&json!("cancelled"), &Value::Null), "{last}");
    // A job that Slurm has forgotten meanwhile is judged by what its node said.
    let lab = Lab::new();
    lab.job(&Job::new(7, End::Signal(9)));
    told.now.insert(7, JobRecord { restarts: 1, ..record("PENDING") });
    collect(&lab, &told);
    told.now.clear();
    collect(&lab, &told);
    assert_eq!(lab.json(&["runs", "--json"])["runs"][0]["status"], "failed");
}

#[test]
fn a_job_that_never_reached_a_node_is_a_member_of_its_run_with_its_end() {
    let lab = Lab::new();
    lab.job(&Job { array: Some((40, 1)), name: "sweep".into(), ..Job::new(41, End::Code(0)) });
    let told = Told::of(41, "COMPLETED");
    collect(&lab, &told);
    let at = |s: i64| Some(Timestamp(EPOCH + s * 1_000_000));
    let never = |job: u32, state: &str, by: Option<u32>, reason: &str, submitted: Submitted| News {
        start: at(50),
        end: at(50),
        record: JobRecord { never_ran: true, reason: reason.into(), cancelled_by: by, ..record(state) },
        submitted: Some(Submitted { at: at(5), uid: Some(4_294_967_294), ..submitted }),
        ..news(job, 50, record(state))
    };
    let named = |name: &str| Submitted { name: Some(name.into()), ..Submitted::default() };
    let member = Submitted { array: Some(JobId(40)), index: Some(2), ..named("sweep") };
    *told.later.lock().unwrap() = Ok(vec![
        never(42, "CANCELLED", None, "Dependency", member),
        never(50, "CANCELLED", Some(4_294_967_294), "JobHeldUser", named("held")),
        never(51, "BOOT_FAIL", None, "None", named("boot")),
        never(52, "DEADLINE", None, "None", named("=cmd()\u{1b}[2J")),
        never(53, "CANCELLED", None, "None", named("newer")),
        never(54, "PENDING", None, "Dependency", named("waits")),
        // Ran where nothing is recorded: not ours to tell.
        news(60, 50, record("FAILED")),
    ]);
    for _ in 0..3 {
        collect(&lab, &told);
    }
    let array = lab.json(&["run", "array-40", "--json"])["run"].clone();
    let lost = &array["members"]["2"];
    assert_eq!((&lost["job_id"], &lost["verdict"]["class"]), (&json!("42"), &json!("dependency")), "{array}");
    assert_eq!((&array["status"], &array["classes"]), (&json!("failed"), &json!({"ok": 1, "dependency": 1})));
    for (job, cause, confidence) in [
        ("50", "cancelled_user", "fact"),
        ("51", "boot_fail", "fact"),
        ("52", "deadline", "fact"),
        ("53", "dependency", "inferred"),
    ] {
        let verdict = &lab.json(&["run", job, "--json"])["run"]["members"]["1"]["verdict"];
        assert_eq!((&verdict["cause"], &verdict["confidence"]), (&json!(cause), &json!(confidence)), "{job}");
        let (code, said, err) = lab.run(&["why", job]);
        assert!(code == 1 && said.contains(verdict["detail"].as_str().unwrap()), "{job}: {said} {err}");
        assert!(!said.contains('\u{1b}'));
        for verb in ["timeline", "events", "errors", "logs"] {
            let (code, _, err) = lab.run(&[verb, job]);
            assert!(code <= 1, "{verb} {job}: {err}");
        }
        assert_eq!(ends(&lab, &format!("job-{job}")).len(), 1, "told once");
    }
    for absent in ["54", "60"] {
        lab.refuses(&["why", absent], 3, &[absent]);
    }
}

/// Says when it is asked, and answers when it is let go.
struct Hangs {
    asked: Sender<()>,
    go: Receiver<()>,
}

impl Accounting for Hangs {
    fn cluster(&self) -> Result<String, String> {
        Ok("lab".into())
    }

    fn ask(&self, jobs: &BTreeSet<JobId>) -> Result<HashMap<JobId, JobRecord>, String> {
        let _ = self.asked.send(());
        let _ = self.go.recv_timeout(SOON);
        Ok(jobs.iter().map(|id| (*id, record("TIMEOUT"))).collect())
    }
}

#[test]
fn nothing_waits_for_an_answer_of_slurm() {
    let lab = Lab::new();
    lab.job(&Job::new(7, End::Signal(15)));
    let ((asked, is_asked), (go, wait)) = (unbounded(), unbounded());
    let options = Options { journal: lab.journal(), store: lab.store(), quiet: Duration::from_secs(1) };
    let mut collector = Collector::open(options, Some(Box::new(Hangs { asked, go: wait }))).unwrap();
    let began = Instant::now();
    while is_asked.is_empty() {
        collector.pass(false).unwrap();
        assert!(began.elapsed() < SOON);
    }
    lab.job(&Job::new(8, End::Open));
    let stats = collector.pass(false).unwrap();
    assert!(stats.events > 0 && stats.settled == 0 && began.elapsed() < SOON, "{stats:?} {began:?}");
    go.send(()).unwrap();
    let judged = |collector: &mut Collector| collector.pass(false).unwrap().settled > 0;
    while !judged(&mut collector) {
        assert!(began.elapsed() < SOON * 2);
    }
    assert_eq!(ends(&lab, "job-7").last().unwrap()["verdict"]["slurm"]["state"], "TIMEOUT");
}
