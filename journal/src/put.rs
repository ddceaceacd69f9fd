//! Bodies to JSON, by hand: field by field into a bounded buffer.
//!
//! What serde would write is the same, byte by byte; a test holds one against the other. But a hook of the
//! plugin does this once in its life, with cold caches, and then half of its own time goes into fetching
//! the many small functions of a general serialiser.

use std::collections::BTreeMap;

use crate::event::{Absent, Level, Memory, Pressure, Via, Victim};
use crate::{JobId, LINE_MAX, Timestamp};

/// A buffer that takes no more than a line, and of each string no more than a bound.
pub(crate) struct Sink<'a> {
    out: &'a mut Vec<u8>,
    end: usize,
    /// How long a string may be, in encoded bytes.
    bound: usize,
    /// A string was cut.
    pub(crate) cut: bool,
    /// Something did not fit into a line.
    pub(crate) full: bool,
}

impl<'a> Sink<'a> {
    pub(crate) fn new(out: &'a mut Vec<u8>, bound: usize, cut: bool) -> Sink<'a> {
        let end = out.len() + LINE_MAX;
        Sink { out, end, bound, cut, full: false }
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        if self.out.len() + bytes.len() <= self.end {
            self.out.extend_from_slice(bytes);
        } else {
            self.full = true;
        }
    }

    pub(crate) fn number(&mut self, n: u64) {
        append_number(self.out, n);
        self.full |= self.out.len() > self.end;
    }

    /// A JSON string, cut at the bound but never inside a character or an escape.
    pub(crate) fn text(&mut self, text: &str) {
        self.raw(b"\"");
        let (mut rest, mut left) = (text, self.bound);
        loop {
            let plain = rest.bytes().position(|b| b < b' ' || b == b'"' || b == b'\\').unwrap_or(rest.len());
            let keep = if plain <= left { plain } else { rest.floor_char_boundary(left) };
            self.raw(&rest.as_bytes()[..keep]);
            if keep < plain {
                self.cut = true;
                break;
            }
            left -= keep;
            let Some(&byte) = rest.as_bytes().get(plain) else { break };
            let mut escape = *b"\\u0000";
            let escape = match byte {
                b'"' => b"\\\"".as_slice(),
                b'\\' => b"\\\\",
                0x08 => b"\\b",
                0x09 => b"\\t",
                0x0a => b"\\n",
                0x0c => b"\\f",
                0x0d => b"\\r",
                _ => {
                    escape[4] += byte >> 4;
                    escape[5] = b"0123456789abcdef"[usize::from(byte & 15)];
                    &escape
                }
            };
            if left < escape.len() {
                self.cut = true;
                break;
            }
            left -= escape.len();
            self.raw(escape);
            rest = &rest[plain + 1..];
        }
        self.raw(b"\"");
    }

    /// What `fields` writes, each with a comma before it, as an object.
    fn object(&mut self, fields: impl FnOnce(&mut Sink<'_>)) {
        let at = self.out.len();
        fields(self);
        match self.out.get_mut(at) {
            Some(comma) => *comma = b'{',
            None => self.raw(b"{"),
        }
        self.raw(b"}");
    }

    /// A field of an object: its key with everything around it, unless it is absent.
    pub(crate) fn field<T: Absent + Put>(&mut self, key: &[u8], value: &T) {
        if !value.absent() {
            self.raw(key);
            value.put(self);
        }
    }
}

/// Appends a decimal number without the machinery of `fmt`.
pub(crate) fn append_number(out: &mut Vec<u8>, mut n: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// A value as JSON.
pub(crate) trait Put {
    fn put(&self, sink: &mut Sink<'_>);
}

macro_rules! numbers {
    ($($t:ty),*) => {$(
        impl Put for $t {
            fn put(&self, sink: &mut Sink<'_>) {
                sink.number(u64::from(*self));
            }
        }
    )*};
}
numbers!(u8, u32, u64);

impl Put for bool {
    fn put(&self, sink: &mut Sink<'_>) {
        sink.raw(if *self { b"true" } else { b"false" });
    }
}

impl Put for f64 {
    fn put(&self, sink: &mut Sink<'_>) {
        // A number always can be written; what is none is null.
        sink.raw(serde_json::to_string(self).unwrap_or_default().as_bytes());
    }
}

impl Put for String {
    fn put(&self, sink: &mut Sink<'_>) {
        sink.text(self);
    }
}

impl Put for JobId {
    fn put(&self, sink: &mut Sink<'_>) {
        sink.raw(b"\"");
        sink.number(u64::from(self.0));
        sink.raw(b"\"");
    }
}

impl Put for Timestamp {
    fn put(&self, sink: &mut Sink<'_>) {
        match self.text() {
            Some(text) => {
                sink.raw(b"\"");
                sink.raw(&text);
                sink.raw(b"\"");
            }
            None => sink.text(&self.to_string()),
        }
    }
}

impl Put for Level {
    fn put(&self, sink: &mut Sink<'_>) {
        sink.text(match self {
            Level::Task => "task",
            Level::Step => "step",
            Level::Job => "job",
            Level::Host => "host",
        });
    }
}

impl Put for Via {
    fn put(&self, sink: &mut Sink<'_>) {
        sink.text(match self {
            Via::Prolog => "prolog",
            Via::Epilog => "epilog",
            Via::Batch => "batch",
            Via::Interactive => "interactive",
            Via::Step => "step",
        });
    }
}

impl<T: Put> Put for Option<T> {
    fn put(&self, sink: &mut Sink<'_>) {
        match self {
            Some(value) => value.put(sink),
            None => sink.raw(b"null"),
        }
    }
}

impl<T: Put> Put for Vec<T> {
    fn put(&self, sink: &mut Sink<'_>) {
        sink.raw(b"[");
        for (n, value) in self.iter().enumerate() {
            if n > 0 {
                sink.raw(b",");
            }
            value.put(sink);
        }
        sink.raw(b"]");
    }
}

impl Put for BTreeMap<String, String> {
    fn put(&self, sink: &mut Sink<'_>) {
        sink.raw(b"{");
        for (n, (key, value)) in self.iter().enumerate() {
            if n > 0 {
                sink.raw(b",");
            }
            sink.text(key);
            sink.raw(b":");
            sink.text(value);
        }
        sink.raw(b"}");
    }
}

macro_rules! objects {
    ($($t:ty),*) => {$(
        impl Put for $t {
            fn put(&self, sink: &mut Sink<'_>) {
                sink.object(|sink| self.put_fields(sink));
            }
        }
    )*};
}
objects!(Memory, Pressure, Victim);
