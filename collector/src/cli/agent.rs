use std::path::PathBuf;

use clap::Args;

use super::GOOD;
use crate::agent::{Options, host, note, retention::Keep, run};

const EXAMPLES: &str = "\
Examples:
  inquest agent
  inquest agent --journal /shared/inquest";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Directory of the journals, one subdirectory per node.
    #[arg(long, env = "INQUEST_JOURNAL", default_value = "/var/spool/inquest", value_name = "DIR")]
    journal: PathBuf,
    /// Name of this node in Slurm; the hostname up to its first dot if not given.
    #[arg(long, env = "SLURMD_NODENAME", value_name = "NAME")]
    node: Option<String>,
    /// Name of the cluster, as the plugin writes it; from slurm.conf if not given.
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
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
    run(&Options {
        journal: arguments.journal,
        node: arguments.node.unwrap_or_else(host::node_name),
        cluster: arguments.cluster.unwrap_or_else(host::cluster_name),
        state: arguments.state,
        socket: arguments.socket,
        keep: Keep { days: arguments.keep_days, bytes: arguments.max_bytes },
    })?;
    Ok(GOOD)
}
