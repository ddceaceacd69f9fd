//! One file for every Slurm: the plugin that the machine's own release runs is accepted by newer ones,
//! and records real jobs there.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use inquest_tests::artefacts;
use inquest_tests::cluster::{Cluster, Config, USERS};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

/// Two nodes, a step whose second task fails, a crash that the script hides, a child that eats
/// more than the job may.
const SCRIPT: &str = r#"#!/bin/sh
srun -N2 -n2 sh -c 'exit $((SLURM_PROCID * 7))'
srun -N1 -n1 sh -c 'kill -SEGV $$'
/usr/bin/python3 -c 'eaten = [bytearray(4 << 20) for _ in range(128)]'
exit 3
"#;

#[test]
fn slurm_24_11_records_with_the_same_file() {
    let version = records_on("trixie");
    assert!(version.starts_with("24.11."), "trixie has Slurm {version}");
}

#[test]
fn the_newest_slurm_of_debian_records_with_the_same_file() {
    let version = records_on("sid");
    let (year, _) = version.split_once('.').unwrap();
    assert!(year.parse::<u32>().unwrap() >= 26, "sid has Slurm {version}");
}

/// Run jobs on a cluster of this suite's Slurm; hold the journal to what they did. Returns the release.
fn records_on(suite: &str) -> String {
    let cluster =
        Cluster::start(Config { root: Some(artefacts::slurm(suite)), ..Config::default() }).unwrap();
    // Where every user may read it. Required, so that a plugin that does not load ends its job.
    let plugin = cluster.dir().join("spank_inquest.so");
    fs::copy(artefacts::plugin(), &plugin).unwrap();
    let notes = cluster.work_dir().join("notes");
    fs::create_dir(&notes).unwrap();
    let (journal, notes) = (cluster.journal_dir(), notes.display());
    let more = format!("journal={} note={notes} optout=yes", journal.display());
    let line = format!("required {} {more}\n", plugin.display());
    fs::write(cluster.dir().join("etc/plugstack.conf"), line).unwrap();
    let said = |program: &str, argument: &str| {
        let output = cluster.command(Some(USERS[0]), program).arg(argument).output().unwrap();
        assert!(output.status.success(), "{program} {argument}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let version = said("srun", "--version").trim().rsplit(' ').next().unwrap().to_owned();
    for program in ["srun", "sbatch", "salloc"] {
        let help = said(program, "--help");
        assert!(help.contains("--inquest-run=ID"), "{program} {version} has no such option:\n{help}");
    }

    let args = ["-N2", "-n2", "--mem=64M", "--inquest-run=newer"];
    let job = cluster.sbatch(USERS[0], &args, SCRIPT).unwrap();
    let record = cluster.wait_end(job, SOON).unwrap();
    assert_eq!(record.state, "OUT_OF_MEMORY", "{record:?}");
    let nodes = cluster.nodes();
    let id = Value::from(job.to_string());
    let of = |event: &Value, kind: &str, step: &str| {
        event["event_type"] == kind && event["step"] == step && event["job_id"] == id
    };
    // The last hooks of a job: the extern step's, on both nodes.
    let events = cluster
        .wait_events(SOON, |events| {
            let ended = |step| events.iter().filter(|e| of(e, "step_ended", step)).count();
            (ended("extern"), ended("batch"), ended("0"), ended("1")) == (2, 1, 2, 1)
        })
        .unwrap();
    let all = |kind: &str, step: &str| events.iter().filter(|e| of(e, kind, step)).collect::<Vec<_>>();
    let one = |kind: &str, step: &str| match all(kind, step)[..] {
        [event] => event,
        ref found => panic!("not one {kind} of step {step}, but {found:#?}"),
    };

    for started in events.iter().filter(|e| e["event_type"] == "step_started") {
        assert_eq!(started["slurm_version"], version.as_str(), "{started}");
        assert!(started["cgroup"].as_str().unwrap().contains("/step_"), "{started}");
        assert_eq!(started["limit_bytes"], 64 << 20, "{started}");
    }
    assert_eq!(one("step_started", "batch")["run"], "newer");

    let mut ranks = all("task_exited", "0");
    ranks.sort_by_key(|e| e["task"].as_u64());
    let told: Vec<_> = ranks.iter().map(|e| (&e["task"], &e["node"], &e["exit_code"])).collect();
    assert_eq!(
        told,
        [
            (&0.into(), &nodes[0].as_str().into(), &0.into()),
            (&1.into(), &nodes[1].as_str().into(), &7.into())
        ]
    );
    assert_eq!(one("task_exited", "1")["signal"], libc::SIGSEGV);

    let oom = one("oom_kill", "batch");
    assert_eq!((&oom["count"], &oom["limit_bytes"]), (&1.into(), &(64 << 20).into()), "{oom}");
    assert_eq!(oom["reported_by_slurm"], true, "{oom}");
    let batch = one("task_exited", "batch");
    assert_eq!((&batch["exit_code"], &batch["oom_kills"]), (&3.into(), &1.into()), "{batch}");
    assert!(batch["memory"]["largest_process_bytes"].as_u64().unwrap() > 32 << 20, "{batch}");

    // What a user says is known before what tasks find in their environment is settled.
    let place = "#!/bin/sh\necho ${INQUEST_NOTE+set}.\nsrun -n1 sh -c 'echo ${INQUEST_NOTE+set}.'\n";
    for (option, said) in [("--inquest=on", "set.\nset.\n"), ("--inquest=off", ".\n.\n")] {
        let job = cluster.sbatch(USERS[0], &["-n1", option], place).unwrap();
        cluster.wait_end(job, SOON).unwrap();
        assert_eq!(cluster.stdout(job).unwrap(), said, "{option} on {version}");
    }

    // Nothing is lost: the numbers of every writer are 0, 1, 2, ...
    let mut streams = BTreeMap::<&str, Vec<u64>>::new();
    for event in &events {
        let stream = event["stream"].as_str().unwrap();
        streams.entry(stream).or_default().push(event["seq"].as_u64().unwrap());
    }
    for (stream, mut numbers) in streams {
        numbers.sort_unstable();
        assert!(numbers.iter().copied().eq(0..numbers.len() as u64), "{stream}: {numbers:?}");
    }
    for node in &nodes {
        let log = cluster.slurmd_log(node);
        let of_us = |line: &&str| line.contains("inquest.so") || line.contains("spank_inquest:");
        assert_eq!(log.lines().filter(of_us).collect::<Vec<_>>(), [""; 0]);
    }
    cluster.stop().unwrap();
    version
}
