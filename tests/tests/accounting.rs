//! slurmdbd on MariaDB, for real: what the collector learns from it, and how it does without.

use std::fs;
use std::time::{Duration, Instant};

use inquest_tests::cluster::{Cluster, Config, USERS};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

#[test]
fn slurmdbd_says_who_cancelled_and_its_absence_costs_only_that() {
    let cluster = Cluster::start(Config { nodes: 1, accounting: true, ..Config::default() }).unwrap();
    cluster.record("").unwrap();
    let sleep = "#!/bin/sh\nsleep 300\n";
    let by_user = cluster.sbatch(USERS[0], &["-n1"], sleep).unwrap();
    let by_root = cluster.sbatch(USERS[0], &["-n1"], sleep).unwrap();
    let fine = cluster.sbatch(USERS[0], &["-n1"], "#!/bin/sh\nsrun true\n").unwrap();
    // Two that no node will ever see.
    let fails = cluster.sbatch(USERS[0], &["-n1"], "#!/bin/sh\nexit 3\n").unwrap();
    let after = format!("--dependency=afterok:{fails}");
    let waits = ["-n1", &after, "--kill-on-invalid-dep=yes"];
    let waits = cluster.sbatch(USERS[0], &waits, "#!/bin/sh\ntrue\n").unwrap();
    let held = cluster.sbatch(USERS[0], &["-n1", "--hold"], "#!/bin/sh\ntrue\n").unwrap();
    cluster.scancel(&[&held.to_string()]).unwrap();
    for job in [by_user, by_root] {
        cluster.wait_state(job, "RUNNING", SOON).unwrap();
    }
    let cancel = cluster.command(Some(USERS[0]), "scancel").arg(by_user.to_string()).output().unwrap();
    assert!(cancel.status.success(), "{cancel:?}");
    cluster.scancel(&[&by_root.to_string()]).unwrap();
    for job in [by_user, by_root, fine, fails, waits, held] {
        cluster.wait_end(job, SOON).unwrap();
    }
    let ended = |events: &[Value]| {
        events.iter().filter(|e| e["event_type"] == "step_ended" && e["step"] == "extern").count() == 4
    };
    cluster.wait_events(SOON, ended).unwrap();

    let collect = || {
        let output = cluster.collect(&["--once", "--accounting", "sacct"]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let cause = |job: u32| {
        let run = cluster.inquest_json(&["run", &job.to_string(), "--json"]);
        run["run"]["members"]["1"]["verdict"]["cause"].as_str().unwrap_or("none").to_owned()
    };
    // The daemon is away: verdicts come from nodes and slurmctld, and the log says so.
    let dbd = cluster.processes_named("slurmdbd");
    assert_eq!(dbd.len(), 1);
    for process in &dbd {
        process.signal(rustix::process::Signal::STOP);
    }
    let conf = cluster.dir().join("etc/slurm.conf");
    let text = fs::read_to_string(&conf).unwrap();
    fs::write(&conf, format!("{text}MessageTimeout=2\n")).unwrap();
    let said = collect();
    assert!(said.contains("sacct failed"), "{said}");
    assert_eq!((cause(by_user).as_str(), cause(fine).as_str()), ("cancelled", "ok"));
    fs::write(&conf, text).unwrap();
    for process in &dbd {
        process.signal(rustix::process::Signal::CONT);
    }

    // It is back, and tells late: what was judged is judged again.
    let deadline = Instant::now() + SOON;
    let untold = || {
        cause(by_user) == "cancelled"
            || cause(by_root) == "cancelled"
            || [waits, held].iter().any(|job| cause(*job) == "none")
    };
    while untold() {
        assert!(
            Instant::now() < deadline,
            "slurmdbd has not told who cancelled jobs {by_user} and {by_root}, and of {waits} and {held}"
        );
        collect();
    }
    assert_eq!((cause(by_user).as_str(), cause(by_root).as_str()), ("cancelled_user", "cancelled_admin"));
    assert_eq!((cause(fine).as_str(), cause(fails).as_str()), ("ok", "app_error"));
    assert_eq!((cause(waits).as_str(), cause(held).as_str()), ("dependency", "cancelled_admin"));
    cluster.stop().unwrap();
}
