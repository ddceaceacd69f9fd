//! Times as text, at a rate of millions a second.

use std::io::Write;

use inquest_journal::Timestamp;
use jiff::tz::TimeZone;

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

/// Every change of an offset in force since 1972 is at a whole quarter of an hour.
const QUARTER: i64 = 900 * SECOND;

/// Writes times in one zone, and remembers what neighbours in time share.
#[derive(Debug)]
pub struct Clock {
    zone: TimeZone,
    /// A quarter of an hour since 1970, its offset in microseconds, and that
    /// offset as text.
    quarter: Option<(i64, i64, String)>,
    /// Two days and their text: the local one and that of UTC.
    days: [Option<(i64, String)>; 2],
    second: Option<Second>,
    scratch: Vec<u8>,
}

/// A second as text.
#[derive(Debug)]
struct Second {
    utc: [u8; 19],
    local: [u8; 19],
    offset: [u8; 5],
}

impl Clock {
    /// A clock that shows the time of `zone`.
    pub fn new(zone: TimeZone) -> Clock {
        Clock { zone, quarter: None, days: [None, None], second: None, scratch: Vec::new() }
    }

    /// Appends `2026-02-21T14:30:01.234-0500`, as parade writes and reads it.
    pub fn local(&mut self, out: &mut Vec<u8>, at: Timestamp) {
        let quarter = at.0.div_euclid(QUARTER);
        if self.quarter.as_ref().is_none_or(|(known, ..)| *known != quarter) {
            let Ok(instant) = jiff::Timestamp::from_microsecond(at.0) else {
                let _ = write!(out, "{at}"); // Memory does not fail.
                return;
            };
            let seconds = self.zone.to_offset(instant).seconds();
            let (sign, minutes) = (if seconds < 0 { '-' } else { '+' }, seconds.abs() / 60);
            let text = format!("{sign}{:02}{:02}", minutes / 60, minutes % 60);
            self.quarter = Some((quarter, i64::from(seconds) * SECOND, text));
        }
        if let Some((_, offset, text)) = &self.quarter {
            let us = write(&mut self.days[0], out, at.0 + offset);
            out.push(b'.');
            digits(out, us / 1000, 3);
            out.extend_from_slice(text.as_bytes());
        }
    }

    /// Appends what [`Clock::local`] does, for a time of which `text` is the
    /// text. Says `false`, and appends nothing, when [`Clock::utc`] would
    /// write that in another way.
    pub fn local_of(&mut self, out: &mut Vec<u8>, at: Timestamp, text: &[u8]) -> bool {
        let Some((utc, rest)) = text.split_first_chunk() else { return false };
        if self.second.as_ref().is_none_or(|s| s.utc != *utc) {
            self.second = self.second_of(at, text);
        }
        let (Some(second), Some(millis)) = (&self.second, rest.first_chunk::<4>()) else { return false };
        out.extend_from_slice(&second.local);
        out.extend_from_slice(millis);
        out.extend_from_slice(&second.offset);
        true
    }

    fn second_of(&mut self, at: Timestamp, text: &[u8]) -> Option<Second> {
        let mut known = std::mem::take(&mut self.scratch);
        known.clear();
        self.utc(&mut known, at);
        let utc = (known == text).then(|| known.first_chunk().copied());
        known.clear();
        self.local(&mut known, at);
        let local =
            (known.len() == 28).then(|| known.first_chunk().copied().zip(known.last_chunk().copied()));
        self.scratch = known;
        let (utc, (local, offset)) = utc.flatten().zip(local.flatten())?;
        Some(Second { utc, local, offset })
    }

    /// Appends `2026-02-21T19:30:01.234567Z`.
    pub fn utc(&mut self, out: &mut Vec<u8>, at: Timestamp) {
        let us = write(&mut self.days[1], out, at.0);
        out.push(b'.');
        digits(out, us, 6);
        out.push(b'Z');
    }
}

/// Appends day and time to the second; says the microseconds that are left.
fn write(day: &mut Option<(i64, String)>, out: &mut Vec<u8>, us: i64) -> i64 {
    let number = us.div_euclid(DAY);
    if day.as_ref().is_none_or(|(known, _)| *known != number) {
        *day = Some((number, Timestamp(us).day()));
    }
    if let Some((_, text)) = day {
        out.extend_from_slice(text.as_bytes());
    }
    let left = us.rem_euclid(DAY);
    let seconds = left / SECOND;
    out.push(b'T');
    digits(out, seconds / 3600, 2);
    out.push(b':');
    digits(out, seconds / 60 % 60, 2);
    out.push(b':');
    digits(out, seconds % 60, 2);
    left % SECOND
}

fn digits(out: &mut Vec<u8>, n: i64, count: usize) {
    let mut text = [b'0'; 6];
    let mut left = n;
    for place in text[..count].iter_mut().rev() {
        *place = b'0' + (left % 10) as u8;
        left /= 10;
    }
    out.extend_from_slice(&text[..count]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        // jiff is the reference, over the time in which there was a Slurm.
        #[test]
        fn agrees_with_jiff(
            zone in proptest::sample::select(vec![
                "UTC", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Casablanca",
            ]),
            times in proptest::collection::vec(946_684_800_000_000i64..4_102_444_800_000_000, 1..20),
        ) {
            let Ok(zone) = TimeZone::get(zone) else { return Ok(()) };
            let mut clock = Clock::new(zone.clone());
            for us in times {
                let mut text = Vec::new();
                clock.local(&mut text, Timestamp(us));
                let zoned = jiff::Timestamp::from_microsecond(us).unwrap().to_zoned(zone.clone());
                prop_assert_eq!(String::from_utf8(text).unwrap(), zoned.strftime("%Y-%m-%dT%H:%M:%S.%3f%z").to_string());
                let mut text = Vec::new();
                clock.utc(&mut text, Timestamp(us));
                prop_assert_eq!(String::from_utf8(text).unwrap(), Timestamp(us).to_string());
            }
        }

        /// However the times before were written.
        #[test]
        fn a_known_text_makes_no_difference(
            hours in -9i64..9, times in proptest::collection::vec((0i64..3, 0i64..1_000_000), 1..20),
        ) {
            let mut clock = Clock::new(TimeZone::fixed(jiff::tz::offset(hours as i8)));
            for (second, us) in times {
                // The last of them is none that our writers write.
                let at = Timestamp(1_771_702_199_000_000 + second * 1_000_000 + us);
                let text = at.to_string();
                let text = if second == 2 { text.replace("T19:30:01", "T19:29:61") } else { text };
                let (mut known, mut copied) = (Vec::new(), Vec::new());
                clock.local(&mut known, at);
                prop_assert_eq!(clock.local_of(&mut copied, at, text.as_bytes()), second < 2);
                prop_assert_eq!(copied, if second < 2 { known } else { Vec::new() });
            }
        }
    }
}
