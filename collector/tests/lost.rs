//! Jobs whose end nobody recorded: their node came up anew, or they were silent long after their limit.
//! When the end arrives after all, the verdict is revised.

mod support;

use std::collections::BTreeMap;
use std::fs;

use inquest_journal::{NodeBooted, StepId, StepStarted, Timestamp};
use serde_json::{Value, json};

use support::{EPOCH, End, Job, Lab};

/// Ten days before the lab's epoch: in the past of every clock.
const START: i64 = -864_000;
const OLD: &str = "0badc0de";
const NEW: &str = "5eedf00d";

fn open(id: u32) -> Job {
    Job { start: START, ..Job::new(id, End::Open) }
}

fn booted() -> NodeBooted {
    NodeBooted { previous_boot: Some(OLD.into()), booted_at: None }
}

/// An event of a new boot has a boot clock that begins again.
fn event_of_new_boot(
    lab: &Lab,
    (node, pid): (&str, u32),
    at: i64,
    job: Option<(u32, StepId)>,
    body: impl Into<inquest_journal::Body>,
) {
    lab.event((node, NEW, pid), at, job, body);
    let path = lab.journal().join(node).join("2026-11-21.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let (before, line) = text.trim_end().rsplit_once('\n').map_or(("", text.trim_end()), |(b, l)| (b, l));
    let mut line: Value = serde_json::from_str(line).unwrap();
    line["mono_us"] = json!(20_000_000);
    let text = if before.is_empty() { format!("{line}\n") } else { format!("{before}\n{line}\n") };
    fs::write(path, text).unwrap();
}

fn member(lab: &Lab, run: &str) -> Value {
    lab.json(&["run", run, "--json"])["run"]["members"]["1"].clone()
}

fn types(lab: &Lab, run: &str) -> Vec<String> {
    let text = fs::read_to_string(lab.events_of(run)).unwrap();
    let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events
        .filter(|e| e["source"] == "collector")
        .map(|e| e["event_type"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn what_ran_when_a_node_came_up_anew_ended_with_it() {
    let lab = Lab::new();
    lab.job(&open(7));
    lab.job(&Job { node: "n2", ..open(8) });
    lab.collect();
    assert_eq!(member(&lab, "job-7")["verdict"], Value::Null, "a job that is silent may go on");
    event_of_new_boot(&lab, ("n1", 600), START + 300, None, booted());
    lab.collect();
    let lost = member(&lab, "job-7");
    let verdict = &lost["verdict"];
    assert_eq!(
        (&verdict["class"], &verdict["cause"], &verdict["confidence"]),
        (&json!("infra"), &json!("node_reboot"), &json!("fact")),
        "{lost}"
    );
    assert_eq!(verdict["evidence"].as_array().unwrap().len(), 2, "{verdict}");
    assert_eq!(member(&lab, "job-8")["verdict"], Value::Null, "the other node is up");
    let (code, said, _) = lab.run(&["why", "7"]);
    assert!(code == 1 && said.contains(OLD) && said.contains(NEW) && said.contains("n1 went down"), "{said}");
    let (_, said, _) = lab.run(&["timeline", "7"]);
    assert!(said.contains("BOOT"), "{said}");

    // Its last lines were on a disk that came back.
    lab.job(&Job { start: START, ..Job::new(7, End::Code(3)) });
    lab.collect();
    assert_eq!(member(&lab, "job-7")["verdict"]["cause"], "app_error");
    let types = types(&lab, "job-7");
    assert_eq!(
        types,
        ["run_started", "chunk_started", "node_booted", "chunk_failed", "run_failed", "chunk_failed"],
        "{types:?}"
    );
    let text = fs::read_to_string(lab.events_of("job-7")).unwrap();
    assert!(text.lines().last().unwrap().contains("\"revised\":true"), "{text}");
}

#[test]
fn without_an_agent_the_next_step_on_the_node_tells() {
    let lab = Lab::new();
    lab.job(&open(7));
    let step = StepStarted { uid: Some(1), ..StepStarted::default() };
    event_of_new_boot(&lab, ("n1", 600), START + 300, Some((9, StepId::Batch)), step);
    lab.collect();
    assert_eq!(member(&lab, "job-7")["verdict"]["cause"], "node_reboot");
    assert_eq!(member(&lab, "job-9")["verdict"], Value::Null);
    // Old lines that come late tell nothing of the new boot.
    lab.job(&Job { start: START + 10, ..Job::new(5, End::Code(0)) });
    lab.collect();
    assert_eq!(member(&lab, "job-9")["verdict"], Value::Null);
    assert_eq!(member(&lab, "job-5")["verdict"]["class"], "ok");
    // But what they left open is over.
    lab.job(&Job { start: START + 20, ..open(6) });
    lab.collect();
    assert_eq!(member(&lab, "job-6")["verdict"], Value::Null, "nothing of the new boot came since");
    event_of_new_boot(&lab, ("n1", 700), START + 400, None, booted());
    lab.collect();
    assert_eq!(member(&lab, "job-6")["verdict"]["cause"], "node_reboot");
}

/// Every file of every run.
fn runs(lab: &Lab) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for run in ["job-1", "job-2", "job-3", "job-9"] {
        for file in ["events.jsonl", "run.json"] {
            let path = lab.events_of(run).with_file_name(file);
            found.insert(format!("{run}/{file}"), fs::read_to_string(path).unwrap());
        }
    }
    found
}

#[test]
fn it_is_the_same_however_often_the_collector_began_anew() {
    let stores = [false, true].map(|often| {
        let lab = Lab::new();
        let look = || {
            if often {
                lab.collect_some()
            }
        };
        for id in 1..=3 {
            lab.job(&Job { start: START + i64::from(id), ..open(id) });
            look();
        }
        let step = StepStarted { uid: Some(1), ..StepStarted::default() };
        event_of_new_boot(&lab, ("n1", 600), START + 300, Some((9, StepId::Batch)), step);
        look();
        event_of_new_boot(&lab, ("n1", 700), START + 400, None, booted());
        look();
        lab.collect();
        runs(&lab)
    });
    assert_eq!(stores[0], stores[1]);
}

#[test]
fn a_job_that_is_silent_long_after_its_limit_is_lost_as_far_as_one_can_tell() {
    for (limit, want) in [(START + 60, json!("lost")), (864_000, Value::Null)] {
        let lab = Lab::new();
        let end_limit = Some(Timestamp(EPOCH + limit * 1_000_000));
        let step = StepStarted { uid: Some(1), end_limit, ..StepStarted::default() };
        lab.event(("n1", OLD, 5), START, Some((7, StepId::Batch)), step);
        lab.collect();
        let verdict = &member(&lab, "job-7")["verdict"];
        assert_eq!(verdict["cause"], want, "{verdict}");
        if !want.is_null() {
            assert_eq!(verdict["confidence"], "inferred");
        }
    }
}
