use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::{ConfigFile, GOOD};
use crate::config::help;
use crate::serve::metrics::{Meters, for_node_exporter};
use crate::serve::{Options, serve};

const EXAMPLES: &str = "\
Examples:
  inquest serve --socket /tmp/inquest.sock --store /var/lib/inquest
  curl --unix-socket /run/inquest-serve/http.sock \\
      'http://localhost/api/v1/failures?by=class'
  ssh -L 8080:/run/inquest-serve/http.sock login

With the last one, a browser on your own machine gets there at
http://localhost:8080/.

Prometheus scrapes the loopback address (listen) with job_name: inquest, by
which the alert rules of the package inquest-dashboards know the server.

Everything else is set in the section [serve] of the configuration; see
inquest.toml(5).";

/// Serve dashboard, API and metrics (a daemon).
///
/// It answers on a Unix socket, where the kernel says who asks, and on a
/// loopback address for Prometheus and a reverse proxy. People see their own
/// jobs, coordinators those of their accounts, operators everything.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
    #[arg(long, env = "INQUEST_STORE", value_name = "DIR", help = help("", "store"))]
    store: Option<PathBuf>,
    #[arg(long, value_name = "PATH", help = help("serve", "socket"))]
    socket: Option<PathBuf>,
    #[arg(long, value_name = "ADDRESS", help = help("serve", "listen"))]
    listen: Option<SocketAddr>,
    /// Print the OpenAPI description of the API, and exit.
    #[arg(long)]
    openapi: bool,
    /// Print every metric with an example, in the text format of Prometheus, and
    /// exit.
    #[arg(long, conflicts_with = "openapi")]
    metrics: bool,
}

pub(super) fn main(arguments: &Arguments) -> anyhow::Result<u8> {
    if arguments.openapi {
        super::print_json(&crate::serve::openapi())?;
        return Ok(GOOD);
    }
    if arguments.metrics {
        super::print(&for_node_exporter(&Meters::described()))?;
        return Ok(GOOD);
    }
    let config = arguments.file.load()?;
    let mut options = Options { store: config.site.store, serve: config.serve };
    options.store = arguments.store.clone().unwrap_or(options.store);
    options.serve.socket = arguments.socket.clone().unwrap_or(options.serve.socket);
    options.serve.listen = arguments.listen.or(options.serve.listen);
    serve(&options, |place| eprintln!("inquest serve: answers on {place}"))?;
    Ok(GOOD)
}
