//! Whether bytes are JSON, without making anything of them.

use inquest_journal::special;

/// Whether a name stands in the head of a line or in the store's envelope: a
/// body has no fields of these names.
fn is_taken(name: &[u8]) -> bool {
    matches!(
        name,
        b"v" | b"timestamp"
            | b"event_type"
            | b"severity"
            | b"source"
            | b"cluster"
            | b"node"
            | b"boot"
            | b"mono_us"
            | b"stream"
            | b"seq"
            | b"job_id"
            | b"step"
            | b"task"
            | b"run_id"
            | b"chunk_id"
            | b"utc"
    )
}

/// Deeper nesting is left to the general parser, which has a limit, too.
const DEPTH: u32 = 16;

/// Whether `bytes` end an object of which at least one field was read:
/// `}` or `,"field":value,...}`, with nothing behind it and no field whose
/// name is taken. The bytes are known to be UTF-8.
pub(super) fn is_tail_of_object(bytes: &[u8]) -> bool {
    let mut at = Scan { bytes, at: 0 };
    at.tail().is_some() && at.at == bytes.len()
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    fn next(&mut self) -> Option<u8> {
        let b = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(b)
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Our writers put no blanks; a line that has some is somebody else's.
    fn tail(&mut self) -> Option<()> {
        loop {
            match self.next()? {
                b'}' => return Some(()),
                b',' => {}
                _ => return None,
            }
            let from = self.at + 1;
            self.key()?;
            let name = &self.bytes[from..self.at - 2];
            if name.contains(&b'\\') || is_taken(name) {
                return None;
            }
            self.value(DEPTH)?;
        }
    }

    fn key(&mut self) -> Option<()> {
        if self.next()? != b'"' {
            return None;
        }
        self.string()?;
        (self.next()? == b':').then_some(())
    }

    fn value(&mut self, depth: u32) -> Option<()> {
        match self.next()? {
            b'"' => self.string(),
            b'0'..=b'9' | b'-' => {
                self.at -= 1;
                self.number()
            }
            b't' => self.word(b"rue"),
            b'f' => self.word(b"alse"),
            b'n' => self.word(b"ull"),
            open @ (b'{' | b'[') if depth > 0 => self.list(open == b'{', depth - 1),
            _ => None,
        }
    }

    fn list(&mut self, object: bool, depth: u32) -> Option<()> {
        let close = if object { b'}' } else { b']' };
        if self.peek()? == close {
            self.at += 1;
            return Some(());
        }
        loop {
            if object {
                self.key()?;
            }
            self.value(depth)?;
            match self.next()? {
                b',' => {}
                b if b == close => return Some(()),
                _ => return None,
            }
        }
    }

    fn word(&mut self, rest: &[u8]) -> Option<()> {
        let there = self.bytes[self.at..].starts_with(rest);
        self.at += rest.len();
        there.then_some(())
    }

    /// From behind the opening quote to behind the closing one.
    fn string(&mut self) -> Option<()> {
        loop {
            // Eight bytes at once: a byte that is a quote, a backslash or a
            // control character has its high bit set in `found`.
            while let Some(eight) = self.bytes.get(self.at..self.at + 8) {
                let n = u64::from_le_bytes(eight.try_into().ok()?);
                let found = special(n);
                if found != 0 {
                    self.at += (found.trailing_zeros() / 8) as usize;
                    break;
                }
                self.at += 8;
            }
            match self.next()? {
                b'"' => return Some(()),
                b'\\' => match self.next()? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                    b'u' => {
                        let hex = self.bytes.get(self.at..self.at + 4)?;
                        if !hex.iter().all(u8::is_ascii_hexdigit) {
                            return None;
                        }
                        self.at += 4;
                    }
                    _ => return None,
                },
                0..0x20 => return None,
                _ => {}
            }
        }
    }

    fn number(&mut self) -> Option<()> {
        if self.peek()? == b'-' {
            self.at += 1;
        }
        match self.next()? {
            b'0' => {}
            b'1'..=b'9' => self.digits(),
            _ => return None,
        }
        // Fractions and exponents are rare and have corners (1e999): not here.
        (!matches!(self.peek()?, b'.' | b'e' | b'E' | b'0'..=b'9')).then_some(())
    }

    fn digits(&mut self) {
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            any::<String>().prop_map(|s| serde_json::to_string(&s).unwrap()),
            any::<i64>().prop_map(|n| n.to_string()),
            Just("true".to_owned()),
            Just("null".to_owned()),
            Just("[]".to_owned()),
        ];
        leaf.prop_recursive(4, 20, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(|v| format!("[{}]", v.join(","))),
                proptest::collection::vec((any::<String>(), inner), 0..4).prop_map(|v| {
                    let fields: Vec<String> =
                        v.iter().map(|(k, v)| format!("{}:{v}", serde_json::to_string(k).unwrap())).collect();
                    format!("{{{}}}", fields.join(","))
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn accepts_json(value in json()) {
            let tail = format!(",\"a\":{value}}}");
            prop_assert!(is_tail_of_object(tail.as_bytes()));
        }

        #[test]
        fn never_accepts_what_serde_refuses(
            value in json(), at in any::<proptest::sample::Index>(), with in ".{0,2}",
        ) {
            let mut tail = format!(",\"a\":{value}}}");
            let mut at = at.index(tail.len());
            while !tail.is_char_boundary(at) {
                at -= 1;
            }
            let next = tail[at..].chars().next().map_or(0, char::len_utf8);
            tail.replace_range(at..at + next, &with);
            if is_tail_of_object(tail.as_bytes()) {
                let whole = format!("{{\"x\":1{tail}");
                prop_assert!(serde_json::from_str::<serde::de::IgnoredAny>(&whole).is_ok(), "{whole}");
            }
        }
    }
}
