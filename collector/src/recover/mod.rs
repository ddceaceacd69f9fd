//! Running again what failed: which, with what, where.

mod plan;
mod resources;
mod script;
mod template;

pub use plan::{Group, NO_SCRIPT, Plan, Script, Subject, Wishes, line, plan};
pub use resources::{is_memory, is_time};
pub use script::Scripts;
pub use template::{BadTemplate, Template};
