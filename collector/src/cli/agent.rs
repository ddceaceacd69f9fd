use std::path::PathBuf;

use clap::Args;

use super::{ConfigFile, GOOD, number};
use crate::agent::{Options, host, retention::Keep, run};
use crate::config::help;

const EXAMPLES: &str = "\
Examples:
  inquest agent
  inquest agent --journal /shared/inquest";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
    #[arg(long, env = "INQUEST_JOURNAL", value_name = "DIR", help = help("", "journal"))]
    journal: Option<PathBuf>,
    #[arg(long, env = "SLURMD_NODENAME", value_name = "NAME", help = help("agent", "node"))]
    node: Option<String>,
    #[arg(long, value_name = "NAME", help = help("agent", "cluster"))]
    cluster: Option<String>,
    #[arg(long, value_name = "DIR", help = help("agent", "state"))]
    state: Option<PathBuf>,
    #[arg(long, env = "INQUEST_NOTE_SOCKET", value_name = "PATH", help = help("agent", "socket"))]
    socket: Option<PathBuf>,
    #[arg(long, value_name = "DAYS", help = help("agent", "keep_days"))]
    keep_days: Option<u32>,
    #[arg(long, value_name = "BYTES", value_parser = number("agent", "max_bytes"), help = help("agent", "max_bytes"))]
    max_bytes: Option<u64>,
}

pub(super) fn main(arguments: Arguments) -> anyhow::Result<u8> {
    let config = arguments.file.load()?;
    let (site, agent) = (config.site, config.agent);
    run(&Options {
        journal: arguments.journal.unwrap_or(site.journal),
        node: arguments.node.or(agent.node).unwrap_or_else(host::node_name),
        cluster: arguments.cluster.or(agent.cluster).unwrap_or_else(host::cluster_name),
        state: arguments.state.unwrap_or(agent.state),
        socket: arguments.socket.unwrap_or(agent.socket),
        keep: Keep {
            days: arguments.keep_days.or(agent.keep_days),
            bytes: arguments.max_bytes.or(agent.max_bytes),
        },
    })?;
    Ok(GOOD)
}
