/*!
A line of a run's `events.jsonl`.

The envelope is parade's (`timestamp`, `event_type`, `severity`, `source`,
`run_id`, `chunk_id`): its timestamp is local time with milliseconds and an
offset without a colon. Everything of the journal's line follows as it was,
with the exact time as `utc`. Unknown fields of a newer version are kept.
*/

use std::borrow::Cow;

use super::Clock;
use crate::follow::{Cursor, Event, TIME, parse_body};
use inquest_journal::{Body, Head, JobId, SCHEMA_VERSION, Severity, Source, StepId, Timestamp, special};
use serde::{Deserialize, Serialize};

/// The head of a line of the store.
#[derive(Clone, Debug, Deserialize)]
pub struct Line<'a> {
    /// The run.
    #[serde(borrow)]
    pub run_id: Cow<'a, str>,
    /// Number of the job in the run; absent for events of the run itself.
    #[serde(default)]
    pub chunk_id: Option<u32>,
    /// Exact time.
    pub utc: Timestamp,
    /// Version of the journal's line.
    pub v: u32,
    /// What happened.
    #[serde(borrow)]
    pub event_type: Cow<'a, str>,
    /// How much it matters.
    pub severity: Severity,
    /// Who saw it.
    pub source: Source,
    /// Cluster.
    #[serde(borrow)]
    pub cluster: Cow<'a, str>,
    /// Node.
    #[serde(borrow)]
    pub node: Cow<'a, str>,
    /// Boot id, short.
    #[serde(borrow)]
    pub boot: Cow<'a, str>,
    /// CLOCK_BOOTTIME in microseconds.
    pub mono_us: u64,
    /// Stream.
    #[serde(borrow)]
    pub stream: Cow<'a, str>,
    /// Number in it.
    pub seq: u64,
    /// Job.
    #[serde(default)]
    pub job_id: Option<JobId>,
    /// Step.
    #[serde(default)]
    pub step: Option<StepId>,
    /// Task.
    #[serde(default)]
    pub task: Option<u32>,
}

impl<'a> Line<'a> {
    /// The same line's head as it stood in the journal.
    pub fn into_head(self) -> Head<'a> {
        Head {
            v: self.v,
            timestamp: self.utc,
            event_type: self.event_type,
            severity: self.severity,
            source: self.source,
            cluster: self.cluster,
            node: self.node,
            boot: self.boot,
            mono_us: self.mono_us,
            stream: self.stream,
            seq: self.seq,
            job_id: self.job_id,
            step: self.step,
            task: self.task,
        }
    }

    /// The body, when it is of a type of the journal.
    pub fn body(&self, line: &[u8]) -> Option<Body> {
        Body::parse(&self.event_type, line)?.ok()
    }
}

/// Reads the head of a line of the store, and the number of the job in the
/// run; `None` for what is no event.
pub fn read_head(line: &[u8]) -> Option<(Head<'_>, Option<u32>)> {
    if let Some((head, chunk, _)) = std::str::from_utf8(line).ok().and_then(own_form) {
        return Some((head, chunk));
    }
    let head: Line<'_> = serde_json::from_slice(line).ok()?;
    let chunk = head.chunk_id;
    Some((head.into_head(), chunk))
}

/// Reads a line of the store as the journal's event that it was, with its
/// body; `None` for lines of the collector's own and for unknown types.
pub fn read_line<'a>(line: &'a [u8], scratch: &mut Vec<u8>) -> Option<(Head<'a>, Box<Body>)> {
    if let Some(text) = std::str::from_utf8(line).ok()
        && let Some((head, _, body)) = own_form(text)
    {
        let body = parse_body(&head.event_type, &text[body..], scratch)?;
        return Some((head, body));
    }
    let head: Line<'_> = serde_json::from_slice(line).ok()?;
    let body = head.body(line)?;
    Some((head.into_head(), Box::new(body)))
}

fn own_form(line: &str) -> Option<(Head<'_>, Option<u32>, usize)> {
    // The local time that begins the line says nothing that `utc` does not.
    let at = "{\"timestamp\":\"".len();
    let mut at = Cursor { text: line, at };
    at.plain()?;
    at.skip(",\"event_type\":\"")?;
    let event_type = Cow::Borrowed(at.plain()?);
    let (severity, source) = at.severity_and_source()?;
    at.skip(",\"run_id\":\"")?;
    at.plain()?;
    let mut chunk = None;
    if at.skip(",\"utc\":\"").is_none() {
        at.at -= ",\"utc\":\"".len();
        at.skip(",\"chunk_id\":")?;
        chunk = Some(u32::try_from(at.number()?).ok()?);
        at.skip(",\"utc\":\"")?;
    }
    let utc = at.time()?;
    at.skip("\",\"v\":")?;
    let v = u32::try_from(at.number()?).ok()?;
    // It was proven to be JSON when it was merged, and the body's parser
    // proves it again.
    let (head, body) = at.head(v, utc, event_type, severity, source, None)?;
    Some((head, chunk, body))
}

/// Appends the head of a line: what parade's readers look for, then the exact time.
fn envelope(out: &mut Vec<u8>, head: &Head<'_>, place: &[u8], clock: &mut Clock) {
    out.extend_from_slice(b"{\"timestamp\":\"");
    clock.local(out, head.timestamp);
    out.extend_from_slice(b"\",\"event_type\":");
    string(out, &head.event_type);
    out.extend_from_slice(b",\"severity\":\"");
    out.extend_from_slice(severity_name(head.severity).as_bytes());
    out.extend_from_slice(b"\",\"source\":\"");
    out.extend_from_slice(source_name(head.source).as_bytes());
    out.push(b'"');
    out.extend_from_slice(place);
    clock.utc(out, head.timestamp);
    out.extend_from_slice(b"\",\"v\":");
    number(out, head.v.into());
}

/// The run and the number of the job in it, as a line of the store has them: all lines of a job
/// have the same.
pub fn place(run_id: &str, chunk_id: Option<u32>) -> Vec<u8> {
    let mut out = Vec::with_capacity(run_id.len() + 48);
    out.extend_from_slice(b",\"run_id\":");
    string(&mut out, run_id);
    if let Some(chunk_id) = chunk_id {
        out.extend_from_slice(b",\"chunk_id\":");
        number(&mut out, chunk_id.into());
    }
    out.extend_from_slice(b",\"utc\":\"");
    out
}

/// A JSON string; plain ones without the serialiser.
fn string(out: &mut Vec<u8>, text: &str) {
    joined(out, &[text]);
}

/// A JSON string of several parts.
fn joined(out: &mut Vec<u8>, parts: &[&str]) {
    if parts.iter().all(|part| is_plain(part)) {
        out.push(b'"');
        parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
        out.push(b'"');
    } else {
        let _ = serde_json::to_writer(out, &parts.concat()); // Memory does not fail.
    }
}

fn is_plain(text: &str) -> bool {
    let (eights, rest) = text.as_bytes().as_chunks();
    eights.iter().all(|eight| special(u64::from_le_bytes(*eight)) == 0)
        && rest.iter().all(|b| *b >= 0x20 && *b != b'"' && *b != b'\\')
}

fn number(out: &mut Vec<u8>, n: u64) {
    let (mut digits, mut at, mut left) = ([0; 20], 20, n);
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends the store's form of a journal line, newline included. `place` is what [`place()`]
/// makes.
pub fn event_line(out: &mut Vec<u8>, event: &Event<'_>, place: &[u8], clock: &mut Clock) {
    // Lines of our own writers begin in a fixed order, so all that they have
    // in common with the store's can be copied as it is.
    if let Some(form) = event.form {
        let from = out.len();
        let time = &event.line[form.time..form.time + TIME];
        out.reserve(event.line.len() + place.len() + 40);
        out.extend_from_slice(b"{\"timestamp\":\"");
        if clock.local_of(out, event.head.timestamp, time) {
            out.extend_from_slice(&event.line[form.time + TIME..form.middle]);
            out.extend_from_slice(place);
            out.extend_from_slice(time);
            out.extend_from_slice(b"\",\"v\":");
            number(out, event.head.v.into());
        } else {
            out.truncate(from);
            envelope(out, &event.head, place, clock);
        }
        out.extend_from_slice(&event.line[form.middle..]);
        out.push(b'\n');
    } else if let Ok(serde_json::Value::Object(mut map)) = serde_json::from_slice(event.line) {
        for field in ["v", "timestamp", "event_type", "severity", "source", "run_id", "chunk_id", "utc"] {
            map.remove(field);
        }
        envelope(out, &event.head, place, clock);
        let at = out.len();
        let _ = serde_json::to_writer(&mut *out, &map); // Memory does not fail.
        out[at] = b','; // In place of the opening brace.
        out.push(b'\n');
    }
}

/// `info`, `warn`, `error`.
fn severity_name(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warn => "warn",
        Severity::Error => "error",
    }
}

fn source_name(source: Source) -> &'static str {
    match source {
        Source::Plugin => "plugin",
        Source::Agent => "agent",
        Source::User => "user",
        Source::Collector => "collector",
    }
}

/// An event that the collector derives: of a run, or of a job in it.
#[derive(Clone, Debug)]
pub struct Derived<'a, T> {
    /// `run_started`, `chunk_failed`, ...
    pub event_type: &'a str,
    /// How much it matters.
    pub severity: Severity,
    /// The node event that it follows from: its time and node are used.
    pub after: &'a crate::story::Moment,
    /// Cluster.
    pub cluster: &'a str,
    /// The run.
    pub run_id: &'a str,
    /// Number of the collector's event in this run.
    pub seq: u64,
    /// Number of the job in the run.
    pub chunk_id: Option<u32>,
    /// The job.
    pub job_id: Option<JobId>,
    /// Its own fields; an object.
    pub fields: T,
}

/// Appends the line of a derived event, newline included.
pub fn derived_line<T: Serialize>(out: &mut Vec<u8>, event: &Derived<'_, T>, clock: &mut Clock) {
    let after = event.after;
    let head = Head {
        v: SCHEMA_VERSION,
        timestamp: after.wall,
        event_type: event.event_type.into(),
        severity: event.severity,
        source: Source::Collector,
        cluster: event.cluster.into(),
        node: after.node.as_ref().into(),
        boot: after.boot.as_ref().into(),
        mono_us: after.mono_us,
        stream: "".into(),
        seq: event.seq,
        job_id: event.job_id,
        step: None,
        task: None,
    };
    envelope(out, &head, &place(event.run_id, event.chunk_id), clock);
    out.extend_from_slice(b",\"cluster\":");
    string(out, event.cluster);
    out.extend_from_slice(b",\"node\":");
    string(out, &after.node);
    out.extend_from_slice(b",\"boot\":");
    string(out, &after.boot);
    out.extend_from_slice(b",\"mono_us\":");
    number(out, after.mono_us);
    out.extend_from_slice(b",\"stream\":");
    joined(out, &["collector-", event.cluster, "-", event.run_id]);
    out.extend_from_slice(b",\"seq\":");
    number(out, event.seq);
    if let Some(job_id) = event.job_id {
        out.extend_from_slice(b",\"job_id\":\"");
        number(out, job_id.0.into());
        out.push(b'"');
    }
    let at = out.len();
    let _ = serde_json::to_writer(&mut *out, &event.fields); // Memory does not fail.
    if out[at..] == *b"{}" {
        out.truncate(at);
        out.push(b'}');
    } else {
        out[at] = b',';
    }
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use inquest_journal::{Header, Note, Stamp, encode};
    use jiff::tz::TimeZone;

    fn journal_line() -> Vec<u8> {
        let header = Header {
            stamp: Stamp { wall: Timestamp(1_771_702_201_234_567), mono_us: 9 },
            severity: Severity::Warn,
            source: Source::User,
            cluster: "lab",
            node: "n1",
            boot: "0badc0de",
            stream: "n1-0badc0de-1-2",
            seq: 4,
            job_id: Some(JobId(7)),
            step: Some(StepId::Batch),
            task: None,
        };
        let mut line = Vec::new();
        let note = Note { text: Some("hi,\"cluster\":{\"x\"".into()), ..Note::default() };
        encode(&mut line, &header, &note.into());
        line.pop();
        line
    }

    fn stored(line: &[u8]) -> String {
        let zone = TimeZone::get("America/New_York").unwrap_or(TimeZone::fixed(jiff::tz::offset(-5)));
        let mut out = Vec::new();
        event_line(&mut out, &Event::parse(line).unwrap(), &place("r1", Some(3)), &mut Clock::new(zone));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_envelope_is_parades() {
        let text = stored(&journal_line());
        assert!(text.starts_with(
            "{\"timestamp\":\"2026-02-21T14:30:01.234-0500\",\"event_type\":\"note\",\"severity\":\"warn\",\
             \"source\":\"user\",\"run_id\":\"r1\",\"chunk_id\":3,\"utc\":\"2026-02-21T19:30:01.234567Z\",\"v\":1,\
             \"cluster\":\"lab\",\"node\":\"n1\""
        ), "{text}");
        let line: Line<'_> = serde_json::from_str(&text).unwrap();
        assert_eq!(line.body(text.as_bytes()), Body::parse("note", &journal_line()).unwrap().ok());
        assert_eq!(line.into_head(), Head::parse(&journal_line()).unwrap());
        let (head, chunk, _) = own_form(text.trim_end()).unwrap();
        assert_eq!((head, chunk), (Head::parse(&journal_line()).unwrap(), Some(3)));
    }

    #[test]
    fn a_line_that_somebody_rewrote_means_the_same() {
        let value: serde_json::Value = serde_json::from_slice(&journal_line()).unwrap();
        let pretty = serde_json::to_string_pretty(&value).unwrap();
        let mended = stored(pretty.as_bytes());
        let a: serde_json::Value = serde_json::from_str(&mended).unwrap();
        let b: serde_json::Value = serde_json::from_str(&stored(&journal_line())).unwrap();
        assert_eq!(a, b);
    }
}
