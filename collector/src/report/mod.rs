/*!
What is known, as text for people and as JSON for programs.

Every string of a job is hostile: it goes through [`clean`] before it reaches a
terminal. JSON carries a schema version; its own escapes keep most control
characters out, and [`clean_json`] the others.
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

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;

use inquest_journal::{MEMBER_KEYS, Timestamp};
use jiff::tz::TimeZone;

/// Version of the JSON that commands print.
pub const JSON_SCHEMA: u32 = 1;

/// Text that may be shown on a terminal: control characters and the ones that
/// turn the direction of writing are shown as escapes.
pub fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// JSON that may be shown on a terminal. JSON demands escapes only below U+0020: what else steers gets one too, which
/// means the same.
pub fn clean_json(text: &str) -> Cow<'_, str> {
    let steers = |c: char| steers(c) && c != '\n';
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 64);
    for c in text.chars() {
        if steers(c) {
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// A control character, or one that turns the direction of writing.
fn steers(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
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

/// How the times of one report are said: of the day alone where all are of one day, else with their date.
#[derive(Debug)]
pub(crate) struct Clock<'a> {
    zone: &'a TimeZone,
    dates: bool,
}

impl<'a> Clock<'a> {
    /// For times between these.
    pub(crate) fn between(from: Timestamp, to: Timestamp, zone: &'a TimeZone) -> Clock<'a> {
        let day = |at| zoned(at, zone, "%Y-%m-%d");
        Clock { zone, dates: day(from) != day(to) }
    }

    /// A time.
    pub(crate) fn say(&self, at: Timestamp) -> String {
        if self.dates { time(at, self.zone) } else { clock(at, self.zone) }
    }

    /// Columns that it has more with its date.
    pub(crate) fn wider(&self) -> usize {
        if self.dates { "2026-11-21 14:30:01".len() - "14:30:01.234".len() } else { 0 }
    }
}

pub(crate) fn zoned(at: Timestamp, zone: &TimeZone, format: &str) -> String {
    match jiff::Timestamp::from_microsecond(at.0) {
        Ok(at) => at.to_zoned(zone.clone()).strftime(format).to_string(),
        Err(_) => at.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use inquest_journal::{JobId, Timestamp};

    use super::{clean, clean_json};
    use crate::runs::{Member, RunKey, RunState, RunStatus, SCHEMA};

    /// A run with so many members, whose ids are their numbers.
    pub(super) fn run(members: u32) -> RunState {
        let member = |number: u32| Member {
            job_id: JobId(number),
            array_job_id: None,
            array_task_id: None,
            name: None,
            attempts: 1,
            started: Timestamp(0),
            last: Timestamp(0),
            state: None,
            verdict: None,
            range: (0, 0),
        };
        RunState {
            schema: SCHEMA,
            run_id: "r".into(),
            cluster: "lab".into(),
            user: "ann".into(),
            key: RunKey::of_job(JobId(1)),
            aliases: Vec::new(),
            name: None,
            started: Timestamp(0),
            last: Timestamp(0),
            status: RunStatus::Running,
            classes: Default::default(),
            members: (1..=members).map(|number| (number, member(number))).collect(),
            next_seq: 0,
        }
    }

    #[test]
    fn json_for_a_terminal_means_the_same() {
        let value = serde_json::json!({ "name": "a\u{9b}31m\u{202e}b\u{7f}\n\u{1b}é" });
        let text = format!("{value:#}\n");
        let shown = clean_json(&text);
        assert!(shown.chars().all(|c| c == '\n' || !c.is_control() && c != '\u{202e}'), "{shown}");
        assert!(shown.contains("\\u009b31m\\u202eb\\u007f") && shown.contains('é'), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }

    #[test]
    fn a_terminal_never_sees_control_characters() {
        let hostile = "a\u{1b}[2Jb\r\n\u{9b}31m\u{202e}c\u{7f}\u{0}é";
        let shown = clean(hostile);
        assert!(shown.chars().all(|c| !c.is_control() && c != '\u{202e}'), "{shown}");
        assert!(shown.contains("\\u{1b}[2Jb") && shown.ends_with('é'));
    }
}
