use std::path::PathBuf;

use clap::Args;

use super::GOOD;
use crate::agent::{Options, note, retention::Keep, run};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Directory of the journals, one subdirectory per node.
    #[arg(long, env = "INQUEST_JOURNAL", default_value = "/var/spool/inquest", value_name = "DIR")]
    journal: PathBuf,
    /// Name of this node in Slurm; the hostname up to its first dot if not given.
    #[arg(long, env = "SLURMD_NODENAME", value_name = "NAME")]
    node: Option<String>,
    /// Name of the cluster.
    #[arg(long, env = "SLURM_CLUSTER_NAME", default_value = "cluster", value_name = "NAME")]
    cluster: String,
    /// Directory of what the agent remembers from life to life.
    #[arg(long, default_value = "/var/lib/inquest-agent", value_name = "DIR")]
    state: PathBuf,
    /// Socket on which jobs send notes.
    #[arg(long, env = "INQUEST_NOTE_SOCKET", default_value = note::SOCKET, value_name = "PATH")]
    socket: PathBuf,
    /// Delete this node's journal files of days longer ago than this. They
    /// must have been merged by then: what no collector has read is lost.
    #[arg(long, value_name = "DAYS")]
    keep_days: Option<u32>,
    /// Delete this node's oldest journal files until the rest is no larger.
    /// Today's file, and any that was written to within the last hour, stay.
    #[arg(long, value_name = "BYTES")]
    max_bytes: Option<u64>,
}

pub(super) fn main(arguments: Arguments) -> anyhow::Result<u8> {
    let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    let node = arguments.node.unwrap_or_else(|| host().split('.').next().unwrap_or_default().to_owned());
    run(&Options {
        journal: arguments.journal,
        node,
        cluster: arguments.cluster,
        state: arguments.state,
        socket: arguments.socket,
        keep: Keep { days: arguments.keep_days, bytes: arguments.max_bytes },
    })?;
    Ok(GOOD)
}
