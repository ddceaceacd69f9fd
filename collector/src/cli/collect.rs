use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::GOOD;
use crate::collect::{CHECKPOINT_BYTES, Collector, Options, stop_on_signals};
use crate::slurm::accounting::{Accounting, Squeue};

const EXAMPLES: &str = "\
Examples:
  inquest collect --journal /shared/inquest --store /var/lib/inquest
  inquest collect --once --accounting off";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Directory of the journals, one subdirectory per node.
    #[arg(long, env = "INQUEST_JOURNAL", default_value = "/var/spool/inquest", value_name = "DIR")]
    journal: PathBuf,
    /// Directory of the run stores.
    #[arg(long, env = "INQUEST_STORE", default_value = "/var/lib/inquest", value_name = "DIR")]
    store: PathBuf,
    /// Merge what is there, judge what has ended, and exit.
    #[arg(long)]
    once: bool,
    /// Whom to ask how Slurm itself saw the end of a job.
    #[arg(long, value_enum, default_value = "squeue", value_name = "SOURCE")]
    accounting: Source,
    /// Milliseconds between two looks at the journals.
    #[arg(long, default_value_t = 100, value_name = "MS", value_parser = clap::value_parser!(u64).range(10..=60_000))]
    interval: u64,
    /// Seconds of silence after which a job without script and extern step
    /// counts as ended when its steps have.
    #[arg(long, default_value_t = 30, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    quiet: u64,
    /// KiB of events after which a checkpoint is made even inside a pass: the
    /// bound of memory.
    #[arg(long, default_value_t = CHECKPOINT_BYTES as u64 >> 10, value_name = "KIB", value_parser = clap::value_parser!(u64).range(16..=1 << 20))]
    checkpoint: u64,
    /// Do not keep the index; commands read the stores then, and lists over
    /// many runs take their time.
    #[arg(long)]
    no_index: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Source {
    /// The squeue command; works without slurmdbd.
    Squeue,
    /// Nobody: verdicts rest on the facts of the nodes alone.
    Off,
}

pub(super) fn main(arguments: Arguments) -> anyhow::Result<u8> {
    let accounting: Option<Box<dyn Accounting>> = match arguments.accounting {
        Source::Squeue => Some(Box::new(Squeue)),
        Source::Off => None,
    };
    let options = Options {
        journal: arguments.journal,
        store: arguments.store,
        quiet: Duration::from_secs(arguments.quiet),
    };
    // Signals first: one that arrives while the store is opened must count.
    let stop = stop_on_signals()?;
    let mut collector = Collector::open(options, accounting)?;
    collector.checkpoint_every(usize::try_from(arguments.checkpoint << 10)?);
    if !arguments.no_index {
        collector.keep_index();
    }
    if arguments.once {
        let stats = collector.pass(true)?;
        collector.finish_index();
        let bad =
            if stats.bad > 0 { format!(", {} lines that are no events", stats.bad) } else { String::new() };
        let copies = if stats.copies > 0 { format!(", {} seen before", stats.copies) } else { String::new() };
        eprintln!(
            "inquest collect: {} events merged{copies}{bad}, {} jobs judged",
            stats.events, stats.settled
        );
    } else {
        collector.follow(Duration::from_millis(arguments.interval), &stop)?;
    }
    Ok(GOOD)
}
