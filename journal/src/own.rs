/*!
Bodies as our own writers write them, read without the general parser.

A writer puts the fields of a record in the order of their declaration, without
blanks, and leaves absent ones out. So each field is looked for once, where it
must stand. Whatever looks different in any way is refused, and left to the
general parser: what is read here is what that one would read.
*/

use std::collections::BTreeMap;

use crate::{JobId, Timestamp};

/// A place in a line that is being read.
pub(crate) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

/// A value that can be read where it stands.
pub(crate) trait Own: Sized {
    /// Reads it and moves behind it; `None` when it looks different.
    fn own(at: &mut Cursor<'_>) -> Option<Self>;
}

/// The fields of a record, of which the first has `sep` before it and all
/// others a comma. They are read where the record is: it is large.
pub(crate) trait Fields: Default {
    fn fill(&mut self, at: &mut Cursor<'_>, sep: u8) -> Option<()>;
}

/// Reads a body from the comma before its first field, or from the brace that
/// ends the line; nothing may follow.
pub(crate) fn rest_of_line<T: Fields>(body: &mut T, rest: &str) -> Option<()> {
    let mut at = Cursor { text: rest, at: 0 };
    body.fill(&mut at, b',')?;
    matches!(&rest.as_bytes()[at.at..], b"}" | b",\"cut\":true}").then_some(())
}

impl<'a> Cursor<'a> {
    fn bytes(&self) -> &'a [u8] {
        self.text.as_bytes()
    }

    fn peek(&self) -> Option<u8> {
        self.bytes().get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let b = self.peek()?;
        self.at += 1;
        Some(b)
    }

    fn skip(&mut self, fixed: &[u8]) -> Option<()> {
        let there = self.bytes()[self.at..].starts_with(fixed);
        self.at += fixed.len();
        there.then_some(())
    }

    /// Whether a field begins here. `name` has its quotes and its colon.
    #[inline(always)] // `name` is known then, and compared in a few instructions.
    pub(crate) fn field(&mut self, sep: u8, name: &str) -> bool {
        let Some((first, rest)) = self.bytes()[self.at..].split_first() else { return false };
        let there = *first == sep && rest.starts_with(name.as_bytes());
        if there {
            self.at += 1 + name.len();
        }
        there
    }

    /// The inside of a string, and whether it needs unescaping.
    fn string(&mut self) -> Option<(&'a str, bool)> {
        self.skip(b"\"")?;
        let (from, mut escaped) = (self.at, false);
        loop {
            // Eight bytes at once, as long as none of them is special.
            while let Some(eight) = self.bytes().get(self.at..self.at + 8) {
                let found = special(u64::from_le_bytes(eight.try_into().ok()?));
                if found != 0 {
                    self.at += (found.trailing_zeros() / 8) as usize;
                    break;
                }
                self.at += 8;
            }
            match self.next()? {
                b'"' => return Some((self.text.get(from..self.at - 1)?, escaped)),
                b'\\' => {
                    escaped = true;
                    self.at += 1;
                }
                0..0x20 => return None,
                _ => {}
            }
        }
    }

    /// A string that needs no unescaping.
    fn plain(&mut self) -> Option<&'a str> {
        self.string().and_then(|(text, escaped)| (!escaped).then_some(text))
    }

    /// A number without sign, fraction or leading zero.
    fn number(&mut self) -> Option<u64> {
        let (from, mut n) = (self.at, 0u64);
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            n = n.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
            self.at += 1;
        }
        let digits = &self.bytes()[from..self.at];
        let whole = !digits.is_empty() && (digits[0] != b'0' || digits.len() == 1);
        (whole && !matches!(self.peek(), Some(b'.' | b'e' | b'E'))).then_some(n)
    }
}

const ONES: u64 = u64::from_ne_bytes([1; 8]);
const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);

/// Looks at eight bytes of JSON text at once: the lowest bit that is set in the
/// result is the high bit of the first byte that is `"`, `\` or below 0x20.
/// Bits above it say nothing.
pub fn special(n: u64) -> u64 {
    let equal = |b: u8| {
        let x = n ^ (ONES * u64::from(b));
        x.wrapping_sub(ONES) & !x
    };
    let control = n.wrapping_sub(ONES * 0x20) & !n;
    (equal(b'"') | equal(b'\\') | control) & HIGHS
}

impl<T: Own> Own for Option<T> {
    fn own(at: &mut Cursor<'_>) -> Option<Option<T>> {
        T::own(at).map(Some)
    }
}

impl<T: Own> Own for Vec<T> {
    fn own(at: &mut Cursor<'_>) -> Option<Vec<T>> {
        at.skip(b"[")?;
        let mut all = Vec::new();
        loop {
            all.push(T::own(at)?); // An empty list is left out of a line.
            match at.next()? {
                b',' => {}
                b']' => return Some(all),
                _ => return None,
            }
        }
    }
}

impl Own for BTreeMap<String, String> {
    fn own(at: &mut Cursor<'_>) -> Option<BTreeMap<String, String>> {
        at.skip(b"{")?;
        let mut all = BTreeMap::new();
        loop {
            let key = String::own(at)?;
            at.skip(b":")?;
            all.insert(key, String::own(at)?);
            match at.next()? {
                b',' => {}
                b'}' => return Some(all),
                _ => return None,
            }
        }
    }
}

impl Own for String {
    fn own(at: &mut Cursor<'_>) -> Option<String> {
        let from = at.at;
        match at.string()? {
            (text, false) => Some(text.to_owned()),
            (_, true) => serde_json::from_str(at.text.get(from..at.at)?).ok(),
        }
    }
}

impl Own for bool {
    fn own(at: &mut Cursor<'_>) -> Option<bool> {
        match at.next()? {
            b't' => at.skip(b"rue").map(|()| true),
            b'f' => at.skip(b"alse").map(|()| false),
            _ => None,
        }
    }
}

impl Own for f64 {
    fn own(_: &mut Cursor<'_>) -> Option<f64> {
        None // Rare, and not simple.
    }
}

macro_rules! numbers {
    ($($t:ty),*) => {
        $(impl Own for $t {
            fn own(at: &mut Cursor<'_>) -> Option<$t> {
                at.number()?.try_into().ok()
            }
        })*
    };
}
numbers!(u8, u32, u64);

macro_rules! texts {
    ($($t:ty),*) => {
        $(impl Own for $t {
            fn own(at: &mut Cursor<'_>) -> Option<$t> {
                at.plain()?.parse().ok()
            }
        })*
    };
}
texts!(JobId, Timestamp);

macro_rules! words {
    ($t:ident: $($variant:ident = $word:literal),*) => {
        impl Own for crate::$t {
            fn own(at: &mut Cursor<'_>) -> Option<crate::$t> {
                Some(match at.plain()? {
                    $($word => crate::$t::$variant,)*
                    _ => return None,
                })
            }
        }
    };
}
words!(Level: Task = "task", Step = "step", Job = "job", Host = "host");
words!(Via: Prolog = "prolog", Epilog = "epilog", Batch = "batch", Interactive = "interactive", Step = "step");

/// A record inside of another.
impl<T: Fields> Own for T {
    fn own(at: &mut Cursor<'_>) -> Option<T> {
        if at.bytes()[at.at..].starts_with(b"{}") {
            at.at += 2;
            return Some(T::default());
        }
        let mut record = T::default();
        record.fill(at, b'{')?;
        (at.next()? == b'}').then_some(record)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{Body, Header, Level, Severity, Source, Stamp, Via, encode};
    use proptest::prelude::*;

    /// Made of the numbers that `r` yields.
    pub(crate) trait Made {
        fn made(r: &mut dyn FnMut(u64) -> u64) -> Self;
    }

    impl<T: Made> Made for Option<T> {
        fn made(r: &mut dyn FnMut(u64) -> u64) -> Option<T> {
            (r(3) > 0).then(|| T::made(r))
        }
    }

    impl<T: Made> Made for Vec<T> {
        fn made(r: &mut dyn FnMut(u64) -> u64) -> Vec<T> {
            (0..r(4)).map(|_| T::made(r)).collect()
        }
    }

    impl Made for BTreeMap<String, String> {
        fn made(r: &mut dyn FnMut(u64) -> u64) -> BTreeMap<String, String> {
            (0..r(4)).map(|_| (String::made(r), String::made(r))).collect()
        }
    }

    impl Made for String {
        fn made(r: &mut dyn FnMut(u64) -> u64) -> String {
            let of = [
                "",
                "x",
                "/lustre/a b",
                "two \"quotes\"",
                "\\",
                "\u{1}\n",
                "größer",
                "{\"a\":[1]}",
                "a long one, longer than eight",
            ];
            of[r(of.len() as u64) as usize].to_owned()
        }
    }

    impl Made for bool {
        fn made(r: &mut dyn FnMut(u64) -> u64) -> bool {
            r(2) > 0
        }
    }

    impl Made for f64 {
        fn made(r: &mut dyn FnMut(u64) -> u64) -> f64 {
            r(1000) as f64 / 8.0
        }
    }

    macro_rules! numbers {
        ($($t:ty),*) => {
            $(impl Made for $t {
                fn made(r: &mut dyn FnMut(u64) -> u64) -> $t {
                    [0, 1, 10, <$t>::MAX / 3, <$t>::MAX][r(5) as usize]
                }
            })*
        };
    }
    numbers!(u8, u32, u64);

    impl Made for JobId {
        fn made(r: &mut dyn FnMut(u64) -> u64) -> JobId {
            JobId(u32::made(r))
        }
    }

    impl Made for Timestamp {
        fn made(r: &mut dyn FnMut(u64) -> u64) -> Timestamp {
            Timestamp(r(4_102_444_800_000_000).cast_signed())
        }
    }

    impl Made for Level {
        fn made(r: &mut dyn FnMut(u64) -> u64) -> Level {
            [Level::Task, Level::Step, Level::Job, Level::Host][r(4) as usize]
        }
    }

    impl Made for Via {
        fn made(r: &mut dyn FnMut(u64) -> u64) -> Via {
            [Via::Prolog, Via::Epilog, Via::Batch, Via::Interactive, Via::Step][r(5) as usize]
        }
    }

    /// The line, and where its body begins.
    fn line(body: &Body) -> (String, usize) {
        let header = Header {
            stamp: Stamp::default(),
            severity: Severity::Info,
            source: Source::Plugin,
            cluster: "lab",
            node: "n1",
            boot: "b",
            stream: "s",
            seq: 0,
            job_id: Some(JobId(7)),
            step: None,
            task: Some(1),
        };
        let mut line = Vec::new();
        encode(&mut line, &header, body);
        line.pop();
        let line = String::from_utf8(line).unwrap();
        let head = line.find(",\"task\":1").unwrap() + ",\"task\":1".len();
        (line, head)
    }

    proptest! {
        // The general parser is the model, for what our writer writes and for
        // what became of it.
        #[test]
        fn reads_what_the_general_parser_reads(
            numbers in proptest::collection::vec(any::<u64>(), 1..200), which in any::<proptest::sample::Index>(),
            damage in proptest::option::of((any::<proptest::sample::Index>(), 0u8..128)),
        ) {
            let mut next = numbers.iter().cycle();
            let mut made = Body::made(&mut |end| next.next().unwrap() % end);
            let body = made.swap_remove(which.index(made.len()));
            let (mut line, at) = line(&body);
            if let Some((place, byte)) = damage {
                let mut bytes = line.clone().into_bytes();
                let place = at + place.index(bytes.len() - at);
                bytes[place] = byte;
                let Ok(damaged) = String::from_utf8(bytes) else { return Ok(()) };
                line = damaged;
            }
            let whole = format!("{{{}", line[at..].strip_prefix(',').unwrap_or(&line[at..]));
            let theirs = Body::parse(body.event_type(), whole.as_bytes()).unwrap().ok();
            let ours = Body::own(body.event_type(), &line[at..]).map(|body| *body);
            if ours.is_some() {
                prop_assert_eq!(&ours, &theirs);
            }
            if damage.is_none() && !matches!(body, Body::MemoryHigh(_) | Body::Note(_)) {
                prop_assert!(ours.is_some(), "{line}");
            }
        }
    }
}
