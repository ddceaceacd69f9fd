/*!
A line of a journal, read as far as merging needs.

Our own writers put the head first and in one order, so it can be taken apart
without a general parser; the rest must then still be proven to be JSON, because
a line whose end was overwritten is no event. Whatever looks different in any
way is left to the general parser, which decides.
*/

use std::borrow::Cow;
use std::ops::Range;

use inquest_journal::{Body, Head, JobId, SCHEMA_VERSION, Severity, Source, StepId, Timestamp, special};

use super::json;

/// One event as it stands in a journal.
#[derive(Debug)]
pub struct Event<'a> {
    /// Who, when and where.
    pub head: Head<'a>,
    /// The line without its newline.
    pub line: &'a [u8],
    /// For a line in our writers' own form.
    pub form: Option<Form>,
    /// What was read of the body to prove that the line is whole.
    read: Option<Box<Body>>,
}

/// No writer lives to count so far; a number beyond is damage, and believing
/// it would report as many lost events.
const SEQ_MAX: u64 = 1 << 48;

/// Where the parts of a line in our writers' own form are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// Offset of the time, which has [`TIME`] bytes and a quote behind it.
    pub time: usize,
    /// Offset of `,"cluster":`, behind what the store's envelope repeats.
    pub middle: usize,
    /// Offset of the comma before the body's first field, or of the closing
    /// brace.
    pub body: usize,
}

impl<'a> Event<'a> {
    /// Reads one line; `None` when it is no event.
    pub fn parse(line: &'a [u8]) -> Option<Event<'a>> {
        Event::parse_next(line, None)
    }

    /// Reads one line of many; `usual` is what the ones before have in common.
    pub fn parse_next(line: &'a [u8], usual: Option<&mut Usual>) -> Option<Event<'a>> {
        // Serde would let broken UTF-8 pass in fields that it skips.
        let text = std::str::from_utf8(line.trim_ascii_end()).ok()?;
        let line = text.as_bytes();
        if let Some((head, form)) = own_head(text, usual) {
            let rest = &text[form.body..];
            // What could be read is JSON.
            let read = Body::own(&head.event_type, rest);
            if read.is_some() || json::is_tail_of_object(rest.as_bytes()) {
                return Some(Event { head, line, form: Some(form), read });
            }
        }
        let head = Head::parse(line).ok()?;
        // The store writes such a line anew: what cannot be read whole is no event, though its head can.
        let whole = || serde_json::from_slice::<serde_json::Value>(line).is_ok();
        (head.seq <= SEQ_MAX && whole()).then_some(Event { head, line, form: None, read: None })
    }

    /// The event at the end of a line that begins with something else: what a
    /// crash left of another line, or zeros. Inside a string the quote of the
    /// first field would have a backslash before it, so what is found is never
    /// a part of what a job said.
    pub fn salvage(line: &'a [u8]) -> Option<Event<'a>> {
        const BEGIN: &[u8] = b"{\"v\":";
        let at = line.windows(BEGIN.len()).rposition(|w| w == BEGIN)?;
        if at == 0 { None } else { Event::parse(&line[at..]) }
    }

    /// The event's own fields; `None` for a type of a newer version and when a
    /// field has another JSON type than the schema says.
    pub fn body(&self, scratch: &mut Vec<u8>) -> Option<Cow<'_, Body>> {
        if let Some(body) = &self.read {
            return Some(Cow::Borrowed(body));
        }
        let body = match self.form {
            Some(form) => general_body(&self.head.event_type, &self.line[form.body..], scratch),
            None => Body::parse(&self.head.event_type, self.line)?.ok(),
        };
        body.map(Cow::Owned)
    }

    /// The body, where it was read together with the head.
    pub fn read(&self) -> Option<&Body> {
        self.read.as_deref()
    }

    /// The same as [`Event::body`], to keep.
    pub fn take_body(&mut self, scratch: &mut Vec<u8>) -> Option<Box<Body>> {
        self.read.take().or_else(|| self.body(scratch).map(|body| Box::new(body.into_owned())))
    }
}

/// Reads a body from the end of a line, from the comma before its first field
/// or from the closing brace.
pub fn parse_body(event_type: &str, rest: &str, scratch: &mut Vec<u8>) -> Option<Box<Body>> {
    Body::own(event_type, rest).or_else(|| general_body(event_type, rest.as_bytes(), scratch).map(Box::new))
}

fn general_body(event_type: &str, rest: &[u8], scratch: &mut Vec<u8>) -> Option<Body> {
    scratch.clear();
    scratch.push(b'{');
    scratch.extend_from_slice(rest.strip_prefix(b",").unwrap_or(rest));
    Body::parse(event_type, scratch)?.ok()
}

/// Takes the head of a line in our writers' own form apart. Whether the rest is
/// JSON is not known then.
fn own_head<'a>(line: &'a str, mut usual: Option<&mut Usual>) -> Option<(Head<'a>, Form)> {
    let mut at = Cursor { text: line, at: 0 };
    at.skip("{\"v\":")?;
    let v = u32::try_from(at.number()?).ok().filter(|v| *v == SCHEMA_VERSION)?;
    at.skip(",\"timestamp\":\"")?;
    let time = at.at;
    let timestamp = at.time_of(usual.as_deref_mut())?;
    at.skip("\",\"event_type\":\"")?;
    let event_type = Cow::Borrowed(at.plain()?);
    let (severity, source) = at.severity_and_source()?;
    let middle = at.at;
    let (head, body) = at.head(v, timestamp, event_type, severity, source, usual)?;
    Some((head, Form { time, middle, body }))
}

/// What the lines of a journal have in common with the ones before them, nearly all of them:
/// day, cluster, node and boot.
#[derive(Debug, Default)]
pub struct Usual {
    /// `2026-11-21T`, and when that day began.
    day: Option<([u8; DAY], Timestamp)>,
    /// From `,"cluster":` to `"mono_us":`, as it stood there.
    text: Vec<u8>,
    /// Where in it the three are.
    places: [Range<usize>; 3],
}

pub(crate) fn severity(name: &str) -> Option<Severity> {
    Some(match name {
        "info" => Severity::Info,
        "warn" => Severity::Warn,
        "error" => Severity::Error,
        _ => return None,
    })
}

pub(crate) fn source(name: &str) -> Option<Source> {
    Some(match name {
        "plugin" => Source::Plugin,
        "agent" => Source::Agent,
        "user" => Source::User,
        "collector" => Source::Collector,
        _ => return None,
    })
}

/// A place in a line that is being taken apart.
pub(crate) struct Cursor<'a> {
    pub(crate) text: &'a str,
    pub(crate) at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn skip(&mut self, fixed: &str) -> Option<()> {
        let there = self.text.as_bytes().get(self.at..self.at + fixed.len())? == fixed.as_bytes();
        self.at += fixed.len();
        there.then_some(())
    }

    fn skip_if(&mut self, fixed: &str) -> bool {
        let there = self.text.as_bytes()[self.at..].starts_with(fixed.as_bytes());
        if there {
            self.at += fixed.len();
        }
        there
    }

    /// A number without sign, fraction or leading zero.
    pub(crate) fn number(&mut self) -> Option<u64> {
        let from = self.at;
        let mut n = 0u64;
        while let Some(digit @ b'0'..=b'9') = self.text.as_bytes().get(self.at) {
            n = n.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
            self.at += 1;
        }
        let digits = &self.text.as_bytes()[from..self.at];
        (!digits.is_empty() && (digits[0] != b'0' || digits.len() == 1)).then_some(n)
    }

    /// The rest of a string that needs no unescaping, without its quote.
    pub(crate) fn plain(&mut self) -> Option<&'a str> {
        let (bytes, from) = (self.text.as_bytes(), self.at);
        let mut at = from;
        let end = loop {
            let Some(eight) = bytes.get(at..at + 8) else {
                break at + bytes.get(at..)?.iter().position(|b| matches!(b, b'"' | b'\\' | 0..0x20))?;
            };
            let found = special(u64::from_le_bytes(eight.try_into().ok()?));
            if found != 0 {
                break at + (found.trailing_zeros() / 8) as usize;
            }
            at += 8;
        };
        if bytes[end] != b'"' {
            return None;
        }
        self.at = end + 1;
        self.text.get(from..end)
    }

    /// A time in the one form that our writers use, without quotes.
    pub(crate) fn time(&mut self) -> Option<Timestamp> {
        let text = self.text.get(self.at..self.at + TIME)?;
        if text.as_bytes()[TIME - 1] != b'Z' {
            return None;
        }
        self.at += TIME;
        text.parse().ok()
    }

    /// The same, faster on the day of the line before.
    fn time_of(&mut self, usual: Option<&mut Usual>) -> Option<Timestamp> {
        let Some(usual) = usual else { return self.time() };
        let (day, rest) = self.text.as_bytes().get(self.at..self.at + TIME)?.split_first_chunk()?;
        let Some(us) = time_of_day(rest) else { return self.time() };
        if let Some((known, begin)) = &usual.day
            && known == day
        {
            self.at += TIME;
            return Some(Timestamp(begin.0 + us));
        }
        let at = self.time()?;
        usual.day = Some((*day, Timestamp(at.0 - us)));
        Some(at)
    }

    /// The fields behind the event's type.
    pub(crate) fn severity_and_source(&mut self) -> Option<(Severity, Source)> {
        // As nearly all lines have them.
        if self.skip_if(",\"severity\":\"info\",\"source\":\"plugin\"") {
            return Some((Severity::Info, Source::Plugin));
        }
        self.skip(",\"severity\":\"")?;
        let severity = severity(self.plain()?)?;
        self.skip(",\"source\":\"")?;
        Some((severity, source(self.plain()?)?))
    }

    /// Cluster, node and boot.
    fn place(&mut self, usual: Option<&mut Usual>) -> Option<[&'a str; 3]> {
        let (text, from) = (self.text, self.at);
        if let Some(usual) = &usual
            && !usual.text.is_empty()
            && text.as_bytes()[from..].starts_with(&usual.text)
        {
            self.at += usual.text.len();
            let [cluster, node, boot] = &usual.places;
            let part = |place: &Range<usize>| text.get(from + place.start..from + place.end);
            return Some([part(cluster)?, part(node)?, part(boot)?]);
        }
        let mut places = [0..0, 0..0, 0..0];
        for (name, place) in [",\"cluster\":\"", ",\"node\":\"", ",\"boot\":\""].into_iter().zip(&mut places)
        {
            self.skip(name)?;
            let begin = self.at;
            *place = begin..begin + self.plain()?.len();
        }
        self.skip(",\"mono_us\":")?;
        if let Some(usual) = usual {
            usual.text.clear();
            usual.text.extend_from_slice(&text.as_bytes()[from..self.at]);
            usual.places = places.clone().map(|p| p.start - from..p.end - from);
        }
        Some(places.map(|p| &text[p]))
    }

    /// The rest of the head, from `,"cluster":` on. Yields the head and the
    /// offset of its end.
    pub(crate) fn head(
        &mut self,
        v: u32,
        timestamp: Timestamp,
        event_type: Cow<'a, str>,
        severity: Severity,
        source: Source,
        usual: Option<&mut Usual>,
    ) -> Option<(Head<'a>, usize)> {
        let [cluster, node, boot] = self.place(usual)?.map(Cow::Borrowed);
        let mono_us = self.number()?;
        self.skip(",\"stream\":\"")?;
        let stream = Cow::Borrowed(self.plain()?);
        self.skip(",\"seq\":")?;
        let seq = self.number().filter(|n| *n <= SEQ_MAX)?;
        let job_id = match self.skip_if(",\"job_id\":\"") {
            true => Some(self.plain()?.parse::<JobId>().ok()?),
            false => None,
        };
        let step = match self.skip_if(",\"step\":\"") {
            true => Some(self.plain()?.parse::<StepId>().ok()?),
            false => None,
        };
        let task = match self.skip_if(",\"task\":") {
            true => Some(u32::try_from(self.number()?).ok()?),
            false => None,
        };
        let head = Head {
            v,
            timestamp,
            event_type,
            severity,
            source,
            cluster,
            node,
            boot,
            mono_us,
            stream,
            seq,
            job_id,
            step,
            task,
        };
        Some((head, self.at))
    }
}

/// Length of `2026-11-21T14:30:01.234567Z`.
pub const TIME: usize = 27;

/// Of it, up to the time of the day.
const DAY: usize = 11;

/// Microseconds of `14:30:01.234567Z`.
fn time_of_day(text: &[u8]) -> Option<i64> {
    let text: &[u8; TIME - DAY] = text.try_into().ok()?;
    if (text[2], text[5], text[8], text[15]) != (b':', b':', b'.', b'Z') {
        return None;
    }
    let number = |from: usize, to: usize| {
        text[from..to].iter().try_fold(0i64, |n, digit| match digit {
            b'0'..=b'9' => Some(n * 10 + i64::from(digit - b'0')),
            _ => None,
        })
    };
    let (hour, minute, second) = (number(0, 2)?, number(3, 5)?, number(6, 8)?);
    let us = number(9, 15)?;
    // A leap second is left to the general reader.
    (hour < 24 && minute < 60 && second < 60).then_some(((hour * 60 + minute) * 60 + second) * 1_000_000 + us)
}

#[cfg(test)]
mod tests {
    use super::*;
    use inquest_journal::{Header, JobStarted, Note, Stamp, encode};
    use proptest::prelude::*;

    fn line(text: &str, task: Option<u32>) -> Vec<u8> {
        let header = Header {
            stamp: Stamp { wall: Timestamp(1_771_702_201_234_567), mono_us: 9 },
            severity: Severity::Warn,
            source: Source::User,
            cluster: "lab",
            node: "n1",
            boot: "0badc0de",
            stream: "n1-0badc0de-1-2",
            seq: 4,
            job_id: task.map(|_| JobId(7)),
            step: task.map(|_| StepId::Batch),
            task,
        };
        let mut line = Vec::new();
        let note = Note { text: Some(text.into()), ..Note::default() };
        encode(&mut line, &header, &note.into());
        line.pop();
        line
    }

    proptest! {
        // The general parser is the model.
        #[test]
        fn agrees_with_the_general_parser(
            text in any::<String>(), task in any::<Option<u32>>(),
            damage in proptest::option::of((any::<proptest::sample::Index>(), any::<u8>())),
            cut in proptest::option::of(any::<proptest::sample::Index>()),
        ) {
            let mut line = line(&text, task);
            if let Some((at, byte)) = damage {
                let at = at.index(line.len());
                line[at] = byte;
            }
            if let Some(cut) = cut {
                line.truncate(cut.index(line.len()));
            }
            // After a line of the same day and place, and after none.
            let mut usual = Usual::default();
            let before = self::line("before", None);
            Event::parse_next(&before, Some(&mut usual)).unwrap();
            let next = Event::parse_next(&line, Some(&mut usual));
            let ours = Event::parse(&line);
            prop_assert_eq!(next.as_ref().map(|e| (&e.head, e.form)), ours.as_ref().map(|e| (&e.head, e.form)));
            let theirs = Head::parse(&line)
                .ok()
                .filter(|h| std::str::from_utf8(&line).is_ok() && h.seq <= SEQ_MAX);
            prop_assert_eq!(ours.as_ref().map(|e| &e.head), theirs.as_ref());
            if let Some(event) = ours {
                let body = Body::parse(&event.head.event_type, &line).and_then(Result::ok);
                prop_assert_eq!(event.body(&mut Vec::new()).map(Cow::into_owned), body);
            }
        }
    }

    #[test]
    fn a_line_of_our_own_writer_takes_the_short_way() {
        for task in [None, Some(3)] {
            let line = line("hi \"there\"\n", task);
            let event = Event::parse(&line).unwrap();
            let form = event.form.unwrap();
            assert!(line[form.middle..].starts_with(b",\"cluster\":\"lab\""));
            assert!(line[form.body..].starts_with(b",\"text\":\"hi"));
        }
        let mut empty = Vec::new();
        let header = Header { source: Source::Plugin, ..header() };
        encode(&mut empty, &header, &JobStarted::default().into());
        empty.pop();
        assert_eq!(Event::parse(&empty).unwrap().form.unwrap().body, empty.len() - 1);
    }

    fn header<'a>() -> Header<'a> {
        Header {
            stamp: Stamp::default(),
            severity: Severity::Info,
            source: Source::User,
            cluster: "lab",
            node: "n1",
            boot: "b",
            stream: "s",
            seq: 0,
            job_id: None,
            step: None,
            task: None,
        }
    }

    #[test]
    fn a_field_of_the_head_or_the_envelope_in_the_body_is_for_the_general_parser() {
        for field in ["\"seq\":9", "\"run_id\":\"x\"", "\"utc\":1", "\"t\\u0061sk\":1"] {
            let mut text = line("x", Some(1));
            text.pop();
            text.extend_from_slice(format!(",{field}}}").as_bytes());
            assert!(Event::parse(&text).is_none_or(|e| e.form.is_none()), "{field}");
        }
    }
}
