//! The collector as a daemon: what the service manager and the administrator
//! see of it.

use std::io::Read;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use inquest::collect::health::{HEALTH, Health};
use inquest_tests::children::apart;
use inquest_tests::generate::{Plan, generate};

const SOON: Duration = Duration::from_secs(60);

fn start(dir: &Path) -> Child {
    start_with(dir, |command| _ = command.args(["--accounting", "off"]))
}

fn start_with(dir: &Path, more: impl FnOnce(&mut Command)) -> Child {
    let mut command = apart(env!("CARGO_BIN_EXE_inquest"));
    command.args(["collect", "--interval", "10"]);
    command.arg("--journal").arg(dir.join("journal")).arg("--store").arg(dir.join("store"));
    command.env("NOTIFY_SOCKET", dir.join("notify")).env("WATCHDOG_USEC", "100000");
    command.env_remove("WATCHDOG_PID").env_remove("JOURNAL_STREAM");
    more(&mut command);
    command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
}

/// Asks it to end; what it had said.
fn stop(mut child: Child) -> String {
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    let status = child.wait().unwrap();
    assert!(status.success(), "{status}: {said}");
    said
}

fn health(dir: &Path) -> Option<Health> {
    serde_json::from_slice(&std::fs::read(dir.join("store").join(HEALTH)).ok()?).ok()
}

#[test]
fn it_is_ready_alive_counted_and_ends_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan { nodes: 20, jobs: 300, days: 2, runs: None, seed: 5 };
    let made = generate(&plan, &dir.path().join("journal")).unwrap();
    let ear = UnixDatagram::bind(dir.path().join("notify")).unwrap();
    ear.set_read_timeout(Some(SOON)).unwrap();
    let hear = || {
        let mut buffer = [0; 300];
        let n = ear.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..n].to_vec()).unwrap()
    };

    let child = start(dir.path());
    assert_eq!(hear(), "READY=1");
    let deadline = Instant::now() + SOON;
    while health(dir.path()).and_then(|h| h.daemon).is_none_or(|d| d.events < made.events) {
        assert!(Instant::now() < deadline, "{:?}", health(dir.path()));
        std::thread::sleep(Duration::from_millis(20));
    }
    // Twice in its period, and what it does.
    let (mut alive, mut status) = (0, String::new());
    while alive < 3 || status.is_empty() {
        match hear() {
            text if text == "WATCHDOG=1" => alive += 1,
            text => status = text,
        }
    }
    assert!(status.starts_with("STATUS=") && status.contains("events of "), "{status}");
    let said = stop(child);
    let (first, last) = (said.lines().next().unwrap_or_default(), said.lines().last().unwrap_or_default());
    assert!(first.contains(" info: collecting journal="), "{said}");
    assert!(last.contains("ends as it was asked to") && last.contains("durable"), "{said}");

    let daemon = health(dir.path()).unwrap().daemon.unwrap();
    assert_eq!((daemon.events, daemon.bytes, daemon.bad), (made.events, made.bytes, 0));
    assert!(daemon.checkpoints > 0 && daemon.checkpoint_longest_us >= daemon.checkpoint_last_us);
    assert!(daemon.judged >= 250 && daemon.nodes_seen == 20 && daemon.nodes.len() == 20, "{daemon:?}");
    assert!(daemon.updated >= daemon.started);

    // What was merged is not merged again by the next one.
    let child = start(dir.path());
    let deadline = Instant::now() + SOON;
    while health(dir.path())
        .and_then(|h| h.daemon)
        .is_none_or(|d| d.started == daemon.started || d.passes < 2)
    {
        assert!(Instant::now() < deadline, "{:?}", health(dir.path()));
        std::thread::sleep(Duration::from_millis(20));
    }
    stop(child);
    let daemon = health(dir.path()).unwrap().daemon.unwrap();
    assert_eq!((daemon.events, daemon.bytes), (0, 0));
}

/// A directory of fakes of Slurm's commands, to be first in the path.
fn fakes(dir: &Path, fakes: &[(&str, &str)]) -> String {
    use std::os::unix::fs::PermissionsExt;
    let bin = dir.join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    for (name, body) in fakes {
        let path = bin.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    format!("{}:{}", bin.display(), std::env::var("PATH").unwrap())
}

#[test]
fn a_slurm_that_hangs_is_given_up_and_it_is_said_once() {
    let dir = tempfile::tempdir().unwrap();
    let journal = dir.path().join("journal");
    generate(&Plan { nodes: 2, jobs: 10, days: 1, runs: None, seed: 1 }, &journal).unwrap();
    let pids = dir.path().join("pids");
    let hangs = format!("echo $$ >> {}; exec sleep 600", pids.display());
    let path = fakes(dir.path(), &[("scontrol", "echo 'ClusterName = lab'"), ("squeue", &hangs)]);
    let child = start_with(dir.path(), |command| {
        command.env("PATH", path).args(["--accounting", "squeue"]);
    });
    let until = |what: &str, done: &dyn Fn() -> bool| {
        let deadline = Instant::now() + SOON;
        while !done() {
            assert!(Instant::now() < deadline, "{what}: {:?}", health(dir.path()));
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let asked = || std::fs::read_to_string(&pids).unwrap_or_default();
    until("the question", &|| !asked().is_empty());
    let daemon = || health(dir.path()).and_then(|h| h.daemon);
    until("that it is silent", &|| daemon().is_some_and(|d| !d.slurm_silent.is_empty()));
    let said = daemon().unwrap().slurm_silent;
    assert_eq!(said, ["squeue gave no answer within 20s; see whether slurmctld does: scontrol ping"]);
    until("verdicts without it", &|| daemon().is_some_and(|d| d.judged >= 10));
    let said = stop(child);
    assert_eq!(said.matches("gave no answer").count(), 1, "{said}");
    assert!(asked().lines().all(|pid| !Path::new("/proc").join(pid).exists()), "{}", asked());
}
