//! Writes the journals of a site that never was, for benches and scale tests.

use std::path::PathBuf;
use std::time::Instant;

use clap::Parser;
use inquest_tests::generate::{Plan, generate};

/// Writes journals of many nodes and jobs from a seed.
#[derive(Debug, Parser)]
#[command(name = "inquest-generate")]
struct Arguments {
    /// Number of nodes.
    #[arg(long, default_value_t = 100)]
    nodes: u32,
    /// Number of jobs; a job has about 16 events.
    #[arg(long, default_value_t = 10_000)]
    jobs: u32,
    /// Days over which the jobs are submitted.
    #[arg(long, default_value_t = 1)]
    days: u32,
    /// Make all jobs members of so many large runs.
    #[arg(long)]
    runs: Option<u32>,
    /// The same seed gives the same bytes.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Directory to make; it must not hold anything.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let Arguments { nodes, jobs, days, runs, seed, out } = Arguments::parse();
    let began = Instant::now();
    let made = generate(&Plan { nodes, jobs, days, runs, seed }, &out)?;
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{} events, {} bytes, {} files, {} failed jobs, {seconds:.1} s",
        made.events, made.bytes, made.files, made.failed
    );
    Ok(())
}
