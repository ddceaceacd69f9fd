/*!
Pictures of many jobs, beside those of one run in [`crate::report::html`]: SVG,
drawn on the server. They need no script, print well, say in words what they
show to whoever cannot see them, and take their colours from the style sheet.
*/

mod bars;

pub use bars::{Bin, over_time, share};
