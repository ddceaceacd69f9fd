//! The plugin of a job's prolog and epilog on a real cluster: what it adds, that it disturbs no run's name, and
//! that a mistake in its line costs neither a job nor a node.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use inquest_tests::artefacts;
use inquest_tests::cluster::{Cluster, Config, USERS};
use serde_json::Value;

const WAIT: Duration = Duration::from_secs(60);

fn of<'a>(events: &'a [Value], job: u32, kind: &str, via: &str) -> Option<&'a Value> {
    let id = job.to_string();
    events.iter().find(|e| e["job_id"] == id.as_str() && e["event_type"] == kind && e["via"] == via)
}

#[test]
fn prolog_and_epilog_add_what_only_slurm_tells_them() {
    // slurmd looks for these hooks when it starts, so the files are there before the cluster is.
    let plugins = tempfile::tempdir().unwrap();
    fs::set_permissions(plugins.path(), Permissions::from_mode(0o755)).unwrap();
    let place = |from: std::path::PathBuf, name: &str| {
        let path = plugins.path().join(name);
        fs::copy(from, &path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        format!("optional {} journal={{journal}} optout=yes", path.display())
    };
    let lines = vec![
        place(artefacts::plugin(), "spank_inquest.so"),
        place(artefacts::plugin_of_jobs(), "spank_inquest_job.so"),
    ];
    let cluster = Cluster::start(Config { plugstack: lines, ..Config::default() }).unwrap();

    let arguments = ["-n2", "-N2", "--comment=why not", "--output=said-%j.txt", "--array=5"];
    let job = cluster.sbatch(USERS[0], &arguments, "#!/bin/sh\nsrun -n2 true\nexit 3\n").unwrap();
    let crash = cluster.sbatch(USERS[0], &["-n1"], "#!/bin/sh\nkill -SEGV $$\n").unwrap();
    let off = cluster.sbatch(USERS[0], &["-n1", "--inquest=off"], "#!/bin/sh\ntrue\n").unwrap();
    for job in [job, crash, off] {
        cluster.wait_end(job, WAIT).unwrap();
    }
    let epilogs = |events: &[Value], job: u32| {
        let id = job.to_string();
        events.iter().filter(|e| e["job_id"] == id.as_str() && e["via"] == "epilog").count()
    };
    let events = cluster.wait_events(WAIT, |e| epilogs(e, job) == 2 && epilogs(e, crash) == 1).unwrap();

    let began = of(&events, job, "job_started", "prolog").unwrap();
    println!("{began}");
    assert_eq!(began["comment"], "why not");
    assert_eq!(began["work_dir"], cluster.work_dir().to_str().unwrap());
    assert!(began["stdout"].as_str().unwrap().contains("said-"), "{began}");
    assert_eq!((&began["restart"], &began["node_count"]), (&0.into(), &2.into()));
    assert_eq!(began["partition"], "main");
    let before = |e: &Value| e["job_id"] == began["job_id"] && e["node"] == began["node"];
    assert!(before(events.iter().find(|e| before(e)).unwrap()));
    let first = events.iter().filter(|e| before(e)).min_by_key(|e| e["mono_us"].as_u64()).unwrap();
    assert_eq!(first["via"], "prolog", "nothing of a job on a node is earlier");
    let ended = of(&events, job, "job_ended", "epilog").unwrap();
    println!("{ended}");
    assert_eq!((&ended["exit_code"], &ended["severity"]), (&3.into(), &"error".into()));
    let crashed = of(&events, crash, "job_ended", "epilog").unwrap();
    assert_eq!((&crashed["signal"], &crashed["exit_code"]), (&11.into(), &Value::Null));
    assert!(of(&events, off, "job_started", "prolog").is_none(), "the user may say no");
    assert!(of(&events, off, "job_ended", "epilog").is_none());

    // What the prolog says comes first and knows little: the array is still what names the run.
    let store = cluster.dir().join("store");
    let inquest = |arguments: &[&str]| {
        let mut command = Command::new(artefacts::inquest());
        command.args(arguments).env("INQUEST_STORE", &store);
        command.output().unwrap()
    };
    let journal = cluster.journal_dir();
    let journal = journal.to_str().unwrap();
    assert!(inquest(&["collect", "--once", "--accounting", "off", "--journal", journal]).status.success());
    let why: Value = serde_json::from_slice(&inquest(&["why", &job.to_string(), "--json"]).stdout).unwrap();
    assert_eq!(why["run_id"].as_str().unwrap(), format!("array-{job}"), "{why}");
    assert_eq!(why["jobs"][0]["verdict"]["cause"], "app_error", "{why}");
    let stdout = why["jobs"][0]["story"]["attempts"][0]["facts"]["stdout"].as_str().unwrap().to_owned();
    assert!(stdout.ends_with(&format!("said-{job}.txt")), "the file itself, not its pattern: {stdout}");

    // A mistake: jobs run, nodes stay, nothing more is written by these hooks.
    let plugstack = cluster.dir().join("etc/plugstack.conf");
    let text = fs::read_to_string(&plugstack).unwrap();
    for wrong in
        [text.replace("_job.so journal=", "_job.so jurnal="), text.replace("journal=", "journal=/nowhere/")]
    {
        assert_ne!(wrong, text);
        fs::write(&plugstack, wrong).unwrap();
        let job = cluster.sbatch(USERS[0], &["-n1"], "#!/bin/sh\ntrue\n").unwrap();
        assert_eq!(cluster.wait_end(job, WAIT).unwrap().state, "COMPLETED");
        assert!(of(&cluster.events(), job, "job_started", "prolog").is_none());
    }
    let states = cluster.command(None, "sinfo").args(["-h", "-N", "-o", "%T"]).output().unwrap();
    let states = String::from_utf8_lossy(&states.stdout).into_owned();
    assert!(states.lines().all(|s| !s.contains("drain") && !s.contains("down")), "{states}");
    cluster.stop().unwrap();
}

#[test]
fn the_object_exports_its_two_hooks_and_nothing_else() {
    let output =
        Command::new("nm").args(["-D", "--defined-only"]).arg(artefacts::plugin_of_jobs()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut names: Vec<&str> = text.lines().filter_map(|l| l.split_whitespace().last()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["plugin_name", "plugin_type", "plugin_version", "slurm_spank_job_epilog", "slurm_spank_job_prolog"]
    );
}
