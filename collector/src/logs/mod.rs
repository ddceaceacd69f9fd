//! Logs: where they are, what in them is the root cause, and which message
//! hides it.
//!
//! ```text
//! bytes --scan--> kept lines --text--> clean lines --candidates--> signs --choose--> Finding
//! ```
//!
//! [`scan_reader`] is the only part that does I/O. It keeps a bounded part of a log
//! of any size; all judgement is made on that part by pure functions.

mod announce;
mod candidates;
mod chains;
mod choose;
mod exceptions;
mod find;
mod finding;
mod fingerprint;
mod forms;
mod kept;
mod kinds;
mod rules;
mod scan;
pub mod text;
mod trigger;

pub use find::{PatternContext, expand_pattern};
pub use finding::{Cause, Class, Confidence, Finding};
pub use fingerprint::{Fingerprint, VERSION as FINGERPRINT_VERSION, fingerprint, normalise};
pub use scan::{ScanOptions, ScanReport, scan_reader};
pub use trigger::literals as prefilter_literals;

/// Finds the root cause in lines that are the whole of a log, or all of it
/// that is left.
///
/// Pure: reads nothing, knows no time. Linear in the size of the input.
pub fn analyze_lines(lines: &[&str]) -> Finding {
    let numbered = lines.iter().zip(1u64..).map(|(line, number)| (number, *line));
    analyze_numbered(numbered, &[])
}

/// Like [`analyze_lines`] for an excerpt whose lines know their numbers.
/// `success` holds texts that say, like a tool's own, that all was done.
pub(crate) fn analyze_numbered<'a>(
    lines: impl Iterator<Item = (u64, &'a str)>,
    success: &[String],
) -> Finding {
    let mut clean = Vec::new();
    for (number, raw) in lines {
        // Earlier states of a progress bar are shown only where one of them
        // may be a message.
        if raw.contains('\r') {
            let mut states: Vec<&str> = raw.split('\r').filter(|s| !s.trim().is_empty()).collect();
            let last = states.pop();
            clean.extend(
                states
                    .into_iter()
                    .filter(|s| trigger::may_matter(s.as_bytes()))
                    .map(|s| text::clean(number, s)),
            );
            clean.extend(last.map(|s| text::clean(number, s)));
        } else {
            clean.push(text::clean(number, raw));
        }
    }
    choose::choose(&clean, candidates::collect(&clean), success)
}
