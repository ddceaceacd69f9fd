use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use inquest_journal::Stamp;
use jiff::tz::TimeZone;
use serde_json::json;

use super::{ConfigFile, Form, GOOD, Usage, leave_to_collector, print, print_json};
use crate::collect::tidy::{self, Tidied};
use crate::collect::{Collector, Options};
use crate::config::{Keep, help};
use crate::report::table::Table;
use crate::report::{JSON_SCHEMA, time};
use crate::store::keep::{Act, Limits, Policy, Seen, plan};
use crate::store::{Store, user_called};
use crate::units::{bytes, count};

const EXAMPLES: &str = "\
Examples:
  inquest gc --dry-run
  inquest gc --dry-run --days 90 -o RUN,USER,BYTES,REASON
  inquest gc --compress-hours 0

A running collector does the same every hour, as [keep] of the configuration
says; only one of the two can have the store, so without --dry-run the
collector must be stopped first. A run that has not ended is never touched.
Root leaves this to the account of the collector: sudo -u inquest inquest gc";

/// Compress closed runs, and remove what need not be kept.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    file: ConfigFile,
    #[arg(long, env = "INQUEST_STORE", value_name = "DIR", help = help("", "store"))]
    store: Option<PathBuf>,
    #[arg(long, value_name = "HOURS", help = help("keep", "compress_hours"))]
    compress_hours: Option<u32>,
    #[arg(long, value_name = "DAYS", help = help("keep", "days"))]
    days: Option<u32>,
    #[arg(long, value_name = "BYTES", help = help("keep", "user_bytes"))]
    user_bytes: Option<u64>,
    #[arg(long, value_name = "BYTES", help = help("keep", "total_bytes"))]
    total_bytes: Option<u64>,
    #[command(flatten)]
    form: Form,
}

/// What the section of the configuration means.
///
/// # Errors
///
/// When what is said of a user makes no sense.
pub(super) fn policy(keep: &Keep) -> anyhow::Result<Policy> {
    let mut policy = Policy {
        pack_hours: Some(keep.compress_hours),
        everyone: Limits { days: keep.days, bytes: keep.user_bytes },
        total_bytes: keep.total_bytes,
        ..Policy::default()
    };
    for text in &keep.users {
        let bad = || {
            let text = text.escape_debug();
            Usage(format!("keep.users: '{text}' is not understood; write for example \"ann days=900\""))
        };
        let mut words = text.split_ascii_whitespace();
        let user = words.next().ok_or_else(bad)?;
        let limits = policy.users.entry(user_called(user)).or_default();
        let mut said = false;
        for word in words {
            match word.split_once('=').ok_or_else(bad)? {
                ("days", n) => limits.days = Some(n.parse().map_err(|_| bad())?),
                ("bytes", n) => limits.bytes = Some(n.parse().map_err(|_| bad())?),
                _ => return Err(bad().into()),
            }
            said = true;
        }
        if !said {
            return Err(bad().into());
        }
    }
    Ok(policy)
}

pub(super) fn main(arguments: &Arguments, zone: &TimeZone) -> anyhow::Result<u8> {
    let mut config = arguments.file.load()?;
    let keep = &mut config.keep;
    keep.compress_hours = arguments.compress_hours.unwrap_or(keep.compress_hours);
    keep.days = arguments.days.or(keep.days);
    keep.user_bytes = arguments.user_bytes.or(keep.user_bytes);
    keep.total_bytes = arguments.total_bytes.or(keep.total_bytes);
    let policy = policy(keep)?;
    let store = arguments.store.clone().unwrap_or(config.site.store);
    let form = &arguments.form;
    form.print(&table(&[], &[], zone))?;
    if arguments.dry_run {
        let seen = tidy::look(&Store::open(&store)?, None, None)?;
        let acts = plan(&seen, &policy, Stamp::now().wall);
        if form.json {
            let rows = acts.iter().map(|(at, act)| {
                let run = &seen[*at];
                json!({
                    "cluster": run.name.0, "user": run.name.1, "run_id": run.name.2, "last": run.last,
                    "bytes": run.bytes, "act": word(*act), "reason": reason(*act),
                })
            });
            print_json(&json!({ "schema": JSON_SCHEMA, "acts": rows.collect::<Vec<_>>() }))?;
        } else {
            print(&form.print(&table(&seen, &acts, zone))?)?;
        }
        let sum = |remove: bool| {
            let some = acts.iter().filter(|(_, act)| (*act != Act::Pack) == remove);
            some.fold((0, 0), |(n, sum), (at, _)| (n + 1, sum + seen[*at].bytes))
        };
        let ((gone, gone_bytes), (packed, packed_bytes)) = (sum(true), sum(false));
        eprintln!(
            "inquest: would remove {gone} of {} ({}) and compress {packed} ({})",
            count(seen.len(), "run", "runs"),
            bytes(gone_bytes),
            bytes(packed_bytes)
        );
        return Ok(GOOD);
    }
    Store::open(&store)?;
    leave_to_collector(&store, "gc")?;
    let options =
        Options { journal: config.site.journal, store, quiet: Duration::from_secs(config.collect.quiet) };
    let mut collector = Collector::open(options, None)?;
    if config.collect.index {
        collector.keep_index();
    }
    collector.keep_to(policy);
    let Tidied { packed, bytes_before, bytes_after, removed, bytes_removed } = collector.tidy_all()?;
    collector.finish_index();
    if form.json {
        print_json(&json!({
            "schema": JSON_SCHEMA, "removed": removed, "bytes_removed": bytes_removed, "compressed": packed,
            "bytes_before": bytes_before, "bytes_after": bytes_after,
        }))?;
    } else {
        print(&format!(
            "{} removed ({}), {packed} compressed ({} to {})\n",
            count(removed, "run", "runs"),
            bytes(bytes_removed),
            bytes(bytes_before),
            bytes(bytes_after)
        ))?;
    }
    Ok(GOOD)
}

fn word(act: Act) -> &'static str {
    if act == Act::Pack { "compress" } else { "remove" }
}

fn reason(act: Act) -> &'static str {
    match act {
        Act::Pack => "closed",
        Act::TooOld => "too old",
        Act::UserTooLarge => "its user has too much",
        Act::TooLarge => "all runs take too much",
    }
}

fn table(seen: &[Seen], acts: &[(usize, Act)], zone: &TimeZone) -> Table {
    let mut table = Table::new(&["ACT", "RUN", "USER", "CLUSTER", "LAST", "BYTES", "REASON"]);
    for (at, act) in acts {
        let Seen { name: (cluster, user, run), last, bytes, .. } = &seen[*at];
        table.row(vec![
            word(*act).into(),
            run.clone(),
            user.clone(),
            cluster.clone(),
            time(*last, zone),
            bytes.to_string(),
            reason(*act).into(),
        ]);
    }
    table
}
