//! What tools and languages print when they fail.
//!
//! One file per family. A rule names a convention of a tool, a language or a
//! library, never one log. The order of [`tables`] decides when one line
//! matches several rules: what says more comes first, so a full disk under a
//! container build is a full disk.

pub(crate) mod containers;
pub(crate) mod engines;
pub(crate) mod environment;
pub(crate) mod filesystem;
pub(crate) mod gpu;
pub(crate) mod licences;
pub(crate) mod memory;
pub(crate) mod mpi;
pub(crate) mod native;
pub(crate) mod network;
pub(crate) mod python;
pub(crate) mod science;
pub(crate) mod services;
pub(crate) mod shell;
pub(crate) mod slurm;
pub(crate) mod success;

use std::sync::{LazyLock, OnceLock};

use aho_corasick::AhoCorasick;
use regex::bytes::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};

use super::finding::Cause;

/// How much a matching line proves. The order is that of the choice between
/// candidates only in part: see `choose`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Strength {
    /// Means something only inside a message that is known to be an error's.
    Text,
    /// The aftermath of a failure: it proves one, and explains nothing.
    Aftermath,
    /// A workflow engine, launcher or pool says that its task failed.
    Wrapper,
    /// Something often survived: retried requests, missing modules.
    Soft,
    /// A generic sign of an error with nothing known about its reason.
    Weak,
    /// Someone cancelled it.
    Cancel,
    /// The trace of a kill.
    Kill,
    /// A tool states an error that mostly ends it.
    Error,
    /// The program ends here.
    Fatal,
    /// The scheduler's own verdict.
    Verdict,
}

/// One convention.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) name: &'static str,
    pub(crate) cause: Cause,
    pub(crate) strength: Strength,
    pub(crate) infra: Option<bool>,
    pub(crate) lang: Option<&'static str>,
    /// A runtime's way to report whatever error: its message says which kind.
    pub(crate) carries: bool,
    pub(crate) pattern: &'static str,
}

impl Rule {
    const fn infra(mut self, infra: bool) -> Self {
        self.infra = Some(infra);
        self
    }
    const fn carries(mut self) -> Self {
        self.carries = true;
        self
    }
    const fn lang(mut self, lang: &'static str) -> Self {
        self.lang = Some(lang);
        self
    }
}

const fn rule(name: &'static str, cause: Cause, strength: Strength, pattern: &'static str) -> Rule {
    Rule { name, cause, strength, infra: None, lang: None, carries: false, pattern }
}

/// All tables, in the order in which they are asked.
fn tables() -> [&'static [Rule]; 22] {
    [
        slurm::RULES,
        engines::FIRST,
        science::FIRST,
        services::FIRST,
        gpu::RULES,
        mpi::FIRST,
        licences::RULES,
        memory::RULES,
        filesystem::SPACE,
        services::RULES,
        shell::FIRST,
        network::FIRST,
        network::KERBEROS,
        environment::RULES,
        mpi::RULES,
        containers::RULES,
        filesystem::RULES,
        native::RULES,
        network::RULES,
        science::RULES,
        engines::RULES,
        shell::RULES,
    ]
}

/// All rules. Compiled together they take longer than a report on a job may; so one pass over a line finds
/// the words without which no rule matches, and the few rules that have theirs are compiled, each once.
pub(crate) struct Rules {
    rules: Vec<(&'static Rule, OnceLock<Regex>)>,
    words: AhoCorasick,
    /// The rule of each word.
    of: Vec<usize>,
    /// Rules that have no such word, and are always asked.
    always: Vec<bool>,
}

/// One line per rule: its name and words in small letters, one of which is in whatever it matches. A test
/// makes them of the patterns.
const NEEDS: &str = include_str!("needs.txt");

pub(crate) static RULES: LazyLock<Rules> = LazyLock::new(|| {
    let rules: Vec<_> = tables().into_iter().flatten().map(|rule| (rule, OnceLock::new())).collect();
    let mut always = vec![true; rules.len()];
    let (mut words, mut of) = (Vec::new(), Vec::new());
    // They are in the order of the tables.
    for (at, line) in NEEDS.lines().enumerate().take(rules.len()) {
        for word in line.split('\t').skip(1) {
            always[at] = false;
            words.push(word);
            of.push(at);
        }
    }
    let words = AhoCorasick::builder().ascii_case_insensitive(true).build(words);
    Rules { rules, words: words.expect("words make a search"), of, always }
});

impl Rules {
    /// Rules that match, in table order.
    pub(crate) fn matching(&self, text: &str) -> impl Iterator<Item = &'static Rule> {
        let mut may = self.always.clone();
        for found in self.words.find_overlapping_iter(text) {
            may[self.of[found.pattern().as_usize()]] = true;
        }
        let may = self.rules.iter().zip(may).filter(|(_, may)| *may);
        may.filter(move |((rule, compiled), _)| {
            compiled.get_or_init(|| one(rule.pattern)).is_match(text.as_bytes())
        })
        .map(|((rule, _), _)| *rule)
    }

    /// The first rule whose line stands for itself.
    pub(crate) fn standing(&self, text: &str) -> Option<&'static Rule> {
        self.matching(text).find(|r| r.strength > Strength::Text)
    }

    /// What a message that is known to be an error's is about.
    pub(crate) fn about(&self, message: &str) -> Option<&'static Rule> {
        self.matching(message)
            .find(|r| !matches!(r.strength, Strength::Aftermath | Strength::Wrapper | Strength::Cancel))
    }
}

/// Compiles patterns as ASCII ones over bytes: a log may hold anything.
pub(crate) fn set<'a>(patterns: impl IntoIterator<Item = &'a str>) -> RegexSet {
    RegexSetBuilder::new(patterns)
        .unicode(false)
        .size_limit(64 << 20)
        .dfa_size_limit(64 << 20)
        .build()
        .expect("the patterns of the tables compile")
}

/// Compiles one pattern as [`set`] does many.
fn one(pattern: &str) -> Regex {
    RegexBuilder::new(pattern).unicode(false).build().expect("a pattern of the tables compiles")
}

#[cfg(test)]
mod needs;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = RULES.rules.iter().map(|(r, _)| r.name).collect();
        names.sort_unstable();
        let n = names.len();
        names.dedup();
        assert_eq!(n, names.len(), "two rules share a name");
    }

    /// Own examples of each convention, and of look-alikes that are not it.
    #[test]
    fn conventions() {
        use Cause::{Cancelled, Container, DiskFull, Env, GpuHw, Oom, Timeout};
        for (line, cause) in [
            (
                "slurmstepd: error: Detected 3 oom_kill events in StepId=7.0. Some of the step tasks have been OOM Killed.",
                Some(Oom),
            ),
            ("the room was not full", None),
            ("bloom filter: 429 files read", None),
            (
                "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2024-01-01T00:00:00 DUE TO TIME LIMIT ***",
                Some(Timeout),
            ),
            ("slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2024-01-01T00:00:00 ***", Some(Cancelled)),
            ("cp: cannot create regular file '/x': No space left on device", Some(DiskFull)),
            ("bash: line 3: foo: command not found", Some(Env)),
            (
                "./solver: error while loading shared libraries: libfoo.so.2: cannot open shared object file: No such file or directory",
                Some(Env),
            ),
            ("NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.", Some(GpuHw)),
            ("FATAL:   container creation failed: mount /x->/y error", Some(Container)),
            ("pip reported 0 errors", None),
            ("error: 0.0123", None),
        ] {
            assert_eq!(RULES.standing(line).map(|r| r.cause), cause, "{line}");
        }
    }
}
