use std::io::{IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use rustix::fs::{Access, access};
use rustix::io::Errno;
use serde_json::json;

use super::{GOOD, NOT_FOUND, NoPermission, leave_to_collector, print, print_json, store_dir};
use crate::config::help;
use crate::report::{JSON_SCHEMA, clean};
use crate::store::Store;
use crate::store::index::{
    Filter, Group, INDEX, Index, IndexError, Progress, Standing, Writer, catch_up, rebuild,
};
use crate::units::{bytes, count};

const EXAMPLES: &str = "\
Examples:
  inquest index
  inquest index rebuild

The index answers questions across runs, users and nodes. The collector keeps
it; everything in it is in the stores too, so it may be deleted at any time.
Only operators may read it. Root leaves writing it to the account of the
collector: sudo -u inquest inquest index rebuild";

/// Look at the index of the store, or make it again.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(subcommand)]
    act: Option<Act>,
    #[arg(long, global = true, env = "INQUEST_STORE", value_name = "DIR", help = help("", "store"))]
    store: Option<PathBuf>,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
enum Act {
    /// Say what it holds.
    Status,
    /// Bring in what it lacks and take out what is gone.
    Update,
    /// Make it again from the stores. Commands do without it meanwhile.
    Rebuild,
}

/// Between two lines of progress.
const TELL: Duration = Duration::from_secs(1);

pub(super) fn main(arguments: &Arguments) -> anyhow::Result<u8> {
    let store = store_dir(arguments.store.as_deref())?;
    Store::open(&store)?;
    match arguments.act.unwrap_or(Act::Status) {
        Act::Status => status(&store, arguments.json),
        act => {
            leave_to_collector(&store, if act == Act::Rebuild { "index rebuild" } else { "index update" })?;
            let mut writer = Writer::open(&store).map_err(|e| closed(&store).unwrap_or(e.into()))?;
            let (began, mut told) = (Instant::now(), Instant::now());
            let terminal = std::io::stderr().is_terminal();
            let mut progress = |at: Progress| {
                if terminal && told.elapsed() >= TELL {
                    told = Instant::now();
                    let _ = write!(
                        std::io::stderr(),
                        "\r{} of {}, {}",
                        at.runs,
                        count(at.of, "run", "runs"),
                        count(at.jobs, "job", "jobs")
                    );
                }
                ControlFlow::Continue(())
            };
            let done = match act {
                Act::Rebuild => rebuild(&mut writer, &mut progress),
                _ => catch_up(&mut writer, &mut progress),
            };
            let done = done.map_err(|e| match e {
                IndexError::Read(e) => e.into(),
                e => anyhow::Error::from(e),
            })?;
            let seconds = began.elapsed().as_secs_f64();
            if arguments.json {
                print_json(&json!({
                    "schema": JSON_SCHEMA, "runs": done.of, "jobs": done.jobs, "bytes": done.bytes,
                    "unread": done.unread, "closed": done.closed, "seconds": seconds,
                }))?;
            } else {
                print(&format!(
                    "{} looked at, {} indexed from {}, {seconds:.1} s\n",
                    count(done.of, "run", "runs"),
                    count(done.jobs, "job", "jobs"),
                    bytes(done.bytes)
                ))?;
            }
            for dir in &done.closed {
                eprintln!(
                    "inquest: what is in {} is not in the index: it cannot be listed; let the collector's account \
                     read it, or move it out of the store",
                    clean(&dir.to_string_lossy())
                );
            }
            if done.unread > 0 {
                let why =
                    done.why.as_deref().map_or(String::new(), |why| format!("; the first: {}", clean(why)));
                eprintln!(
                    "inquest: {} not in the index, or as before, because the files could not be read{why}",
                    count(done.unread, "run is", "runs are")
                );
            }
            Ok(if done.unread > 0 || !done.closed.is_empty() { NOT_FOUND } else { GOOD })
        }
    }
}

/// That the caller may not write the index, or make it. SQLite only says that it cannot open it.
fn closed(store: &Path) -> Option<anyhow::Error> {
    let index = store.join(INDEX);
    let place = if index.exists() { index.as_path() } else { store };
    let denied = access(place, Access::READ_OK | Access::WRITE_OK) == Err(Errno::ACCESS);
    denied.then(|| NoPermission(format!("write {}", place.display())).into())
}

fn status(store: &Path, json: bool) -> anyhow::Result<u8> {
    let index = match Index::open(store) {
        Ok(index) => index,
        Err(Standing::Denied) => {
            return Err(crate::store::ReadError::Denied(store.join(INDEX)).into());
        }
        Err(other) => {
            eprintln!("inquest: {other}");
            return Ok(NOT_FOUND);
        }
    };
    let size = std::fs::metadata(store.join(INDEX)).map_or(0, |m| m.len());
    let (runs, jobs) = index.totals()?;
    let ended = index.count(&Filter::default(), Group::All, 1)?.pop().unwrap_or_default();
    if json {
        print_json(&json!({
            "schema": JSON_SCHEMA, "runs": runs, "jobs": jobs, "ended": ended.total(),
            "failed": ended.failed(), "classes": ended.jobs, "bytes": size,
        }))?;
    } else {
        let (ended, failed) = (ended.total(), ended.failed());
        print(&format!(
            "{}, {} of jobs, {ended} ended, {failed} of them badly; {}\n",
            count(runs, "run", "runs"),
            count(jobs, "attempt", "attempts"),
            bytes(size)
        ))?;
    }
    Ok(GOOD)
}
