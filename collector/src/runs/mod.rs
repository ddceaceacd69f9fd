/*!
Which run a job belongs to.

A run is what the user would call one. The strongest key wins and is stored
with its kind; the keys that lost are stored too, so that one can see why jobs
are together. Order: an explicit id, the job's array, the job's het job, the
job itself.
*/

mod key;
mod state;

pub use key::{KeyKind, RunKey, path_id};
pub use state::{Member, RunState, RunStatus, SCHEMA, failed};
