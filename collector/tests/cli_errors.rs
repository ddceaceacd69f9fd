//! `inquest errors` and `inquest compare`: failures with their root causes,
//! in one run and over several.

mod support;

use std::fs;

use support::{End, Job, Lab};

const TRACEBACK: &str = "\
step 1
Traceback (most recent call last):
  File \"/home/ann/fit.py\", line 12, in <module>
    main()
  File \"/home/ann/fit.py\", line 7, in main
    x = table[key]
KeyError: 'alpha'
srun: error: n1: task 0: Exited with exit code 1
";

/// Three runs: `a` and `b` before `c`; each has a job per entry of `logs`.
fn lab(runs: &[(&'static str, &[&str])]) -> Lab {
    let lab = Lab::new();
    let mut id = 100;
    for (index, (run, logs)) in runs.iter().enumerate() {
        for log in *logs {
            id += 1;
            let (end, path) = match *log {
                "ok" => (End::Code(0), None),
                "oom" => (End::Oom(1024), None),
                "segv" => (End::Signal(11), None),
                "gone" => (End::Code(1), Some("/no/such/log".to_owned())),
                text => (End::Code(1), Some(lab.log(&format!("{id}.log"), text))),
            };
            lab.job(&Job { run: Some(run), open: path, start: index as i64 * 1000, ..Job::new(id, end) });
        }
    }
    lab.collect();
    lab
}

#[test]
fn a_row_per_failure_with_the_root_cause_of_its_log() {
    let lab = lab(&[("a", &[TRACEBACK, "oom", "ok", "gone"])]);
    let (code, out, err) =
        lab.run(&["errors", "a", "-P", "-o", "JOB,STEP,NODE,CLASS,CAUSE,END,PEAK,MESSAGE"]);
    assert_eq!(code, 1);
    let rows: Vec<&str> = out.lines().skip(1).collect();
    assert_eq!(rows[0], "101|batch|n1|app_error|app_error|1|100.0 MiB|KeyError: 'alpha'", "{out}");
    assert!(rows[1].starts_with("102|batch|n1|oom|oom_cgroup|SIGKILL|1.0 GiB|out of memory"), "{out}");
    assert!(rows[2].starts_with("104|batch|n1|app_error|app_error|1|"), "{out}");
    assert_eq!(rows.len(), 3, "{out}");
    assert!(err.lines().count() == 1 && err.contains("102"), "{err}");
    let json = lab.json(&["errors", "a", "--json"]);
    let first = &json["errors"][0];
    assert_eq!((&json["schema"], &first["log"]["exception_type"]), (&1.into(), &"KeyError".into()));
    assert_eq!((&first["confidence"], &first["log"]["line_number"]), (&"log".into(), &7.into()));
    assert!(json["errors"][2]["unread"][0].as_str().unwrap().contains("/no/such/log is missing"));
}

#[test]
fn facts_beat_logs_and_logs_can_be_left_out() {
    let lab = Lab::new();
    let open = Some(lab.log("7.log", TRACEBACK));
    lab.job(&Job { open, ..Job::new(7, End::Oom(64)) });
    lab.collect();
    let json = lab.json(&["errors", "7", "--json"]);
    assert!(json["errors"][0]["message"].as_str().unwrap().starts_with("out of memory"), "{json}");
    assert_eq!(json["errors"][0]["log"]["root_cause"], "KeyError: 'alpha'");
    assert!(lab.json(&["errors", "7", "--json", "--no-logs"])["errors"][0]["log"].is_null());
}

#[test]
fn an_earlier_attempt_is_a_row_of_its_own() {
    let lab = Lab::with([
        Job { secs: 5, ..Job::new(7, End::Signal(15)) },
        Job { restart: 1, start: 100, ..Job::new(7, End::Code(0)) },
    ]);
    let (code, out, _) = lab.run(&["errors", "7", "-P", "-o", "JOB,ATTEMPT,CLASS,CAUSE", "-n"]);
    assert_eq!((code, out.as_str()), (1, "7|1|preempted|requeued\n"));
    assert_eq!(lab.run(&["why", "7"]).0, 0);
}

#[test]
fn the_same_failure_has_the_same_name_everywhere() {
    let other = TRACEBACK.replace("/home/ann", "/scratch/bob").replace("line 12", "line 99");
    let lab = lab(&[("a", &[TRACEBACK, &other, "segv", "segv"])]);
    let json = lab.json(&["errors", "a", "--json"]);
    let name = |n: usize| json["errors"][n]["fingerprint"].as_str().unwrap();
    assert!(name(0) == name(1) && name(2) == name(3) && name(0) != name(2), "{json}");
}

#[test]
fn what_stayed_came_went_and_comes_and_goes() {
    let disk = "write failed: No space left on device\n";
    let lab = lab(&[
        ("a", &[TRACEBACK, "segv", disk]),
        ("b", &[TRACEBACK, "ok"]),
        ("c", &[TRACEBACK, TRACEBACK, disk, "oom"]),
    ]);
    // The order on the command line does not matter, that of the runs does.
    let (code, out, err) =
        lab.run(&["compare", "c", "a", "b", "-P", "-n", "-o", "PATTERN,CLASS,COUNTS,LAST"]);
    assert_eq!((code, err.as_str()), (1, ""));
    assert_eq!(
        out,
        "new|oom|0,0,1|c\npersistent|app_error|1,1,2|c\nflaky|app_error|1,0,1|c\nresolved|crash|1,0,0|a\n"
    );
    let json = lab.json(&["compare", "a", "c", "--json"]);
    assert_eq!((&json["schema"], &json["runs"][1]["run_id"]), (&1.into(), &"c".into()));
    assert_eq!(
        (&json["patterns"][0]["pattern"], &json["patterns"][0]["counts"][1]),
        (&"new".into(), &1.into())
    );
}

#[test]
fn a_run_without_logs_is_compared_by_facts_and_says_so() {
    let lab = lab(&[("a", &["gone"]), ("b", &[TRACEBACK])]);
    let (code, out, err) = lab.run(&["compare", "a", "b", "-P", "-n", "-o", "PATTERN,COUNTS"]);
    assert_eq!((code, out.as_str()), (1, "persistent|1,1\n"));
    assert!(err.contains("no log of a can be read"), "{err}");
}

#[test]
fn half_a_line_in_the_store_costs_only_itself() {
    let lab = lab(&[("a", &[TRACEBACK])]);
    let events = lab.events_of("a");
    let text = fs::read_to_string(&events).unwrap();
    let (cut, rest) = text.split_once('\n').unwrap();
    fs::write(&events, format!("{}\n{rest}", &cut[..cut.len() / 2])).unwrap();
    assert_eq!(lab.run(&["errors", "a"]).0, 1);
}

#[test]
fn wrong_input_to_errors_and_compare() {
    let lab = lab(&[("a", &[TRACEBACK]), ("b", &["ok"])]);
    lab.refuses(&["errors", "999"], 3, &["no job 999"]);
    lab.refuses(&["errors", "a b"], 2, &["no job or run id"]);
    lab.refuses(&["errors", "101.x"], 2, &["no step"]);
    lab.refuses(&["errors", "a", "-u", "nobody-such"], 3, &["no run a"]);
    lab.refuses(&["compare", "a", "nope"], 3, &["no run nope", "inquest runs"]);
    lab.refuses(&["compare", "a", "a"], 2, &["given twice"]);
    lab.refuses(&["compare", "101", "a"], 2, &["same jobs of a"]);
    lab.refuses(&["compare", "a", "b", "-o", "x"], 2, &["no column 'x'"]);
    lab.refuses(&["compare", "a", "[", "--store", "/no"], 2, &["'['"]);
    lab.refuses(&["compare", "a", "b", "--store", "/no/such"], 3, &["/no/such"]);
    assert_eq!(lab.run(&["compare", "a"]).0, 2);
    assert_eq!(lab.run(&["compare", "a", "b"]).0, 0);
}
