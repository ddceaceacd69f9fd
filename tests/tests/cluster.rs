//! The private cluster itself, without any plugin.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use inquest_tests::cluster::{Cluster, Config, Process, USERS};

const SOON: Duration = Duration::from_secs(60);

#[test]
fn two_clusters_run_side_by_side() {
    let run = |user: &'static str, code: u8| {
        let cluster = Cluster::start(Config::default()).unwrap();
        let script = format!("#!/bin/sh\nid -un\nexit {code}\n");
        let job = cluster.sbatch(user, &["-n1"], &script).unwrap();
        (cluster, job)
    };
    let ((one, job1), (two, job2)) = std::thread::scope(|s| {
        let one = s.spawn(|| run(USERS[0], 3));
        let two = s.spawn(|| run(USERS[1], 4));
        (one.join().unwrap(), two.join().unwrap())
    });
    assert_ne!(one.dir(), two.dir());

    for (cluster, job, user, code) in [(&one, job1, USERS[0], "3:0"), (&two, job2, USERS[1], "4:0")] {
        let record = cluster.wait_end(job, SOON).unwrap();
        assert_eq!((record.state.as_str(), record.exit_code.as_str()), ("FAILED", code));
        assert_eq!(cluster.stdout(job).unwrap(), format!("{user}\n"));
        assert_eq!(cluster.jobs().unwrap().len(), 1, "only its own job");
    }
    one.stop().unwrap();
    // The end of one leaves the other at work.
    let job = two.sbatch(USERS[0], &["-n1"], "#!/bin/sh\ntrue\n").unwrap();
    assert_eq!(two.wait_end(job, SOON).unwrap().state, "COMPLETED");
}

#[test]
fn a_step_spans_two_nodes() {
    let cluster = Cluster::start(Config::default()).unwrap();
    let output = cluster
        .command(Some(USERS[0]), "srun")
        .args(["-N2", "-n2", "sh", "-c", "echo $SLURM_PROCID $SLURMD_NODENAME $(id -un)"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let mut lines: Vec<String> =
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    let expected: Vec<String> = cluster
        .nodes()
        .iter()
        .enumerate()
        .map(|(rank, node)| format!("{rank} {node} {}", USERS[0]))
        .collect();
    assert_eq!(lines, expected);
}

#[test]
fn the_kernel_kills_an_unprivileged_task_over_its_limit() {
    let cluster = Cluster::start(Config { nodes: 1, ..Config::default() }).unwrap();
    let eat = "#!/bin/sh\nexec /usr/bin/python3 -c 'b = bytearray(300 << 20); print(len(b))'\n";
    let job = cluster.sbatch(USERS[0], &["-n1", "--mem=64M"], eat).unwrap();
    let record = cluster.wait_end(job, SOON).unwrap();
    assert_eq!(record.state, "OUT_OF_MEMORY", "{record:?}");
}

/// A job that ends for nothing but SIGKILL, with a child that has left its session.
const STUBBORN: &str = "#!/bin/sh\ntrap '' TERM INT HUP\nsetsid sleep 1000 &\nsleep 1000\nsleep 1000\n";

fn with_stubborn_job() -> (Cluster, Left) {
    let cluster = Cluster::start(Config::default()).unwrap();
    let job = cluster.sbatch(USERS[0], &["-N2", "-n2"], STUBBORN).unwrap();
    cluster.wait_state(job, "RUNNING", SOON).unwrap();
    let deadline = Instant::now() + SOON;
    while cluster.cgroup_pids(job, "step_batch/task_0").len() < 3 {
        assert!(Instant::now() < deadline, "the job's processes have not appeared");
        std::thread::sleep(Duration::from_millis(50));
    }
    let probe = cluster.dir().join("probe");
    fs::write(&probe, "").unwrap();
    // munged, slurmctld, 2 slurmd, and at least an extern step per node and the batch step.
    let processes = cluster.processes();
    assert!(processes.len() >= 10, "{processes:?}");
    let cgroups = cluster.cgroups().into_iter().map(|dir| (inode(&dir), dir)).collect();
    let left = Left { probe, processes, cgroups };
    assert!(!left.cgroups.is_empty());
    (cluster, left)
}

/// What must be gone after a cluster.
struct Left {
    /// A file in the cluster's directory. The directory itself may be in use by the next cluster.
    probe: PathBuf,
    processes: Vec<Process>,
    /// With inodes: the slot's next cluster makes new ones of the same names.
    cgroups: Vec<(Option<u64>, PathBuf)>,
}

fn inode(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|m| m.ino())
}

impl Left {
    fn is_gone(&self) -> bool {
        !self.probe.exists()
            && !self.processes.iter().any(|p| p.is_alive())
            && !self.cgroups.iter().any(|(was, dir)| inode(dir) == *was)
    }
}

#[test]
fn nothing_is_left_after_stop_and_after_a_panic() {
    let (stopped, left_by_stop) = with_stubborn_job();
    let (panicked, left_by_panic) = with_stubborn_job();
    // A test that made a full disk and died must not keep the directory from going.
    let mounted = stopped.dir().join("mounted");
    fs::create_dir(&mounted).unwrap();
    let status = Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&mounted).status();
    assert!(status.unwrap().success());
    stopped.stop().unwrap();
    assert!(left_by_stop.is_gone());
    let panic = catch_unwind(AssertUnwindSafe(move || {
        let _cluster = panicked;
        std::panic::resume_unwind(Box::new("on purpose"));
    }));
    assert!(panic.is_err());
    assert!(left_by_panic.is_gone());
}

#[test]
fn a_killed_owner_is_swept_by_the_next_start() {
    const CHILD: &str = "INQUEST_LAB_CHILD";
    const NAME: &str = "a_killed_owner_is_swept_by_the_next_start";
    if std::env::var_os(CHILD).is_some() {
        let (cluster, left) = with_stubborn_job();
        for (inode, dir) in &left.cgroups {
            println!("cgroup {} {}", inode.unwrap(), dir.display());
        }
        println!("probe {}", left.probe.display());
        for process in &left.processes {
            println!("process {} {}", process.pid, process.start);
        }
        println!("ready");
        std::thread::sleep(SOON);
        drop(cluster);
        return;
    }

    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture"])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut left = Left { probe: PathBuf::new(), processes: Vec::new(), cgroups: Vec::new() };
    for line in BufReader::new(owner.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["cgroup", inode, dir] => left.cgroups.push((Some(inode.parse().unwrap()), dir.into())),
            ["probe", path] => left.probe = path.into(),
            ["process", pid, start] => {
                left.processes.push(Process { pid: pid.parse().unwrap(), start: start.parse().unwrap() })
            }
            ["ready"] => break,
            _ => {}
        }
    }
    owner.kill().unwrap();
    owner.wait().unwrap();
    assert!(!left.processes.is_empty() && !left.cgroups.is_empty());

    let next = Cluster::start(Config::default()).unwrap();
    // Where another test's start was first to find the slot, its sweep may still be under way.
    let deadline = Instant::now() + SOON;
    while !left.is_gone() {
        assert!(Instant::now() < deadline, "still there: {:?} {:?}", left.probe, left.processes);
        std::thread::sleep(Duration::from_millis(50));
    }
    let job = next.sbatch(USERS[0], &["-N2", "-n2"], "#!/bin/sh\nsrun true\n").unwrap();
    assert_eq!(next.wait_end(job, SOON).unwrap().state, "COMPLETED");
}
