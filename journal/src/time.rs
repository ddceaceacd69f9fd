//! Wall clock and boot clock, and the one text form of a time.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Microseconds since 1970-01-01T00:00:00Z. Its text form is RFC 3339 UTC
/// with six digits, `2026-11-21T14:30:01.234567Z`, in every file we write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

/// Both clocks at one moment. The wall clock can be stepped; order inside one
/// boot of one node is decided by the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// CLOCK_REALTIME.
    pub wall: Timestamp,
    /// CLOCK_BOOTTIME in microseconds.
    pub mono_us: u64,
}

impl Stamp {
    /// Reads both clocks (two vDSO calls).
    pub fn now() -> Stamp {
        let wall = clock_us(libc::CLOCK_REALTIME);
        let mono = clock_us(libc::CLOCK_BOOTTIME);
        Stamp { wall: Timestamp(wall), mono_us: u64::try_from(mono).unwrap_or(0) }
    }
}

fn clock_us(clock: libc::clockid_t) -> i64 {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: ts is a valid, writable timespec. A clock that the kernel lacks
    // leaves it zero, which reads as 1970 and not as garbage.
    unsafe { libc::clock_gettime(clock, &mut ts) };
    // The casts are no-ops on 64-bit and widen on 32-bit.
    #[allow(clippy::unnecessary_cast)]
    (ts.tv_sec as i64).saturating_mul(1_000_000).saturating_add(ts.tv_nsec as i64 / 1_000)
}

const DAY_US: i64 = 86_400_000_000;

impl Timestamp {
    /// The UTC day as `2026-11-21`, the name of a journal file.
    pub fn day(self) -> String {
        if let Some(text) = self.text() {
            return String::from_utf8_lossy(&text[..10]).into_owned();
        }
        let (y, m, d) = civil_from_days(self.0.div_euclid(DAY_US));
        format!("{y:04}-{m:02}-{d:02}")
    }

    /// Days since 1970-01-01, for comparing days without text.
    pub fn day_number(self) -> i64 {
        self.0.div_euclid(DAY_US)
    }

    /// Microseconds from `earlier` to `self`; negative when it is later.
    pub fn since(self, earlier: Timestamp) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Timestamp {
    /// The text form without the machinery of `fmt`, which would be a tenth of
    /// the time that a hook has; `None` outside the years of four digits.
    pub(crate) fn text(self) -> Option<[u8; 27]> {
        let (y, mo, d) = civil_from_days(self.0.div_euclid(DAY_US));
        if !(0..=9999).contains(&y) {
            return None;
        }
        let us = self.0.rem_euclid(DAY_US);
        let (s, us) = (us / 1_000_000, us % 1_000_000);
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        let parts = [
            (0..4, y),
            (5..7, mo),
            (8..10, d),
            (11..13, s / 3600),
            (14..16, s / 60 % 60),
            (17..19, s % 60),
            (20..26, us),
        ];
        for (place, mut n) in parts {
            for digit in text[place].iter_mut().rev() {
                *digit += (n % 10) as u8;
                n /= 10;
            }
        }
        Some(text)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (y, mo, d) = civil_from_days(self.0.div_euclid(DAY_US));
        let us = self.0.rem_euclid(DAY_US);
        let (s, us) = (us / 1_000_000, us % 1_000_000);
        let (h, mi, s) = (s / 3600, s / 60 % 60, s % 60);
        write!(f, "{y:04}-{mo:02}-{d:02}T{h:02}:{mi:02}:{s:02}.{us:06}Z")
    }
}

/// A text that is no RFC 3339 UTC time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadTime;

impl fmt::Display for BadTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a time of the form 2026-11-21T14:30:01.234567Z")
    }
}

impl FromStr for Timestamp {
    type Err = BadTime;

    /// Accepts 0 to 9 digits of a second; more than six are cut.
    fn from_str(s: &str) -> Result<Timestamp, BadTime> {
        let b = s.as_bytes();
        if let Some(at) = b.try_into().ok().and_then(of_text) {
            return Ok(at);
        }
        let num = |from: usize, len: usize| -> Result<i64, BadTime> {
            let digits = b.get(from..from + len).ok_or(BadTime)?;
            digits.iter().try_fold(0i64, |n, c| match c {
                b'0'..=b'9' => Ok(n * 10 + i64::from(c - b'0')),
                _ => Err(BadTime),
            })
        };
        let sep = |at: usize, c: u8| if b.get(at) == Some(&c) { Ok(()) } else { Err(BadTime) };
        let (y, mo, d) = (num(0, 4)?, num(5, 2)?, num(8, 2)?);
        let (h, mi, s) = (num(11, 2)?, num(14, 2)?, num(17, 2)?);
        sep(4, b'-')?;
        sep(7, b'-')?;
        sep(10, b'T')?;
        sep(13, b':')?;
        sep(16, b':')?;
        if !is_time(mo, d, h, mi, s) {
            return Err(BadTime);
        }
        let mut at = 19;
        let mut us = 0;
        if b.get(at) == Some(&b'.') {
            at += 1;
            let mut scale = 100_000;
            let start = at;
            while let Some(c) = b.get(at).filter(|c| c.is_ascii_digit()) {
                us += i64::from(c - b'0') * scale;
                scale /= 10;
                at += 1;
            }
            if at == start || at > start + 9 {
                return Err(BadTime);
            }
        }
        if &b[at..] != b"Z" {
            return Err(BadTime);
        }
        Ok(of_parts([y, mo, d, h, mi, s, us]))
    }
}

/// The form of [`Timestamp::text`], which is nearly every time that is read:
/// all of it is looked at together.
fn of_text(text: &[u8; 27]) -> Option<Timestamp> {
    const FORM: &[u8; 27] = b"0000-00-00T00:00:00.000000Z";
    let (mut n, mut right) = ([0; 27], true);
    for ((n, c), form) in n.iter_mut().zip(text).zip(FORM) {
        *n = c.wrapping_sub(*form);
        right &= *n <= if *form == b'0' { 9 } else { 0 };
    }
    if !right {
        return None;
    }
    let two = |at: usize| i64::from(n[at] * 10 + n[at + 1]);
    let [mo, d, h, mi, s] = [5, 8, 11, 14, 17].map(two);
    let us = two(20) * 10_000 + two(22) * 100 + two(24);
    is_time(mo, d, h, mi, s).then(|| of_parts([two(0) * 100 + two(2), mo, d, h, mi, s, us]))
}

fn is_time(mo: i64, d: i64, h: i64, mi: i64, s: i64) -> bool {
    (1..=12).contains(&mo) && (1..=31).contains(&d) && h <= 23 && mi <= 59 && s <= 60
}

fn of_parts([y, mo, d, h, mi, s, us]: [i64; 7]) -> Timestamp {
    Timestamp(days_from_civil(y, mo, d) * DAY_US + (h * 3600 + mi * 60 + s) * 1_000_000 + us)
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let Some(text) = self.text() else { return s.collect_str(self) };
        s.serialize_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Timestamp, D::Error> {
        crate::id::parse_str(d)
    }
}

#[cfg(feature = "schema")]
crate::schema::text_schema!(Timestamp, "Timestamp", r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z$");

// The proleptic Gregorian calendar in days since 1970-01-01, by the usual
// trick of years that begin in March. The plugin may not carry a time library.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let d = doy - (153 * mp + 2) / 5 + 1;
    let m = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(m <= 2), m, d)
}

fn days_from_civil(y: i64, m: i64, d: i64) -> i64 {
    let y = y - i64::from(m <= 2);
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let mp = (m + 9) % 12;
    let doy = (153 * mp + 2) / 5 + d - 1;
    let doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    era * 146_097 + doe - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn both_ways_to_write_a_time_agree(us in any::<i64>()) {
            let json = serde_json::to_string(&Timestamp(us)).unwrap();
            prop_assert_eq!(json, format!("\"{}\"", Timestamp(us)));
        }

        // jiff is the reference; years 0 to 9999 are what the text form holds.
        #[test]
        fn text_agrees_with_jiff(us in -62_167_219_200_000_000i64..253_402_207_200_000_000) {
            let ours = Timestamp(us).to_string();
            let theirs = jiff::Timestamp::from_microsecond(us).unwrap();
            prop_assert_eq!(&ours, &format!("{theirs:.6}"));
            prop_assert_eq!(ours.parse::<Timestamp>(), Ok(Timestamp(us)));
            prop_assert_eq!(&Timestamp(us).day(), &ours[..10]);
        }

        #[test]
        fn any_text_is_parsed_or_refused(s in any::<String>()) {
            let _ = s.parse::<Timestamp>();
        }
    }

    #[test]
    fn refuses_what_is_not_utc() {
        for bad in
            ["", "2026-11-21", "2026-11-21T14:30:01+01:00", "2026-13-21T14:30:01Z", "2026-11-21T14:30:01.Z"]
        {
            assert_eq!(bad.parse::<Timestamp>(), Err(BadTime), "{bad}");
        }
    }
}
