//! A name for a failure that is the same on every node and in every run.

use std::fmt;
use std::sync::LazyLock;

use regex::Regex;
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64;

/// Raised whenever [`normalise`] changes, since stored fingerprints are
/// compared by equality.
pub const VERSION: u8 = 1;

/// A versioned hash of a normalised message, written as `1-0123456789abcdef`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// The text form.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The fingerprint of a message.
pub fn fingerprint(message: &str) -> Fingerprint {
    Fingerprint(format!("{VERSION}-{:016x}", xxh3_64(normalise(message).as_bytes())))
}

// Order matters: what contains other forms goes first.
static STEPS: LazyLock<Vec<(Regex, &'static str)>> = LazyLock::new(|| {
    [
        (r"\b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b", "<uuid>"),
        (r"\b0x[0-9a-fA-F]+\b", "<addr>"),
        (r"\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?", "<time>"),
        (r"\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? (?:[A-Z][a-z]{2}) +\d{1,2} [\d:]+(?: [A-Z]{3,4})?(?: \d{4})?", "<time>"),
        (r"\b\d{1,3}:\d\d(?::\d\d)?(?:[.,]\d+)?\b", "<time>"),
        (r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b", "<host>"),
        (r"\b[a-z][a-z0-9+.-]*://[^\s'\x22<>)]+", "<url>"),
        // Slurm's "on NODE", "ON NODE", "host: task 3", "node NAME".
        (r"\b(?P<w>ON|on node|on host|[Nn]ode failure on|[Hh]ost|[Nn]ode|rank on)(?P<s>[ :=]+)[A-Za-z][\w.\-\[\],]*\d[\w.\-\[\],]*", "$w$s<host>"),
        (r"^(?P<w>(?:\S+: )?(?:srun|slurmstepd): error: )[\w.\-]+(?P<s>: tasks? )[\d,\-\[\]]+", "${w}<host>$s<n>"),
        (r"^slurmstepd-[\w.\-]+:", "slurmstepd:"),
        (r"^\[[\w.\-]+:\d+(?::\d+)*\]", "[<host>]"),
        (r"\b[A-Za-z][\w\-]*\d[\w\-]*(?:\.[A-Za-z][\w\-]*){2,}\b", "<host>"),
        (r"(?:~|\.{1,2}|[A-Za-z]:)?(?:[/\\][^/\\\s:;,'\x22()\[\]<>|]+)+[/\\](?P<base>[^/\\\s:;,'\x22()\[\]<>|]+)", "<path>/$base"),
        (r"\b[0-9a-fA-F]{12,64}\b", "<id>"),
        (r"\b[0-9a-f]*(?:[0-9][a-f]|[a-f][0-9])[0-9a-f]{5,}\b", "<id>"),
        (r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?", "<n>"),
        (r"\s+", " "),
    ]
    .into_iter()
    .map(|(p, r)| (Regex::new(p).expect("a pattern of this file compiles"), r))
    .collect()
});

/// The message with everything taken out that differs between two
/// occurrences of the same failure: numbers, directories, addresses, times,
/// ids and hosts.
pub fn normalise(message: &str) -> String {
    let line = super::text::clean(1, message);
    let mut s = if line.text.trim().is_empty() { line.quote } else { line.text };
    s.truncate(floor(&s, 1024));
    for (pattern, with) in STEPS.iter() {
        if let std::borrow::Cow::Owned(new) = pattern.replace_all(&s, *with) {
            s = new;
        }
    }
    s.trim().to_owned()
}

fn floor(s: &str, mut at: usize) -> usize {
    if at >= s.len() {
        return s.len();
    }
    while !s.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_failure_same_name() {
        for (a, b) in [
            ("FileNotFoundError: '/scratch/a/run1/x.csv'", "FileNotFoundError: '/scratch/b/c/x.csv'"),
            (
                "slurmstepd: error: *** JOB 12 ON n001 CANCELLED AT 2024-01-02T03:04:05 ***",
                "slurmstepd: error: *** JOB 99 ON gpu-a7 CANCELLED AT 2025-11-12T13:14:15 ***",
            ),
            ("[rank0]: RuntimeError: step 17 at 0x7f00aa", "[rank31]: RuntimeError: step 4 at 0x55aa01"),
            (
                "srun: error: node7: task 3: Segmentation fault",
                "srun: error: c12-4: tasks 0-3,9: Segmentation fault",
            ),
            (
                "job 6ba7b810-9dad-11d1-80b4-00c04fd430c8 lost",
                "job 00000000-9dad-11d1-80b4-00c04fd430c8 lost",
            ),
        ] {
            assert_eq!(normalise(a).replace("tasks", "task"), normalise(b).replace("tasks", "task"));
        }
    }

    #[test]
    fn different_failures_differ() {
        assert_ne!(fingerprint("KeyError: 'alpha'"), fingerprint("KeyError: 'beta'"));
        assert_ne!(fingerprint("cannot open /a/x.csv"), fingerprint("cannot open /a/y.csv"));
    }

    /// A stored fingerprint must be found again: a change here is a new VERSION.
    #[test]
    fn is_stable() {
        assert_eq!(normalise("error 5 in /a/b/c.txt at 0xff"), "error <n> in <path>/c.txt at <addr>");
    }
}
