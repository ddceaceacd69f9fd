//! End everything that a cluster ever started, whoever asks and however much of it still lives.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::Signal;

use super::process::{self, Process};
use super::slot::Record;

/// Environment variable of every daemon. slurmstepd inherits it from slurmd and no job has it, so
/// it names strays that are in no record and in no cgroup (yet).
pub(super) const MARKER: &str = "INQUEST_LAB";

fn marked(record: &Record) -> Vec<Process> {
    let entry = record.marker.as_ref().map(|marker| format!("{MARKER}={marker}"));
    entry.map(|entry| process::with_environment(&entry)).unwrap_or_default()
}

/// Everything that runs on behalf of the cluster in `dir`.
pub(super) fn processes(dir: &Path) -> Vec<Process> {
    let record = Record::read(dir);
    let mut found: Vec<Process> = record.processes.iter().copied().filter(|p| p.is_alive()).collect();
    found.extend(marked(&record));
    found.extend(record.nodes.iter().flat_map(|node| cgroup_trees(node)).flat_map(|t| cgroup_processes(&t)));
    found.sort_by_key(|p| p.pid);
    found.dedup();
    found
}

/// Stop the daemons, kill what is left in the nodes' cgroups, remove these and the directory.
pub(super) fn all(dir: &Path) -> Result<()> {
    let record = Record::read(dir);
    // slurmctld's script daemon is its child and ends with it, unless it was killed too early.
    let mut daemons = record.processes.clone();
    daemons.extend(record.processes.iter().filter(|p| p.is_alive()).flat_map(|p| children(*p)));
    // slurmd would wait for steps that end for nothing but SIGKILL.
    let left = process::end(&daemons, Signal::TERM, Duration::from_secs(2));
    process::end(&left, Signal::KILL, Duration::from_secs(5));

    process::end(&marked(&record), Signal::KILL, Duration::from_secs(5));

    for node in &record.nodes {
        for tree in cgroup_trees(node) {
            remove_tree(&tree)?;
        }
    }
    unmount_below(dir)?;
    // A dying process may still write a last line of log.
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match fs::remove_dir_all(dir) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) if Instant::now() > deadline => {
                return Err(e).with_context(|| format!("cannot remove {}", dir.display()));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// The cgroup v1 directories of a node, one per hierarchy that has one.
pub(super) fn cgroup_trees(node: &str) -> Vec<PathBuf> {
    let Ok(hierarchies) = fs::read_dir("/sys/fs/cgroup") else {
        return Vec::new();
    };
    hierarchies
        .flatten()
        .map(|h| h.path().join(format!("slurm_{node}")))
        .filter(|tree| tree.is_dir())
        .collect()
}

/// Whether there is a cgroup of any node whose name begins so.
pub(super) fn has_nodes(prefix: &str) -> bool {
    let prefix = format!("slurm_{prefix}");
    let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    hierarchies
        .flat_map(|h| fs::read_dir(h.path()).into_iter().flatten().flatten())
        .any(|tree| tree.file_name().to_string_lossy().starts_with(&prefix))
}

/// Every process in a cgroup and below.
pub(super) fn cgroup_processes(tree: &Path) -> Vec<Process> {
    let mut found: Vec<Process> = fs::read_to_string(tree.join("cgroup.procs"))
        .unwrap_or_default()
        .lines()
        .filter_map(|pid| Process::of(pid.parse().ok()?))
        .collect();
    for child in subdirectories(tree) {
        found.extend(cgroup_processes(&child));
    }
    found
}

fn remove_tree(tree: &Path) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        thaw(tree);
        process::end(&cgroup_processes(tree), Signal::KILL, Duration::from_secs(2));
        if remove_empty(tree) {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("cannot remove cgroup {}: it still holds {:?}", tree.display(), cgroup_processes(tree));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What a test has mounted in the directory must not be emptied with it.
fn unmount_below(dir: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read the mounts")?;
    // Later mounts may lie on top of earlier ones.
    for line in mounts.lines().rev() {
        if let Some(point) = line.split(' ').nth(4)
            && Path::new(point).starts_with(dir)
        {
            unmount(point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
                .with_context(|| format!("cannot unmount {point}"))?;
        }
    }
    Ok(())
}

/// A frozen process takes no signal, not even SIGKILL.
fn thaw(tree: &Path) {
    let _ = fs::write(tree.join("freezer.state"), "THAWED");
    for child in subdirectories(tree) {
        thaw(&child);
    }
}

fn remove_empty(tree: &Path) -> bool {
    for child in subdirectories(tree) {
        remove_empty(&child);
    }
    match fs::remove_dir(tree) {
        Ok(()) => true,
        Err(e) => e.kind() == io::ErrorKind::NotFound,
    }
}

fn subdirectories(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    entries.flatten().map(|e| e.path()).filter(|p| p.is_dir()).collect()
}

fn children(parent: Process) -> Vec<Process> {
    fs::read_to_string(format!("/proc/{0}/task/{0}/children", parent.pid))
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|pid| Process::of(pid.parse().ok()?))
        .collect()
}
