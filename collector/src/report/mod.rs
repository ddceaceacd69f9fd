/*!
What is known, as text for people and as JSON for programs.

Every string of a job is hostile: it goes through [`clean`] before it reaches a
terminal. JSON carries a schema version and is printed as it is, because its
own escapes already keep control characters out.
*/

pub mod check;
pub mod compare;
pub mod csv;
pub mod events;
pub mod failures;
pub mod grep;
pub mod html;
pub mod ids;
pub mod logfiles;
pub mod nodes;
pub mod parallel;
pub mod rerun;
pub mod runs;
pub mod scan;
pub mod site;
pub mod table;
pub mod tail;
pub mod timeline;
pub mod top;
pub mod unrecorded;
pub mod why;
pub mod wrap;

use std::collections::BTreeMap;

use inquest_journal::{MEMBER_KEYS, Timestamp};
use jiff::tz::TimeZone;

/// Version of the JSON that commands print.
pub const JSON_SCHEMA: u32 = 1;

/// Text that may be shown on a terminal: control characters and the ones that
/// turn the direction of writing are shown as escapes.
pub fn clean(text: &str) -> String {
    let turns =
        |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || turns(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// Which member of a run a process was, among those that share a step with it: the variables that say so, as
/// `PARSL_WORKER_RANK=3`.
pub(crate) fn member(env: &BTreeMap<String, String>) -> Option<String> {
    let known = MEMBER_KEYS.iter().filter_map(|key| Some(format!("{key}={}", clean(env.get(*key)?))));
    let known: Vec<String> = known.collect();
    (!known.is_empty()).then(|| known.join(", "))
}

/// Local time to the second, `2026-11-21 14:30:01`.
pub fn time(at: Timestamp, zone: &TimeZone) -> String {
    zoned(at, zone, "%Y-%m-%d %H:%M:%S")
}

/// Local time of the day with milliseconds, `14:30:01.234`.
pub fn clock(at: Timestamp, zone: &TimeZone) -> String {
    zoned(at, zone, "%H:%M:%S.%3f")
}

pub(crate) fn zoned(at: Timestamp, zone: &TimeZone, format: &str) -> String {
    match jiff::Timestamp::from_microsecond(at.0) {
        Ok(at) => at.to_zoned(zone.clone()).strftime(format).to_string(),
        Err(_) => at.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::clean;

    #[test]
    fn a_terminal_never_sees_control_characters() {
        let hostile = "a\u{1b}[2Jb\r\n\u{9b}31m\u{202e}c\u{7f}\u{0}é";
        let shown = clean(hostile);
        assert!(shown.chars().all(|c| !c.is_control() && c != '\u{202e}'), "{shown}");
        assert!(shown.contains("\\u{1b}[2Jb") && shown.ends_with('é'));
    }
}
