//! Running again what failed.

mod template;

pub use template::{BadTemplate, Template};
