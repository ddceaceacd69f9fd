//! Numbers, bytes and durations as people read them, and as they write them for sbatch.

use std::fmt::Display;

/// `0 B`, `64.0 MiB`, `1.5 GiB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    // The logarithm picks the unit; above 1023.95 the text would be rounded up to 1024.0.
    let mut unit = (n.ilog2() / 10) as usize;
    let mut value = n as f64 / (1u64 << (unit * 10)) as f64;
    if value >= 1023.95 && unit < UNITS.len() {
        unit += 1;
        value /= 1024.0;
    }
    format!("{value:.1} {}", UNITS[unit - 1])
}

/// Microseconds as Slurm writes durations, `[D-]H:MM:SS`; with milliseconds
/// below a minute, where seconds are too coarse to tell deaths apart.
pub fn duration(us: i64) -> String {
    let sign = if us < 0 { "-" } else { "" };
    let ms = us.unsigned_abs() / 1000;
    let (s, ms) = (ms / 1000, ms % 1000);
    if s < 60 {
        return format!("{sign}{s}.{ms:03}s");
    }
    let (d, h, m, s) = (s / 86_400, s / 3600 % 24, s / 60 % 60, s % 60);
    if d > 0 { format!("{sign}{d}-{h:02}:{m:02}:{s:02}") } else { format!("{sign}{h}:{m:02}:{s:02}") }
}

/// `1 line is`, `2 lines are`: a number before the words for one or for many.
pub fn count<N: Copy + Display + TryInto<u64>>(n: N, one: &str, many: &str) -> String {
    format!("{n} {}", word(n, one, many))
}

/// The word for so many, where the number stands elsewhere.
pub fn word<'a, N: TryInto<u64>>(n: N, one: &'a str, many: &'a str) -> &'a str {
    if n.try_into().is_ok_and(|n| n == 1) { one } else { many }
}

/// MiB as sbatch takes them, rounded up to a size that people would write.
pub fn memory_words(mib: u64) -> String {
    let step = match mib {
        0..128 => 8,
        128..1024 => 50,
        1024..16_384 => 256,
        _ => 1024,
    };
    let mib = mib.div_ceil(step) * step;
    if mib.is_multiple_of(1024) { format!("{}G", mib / 1024) } else { format!("{mib}M") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_for_sbatch() {
        let written = [96, 97, 300, 1000, 1536, 24_576, 25_000].map(memory_words);
        assert_eq!(written, ["96M", "104M", "300M", "1000M", "1536M", "24G", "25G"]);
    }

    #[test]
    fn one_and_many() {
        let said = [-1, 0, 1, 2].map(|n| count(n, "line is", "lines are"));
        assert_eq!(said, ["-1 lines are", "0 lines are", "1 line is", "2 lines are"]);
    }

    #[test]
    fn sizes_and_times() {
        for (n, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (64 << 20, "64.0 MiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(n), text);
        }
        for (us, text) in [
            (0, "0.000s"),
            (1_234_567, "1.234s"),
            (62_000_000, "0:01:02"),
            (90_061_000_000, "1-01:01:01"),
            (-1_500_000, "-1.500s"),
        ] {
            assert_eq!(duration(us), text);
        }
    }
}
