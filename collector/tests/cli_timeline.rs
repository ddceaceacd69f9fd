//! `inquest timeline`: order, offsets, and what happened together.

mod support;

use std::fs;

use support::{End, Job, Lab};

/// A good node with many jobs and a bad one, with three failures in 12 seconds on the bad
/// one and one on the good one long after.
fn lab() -> Lab {
    let job =
        |index, node, start, end| Job { array: Some((20, index)), node, start, ..Job::new(20 + index, end) };
    let well = (10..30).map(|index| job(index, "n1", 30, End::Code(0)));
    Lab::with(well.chain([
        job(0, "n1", 0, End::Code(0)),
        job(1, "n2", 0, End::Oom(64)),
        job(2, "n2", 2, End::Code(3)),
        job(3, "n2", 12, End::Signal(11)),
        job(4, "n1", 20, End::Code(0)),
        job(5, "n1", 30, End::Code(0)),
        job(7, "n1", 30, End::Code(0)),
        job(8, "n1", 30, End::Code(0)),
        job(9, "n1", 30, End::Code(0)),
        job(6, "n1", 1000, End::Code(1)),
    ]))
}

#[test]
fn true_times_and_what_happened_together() {
    let lab = lab();
    let (code, out, err) = lab.run(&["timeline", "array-20", "-o", "TIME,OFFSET,EVENT,NODE,JOB,TASK,CLASS"]);
    assert_eq!((code, err.as_str()), (1, ""));
    for line in [
        "14:00:09.999  +9.999s   KILL   n2    20_1   0     -",
        "14:00:10.000  +10.000s  DIED   n2    20_1   0     -",
        "14:00:10.000  +10.000s  OOM    n2    20_1   -     oom",
        "14:00:22.000  +22.000s  CRASH  n2    20_3   -     crash",
        "14:16:50.000  +0:16:50  FAIL   n1    20_6   -     app_error",
        "Burst: 3 failures (oom, app_error, crash) within 12.000s from 14:00:10.000: 20_[1-3] on n2",
        "Node n2: 3 of 3 jobs failed there, 1 of 27 elsewhere",
    ] {
        assert!(out.lines().any(|l| l == line), "{line:?} is not in\n{out}");
    }
    let times: Vec<&str> = out.lines().skip(1).take_while(|l| !l.is_empty()).map(|l| &l[..12]).collect();
    assert!(times.is_sorted(), "{out}");
    let json = lab.json(&["timeline", "array-20", "--json"]);
    assert_eq!((&json["schema"], &json["bursts"][0]["failures"]), (&1.into(), &3.into()));
    assert_eq!((&json["nodes"][0]["node"], json["nodes"].as_array().unwrap().len()), (&"n2".into(), 1));
}

#[test]
fn a_run_ends_with_the_job_that_ended_last() {
    let job = |index, secs| Job { array: Some((20, index)), secs, ..Job::new(20 + index, End::Code(0)) };
    // The first one is judged first.
    let lab = Lab::with([job(1, 100), job(2, 10)]);
    let (_, out, _) = lab.run(&["timeline", "array-20", "-o", "TIME,EVENT,DETAIL"]);
    let end = out.lines().find(|l| l.contains("the run ends")).unwrap_or(&out);
    assert!(end.starts_with("14:01:40.000"), "{out}");
}

#[test]
fn around_failures_only() {
    let lab = lab();
    let (_, out, _) = lab.run(&["timeline", "array-20", "--around", "5"]);
    // As without it: what is left out has ended well.
    assert!(out.contains("Node n2: 3 of 3 jobs failed there, 1 of 27 elsewhere"), "{out}");
    assert!(!out.contains("20_4   -     -     -") && out.contains("left out"), "{out}");
    assert!(out.contains("20_6"), "{out}");
    let (_, out, _) = lab.run(&["timeline", "20_0", "--around", "5", "-n"]);
    assert_eq!(out.lines().filter(|l| l.contains("20_0")).count(), 0, "{out}");
}

#[test]
fn one_job_and_every_event_of_it() {
    let lab = lab();
    let (code, out, _) = lab.run(&["timeline", "20_0", "--all", "-P", "-n", "-o", "EVENT,STEP,TASK"]);
    assert_eq!(code, 0);
    let wanted = ["BEGIN|batch|-", "BEGIN|batch|0", "EXIT|batch|0", "END|batch|-", "DONE|-|-"];
    assert!(wanted.iter().all(|w| out.lines().any(|l| l == *w)), "{out}");
    assert!(!out.contains("DIED"), "{out}");
}

#[test]
fn one_node_only_is_no_bad_node() {
    let lab = Lab::with((1..4).map(|id| Job { run: Some("r"), ..Job::new(id, End::Code(1)) }));
    let json = lab.json(&["timeline", "r", "--json"]);
    assert_eq!((&json["nodes"], &json["bursts"][0]["jobs"]), (&serde_json::json!([]), &"1-3".into()));
}

#[test]
fn wrong_input_to_timeline() {
    let lab = lab();
    let file = lab.log("file", "x");
    lab.refuses(&["timeline", "999"], 3, &["no job 999", "inquest runs"]);
    lab.refuses(&["timeline", "20_[3-1]"], 2, &["range is empty"]);
    lab.refuses(&["timeline", "20", "-o", "WHEN"], 2, &["no column 'WHEN'", "OFFSET"]);
    lab.refuses(&["timeline", "20", "--store", &file], 3, &["it is a file"]);
    lab.refuses(&["timeline", "20", "-M", "moon"], 3, &["no job 20"]);
    assert_eq!(lab.run(&["timeline", "20", "--around", "-5"]).0, 2);
    let events = lab.events_of("array-20");
    let text = fs::read_to_string(&events).unwrap();
    fs::write(&events, format!("{}{{\"timestamp\":\"2026", text)).unwrap();
    assert_eq!(lab.run(&["timeline", "array-20"]).0, 1);
    fs::remove_file(&events).unwrap();
    lab.refuses(&["timeline", "array-20"], 3, &["no events.jsonl", "may have been removed"]);
}
