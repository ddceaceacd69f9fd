/*!
The journal: the contract between the plugin that writes on every node and the
collector that merges.

One directory per node, one file per UTC day, one JSON object per line:

```text
<journal>/<node>/2026-11-21.jsonl
```

Several slurmstepd processes append to one file at once. That is safe because
every line is one `write(2)` of at most [`LINE_MAX`] bytes on an `O_APPEND`
descriptor of a local file system. Whatever goes wrong after that (torn lines, copies, rotation,
compression, replay) is survivable because identity is *inside* the line:

- `stream` names one life of one writer (node, boot, pid, start time);
- `seq` counts from 0 in it, also over events that could not be written.

(`stream`, `seq`) is unique for ever. A line seen twice is the same event; a
number never seen is a lost event, and can be counted.

This crate knows neither Slurm nor policy. It is the only crate, with libc and
serde_json, that runs inside slurmstepd, so it starts no thread, follows no
symbolic link, and never panics on what it is given.
*/

mod encode;
mod env;
mod event;
mod id;
mod own;
mod put;
mod read;
mod time;
mod write;

#[cfg(feature = "schema")]
pub mod schema;

/// The JSON Schema of a line, as it is kept beside the source; a test holds it
/// to the types.
pub const SCHEMA: &str = include_str!("../schema/journal-v1.schema.json");

pub use encode::{Header, encode};
pub use env::{KEY_MAX, MEMBER_KEYS, RANK_KEYS, RUN_KEYS, VALUE_MAX, is_fit, looks_secret};
pub use event::*;
pub use id::{Identity, JobId, StepId};
pub use own::special;
pub use read::{BadLine, Head, Lines};
pub use time::{Stamp, Timestamp};
pub use write::{OpenError, Writer};

/// Version of the line format, the `v` of every line. A reader accepts lines
/// of a newer version as far as it understands them, and counts them.
pub const SCHEMA_VERSION: u32 = 1;

/// The longest line in bytes, its newline included. One page: an append of
/// this size is a single copy under the inode lock on the file systems that
/// nodes have, so lines of several writers never interleave.
pub const LINE_MAX: usize = 4096;
