//! `inquest index`, and the collector that keeps the index as it goes.

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use inquest_journal::{StepId, StepStarted};
use inquest_tests::children::Ends;
use inquest_tests::skip::skip;
use support::{End, Job, Lab, find};

fn lab() -> Lab {
    let lab = Lab::new();
    for (id, end) in [(1, End::Code(0)), (2, End::Code(1)), (3, End::Oom(64)), (4, End::Open)] {
        lab.job(&Job::new(id, end));
    }
    lab
}

#[test]
fn a_collector_leaves_an_index_of_all_it_merged() {
    let lab = lab();
    lab.merge(&["--index", "false"]);
    let (code, _, stderr) = lab.run(&["index"]);
    assert_eq!((code, stderr.contains("inquest index rebuild")), (3, true), "{stderr}");

    lab.job(&Job::new(5, End::Signal(11)));
    lab.merge(&[]);
    let status = lab.json(&["index", "--json"]);
    assert_eq!(
        (&status["runs"], &status["jobs"], &status["ended"], &status["failed"]),
        (&5.into(), &5.into(), &4.into(), &3.into())
    );
    assert_eq!(status["classes"], serde_json::json!({"ok": 1, "oom": 1, "app_error": 1, "crash": 1}));

    for name in ["index.db", "index.db-wal", "index.db-shm"] {
        let mode = fs::metadata(lab.store().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640, "{name} knows all users and is for operators");
    }

    let (code, said, _) = lab.run(&["index", "rebuild"]);
    assert_eq!(code, 0);
    assert!(said.starts_with("5 runs looked at, 5 jobs indexed"), "{said}");
    let (code, said, _) = lab.run(&["index", "update"]);
    assert_eq!(code, 0);
    assert!(said.starts_with("5 runs looked at, 0 jobs indexed"), "{said}");
    assert_eq!(lab.json(&["index", "status", "--json"])["classes"], status["classes"]);
}

#[test]
fn a_store_that_is_not_there_is_named() {
    Lab::new().refuses(&["index", "--store", "/no/such/store"], 3, &["/no/such/store"]);
    Lab::new().refuses(&["index", "rebuild", "--store", "/no/such/store"], 3, &["/no/such/store"]);
}

#[test]
fn a_further_name_of_a_run_that_is_gone_is_nobody_elses() {
    let lab = Lab::new();
    lab.job(&Job { secs: 100, uid: 90_001, ..Job::new(7, End::Code(0)) });
    let env = [("TORC_WORKFLOW_ID", "12"), ("TORC_RUN_ID", "1")];
    let env = env.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let step = StepStarted { name: Some("fit".into()), env, ..StepStarted::default() };
    lab.event(("n1", "0badc0de", 900), 20, Some((7, StepId::Number(0))), step);
    lab.collect();
    assert_eq!(lab.run(&["index", "rebuild"]).0, 0);
    let alias = lab.json(&["run", "job-7", "--json"])["run"]["aliases"][0].as_str().unwrap().to_owned();
    assert_eq!(lab.run(&["run", &alias]).0, 0);

    fs::rename(find(&lab.store(), "job-7"), lab.path().join("away")).unwrap();
    assert_eq!(lab.run(&["index", "update"]).0, 0);
    lab.job(&Job { uid: 90_002, ..Job::new(8, End::Code(3)) });
    lab.collect();
    assert_eq!(lab.run(&["index", "update"]).0, 0);
    for verb in ["run", "why"] {
        let (code, stdout, stderr) = lab.run(&[verb, &alias]);
        assert_eq!((code, stdout.as_str()), (3, ""), "{verb}: {stderr}");
    }
}

#[test]
fn a_run_that_cannot_be_read_stays_as_it_was_and_is_counted() {
    let lab = lab();
    lab.collect();
    assert_eq!(lab.run(&["index", "rebuild"]).0, 0);
    let runs = |lab: &Lab| lab.json(&["index", "--json"])["runs"].clone();
    assert_eq!(runs(&lab), 4);
    let events = lab.events_of("job-2");
    let kept = events.with_file_name("kept");
    fs::rename(&events, &kept).unwrap();
    fs::write(events.with_file_name("events.jsonl.zst"), "torn").unwrap();
    for _ in 0..2 {
        let (code, said, stderr) = lab.run(&["index", "update"]);
        assert_eq!((code, runs(&lab)), (3, 4.into()), "{said} {stderr}");
        assert!(said.starts_with("4 runs looked at, 0 jobs indexed"), "{said}");
        assert!(stderr.contains("1 run") && stderr.contains("job-2/events.jsonl.zst"), "{stderr}");
    }
    // Made again, the index cannot have it, and says so.
    assert_eq!((lab.run(&["index", "rebuild"]).0, runs(&lab)), (3, 3.into()));
    fs::rename(&kept, &events).unwrap();
    fs::remove_file(events.with_file_name("events.jsonl.zst")).unwrap();
    assert_eq!((lab.run(&["index", "update"]).0, runs(&lab)), (0, 4.into()));
    // One that was removed is no error.
    fs::rename(events.parent().unwrap(), lab.path().join("away")).unwrap();
    assert_eq!((lab.run(&["index", "update"]).0, runs(&lab)), (0, 3.into()));
}

/// Everything below, with its owner and when it was changed.
fn everything(dir: &Path) -> Vec<(PathBuf, u32, i64, i64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let meta = entry.metadata().unwrap();
        found.push((entry.path(), meta.uid(), meta.ctime(), meta.ctime_nsec()));
        if meta.is_dir() {
            found.extend(everything(&entry.path()));
        }
    }
    found.sort();
    found
}

/// What root writes, the collector's account could not open.
#[test]
fn root_changes_no_store_of_another_account() {
    const ACCOUNT: u32 = 4_123_457;
    if !rustix::process::geteuid().is_root() {
        skip("only root can give a store away");
        return;
    }
    let lab = lab();
    lab.collect();
    assert_eq!(lab.run(&["index", "rebuild"]).0, 0);
    lchown(lab.store(), Some(ACCOUNT), None).unwrap();
    for (path, ..) in everything(&lab.store()) {
        lchown(path, Some(ACCOUNT), None).unwrap();
    }
    let before = everything(&lab.store());
    let journal = lab.journal();
    for arguments in [
        &["gc", "--compress-hours", "0", "--days", "0"][..],
        &["index", "rebuild"],
        &["index", "update"],
        &["collect", "--once", "--accounting", "off", "--journal", journal.to_str().unwrap()],
    ] {
        let (code, stdout, stderr) = lab.run(arguments);
        assert_eq!((code, stdout.as_str()), (4, ""), "{arguments:?}: {stderr}");
        let how = format!("sudo -u '#{ACCOUNT}' inquest {}", arguments[0]);
        assert!(stderr.contains(&how) && stderr.lines().count() == 1, "{arguments:?}: {stderr}");
        assert_eq!(everything(&lab.store()), before, "{arguments:?}");
    }
    for arguments in [&["gc", "--dry-run", "--compress-hours", "0"][..], &["index"], &["runs"]] {
        let (code, _, stderr) = lab.run(arguments);
        assert!(code < 2, "{arguments:?}: {code}: {stderr}");
    }
}

fn wait_for(what: &str, mut there: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !there() {
        assert!(Instant::now() < until, "waited a minute for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_running_collector_indexes_what_comes_and_makes_a_deleted_index_anew() {
    let lab = lab();
    let journal = lab.journal();
    let mut command =
        lab.command(&["collect", "--accounting", "off", "--journal", journal.to_str().unwrap()]);
    let daemon = Ends(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let ended = |n: u32| {
        let (code, stdout, _) = lab.run(&["index", "--json"]);
        code == 0 && serde_json::from_str::<serde_json::Value>(&stdout).is_ok_and(|v| v["ended"] == n)
    };
    wait_for("three jobs in the index", || ended(3));
    lab.job(&Job::new(6, End::Code(2)));
    wait_for("the fourth", || ended(4));
    fs::remove_file(lab.store().join("index.db")).unwrap();
    wait_for("the index to come back", || ended(4));
    lab.job(&Job::new(7, End::Code(0)));
    wait_for("the fifth in the new one", || ended(5));
    drop(daemon);
}
