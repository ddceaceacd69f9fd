//! Times as Slurm's commands take them: `2026-11-21`, `2026-11-21T14:30`,
//! `now`, `now-2days`.

use inquest_journal::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

/// Units of a distance from now, in seconds, by how they begin.
const UNITS: [(&str, i64); 5] =
    [("second", 1), ("minute", 60), ("hour", 3600), ("day", 86_400), ("week", 604_800)];

/// The time that `text` means, in local time of `zone` unless it says an
/// offset; `None` when it cannot be understood.
pub fn when(text: &str, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let text = text.trim();
    if let Some(rest) = text.strip_prefix("now") {
        return Some(Timestamp(now.0.checked_add(distance(rest)?.checked_mul(1_000_000)?)?));
    }
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Some(Timestamp(at.as_microsecond()));
    }
    let civil = match text.parse::<DateTime>() {
        Ok(at) => at,
        Err(_) => text.parse::<Date>().ok()?.to_datetime(jiff::civil::Time::midnight()),
    };
    let at = zone.to_ambiguous_zoned(civil).compatible().ok()?;
    Some(Timestamp(at.timestamp().as_microsecond()))
}

/// `` , `-2days`, `+1hour`, `-90` (seconds), in seconds.
fn distance(text: &str) -> Option<i64> {
    if text.is_empty() {
        return Some(0);
    }
    let (sign, rest) = match text.split_at_checked(1)? {
        ("-", rest) => (-1, rest),
        ("+", rest) => (1, rest),
        _ => return None,
    };
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (count, unit) = (rest[..end].parse::<i64>().ok()?, &rest[end..]);
    let unit = match unit.strip_suffix('s').unwrap_or(unit) {
        "" => 1,
        word => UNITS.iter().find(|(name, _)| *name == word)?.1,
    };
    count.checked_mul(unit)?.checked_mul(sign)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_sacct_takes_them() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let now: Timestamp = "2026-11-21T12:00:00.000000Z".parse().unwrap();
        for (text, want) in [
            ("now", "2026-11-21T12:00:00.000000Z"),
            ("now-2days", "2026-11-19T12:00:00.000000Z"),
            ("now-1week", "2026-11-14T12:00:00.000000Z"),
            ("now+90", "2026-11-21T12:01:30.000000Z"),
            ("2026-11-20", "2026-11-19T22:00:00.000000Z"),
            ("2026-11-20T14:30", "2026-11-20T12:30:00.000000Z"),
            ("2026-11-20T14:30:05Z", "2026-11-20T14:30:05.000000Z"),
        ] {
            assert_eq!(when(text, now, &zone).map(|t| t.to_string()).as_deref(), Some(want), "{text}");
        }
        for text in ["", "noon", "now-", "now-2fortnights", "now*2", "2026-13-01", "now-99999999999999999999"]
        {
            assert_eq!(when(text, now, &zone), None, "{text}");
        }
    }
}
