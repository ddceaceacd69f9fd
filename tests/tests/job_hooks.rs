//! The plugin of a job's prolog and epilog on a real cluster: what it adds, that it disturbs no run's name, that
//! a mistake in its line costs neither a job nor a node, and which attempt of a job both plugins say it is.

use std::fs;
use std::time::{Duration, Instant};

use inquest_tests::cluster::{Cluster, Config, USERS};
use serde_json::Value;

const WAIT: Duration = Duration::from_secs(60);

fn of<'a>(events: &'a [Value], job: u32, kind: &str, via: &str) -> Option<&'a Value> {
    let id = job.to_string();
    events.iter().find(|e| e["job_id"] == id.as_str() && e["event_type"] == kind && e["via"] == via)
}

#[test]
fn prolog_and_epilog_add_what_only_slurm_tells_them() {
    let mut cluster = Cluster::start(Config::default()).unwrap();
    cluster.record_jobs("optout=yes").unwrap();

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
    assert!(cluster.collect(&["--once", "--accounting", "off"]).status().unwrap().success());
    let why = cluster.inquest_json(&["why", &job.to_string(), "--json"]);
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

/// Steps that are told which attempt they are of, and some that are not; the second attempt submits another job.
const AGAIN: &str = r#"#!/bin/bash
srun -n1 true
srun -n1 --export=NONE /bin/true
env -i PATH=$PATH SLURM_CONF=$SLURM_CONF srun --jobid=$SLURM_JOB_ID -n1 true
touch ready.${SLURM_RESTART_COUNT:-0}
[ -z "$SLURM_RESTART_COUNT" ] && sleep 600
sbatch --parsable -n1 --mem=50M -o /dev/null --wrap 'srun -n1 true' >child
while [ ! -e go ]; do sleep 0.05; done
"#;

#[test]
fn nothing_of_a_second_attempt_is_told_as_the_first() {
    let mut cluster = Cluster::start(Config { nodes: 1, ..Config::default() }).unwrap();
    cluster.record_jobs("").unwrap();
    let at = |name: &str| cluster.work_dir().join(name);
    let wait_for = |name: &str| {
        let deadline = Instant::now() + WAIT;
        while !at(name).exists() {
            assert!(Instant::now() < deadline, "no {name}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let job = cluster.sbatch(USERS[0], &["-n1", "--mem=100M", "--requeue"], AGAIN).unwrap();
    wait_for("ready.0");
    cluster.scontrol(&["requeue", &job.to_string()]).unwrap();
    cluster.wait_state(job, "PENDING", WAIT).unwrap();
    // Slurm lets two minutes pass; extern steps, which have no number, are told apart by more than a second.
    std::thread::sleep(Duration::from_secs(2));
    cluster.scontrol(&["update", &format!("JobId={job}"), "StartTime=now"]).unwrap();
    wait_for("ready.1");
    let mut outside = cluster.command(Some(USERS[0]), "srun");
    outside.args(["--overlap", "-n1", "--mem=0", &format!("--jobid={job}"), "/bin/true"]);
    assert!(outside.status().unwrap().success());
    fs::write(at("go"), "").unwrap();
    let child: u32 = fs::read_to_string(at("child")).unwrap().trim().parse().unwrap();
    for job in [job, child] {
        assert_eq!(cluster.wait_end(job, WAIT).unwrap().state, "COMPLETED");
    }
    let of_job = |e: &Value, job: u32| e["job_id"] == job.to_string().as_str();
    let epilogs =
        |events: &[Value], job| events.iter().filter(|e| of_job(e, job) && e["via"] == "epilog").count();
    let events = cluster.wait_events(WAIT, |e| epilogs(e, job) == 2 && epilogs(e, child) == 1).unwrap();

    // In the order of time, because nothing else may be believed here.
    let told = |job: u32, kind: &str, step: &str| -> Vec<Option<u64>> {
        let mine = |e: &&Value| {
            of_job(e, job) && e["event_type"] == kind && e["step"].as_str().unwrap_or("none") == step
        };
        let mut events: Vec<&Value> = events.iter().filter(mine).collect();
        events.sort_by_key(|e| e["mono_us"].as_u64());
        events.into_iter().map(|e| e["restart"].as_u64()).collect()
    };
    for (kind, step) in [("job_ended", "batch"), ("step_started", "0")] {
        assert_eq!(told(job, kind, step), [Some(0), Some(1)], "{kind} of step {step}");
    }
    // For Slurm, the first attempt's epilog is that of a job which was restarted once.
    assert_eq!(
        [told(job, "job_ended", "none"), told(child, "job_ended", "none")],
        [vec![None; 2], vec![Some(0)]]
    );
    // slurmd calls no prolog for a job that comes back before it has forgotten the first one.
    let prologs = told(job, "job_started", "none");
    assert!(!prologs.is_empty() && [Some(0), Some(1)].starts_with(&prologs), "{prologs:?}");
    // Slurm hands the number on here, and could as well not.
    let bare = told(job, "step_started", "1");
    println!("srun --export=NONE: {bare:?}");
    assert!([Some(0), None].contains(&bare[0]) && [Some(1), None].contains(&bare[1]), "{bare:?}");
    assert_eq!(told(job, "step_started", "2"), [None, None], "env -i");
    assert_eq!(told(job, "step_started", "3"), [None], "from outside");
    assert_eq!(told(job, "step_started", "batch"), [None, None]);
    // The other job has the first one's environment. Its prolog and epilog know better.
    assert_eq!(told(child, "job_started", "none"), [Some(0)]);
    assert_eq!(
        [told(child, "job_started", "batch"), told(child, "job_ended", "batch")],
        [vec![None], vec![None]]
    );

    assert!(cluster.collect(&["--once", "--accounting", "off"]).status().unwrap().success());
    let why = cluster.inquest_json(&["why", &job.to_string(), "--json"]);
    let attempts = why["jobs"][0]["story"]["attempts"].as_array().unwrap();
    let steps = |n: usize| attempts[n]["steps"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(attempts.iter().map(|a| a["restart"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1]);
    // The extern step is begun by the prolog.
    let mut second = vec!["0", "1", "2", "3", "batch"];
    second.extend((told(job, "step_started", "extern").len() == 2).then_some("extern"));
    assert_eq!([steps(0), steps(1)], [vec!["0", "1", "2", "batch", "extern"], second]);
    cluster.stop().unwrap();
}
