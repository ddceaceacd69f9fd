//! After a failure: running again what failed (which, with what, where), and
//! calling handlers.

mod handlers;
mod plan;
mod resources;
mod script;
mod template;
mod told;

pub use handlers::{Call, Ended, Handlers};
pub use plan::{Group, NO_SCRIPT, Plan, Script, Subject, Submitted, Wishes, line, plan};
pub use resources::{is_memory, is_time};
pub use script::Scripts;
pub use template::{BadTemplate, Template};
pub use told::{Key, RunPlace, Told};
