//! A site at work: jobs, arrays and requeues, while the collector and the nodes are killed at
//! random. What Slurm's own records say of every job at the end is what its one story says.
//!
//! `INQUEST_LIVE_JOBS=500` makes so many jobs; without it there are sixty. `INQUEST_SEED` repeats
//! the order of jobs and kills.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use inquest_tests::children::Ends;
use inquest_tests::cluster::{Cluster, Config, JobRecord, USERS};
use inquest_tests::random::Random;
use serde_json::Value;

fn start(cluster: &Cluster) -> Ends {
    Ends(cluster.collect(&[]).stderr(Stdio::null()).spawn().unwrap())
}

/// What a job does, and how many jobs that are.
fn submit(cluster: &Cluster, random: &mut Random) -> usize {
    let sleep = format!("sleep 0.{}\n", 1 + random.below(9));
    let (arguments, script, jobs): (&[&str], String, usize) = match random.below(100) {
        0..40 => (&["-n1"], sleep, 1),
        40..55 => (&["-n1"], format!("{sleep}exit {}\n", 1 + random.below(9)), 1),
        55..63 => (&["-n1"], format!("{sleep}kill -SEGV $$\n"), 1),
        63..71 => (&["-n2", "-N2"], format!("srun sh -c '{sleep}'\n"), 1),
        71..76 => (&["-n1", "--mem=32M"], "exec /usr/bin/python3 -c 'b = bytearray(300 << 20)'\n".into(), 1),
        76..84 => {
            let again = "if [ \"${SLURM_RESTART_COUNT:-0}\" = 0 ]; then scontrol requeue $SLURM_JOB_ID; sleep 60; fi\n";
            (&["-n1"], again.into(), 1)
        }
        _ => (&["-n1", "--array=0-4"], format!("{sleep}[ $SLURM_ARRAY_TASK_ID != 3 ] || exit 7\n"), 5),
    };
    cluster.sbatch(USERS[0], arguments, &format!("#!/bin/bash\n{script}")).unwrap();
    jobs
}

/// Every member of every run in the store: job id to what `run.json` says.
fn members(store: &Path) -> BTreeMap<u32, Vec<Value>> {
    let mut found: BTreeMap<u32, Vec<Value>> = BTreeMap::new();
    let below = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path());
    for user in below(store).filter(|p| p.is_dir()).flat_map(|cluster| below(&cluster).collect::<Vec<_>>()) {
        for run in below(&user.join("runs")).filter(|p| p.is_dir()) {
            let run: Value = serde_json::from_slice(&fs::read(run.join("run.json")).unwrap()).unwrap();
            for member in run["members"].as_object().unwrap().values() {
                let id = member["job_id"].as_str().unwrap().parse().unwrap();
                found.entry(id).or_default().push(member.clone());
            }
        }
    }
    found
}

/// What is wrong with the story of a job, if anything.
fn wrong(record: &JobRecord, stories: &[Value]) -> Option<String> {
    let [story] = stories else {
        return Some(format!("{} stories: {record:?}", stories.len()));
    };
    let class = story["verdict"]["class"].as_str().unwrap_or("none");
    let right = match record.state.as_str() {
        "COMPLETED" => matches!(class, "ok"),
        "FAILED" => matches!(class, "app_error" | "crash"),
        "OUT_OF_MEMORY" => matches!(class, "oom"),
        "NODE_FAIL" => matches!(class, "infra"),
        "CANCELLED" => matches!(class, "cancelled"),
        "TIMEOUT" => matches!(class, "timeout"),
        _ => false,
    };
    // An attempt that never came to its node leaves nothing there.
    let attempts = story["attempts"].as_u64().unwrap_or(0);
    let counted = (1..=u64::from(record.restarts) + 1).contains(&attempts);
    (!right || !counted).then(|| format!("{class}, {attempts} attempts: {record:?}: {}", story["verdict"]))
}

/// Slurm believes its nodes for so long: a node that comes back is asked what runs on it, but a job
/// that is not among it counts as missing only when it was begun BatchStartTimeout and ten seconds
/// ago. Else it runs, by the controller, until the node is asked again, which is every twentieth
/// ping: half an hour. A node that comes back once more after this time tells at once.
const MISSING: Duration = Duration::from_secs(25);

/// What Slurm has to say of the first jobs that have not ended.
fn unended(cluster: &Cluster, jobs: &[JobRecord]) -> String {
    let log = fs::read_to_string(cluster.dir().join("log/slurmctld.log")).unwrap_or_default();
    let open: Vec<&JobRecord> = jobs.iter().filter(|j| !j.has_ended()).collect();
    let tell = |job: &&JobRecord| {
        let id = job.job.to_string();
        let shown = cluster.command(None, "scontrol").args(["show", "job", &id]).output();
        let shown = shown.map_or(String::new(), |o| String::from_utf8_lossy(&o.stdout).into_owned());
        let names = [format!("JobId={id} "), format!("JobId={id}\n"), format!("({id})")];
        let mentions = |line: &&str| names.iter().any(|n| format!("{line}\n").contains(n.as_str()));
        let lines: Vec<&str> = log.lines().filter(mentions).collect();
        format!("{shown}{}", lines[lines.len().saturating_sub(40)..].join("\n"))
    };
    let told: Vec<String> = open.iter().take(5).map(tell).collect();
    format!("{} of {}\n{}", open.len(), jobs.len(), told.join("\n\n"))
}

#[test]
fn every_job_has_one_story_with_the_right_end() {
    let given = std::env::var("INQUEST_SEED").ok().and_then(|s| s.parse().ok());
    let seed = given.unwrap_or_else(|| u64::from(std::process::id()));
    println!("INQUEST_SEED={seed}");
    let mut random = Random::new(seed);
    let wanted = std::env::var("INQUEST_LIVE_JOBS").ok().and_then(|n| n.parse().ok()).unwrap_or(60);

    // Records outlive the longest run.
    let extra_slurm_conf = vec!["MinJobAge=7200".to_owned()];
    let mut cluster = Cluster::start(Config { extra_slurm_conf, ..Config::default() }).unwrap();
    cluster.record("").unwrap();

    let mut collector = start(&cluster);
    let (mut submitted, mut kills, mut restarts, mut crashes) = (0, 0, 0, 0);
    let mut asked = Instant::now();
    let deadline = Instant::now() + Duration::from_secs(60 + wanted as u64 * 4);
    loop {
        if submitted < wanted {
            submitted += submit(&cluster, &mut random);
        }
        std::thread::sleep(Duration::from_millis(random.below(400)));
        match random.below(100) {
            0..30 => {
                drop(collector);
                kills += 1;
                std::thread::sleep(Duration::from_millis(random.below(300)));
                collector = start(&cluster);
            }
            30..34 if submitted < wanted => {
                let node = cluster.nodes()[random.below(2) as usize].clone();
                cluster.kill_and_restart_slurmd(&node).unwrap();
                restarts += 1;
            }
            34..38 if submitted < wanted || crashes == 0 => {
                let node = cluster.nodes()[random.below(2) as usize].clone();
                cluster.crash(&node).unwrap();
                crashes += 1;
            }
            _ => {}
        }
        let jobs = cluster.jobs().unwrap();
        // Slurm holds a job whose launch failed together with its node, until an admin lets it go.
        let held = |job: &&JobRecord| job.state == "PENDING" && job.reason.to_lowercase().contains("held");
        for job in jobs.iter().filter(held) {
            let _ = cluster.command(None, "scontrol").arg("release").arg(job.job.to_string()).output();
        }
        if submitted >= wanted && crashes > 0 && jobs.iter().all(JobRecord::has_ended) {
            break;
        }
        if submitted < wanted {
            asked = Instant::now();
        } else if asked.elapsed() >= MISSING {
            for node in cluster.nodes() {
                cluster.kill_and_restart_slurmd(&node).unwrap();
            }
            (asked, restarts) = (Instant::now(), restarts + 2);
        }
        assert!(Instant::now() < deadline, "seed {seed}: jobs do not end:\n{}", unended(&cluster, &jobs));
    }
    drop(collector);
    // Once more, with all that Slurm knows.
    let output = cluster.collect(&["--once"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let records = cluster.jobs().unwrap();
    let stories = members(&cluster.store());
    let known: BTreeSet<u32> = records.iter().map(|r| r.job).collect();
    let mut faults: Vec<String> =
        records.iter().filter_map(|r| wrong(r, stories.get(&r.job).map_or(&[], Vec::as_slice))).collect();
    faults.extend(
        stories.keys().filter(|id| !known.contains(id)).map(|id| format!("{id} is no job of Slurm's")),
    );
    let states = records.iter().fold(BTreeMap::<&str, u32>::new(), |mut states, r| {
        *states.entry(&r.state).or_default() += 1;
        states
    });
    let requeued = records.iter().filter(|r| r.restarts > 0).count();
    println!(
        "{} jobs, {requeued} requeued, {states:?}; the collector killed {kills} times, slurmd {restarts} times, \
         a node with its jobs {crashes} times",
        records.len()
    );
    assert!(records.len() >= wanted && kills > 0 && crashes > 0);
    assert!(faults.is_empty(), "seed {seed}: {} of {}:\n{}", faults.len(), records.len(), faults.join("\n"));
    cluster.stop().unwrap();
}
