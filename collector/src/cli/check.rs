use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args;

use super::{ConfigFile, FAILURES, GOOD, print, print_json};
use crate::agent::host;
use crate::check::{Level, Options, Role, check, roles};
use crate::config::help;
use crate::report;

const EXAMPLES: &str = "\
Examples:
  inquest check
  inquest check node
  clush -a inquest check node --json";

/// Say whether everything is installed and flows, and how to mend it.
///
/// Every line that is not ok says what to do.
///
/// As root it sees most. Exits with 1 when something is wrong.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// What this machine is for; found out when not said.
    #[arg(value_enum)]
    role: Vec<Role>,
    #[command(flatten)]
    file: ConfigFile,
    #[arg(long, env = "INQUEST_JOURNAL", value_name = "DIR", help = help("", "journal"))]
    journal: Option<PathBuf>,
    #[arg(long, env = "INQUEST_STORE", value_name = "DIR", help = help("", "store"))]
    store: Option<PathBuf>,
    #[arg(long, env = "SLURMD_NODENAME", value_name = "NAME", help = help("agent", "node"))]
    node: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn main(arguments: Arguments) -> anyhow::Result<u8> {
    let config = arguments.file.load();
    let named = config.as_ref().ok().and_then(|c| c.agent.node.clone());
    let node = arguments.node.or(named).unwrap_or_else(host::node_name);
    let options = Options { node, config, journal: arguments.journal, store: arguments.store };
    let which = if arguments.role.is_empty() { roles(&options) } else { arguments.role };
    let now = SystemTime::now();
    let found: Vec<_> = which.into_iter().map(|role| (role, check(role, &options, now))).collect();
    if arguments.json {
        print_json(&report::check::json(&found, &options.node))?;
    } else {
        print(&report::check::text(&found, &options.node))?;
    }
    let wrong = found.iter().flat_map(|(_, findings)| findings).any(|f| f.level == Level::Wrong);
    Ok(if wrong { FAILURES } else { GOOD })
}
