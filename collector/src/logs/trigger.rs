//! The cheap question that is asked of every line: can it matter at all?
//!
//! A list of literals, so that the search runs at the speed of a vectorised
//! multi-string search. Every rule's match contains one of them; lines
//! without any are read by nobody.

use std::ops::Range;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

/// Fragments of words, short enough to serve several spellings. None has a
/// digit: see [`super::kinds`].
const LITERALS: &[&str] = &[
    "rror",
    "ERROR",
    "xception",
    "EXCEPTION",
    "raceback",
    "ailed",
    "ailure",
    "FAIL",
    "atal",
    "FATAL",
    "bort",
    "ABORT",
    "illed",
    "KILLED",
    "ignal",
    "SIG",
    "egmentation",
    "egfault",
    "panic",
    "CANCELLED",
    "DUE ",
    "OOM",
    "oom-",
    "oom_",
    "f memory",
    "f Memory",
    "enough",
    "nsufficient",
    "llocat",
    "annot",
    "an't",
    "can not",
    "ould not",
    "nable to",
    "o such",
    "No module",
    "No CUDA",
    "No GPU",
    "No HIP",
    "No NVIDIA",
    "No ROC",
    "No conv",
    "No cand",
    "Please verify that",
    "Forbidden",
    "nauthorized",
    "onverged",
    "No route",
    "No rule",
    "No dev",
    "No lic",
    "No valid",
    "No avail",
    "No match",
    "No JSON",
    "No gen",
    "No address",
    "No Gurobi",
    "No more",
    "No trans",
    "No space",
    "No rem",
    " no ",
    "not ",
    "NOT ",
    "enied",
    "quota",
    "Quota",
    "QUOTA",
    "space left",
    "nvalid",
    "imeout",
    "imed out",
    "TIMEOUT",
    "xceeded",
    "xceeds",
    "halted",
    "icense",
    "LICENSE",
    "iverge",
    "DIVERGED",
    "HTTP",
    "nterrupt",
    "Exit",
    "exit",
    "EXIT",
    "ncorrect",
    "llegal",
    "ssert",
    "Xid",
    "fallen off",
    "mismatch",
    "issing",
    "nknown",
    "core dumped",
    "TERM_",
    "PREEMPT",
    "preempt",
    "NODE_",
    "STATE",
    "State",
    "odes ",
    "lost",
    "verloaded",
    "empty",
    "EMPTY",
    "onnection",
    "limit",
    "Limit",
    "UCX",
    "NCCL",
    "MPI",
    "PMI",
    "Bus e",
    "what()",
    "broken",
    "Broken",
    "redit",
    "illing",
    "must ",
    "eadlock",
    "atchdog",
    "unbound",
    "singular",
    "Expired",
    "unlocked",
    "urllib",
    "caught",
    "Caught",
    "aused",
    "STOP",
    "ZBRENT",
    "EDDDAV",
    "BRMIX",
    "terminat",
    "Terminat",
    "too ",
    "TOO ",
    "Too ",
    "rejected",
    "NaN",
    "nan",
    "Stale",
    "tale ",
    "ndefined",
    "Unrecognized",
    "nrecognized",
    "ngine",
    "died",
    "equires",
    "oes not",
    "is a directory",
    "command ",
    "require",
    "usage:",
    "orrupt",
    "alformed",
    "nexpected",
    "nterminated",
    "nstable",
    "arning",
    "WARN",
    "✗",
    "❌",
    "rashed",
    "sigF",
    "sigS",
    "REFUSE",
    "KDC",
    "giving up",
    "EEEEE",
    "message: |",
    "attempt to",
    "gradient",
    "locked memory",
    "rash",
];

// A table of states is half as long again in the making as the other kinds, and
// twice as fast. Any match will do, so the first that ends is taken.
static TRIGGER: LazyLock<AhoCorasick> = LazyLock::new(|| {
    AhoCorasick::builder()
        .match_kind(MatchKind::Standard)
        .kind(Some(AhoCorasickKind::DFA))
        .build(LITERALS)
        .expect("literals make a search")
});

/// The literals, for tools that run the same search beside ours.
pub fn literals() -> &'static [&'static str] {
    LITERALS
}

/// Where one of the literals stands, for use over whole blocks.
pub(crate) fn find(block: &[u8]) -> Option<Range<usize>> {
    TRIGGER.find(block).map(|m| m.range())
}

/// The text holds one of the literals.
pub(crate) fn may_matter(text: &[u8]) -> bool {
    find(text).is_some()
}

#[cfg(test)]
mod tests {
    /// Lines that differ in digits alone are judged together.
    #[test]
    fn no_literal_has_a_digit() {
        assert!(super::LITERALS.iter().all(|l| !l.bytes().any(|b| b.is_ascii_digit() || b == 0)));
    }
}
