use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::Args;
use inquest_journal::Timestamp;
use jiff::tz::TimeZone;

use super::{FAILURES, GOOD, Output, print, print_json};
use crate::config::{Config, help};
use crate::report::JSON_SCHEMA;
use crate::serve::site::{Site, kinds, kinds_json, new_text};
use crate::store::ReadError;
use crate::store::index::{Filter, INDEX, Index, Standing};

const EXAMPLES: &str = "\
Examples:
  inquest report --week
  inquest report --days 30 --html report.html
  inquest report --new /var/lib/inquest-report/told |
      mail -E -s 'new failures' ops
  inquest report --new told --json >new; test -s new &&
      curl -fsS --json @new https://chat.example/hook

The last two say each new kind of failure once: what was said is kept in the
file, and nothing is printed, and 0 is the exit status, when nothing is new.";

const DAY_US: i64 = 86_400_000_000;

/// Kinds that are told at once.
const TOLD: usize = 50;

/// Report what failed on the whole site, for operators.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The last seven days; the default.
    #[arg(long, conflicts_with_all = ["days", "new"])]
    week: bool,
    /// The last so many days.
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=3660))]
    days: u16,
    /// Only kinds of failure of these days that were not there in the four weeks
    /// before and are not in this file; then they are.
    #[arg(long, value_name = "FILE", conflicts_with = "html")]
    new: Option<PathBuf>,
    /// Write a page with pictures that needs no network; to standard output with -.
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    html: Option<Output>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[arg(long, env = "INQUEST_STORE", value_name = "DIR", help = help("", "store"))]
    store: Option<PathBuf>,
    /// Only this cluster.
    #[arg(short = 'M', long, value_name = "NAME")]
    cluster: Option<String>,
}

pub(super) fn main(arguments: &Arguments, zone: &TimeZone) -> anyhow::Result<u8> {
    let store = match &arguments.store {
        Some(store) => store.clone(),
        None => Config::load(None)?.site.store,
    };
    let index = Index::open(&store).map_err(|e| match e {
        Standing::Denied => ReadError::Denied(store.join(INDEX)).into(),
        e => anyhow::anyhow!("no report of {}: {e}", store.display()),
    })?;
    let until = Timestamp(jiff::Timestamp::now().as_microsecond());
    let since = Timestamp(until.0 - i64::from(arguments.days) * DAY_US);
    if let Some(file) = &arguments.new {
        return new(arguments, &index, file, since);
    }
    let site = Site::ask(&index, arguments.cluster.as_deref(), since, until)?;
    match &arguments.html {
        _ if arguments.json => print_json(&site.json())?,
        Some(output) => output.write(&site.html(zone))?,
        None => print(&site.text(zone))?,
    }
    Ok(GOOD)
}

fn new(arguments: &Arguments, index: &Index, file: &Path, since: Timestamp) -> anyhow::Result<u8> {
    let mut told: BTreeSet<String> = match std::fs::read_to_string(file) {
        Ok(text) => text.lines().map(str::to_owned).collect(),
        Err(e) if e.kind() == ErrorKind::NotFound => BTreeSet::new(),
        Err(e) => anyhow::bail!("cannot read {}: {e}; name another file", file.display()),
    };
    let filter = Filter { since: Some(since), cluster: arguments.cluster.clone(), ..Filter::default() };
    let kinds = kinds(index, &filter, &|name, new| new && !told.contains(name), TOLD)?;
    if kinds.is_empty() {
        return Ok(GOOD);
    }
    if arguments.json {
        let text = new_text(&kinds);
        print_json(&serde_json::json!({ "schema": JSON_SCHEMA, "text": text, "kinds": kinds_json(&kinds) }))?;
    } else {
        print(&new_text(&kinds))?;
    }
    // After it was said: what is said twice is better than what never is.
    told.extend(kinds.into_iter().map(|k| k.fingerprint));
    let text: String = told.iter().map(|name| format!("{name}\n")).collect();
    let next = file.with_extension("new");
    std::fs::write(&next, text)
        .and_then(|()| std::fs::rename(&next, file))
        .map_err(|e| anyhow::anyhow!("cannot write {}: {e}; name another file", file.display()))?;
    Ok(FAILURES)
}
