/*!
Which run a job belongs to.

A run is what the user would call one. The strongest key wins and is stored
with its kind, the fact it was read from and the keys that lost, so that one
can see why jobs are together. Order: an explicit id; an id that a workflow
engine put into the environment; one in the job's name, comment or command; a
directory of an engine; the job's array; its het job; jobs of one user with the
same name from the same directory, close in time (marked weak); the job itself.

A run is never renamed. When a later event of a job has a stronger key than the
one that decided, the run gets an alias.
*/

mod engines;
mod evidence;
mod key;
mod state;

pub use engines::{ENGINES, Engine};
pub use evidence::Evidence;
pub use key::{Candidate, KeyKind, RunKey, path_id};
pub use state::{Member, MemberState, RunState, RunStatus, SCHEMA, failed};
