//! The cheap question that is asked of every line: can it matter at all?
//!
//! A list of literals, so that the search runs at the speed of a vectorised
//! multi-string search. Every rule's match contains one of them; lines
//! without any are read by nobody.

use std::sync::LazyLock;

use regex::bytes::{Regex, RegexBuilder};

/// Fragments of words, short enough to serve several spellings.
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
    "No route",
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
    "HTTP 4",
    "code 4",
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
    "rash",
];

static TRIGGER: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = LITERALS
        .iter()
        .map(|l| regex::escape(l))
        .collect::<Vec<_>>()
        .join("|");
    RegexBuilder::new(&pattern)
        .unicode(false)
        .build()
        .expect("literals make a pattern")
});

/// The literals, for tools that run the same search beside ours.
pub fn literals() -> &'static [&'static str] {
    LITERALS
}

/// The compiled search, for use over whole blocks.
pub(crate) fn pattern() -> &'static Regex {
    &TRIGGER
}

/// The line holds one of the literals.
pub(crate) fn may_matter(line: &str) -> bool {
    TRIGGER.is_match(line.as_bytes())
}
