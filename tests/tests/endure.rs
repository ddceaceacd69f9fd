//! What a node has to endure, with both plugins and the agent on it: killed daemons, a journal that
//! goes away while jobs use it, a file system that stands still, many steps at once and in a row,
//! a fork storm. Jobs end as they do without us, and what is recorded is whole or says that it is not.
//!
//! `INQUEST_STEPS=10000` makes so many short steps in a row; `INQUEST_SEED` repeats the kills.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use inquest_tests::agent::{self, Agent};
use inquest_tests::cluster::{Cluster, Config, Process, USERS};
use inquest_tests::mounts::{Disk, Mounted};
use inquest_tests::random::Random;
use inquest_tests::stores::gaps;
use rustix::process::Signal;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

fn cluster(nodes: usize) -> Cluster {
    let mut cluster = Cluster::start(Config { nodes, ..Config::default() }).unwrap();
    cluster.record_jobs("").unwrap();
    cluster
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|n| n.parse().ok())
}

/// How many events of a type a job has; those of one step where it is named.
fn count(events: &[Value], job: u32, step: &str, event_type: &str) -> usize {
    let job = job.to_string();
    let of_step = |e: &Value| step.is_empty() || e["step"] == step;
    events.iter().filter(|e| e["job_id"] == job && e["event_type"] == event_type && of_step(e)).count()
}

fn wait_for(what: &str, timeout: Duration, mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + timeout;
    while !ready() {
        assert!(Instant::now() < deadline, "not after {timeout:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn kills_cost_nothing_but_what_was_killed() {
    let seed = number("INQUEST_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("INQUEST_SEED={seed}");
    let mut random = Random::new(seed);
    let mut pause = move |ms: u64| std::thread::sleep(Duration::from_micros(random.below(ms * 1000)));
    let mut cluster = cluster(1);
    let node = cluster.nodes()[0].clone();
    let mut agent = Agent::start(&cluster, &node).unwrap();
    let (mut survivors, mut victims) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let survivor = "#!/bin/bash\nsrun -n2 --mem=0 sh -c 'sleep 2; exit $SLURM_PROCID'\nexit 3\n";
        let survivor = cluster.sbatch(USERS[0], &["-n2", "--mem=100M"], survivor).unwrap();
        let victim = "#!/bin/bash\nsrun -n1 --mem=0 sleep 300\n";
        let victim = cluster.sbatch(USERS[0], &["-n1", "--mem=100M"], victim).unwrap();
        wait_for("the steps run", SOON, || {
            let runs = |job, task| !cluster.cgroup_pids(job, &format!("step_0/{task}")).is_empty();
            runs(survivor, "task_0") && runs(survivor, "task_1") && runs(victim, "task_0")
        });
        let orphans = cluster.cgroup_pids(victim, "step_0/task_0");
        let id = victim.to_string();
        let stepd = cluster
            .wait_events(SOON, |e| count(e, victim, "0", "step_started") == 1)
            .unwrap()
            .into_iter()
            .find(|e| e["job_id"] == id && e["step"] == "0" && !e["stepd_pid"].is_null())
            .and_then(|e| Process::of(e["stepd_pid"].as_i64()? as i32))
            .expect("the journal names slurmstepd");
        pause(200);
        agent.kill_and_restart(&cluster).unwrap();
        pause(200);
        stepd.signal(Signal::KILL);
        pause(200);
        cluster.kill_and_restart_slurmd(&node).unwrap();
        pause(200);
        agent.kill_and_restart(&cluster).unwrap();

        let record = cluster.wait_end(survivor, SOON).unwrap();
        assert_eq!((record.state.as_str(), record.exit_code.as_str()), ("FAILED", "3:0"), "seed {seed}");
        // Nobody is left who would end these.
        orphans.into_iter().filter_map(Process::of).for_each(|p| p.signal(Signal::KILL));
        cluster.scancel(&[&victim.to_string()]).unwrap();
        survivors.push(survivor);
        victims.push(victim);
    }

    let whole = |events: &[Value], job| {
        count(events, job, "", "step_started") == 3
            && count(events, job, "0", "task_exited") == 2
            && count(events, job, "", "step_ended") == 3
            && count(events, job, "batch", "job_ended") == 1
    };
    let events = cluster.wait_events(SOON, |e| survivors.iter().all(|&job| whole(e, job))).unwrap();
    assert_eq!(gaps(&events), [""; 0], "seed {seed}");
    for victim in victims {
        // A start without an end is how the death of slurmstepd shows.
        let ends = ["step_ended", "task_exited"].map(|t| count(&events, victim, "0", t));
        assert_eq!((count(&events, victim, "0", "step_started"), ends), (1, [0, 0]), "seed {seed}");
    }
    // The node is as good as before.
    let job = cluster.sbatch(USERS[0], &["-n1"], "#!/bin/sh\nsrun true\n").unwrap();
    assert_eq!(cluster.wait_end(job, SOON).unwrap().state, "COMPLETED");
    assert!(agent.is_running());
}

#[test]
fn a_users_umask_closes_no_journal() {
    let cluster = cluster(1);
    let node = cluster.journal_dir().join(&cluster.nodes()[0]);
    // slurmstepd takes the umask with which srun was called, before the task runs.
    let script = "#!/bin/bash\numask 077\nsrun -n1 --mem=0 sh -c 'while [ ! -e go ]; do sleep 0.05; done'\n";
    let job = cluster.sbatch(USERS[0], &["-n1", "--mem=100M", "-o/dev/null"], script).unwrap();
    cluster.wait_events(SOON, |e| count(e, job, "0", "task_started") == 1).unwrap();
    fs::remove_dir_all(&node).unwrap();
    fs::write(cluster.work_dir().join("go"), "").unwrap();
    assert_eq!(cluster.wait_end(job, SOON).unwrap().state, "COMPLETED");
    cluster.wait_events(SOON, |e| count(e, job, "0", "step_ended") == 1).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&node), 0o750);
    for file in fs::read_dir(&node).unwrap() {
        assert_eq!(mode(&file.unwrap().path()), 0o640);
    }
}

/// Two steps, and a gate between them at which something happens to the journal.
const GATED: &str = "#!/bin/bash
echo before; srun -n2 --mem=0 sh -c 'exit $SLURM_PROCID'
touch $SLURM_JOB_ID.waits; while [ ! -e $SLURM_JOB_ID.go ]; do sleep 0.05; done
srun -n2 --mem=0 sh -c 'exit $SLURM_PROCID'; echo $?; srun -n1 --mem=0 echo after
exit 3
";

/// Run the job, do `something` while it waits at its gate; it must end as always.
fn gated(cluster: &Cluster, name: &str, something: impl FnOnce()) -> u32 {
    let args = ["-n2", "--mem=100M", "-o%j.out", "-e/dev/null"];
    let job = cluster.sbatch(USERS[0], &args, GATED).unwrap();
    let at = |what: &str| cluster.work_dir().join(format!("{job}.{what}"));
    wait_for("the job is at its gate", SOON, || at("waits").exists());
    something();
    fs::write(at("go"), "").unwrap();
    let record = cluster.wait_end(job, SOON).unwrap();
    assert_eq!((record.state.as_str(), record.exit_code.as_str()), ("FAILED", "3:0"), "{name}");
    assert_eq!(fs::read_to_string(at("out")).unwrap(), "before\n1\nafter\n", "{name}");
    println!("{name}: job {job} ended as always");
    job
}

#[test]
fn a_journal_that_goes_away_costs_events_and_no_job() {
    let cluster = cluster(1);
    let node = cluster.nodes()[0].clone();
    let journal = cluster.journal_dir();
    let ends = |events: &[Value], job, n| count(events, job, "", "step_ended") == n;

    // Undisturbed: extern, batch and three steps.
    let job = gated(&cluster, "nothing", || {});
    cluster.wait_events(SOON, |e| ends(e, job, 5)).unwrap();

    let job = gated(&cluster, "the node's directory is deleted", || {
        fs::remove_dir_all(journal.join(&node)).unwrap();
    });
    // The two steps after it are there from start to end; the script's own end is, too.
    let events = cluster.wait_events(SOON, |e| count(e, job, "batch", "job_ended") == 1).unwrap();
    assert!(["1", "2"].iter().all(|step| count(&events, job, step, "step_ended") == 1), "{events:?}");

    let job = gated(&cluster, "the journal directory is deleted and made again", || {
        fs::remove_dir_all(&journal).unwrap();
        fs::create_dir(&journal).unwrap();
    });
    cluster.wait_events(SOON, |e| count(e, job, "batch", "job_ended") == 1).unwrap();

    let elsewhere = cluster.work_dir().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    gated(&cluster, "the journal directory is replaced by a link", || {
        fs::rename(&journal, journal.with_file_name("moved")).unwrap();
        symlink(&elsewhere, &journal).unwrap();
    });
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0, "something came through the link");
    fs::remove_file(&journal).unwrap();
    fs::rename(journal.with_file_name("moved"), &journal).unwrap();

    {
        let mut read_only = None;
        gated(&cluster, "a read-only file system is mounted over it", || {
            read_only = Some(Mounted::tmpfs(&journal, "ro"));
        });
    }

    // A disk that is full, and has room again before the script ends.
    let small = Mounted::tmpfs(&journal, "size=64k");
    let ballast = journal.join("ballast");
    let fill = || drop(fs::write(&ballast, vec![0; 1 << 17]).unwrap_err());
    let job = gated(&cluster, "the file system is full", fill);
    // One in the middle of which it becomes full, and then has room again.
    fs::remove_file(&ballast).unwrap();
    let wait = "#!/bin/bash\nsrun -n2 --mem=0 sh -c 'touch $SLURM_JOB_ID.$SLURM_PROCID; sleep 1; exit $SLURM_PROCID'\n";
    let wait = format!(
        "{wait}touch $SLURM_JOB_ID.end; while [ ! -e $SLURM_JOB_ID.go ]; do sleep 0.05; done; exit 3\n"
    );
    let freed = cluster.sbatch(USERS[0], &["-n2", "--mem=100M"], &wait).unwrap();
    let at = |what: &str| cluster.work_dir().join(format!("{freed}.{what}"));
    wait_for("both tasks run", SOON, || at("0").exists() && at("1").exists());
    fill();
    wait_for("the step has ended", SOON, || at("end").exists());
    fs::remove_file(&ballast).unwrap();
    fs::write(at("go"), "").unwrap();
    assert_eq!(cluster.wait_end(freed, SOON).unwrap().exit_code, "3:0");
    let events = cluster.wait_events(SOON, |e| count(e, freed, "batch", "job_ended") == 1).unwrap();
    assert_eq!(gaps(&events), [""; 0]);
    assert!(!ends(&events, job, 5), "the disk was never full");
    drop(small);
    for node in cluster.nodes() {
        let log = cluster.slurmd_log(&node);
        assert!(!log.contains("panicked") && !log.contains("aborted"), "{log}");
    }
}

#[test]
fn a_disk_that_stands_still_delays_steps_and_loses_nothing() {
    let cluster = cluster(1);
    let disk = Disk::mount(&cluster.dir().join("disk"), &cluster.journal_dir());
    let work = cluster.work_dir();
    // One that runs on all along, and two that start and end while the disk stands.
    let steady =
        "#!/bin/bash\nfor i in $(seq 600); do echo $i >>steady; sleep 0.05; [ -e enough ] && exit 7; done\n";
    let steady = cluster.sbatch(USERS[0], &["-n1", "--mem=100M"], steady).unwrap();
    let ending = "#!/bin/bash\ntouch ending; while [ ! -e end ]; do sleep 0.05; done; exit 3\n";
    let ending = cluster.sbatch(USERS[0], &["-n1", "--mem=100M"], ending).unwrap();
    wait_for("both run", SOON, || work.join("steady").exists() && work.join("ending").exists());

    assert!(disk.freeze(), "cannot freeze: {}", std::io::Error::last_os_error());
    let began = Instant::now();
    let lines = || fs::read_to_string(work.join("steady")).unwrap_or_default().lines().count();
    let before = lines();
    fs::write(work.join("end"), "").unwrap();
    let starting = cluster.sbatch(USERS[0], &["-n1", "--mem=100M"], "#!/bin/sh\nexit 4\n").unwrap();
    // What runs is not touched.
    wait_for("a running job goes on", SOON, || lines() > before + 40);
    let stood = began.elapsed();
    let states: Vec<String> =
        [steady, ending, starting].map(|job| cluster.job(job).unwrap().state).into_iter().collect();
    assert!(disk.thaw(), "cannot thaw: {}", std::io::Error::last_os_error());
    println!(
        "after {stood:.1?} of standing still: running {}, ending {}, starting {}",
        states[0], states[1], states[2]
    );
    assert_eq!(states[0], "RUNNING");

    fs::write(work.join("enough"), "").unwrap();
    for (job, code) in [(steady, "7:0"), (ending, "3:0"), (starting, "4:0")] {
        let record = cluster.wait_end(job, SOON).unwrap();
        assert_eq!((record.state.as_str(), record.exit_code.as_str()), ("FAILED", code));
    }
    // The script's end and the epilog's.
    let told = |e: &[Value], job| (count(e, job, "", "step_ended"), count(e, job, "", "job_ended"));
    let all = |e: &[Value]| [steady, ending, starting].iter().all(|&job| told(e, job) == (2, 2));
    let events = cluster.wait_events(SOON, all).unwrap();
    assert_eq!(gaps(&events), [""; 0]);
    assert!(events.iter().all(|e| e["event_type"] != "lost"), "something was lost");
    let prolog = |e: &&Value| e["job_id"] == starting.to_string().as_str() && e["via"] == "prolog";
    assert_eq!(events.iter().filter(prolog).count(), 1);
    cluster.stop().unwrap();
    drop(disk);
}

#[test]
fn steps_at_once_share_a_journal() {
    const AT_ONCE: usize = 64;
    let cluster = cluster(1);
    let script = format!(
        "#!/bin/bash\nfor i in $(seq 0 {}); do srun --overlap -n1 --mem=0 sh -c 'sleep 1; exit $SLURM_STEP_ID' & done\nwait\n",
        AT_ONCE - 1
    );
    let job = cluster.sbatch(USERS[0], &["-n1", "--mem=2000M"], &script).unwrap();
    let record = cluster.wait_end(job, SOON * 2).unwrap();
    assert_eq!(record.state, "COMPLETED", "{record:?}");
    let events = cluster.wait_events(SOON, |e| count(e, job, "", "step_ended") == AT_ONCE + 2).unwrap();
    assert_eq!(gaps(&events), [""; 0]);
    for step in 0..AT_ONCE {
        let name = step.to_string();
        for kind in ["step_started", "task_started", "task_exited", "step_ended"] {
            assert_eq!(count(&events, job, &name, kind), 1, "{kind} of step {name}");
        }
        let exit = events.iter().find(|e| e["step"] == name.as_str() && e["event_type"] == "task_exited");
        assert_eq!(exit.unwrap()["exit_code"], step);
    }
}

#[test]
fn many_short_steps_leave_nothing_behind() {
    let wanted = number("INQUEST_STEPS").unwrap_or(200);
    let cluster = cluster(1);
    let node = cluster.nodes()[0].clone();
    let agent = Agent::start(&cluster, &node).unwrap();
    let slurmd = cluster.slurmd_pid(&node).unwrap();
    // What a step finds open beside its three: nothing of ours may be inherited.
    let script = format!(
        "#!/bin/bash\nfor i in $(seq {wanted}); do\n\
         srun -n1 --mem=0 sh -c 'ls -l /proc/self/fd' | grep -c {} >>leaked\n\
         [ $i = 20 ] && touch warm && sleep 1\ndone\ntouch done; sleep 2\n",
        cluster.journal_dir().display()
    );
    let args = ["-n1", "--mem=200M", "--time=600"];
    let job = cluster.sbatch(USERS[0], &args, &script).unwrap();
    let at = |name: &str| cluster.work_dir().join(name);
    let look = || {
        let memory = |pid| agent::memory_kib(pid, "VmRSS").unwrap_or(0);
        [slurmd, agent.pid()].map(|pid| (agent::descriptors(pid), memory(pid)))
    };
    wait_for("the first steps have run", SOON, || at("warm").exists());
    let before = look();
    wait_for("all steps have run", Duration::from_secs(60 + wanted), || at("done").exists());
    let after = look();
    println!("{wanted} steps; slurmd and agent, descriptors and KiB: {before:?} then {after:?}");
    let record = cluster.wait_end(job, SOON).unwrap();
    assert_eq!(record.state, "COMPLETED", "{record:?}");
    let leaked = fs::read_to_string(at("leaked")).unwrap();
    assert_eq!(leaked, "0\n".repeat(wanted as usize), "a step has inherited a descriptor of the journal");

    let steps = wanted as usize + 2;
    let events = cluster.wait_events(SOON, |e| count(e, job, "", "step_ended") == steps).unwrap();
    assert_eq!(gaps(&events), [""; 0]);
    let mut seen = BTreeMap::<&str, BTreeMap<&str, usize>>::new();
    let id = job.to_string();
    let of_steps = |e: &&Value| e["job_id"] == id && e["source"] == "plugin" && !e["step"].is_null();
    for event in events.iter().filter(of_steps) {
        let (step, kind) = (event["step"].as_str().unwrap(), event["event_type"].as_str().unwrap());
        *seen.entry(step).or_default().entry(kind).or_default() += 1;
    }
    for step in 0..wanted {
        let kinds = &seen[step.to_string().as_str()];
        let each = ["step_ended", "step_started", "task_exited", "task_started"];
        assert!(each.iter().all(|kind| kinds[kind] == 1), "step {step}: {kinds:?}");
    }
    // slurmd threads come and go with their sockets.
    for ((fds, kib), (fds_then, kib_then)) in before.into_iter().zip(after) {
        assert!(fds_then <= fds + 8, "{fds} descriptors after 20 steps, {fds_then} after {wanted}");
        assert!(kib_then <= kib + 8192, "{kib} KiB after 20 steps, {kib_then} after {wanted}");
    }
}

#[test]
fn a_fork_storm_is_endured() {
    const FORKS: u64 = 20_000;
    let cluster = cluster(1);
    let node = cluster.nodes()[0].clone();
    let mut agent = Agent::start(&cluster, &node).unwrap();
    let before = agent.memory_kib("VmRSS").unwrap();
    // Half of them end abnormally, one of them first.
    let storm = format!(
        "#!/bin/bash\nsh -c 'kill -SEGV $$' 2>/dev/null\n\
         for i in $(seq {}); do (exit 1) & (exit 0) & [ $((i % 64)) = 0 ] && wait; done; wait\nexit 5\n",
        FORKS / 2
    );
    let job = cluster.sbatch(USERS[0], &["-n1", "--mem=500M"], &storm).unwrap();
    let record = cluster.wait_end(job, SOON * 3).unwrap();
    assert_eq!((record.state.as_str(), record.exit_code.as_str()), ("FAILED", "5:0"));
    assert!(agent.is_running());
    let told = |e: &[Value]| e.iter().any(|e| e["event_type"] == "lost" && e["source"] == "agent");
    let events = cluster.wait_events(SOON, |e| told(e) && count(e, job, "batch", "job_ended") == 1).unwrap();
    assert_eq!(gaps(&events), [""; 0]);
    let deaths: Vec<&Value> = events.iter().filter(|e| e["event_type"] == "process_died").collect();
    // The crash is told although it drowns among what ended with 1, and that it was the first.
    let crash = deaths.iter().find(|e| e["signal"] == libc::SIGSEGV).expect("the crash is told");
    assert_eq!(crash["first"], true, "{crash}");
    assert!(deaths.len() < 1000, "{} deaths are told one by one", deaths.len());
    let after = agent.memory_kib("VmHWM").unwrap();
    println!(
        "{FORKS} processes: {} told one by one; the agent {before} KiB, at most {after} KiB",
        deaths.len()
    );
    assert!(after < before + 32 * 1024, "{before} KiB before, {after} KiB at most");
}
