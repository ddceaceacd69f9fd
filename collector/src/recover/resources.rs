//! Memory and times in sbatch's own writing.

/// Whether sbatch takes it as memory: a number with K, M, G or T.
pub fn is_memory(text: &str) -> bool {
    let number = text.strip_suffix(['K', 'M', 'G', 'T', 'k', 'm', 'g', 't']).unwrap_or(text);
    !number.is_empty() && number.len() <= 12 && number.bytes().all(|b| b.is_ascii_digit())
}

/// Minutes as sbatch takes them, `[D-]HH:MM:00`, rounded up to a time that
/// people would write.
pub(super) fn time_words(minutes: u64) -> String {
    let step = match minutes {
        0..10 => 1,
        10..120 => 5,
        _ => 15,
    };
    let minutes = minutes.div_ceil(step) * step;
    let (d, h, m) = (minutes / 1440, minutes / 60 % 24, minutes % 60);
    if d > 0 { format!("{d}-{h:02}:{m:02}:00") } else { format!("{h:02}:{m:02}:00") }
}

/// Minutes, rounded up, of a time limit as Slurm writes it: `M`, `M:S`,
/// `H:M:S`, `D-H`, `D-H:M`, `D-H:M:S`. `None` for `UNLIMITED` and other words.
pub(super) fn minutes(text: &str) -> Option<i64> {
    let (days, rest) = match text.split_once('-') {
        Some((days, rest)) => (Some(days), rest),
        None => (None, text),
    };
    let digits = |s: &str| (1..=9).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_digit());
    let number = |s: &str| digits(s).then(|| s.parse::<i64>().ok()).flatten();
    let parts: Vec<i64> = rest.split(':').map(number).collect::<Option<_>>()?;
    let seconds = match (days, parts.as_slice()) {
        (None, [m]) => m * 60,
        (None, [m, s]) => m * 60 + s,
        (None, [h, m, s]) => h * 3600 + m * 60 + s,
        (Some(d), [h]) => number(d)? * 86_400 + h * 3600,
        (Some(d), [h, m]) => number(d)? * 86_400 + h * 3600 + m * 60,
        (Some(d), [h, m, s]) => number(d)? * 86_400 + h * 3600 + m * 60 + s,
        _ => return None,
    };
    Some((seconds + 59) / 60)
}

/// Whether sbatch takes it as a time limit.
pub fn is_time(text: &str) -> bool {
    minutes(text).is_some() || matches!(text, "UNLIMITED" | "INFINITE" | "unlimited" | "infinite")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_sbatch_writes_them() {
        for (text, m) in [
            ("90", 90),
            ("1:00", 1),
            ("1:01", 2),
            ("2:00:00", 120),
            ("1-0", 1440),
            ("1-2:30", 1590),
            ("1-00:00:01", 1441),
        ] {
            assert_eq!(minutes(text), Some(m), "{text}");
        }
        for bad in ["", "x", "1:2:3:4", "-", "1-", "-1", "UNLIMITED", "1:x", "99999999999"] {
            assert_eq!(minutes(bad), None, "{bad}");
        }
        assert_eq!(
            ["1", "90", "1500"].map(|m| time_words(m.parse().unwrap())),
            ["00:01:00", "01:30:00", "1-01:00:00"]
        );
        assert!(["16G", "500M", "1024"].iter().all(|m| is_memory(m)));
        assert!(["", "G", "1.5G", "16 G", "-1G", "16GB", "$(x)"].iter().all(|m| !is_memory(m)));
    }
}
