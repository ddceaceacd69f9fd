//! Jobs find their runs: weak groups in time, and names that come later.

mod support;

use std::collections::BTreeMap;

use inquest_journal::{StepId, StepStarted};
use serde_json::{Value, json};

use support::{End, Job, Lab};

fn of_one_script(id: u32, start: i64) -> Job {
    Job { start, submit_dir: Some("/home/u".into()), ..Job::new(id, End::Code(0)) }
}

fn runs(lab: &Lab) -> BTreeMap<String, Value> {
    let all = lab.json(&["runs", "--json"])["runs"].as_array().unwrap().clone();
    all.into_iter().map(|run| (run["run_id"].as_str().unwrap().to_owned(), run)).collect()
}

#[test]
fn jobs_that_look_alike_and_are_near_in_time_are_one_weak_run() {
    let lab = Lab::new();
    for (id, minute) in [(1, 0), (2, 5), (3, 14), (9, 120), (10, 121)] {
        lab.job(&of_one_script(id, minute * 60));
        lab.collect(); // The collector is started anew each time and remembers.
    }
    lab.job(&Job { name: "other".into(), ..of_one_script(11, 121 * 60) });
    lab.collect();
    let runs = runs(&lab);
    let jobs: Vec<_> = runs.iter().map(|(id, run)| (id.as_str(), run["jobs"].as_str().unwrap())).collect();
    assert_eq!(jobs, [("job-1", "1-3"), ("job-11", "11"), ("job-9", "9-10")]);
    assert_eq!(
        runs["job-1"]["key"],
        json!({"kind": "group", "value": "fit in /home/u", "from": "name, submit_dir"})
    );
    let (_, table, _) = lab.run(&["runs", "-P", "-o", "RUN,KEY"]);
    assert!(table.contains("job-1|group (weak)\n"), "{table}");
    let (_, why, _) = lab.run(&["why", "job-1"]);
    assert!(why.contains("together as weak: jobs that look alike, fit in /home/u"), "{why}");
}

#[test]
fn a_stronger_key_that_comes_later_is_a_further_name_of_the_run() {
    let lab = Lab::new();
    lab.job(&Job { start: 0, secs: 100, ..Job::new(7, End::Code(0)) });
    let env = [("TORC_WORKFLOW_ID", "12"), ("TORC_RUN_ID", "1")];
    let step = StepStarted {
        name: Some("fit".into()),
        env: env.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        ..StepStarted::default()
    };
    for (pid, at) in [(900, 20), (901, 30)] {
        lab.event(("n1", "0badc0de", pid), at, Some((7, StepId::Number(pid - 900))), step.clone());
    }
    lab.collect();
    let runs = runs(&lab);
    assert_eq!(runs.keys().collect::<Vec<_>>(), ["job-7"], "its id stays");
    let alias = runs["job-7"]["aliases"][0].as_str().unwrap().to_owned();
    assert!(alias.starts_with("torc-"), "{alias}");
    let run = lab.json(&["run", &alias, "--json"]);
    assert_eq!((&run["run"]["run_id"], &run["run"]["aliases"]), (&json!("job-7"), &json!([alias])));
    let events = std::fs::read_to_string(lab.events_of("job-7")).unwrap();
    let told: Vec<Value> = events
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|event| event["event_type"] == "run_alias")
        .collect();
    assert_eq!(told.len(), 1, "said once: {told:?}");
    assert_eq!(told[0]["run_key"]["from"], "env:TORC_WORKFLOW_ID", "{}", told[0]);
}

#[test]
fn a_name_is_first_that_of_the_run_whose_own_it_is() {
    let lab = Lab::new();
    let step = StepStarted {
        name: Some("fit".into()),
        env: BTreeMap::from([("TORC_WORKFLOW_ID".to_owned(), "12".to_owned())]),
        ..StepStarted::default()
    };
    lab.event(("n1", "0badc0de", 899), 10, Some((8, StepId::Number(0))), step.clone());
    // A newer run that is called so, too.
    lab.job(&Job { start: 50, secs: 100, ..Job::new(7, End::Code(0)) });
    lab.event(("n1", "0badc0de", 900), 70, Some((7, StepId::Number(0))), step);
    lab.collect();
    let runs = runs(&lab);
    let name = runs.keys().find(|id| id.starts_with("torc-")).expect("a run of its own").clone();
    assert_eq!(runs["job-7"]["aliases"], json!([name]));
    let told = || lab.json(&["run", &name, "--json"])["run"]["run_id"].clone();
    assert_eq!(told(), json!(name), "by the registry");
    lab.run(&["index", "rebuild"]);
    assert!(lab.store().join("index.db").exists());
    assert_eq!(told(), json!(name), "by the index");
}
