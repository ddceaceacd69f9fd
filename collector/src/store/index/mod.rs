/*!
The index: one SQLite file, [`INDEX`], that answers questions across runs,
users and nodes without reading the stores.

It holds nothing that the stores do not: it may be deleted at any time, and
[`catch_up`] makes it again. The collector's indexer ([`Writer::update`])
follows behind the checkpoints and never holds them up; how far it has read a
run is in the run's row (`length`), so whoever asks can see whether a run has
grown since, and reads `run.json` then.

| table | one row per |
|---|---|
| `run` | run: status, counts, how far its events are indexed |
| `member` | job of a run: where in the run's file its events and its verdict are |
| `job` | attempt of a job: who, where, when, what became of it and why |
| `job_node` | attempt and node |
| `sum_all`, `sum_user`, `sum_node`, `sum_fingerprint` | UTC day of the end, or block of days, and what it is counted by: sums, so that a year is answered from some thousand rows |
| `word` | name of a cluster, user, account, partition, node, cause, label or fingerprint; the tables above have its number |

Times are microseconds since 1970. An attempt that runs has `ended` at the end
of time, so that the newest come last in every order. A class is its
place in [`CLASSES`]. All rows of one run change in one transaction.

The form has a version (`PRAGMA user_version`); an older file is made anew by the
collector, and a reader that meets another version goes without the index, as
it does while `meta` says that the index is being built. Readers of other
processes never block the writer, nor it them (WAL). They must be on the
writer's own machine: SQLite's shared memory does not cross the network, so the
file names the machine (`PRAGMA application_id`), and a reader elsewhere goes
without.

The index knows all users. It is readable by operators (the group of the
store), not by users, who find their own runs by the registry.
*/

mod catch_up;
#[cfg(test)]
mod cost;
mod count;
mod entry;
mod filter;
mod lists;
mod locate;
mod put;
mod query;
mod scan;
mod schema;
mod sums;
mod write;

use std::path::{Path, PathBuf};

pub use catch_up::{Progress, catch_up, rebuild};
pub use count::{Counts, Group, NAMED, Tally};
pub use entry::{End, Entry, JobEntry};
pub use filter::{Filter, Visible};
pub use lists::RunEntry;
pub use locate::Place;
pub(super) use locate::names;
pub use query::{Index, Standing};
pub use schema::CLASSES;
pub use write::{Updated, Writer};

use super::ReadError;

/// File of the index, below the store.
pub const INDEX: &str = "index.db";

/// `ended` of an attempt that has not.
pub(super) const OPEN: i64 = i64::MAX;

/// The index could not be used. Whoever asked a question can be answered from
/// the stores.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// SQLite's own reason.
    #[error("index {path}: {source}; 'inquest index rebuild' makes it again")]
    Sql {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// Written by a newer version.
    #[error(
        "index {path} has version {found}, this program knows {}; use the newer program, or delete the file",
        schema::VERSION
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Version found.
        found: u32,
    },
    /// It has been emptied to be made again.
    #[error("the index is being built; ask again when it is whole")]
    Building,
    /// A store that is indexed could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Names this machine, in 31 bits that are not zero: a process on another one
/// does not share memory with the writer.
fn machine() -> i32 {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let hash = xxhash_rust::xxh3::xxh3_64(format!("{name} {boot}").as_bytes());
    (hash as i32 & i32::MAX).max(1)
}

fn path_of(store: &Path) -> PathBuf {
    store.join(INDEX)
}
