/*!
Run stores on disk.

```text
<store>/<cluster>/<user>/runs/<run_id>/events.jsonl   the events of the run
<store>/<cluster>/<user>/runs/<run_id>/run.json       where it stands
<store>/<cluster>/<user>/runs/_registry.jsonl         one line per change; later lines win
<store>/ledger.db                                     the collector's own memory
<store>/index.db                                      for questions across runs; see [`index`]
```

Once a run has been closed for a while, its events are in `events.jsonl.zst`
instead; see [`pack`].

`<store>/<cluster>/<user>` is laid out as an artifacts root of parade, whose
own reader opens these files. `events.jsonl` and `_registry.jsonl` are only
ever appended to; `run.json` is replaced atomically and can always be made
again from the events.
*/

mod append;
mod clock;
mod events;
mod find;
pub mod index;
pub mod keep;
mod line;
mod newest;
pub mod pack;
mod read;
mod registries;
mod seekable;
mod share;

use std::path::{Path, PathBuf};

pub use append::{Appender, StoreError, Tail};
pub use clock::Clock;
pub use events::EventsFile;
pub(crate) use find::{member_of, run_of};
pub use line::{Derived, Line, derived_line, event_line, place, read_head, read_line};
pub use read::{Found, ReadError, RegistryEntry, Store, read_events, read_parts};
pub use registries::Registries;
pub use share::{for_operators, make_cluster, share, user_called, user_name, user_names};

/// File of a run's events, below its directory.
pub const EVENTS: &str = "events.jsonl";
/// File of a run's events when they are compressed, in place of [`EVENTS`].
pub const PACKED: &str = "events.jsonl.zst";
/// File of a run's state, below its directory.
pub const RUN: &str = "run.json";
/// File of a user's runs, below `runs`.
pub const REGISTRY: &str = "_registry.jsonl";
/// Directory of the events that are of no job, below that of the cluster.
pub const SITE: &str = "_site";
/// The collector's ledger, below the store.
pub const LEDGER: &str = "ledger.db";

/// Directory of a user's runs, relative to the store.
pub fn user_dir(cluster: &str, user: &str) -> PathBuf {
    Path::new(cluster).join(user).join("runs")
}

/// Directory of a run, relative to the store.
pub fn run_dir(cluster: &str, user: &str, run_id: &str) -> PathBuf {
    user_dir(cluster, user).join(run_id)
}
