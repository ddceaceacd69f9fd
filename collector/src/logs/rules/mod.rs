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

use std::sync::LazyLock;

use regex::bytes::{RegexSet, RegexSetBuilder};

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

/// Every rule compiled together: one pass over a line tells all that match.
pub(crate) struct Rules {
    rules: Vec<&'static Rule>,
    set: RegexSet,
}

pub(crate) static RULES: LazyLock<Rules> = LazyLock::new(|| {
    let rules: Vec<&'static Rule> = tables().into_iter().flatten().collect();
    let set = set(rules.iter().map(|r| r.pattern));
    Rules { rules, set }
});

impl Rules {
    /// Rules that match, in table order.
    pub(crate) fn matching(&self, text: &str) -> impl Iterator<Item = &'static Rule> {
        let hits: Vec<usize> = self.set.matches(text.as_bytes()).into_iter().collect();
        hits.into_iter().map(|i| self.rules[i])
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = RULES.rules.iter().map(|r| r.name).collect();
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
