use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{ConfigFile, GOOD, leave_to_collector, log, number, print};
use crate::collect::{Collector, Manager, Options, stop_on_signals};
use crate::config::{Config, Source, help};
use crate::slurm::accounting::{Accounting, Squeue};
use crate::slurm::sacct::Sacct;
use crate::units::count;
use crate::verdict::SiteRules;

const EXAMPLES: &str = "\
Examples:
  inquest collect --journal /shared/inquest --store /var/lib/inquest
  inquest collect --once --accounting off
  inquest collect --check-config

How the journals of all nodes get to the one machine where it runs, and who
deletes them: spank_inquest(8).";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
    #[arg(long, env = "INQUEST_JOURNAL", value_name = "DIR", help = help("", "journal"))]
    journal: Option<PathBuf>,
    #[arg(long, env = "INQUEST_STORE", value_name = "DIR", help = help("", "store"))]
    store: Option<PathBuf>,
    #[arg(long, env = "INQUEST_RULES", value_name = "FILE", help = help("", "rules"))]
    rules: Option<PathBuf>,
    /// Merge what is there, judge what has ended, and exit.
    #[arg(long)]
    once: bool,
    /// Say what is wrong with the configuration, or else what would be used, and
    /// exit.
    #[arg(long, conflicts_with = "once")]
    check_config: bool,
    #[arg(long, value_enum, value_name = "SOURCE", help = help("collect", "accounting"))]
    accounting: Option<Source>,
    #[arg(long, value_name = "MS", value_parser = number("collect", "interval"), help = help("collect", "interval"))]
    interval: Option<u64>,
    #[arg(long, value_name = "S", value_parser = number("collect", "quiet"), help = help("collect", "quiet"))]
    quiet: Option<u64>,
    #[arg(long, value_name = "KIB", value_parser = number("collect", "checkpoint"), help = help("collect", "checkpoint"))]
    checkpoint: Option<u64>,
    #[arg(long, value_name = "BOOL", help = help("collect", "index"))]
    index: Option<bool>,
}

/// The file, and what the command line says otherwise.
fn settings(arguments: &Arguments) -> anyhow::Result<Config> {
    let mut config = arguments.file.load()?;
    let (site, collect) = (&mut config.site, &mut config.collect);
    site.journal = arguments.journal.clone().unwrap_or(std::mem::take(&mut site.journal));
    site.store = arguments.store.clone().unwrap_or(std::mem::take(&mut site.store));
    site.rules = arguments.rules.clone().or(site.rules.take());
    collect.accounting = arguments.accounting.unwrap_or(collect.accounting);
    collect.interval = arguments.interval.unwrap_or(collect.interval);
    collect.quiet = arguments.quiet.unwrap_or(collect.quiet);
    collect.checkpoint = arguments.checkpoint.unwrap_or(collect.checkpoint);
    collect.index = arguments.index.unwrap_or(collect.index);
    Ok(config)
}

pub(super) fn main(arguments: &Arguments) -> anyhow::Result<u8> {
    let config = settings(arguments)?;
    let policy = super::gc::policy(&config.keep)?;
    let rules = SiteRules::load(config.site.rules.as_deref())?;
    if arguments.check_config {
        print(&toml::to_string(&config)?)?;
        return Ok(GOOD);
    }
    let Config { site, collect, .. } = config;
    leave_to_collector(&site.store, "collect")?;
    log::start(site.log);
    let accounting: Option<Box<dyn Accounting>> = match collect.accounting {
        Source::Squeue => Some(Box::new(Squeue)),
        Source::Sacct => Some(Box::new(Sacct::default())),
        Source::Off => None,
    };
    let options =
        Options { journal: site.journal, store: site.store, quiet: Duration::from_secs(collect.quiet) };
    // Signals first: one that arrives while the store is opened must count.
    let stop = stop_on_signals()?;
    let mut collector = Collector::open(options, accounting)?;
    collector.checkpoint_every(usize::try_from(collect.checkpoint << 10)?);
    collector.judge_by(rules);
    if collect.index {
        collector.keep_index();
    }
    if arguments.once {
        let stats = collector.pass(true)?;
        collector.finish_index();
        let bad = match stats.bad {
            0 => String::new(),
            n => format!(", {}", count(n, "line that is no event", "lines that are no events")),
        };
        let copies = if stats.copies > 0 { format!(", {} seen before", stats.copies) } else { String::new() };
        eprintln!(
            "inquest collect: {} merged{copies}{bad}, {} judged",
            count(stats.events, "event", "events"),
            count(stats.settled, "job", "jobs")
        );
    } else {
        collector.keep_to(policy);
        collector.follow(Duration::from_millis(collect.interval), &stop, Manager::of_environment())?;
    }
    Ok(GOOD)
}
