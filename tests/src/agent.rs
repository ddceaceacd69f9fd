//! `inquest agent` on a node of a private cluster. It is killed with its value.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::artefacts;
use crate::cluster::Cluster;

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    node: String,
    child: Child,
}

impl Agent {
    /// Start the agent of a node and wait until it listens. It remembers what an earlier one of the
    /// same node has left.
    pub fn start(cluster: &Cluster, node: &str) -> Result<Agent> {
        let socket = socket(cluster, node);
        // A killed one leaves its socket, which would look like ours.
        let _ = fs::remove_file(&socket);
        let child = cluster
            .command(None, &artefacts::inquest().to_string_lossy())
            .args(["agent", "--node", node, "--journal"])
            .arg(cluster.journal_dir())
            .arg("--state")
            .arg(cluster.dir().join(format!("state-{node}")))
            .arg("--socket")
            .arg(&socket)
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start inquest agent")?;
        cluster.adopt("agent", child.id())?;
        let mut agent = Agent { node: node.to_owned(), child };
        let deadline = Instant::now() + Duration::from_secs(30);
        while !socket.exists() {
            if let Some(status) = agent.child.try_wait()? {
                bail!("the agent of {node} ended with {status}");
            }
            if Instant::now() > deadline {
                bail!("the agent of {node} does not listen");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(agent)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, and another one.
    pub fn kill_and_restart(&mut self, cluster: &Cluster) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        *self = Agent::start(cluster, &self.node)?;
        Ok(())
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// A field of /proc/PID/status in KiB.
    pub fn memory_kib(&self, field: &str) -> Option<u64> {
        memory_kib(self.pid(), field)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where the agent of a node takes notes: a name in the directory that jobs run in.
fn socket(cluster: &Cluster, node: &str) -> PathBuf {
    cluster.work_dir().join(format!("note-{node}"))
}

/// A field of /proc/PID/status in KiB.
pub fn memory_kib(pid: u32, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let value = status.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':'))?;
    value.trim().strip_suffix(" kB")?.parse().ok()
}

/// How many descriptors a process has open.
pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}
