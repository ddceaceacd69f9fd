//! What tools print when they reached their end.

use std::sync::LazyLock;

use regex::bytes::RegexSet;

use super::set;

/// A tool's own statement that all of its work was done. What failed before
/// was survived.
const COMPLETE: &[&str] = &[
    r"\b\d+ of \d+ steps \(100%\) done\b",
    r"\bfailedCount=0;.*abortedCount=0;",
    r"(?i)\bpipeline completed successfully\b",
    r"(?i)\b(?:workflow|pipeline|job|run|analysis|processing|training|simulation|build|installation|execution|script|program|calculation|task|step|tests?|experiment|evaluation)s?\b.{0,40}\b(?:completed?|finished|ended|done|succeeded|passed)\b(?: \w+)? ?(?:successfully|with(?:out| no| 0) (?:any )?errors?)",
    r"(?i)\b(?:successfully (?:completed|finished|trained|saved|installed|built|processed)|completed successfully|finished successfully|terminated successfully|ended successfully|succeeded)\b",
    r"^\s*JOB DONE\.|Normal termination of Gaussian|PROGRAM ENDED AT|SUCCESS COMPLETE (?:WRF|REAL)|ORCA TERMINATED NORMALLY|^\s*Total wall time: \d+:\d+:\d+|Finished mdrun on rank|\bHave a nice day\b|Total CPU time used \(sec\)|Voluntary context switches:|General timing and accounting informations|^\s*Normal termination\b|\bnormal termination\b|Molpro calculation terminated$|\*\*\* Psi4 exiting successfully|Finalising parallel run|WRITING FINAL .*CHECKPOINT|Happy landing|ENDED SUCCESSFULLY|NWChem.*successfully|EXECUTION OF GAMESS TERMINATED NORMALLY",
    r"\bGROMACS reminds you:",
    r"(?i)\ball (?:\d+ )?(?:tests?|jobs?|tasks?|checks|steps|samples|files) (?:have |were |are )?(?:passed|completed|succeeded|done|finished|successful|processed)",
    r"^=+ \d+ passed\b[^,]*(?:, \d+ (?:skipped|warnings?|deselected|xfailed))* in ",
    r"^BUILD SUCCESS|\bBUILD SUCCESSFUL\b|^OK \(|^OK$|\[100%\] Built target",
    r"(?i)\bexit(?:ed)?(?: with)? (?:code|status)[:= ]*\(?0\b|\breturn(?:ed)?(?: code| status)?[:= ]+0$|State: COMPLETED\b|COMPLETED \(exit code 0\)",
    r"(?i)^(?:.*[^\w])?(?:training|inference|evaluation|simulation|processing|analysis|optimi[sz]ation|download|conversion|calculation|execution|benchmark) (?:is |has |was )?(?:complete|completed|finished|done)[.!]*\s*$",
];

/// A sign of work that goes on or ends well; not a statement about all of it.
const PROGRESS: &[&str] = &[
    r"\x22HTTP/[\d.]+ 2\d\d\b",
    r"(?i)\b(?:retry|attempt)\b.{0,30}\b(?:succeeded|successful|ok)\b",
    r"(?i)\b(?:reconnected|recovered|resumed)\b",
    r"(?i)^\s*(?:\S+ )?(?:done|finished|completed?|success|ok|bye)[.!]*\s*$",
    r"(?i)\b(?:(?:done|finished|completed|saved|wrote)\b|written (?:to|into)\b).{0,60}$",
    r"\b\d+%\|.*\| ?\d+/\d+ \[",
    r"\b[Ee]poch \d+|\biter(?:ation)? \d+|\bstep \d+",
];

/// The last line of a log tells what was made or how much was done.
const MADE: &[&str] = &[
    r"(?i)(?:^|[^\w-])(?:saved|wrote|written|processed|checked|analy[sz]ed|converted|exported|uploaded|computed|merged)\b.{0,20}(?:\d|\S+\.\w{1,5}\b|\b(?:to|in|into) \S)|^(?:\w+ ){0,2}\w{2,}ed \d+ \w|\b\d+ \w+ (?:saved|written|processed|done|finished|checked|converted|exported|uploaded|merged)\b",
];

/// The last line of a log says that the program ended, and nothing more.
const CLOSED: &[&str] =
    &[r"(?i)^(?:.*[^\w])?(?:all )?(?:done|finished|completed?|success\w*|succeeded|bye|goodbye)[.!]*\s*$"];

/// "At least one job did not complete successfully."
const DENIED: &[&str] = &[r"(?i)\b(?:not|never)\b|n't\b|\bunsuccessful"];

/// Words that make a closing line the opposite of one.
const NEGATED: &[&str] = &[
    r"(?i)\b(?:not|never|no|fail\w*|error\w*|abort\w*|killed|terminat\w*|cannot|unable|could|before|until|when|unless|partial\w*|incomplete|exceeded|only|core|crash\w*|log(?:s|file)?|report|trace|dump\w*)\b|n't\b",
];

static COMPLETE_SET: LazyLock<RegexSet> = LazyLock::new(|| set(COMPLETE.iter().copied()));
static PROGRESS_SET: LazyLock<RegexSet> = LazyLock::new(|| set(PROGRESS.iter().copied()));
static DENIED_SET: LazyLock<RegexSet> = LazyLock::new(|| set(DENIED.iter().copied()));
static MADE_SET: LazyLock<RegexSet> = LazyLock::new(|| set(MADE.iter().copied()));
static CLOSED_SET: LazyLock<RegexSet> = LazyLock::new(|| set(CLOSED.iter().copied()));
static NEGATED_SET: LazyLock<RegexSet> = LazyLock::new(|| set(NEGATED.iter().copied()));

/// As a log's last line, it tells what was made or how much was done.
pub(crate) fn made(text: &str) -> bool {
    MADE_SET.is_match(text.as_bytes()) && !NEGATED_SET.is_match(text.as_bytes())
}

/// As a log's last line, it says that the program ended. A script that does
/// not look at what its commands return says so too.
pub(crate) fn closed(text: &str) -> bool {
    CLOSED_SET.is_match(text.as_bytes()) && !NEGATED_SET.is_match(text.as_bytes())
}

/// The line says that all work was done.
pub(crate) fn complete(text: &str) -> bool {
    COMPLETE_SET.is_match(text.as_bytes()) && !DENIED_SET.is_match(text.as_bytes())
}

/// The line shows that work went on.
pub(crate) fn progress(text: &str) -> bool {
    PROGRESS_SET.is_match(text.as_bytes())
}
