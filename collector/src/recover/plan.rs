/*!
What to run again, with which resources, on which nodes.

A plan is made of stored facts only and is pure. Nothing here builds a line
for a shell: a command is a list of words, and the line that is shown is made
of them by a crate that knows how to quote.
*/

use std::collections::BTreeMap;
use std::path::Path;

use inquest_journal::{JobId, Level, StepId};
use serde::Serialize;

use super::resources::{minutes, time_words};
use crate::report::{ids, nodes};
use crate::runs::{Member, RunState};
use crate::slurm::hostlist;
use crate::slurm::target::fold_ranges;
use crate::story::Attempt;
use crate::units::{bytes, duration};
use crate::verdict::rules::memory::{MORE, asked, had, times};
use crate::verdict::{Class, Retry, Verdict};

/// What a person decides.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// Only these classes; when empty, all but what somebody cancelled.
    pub classes: Vec<Class>,
    /// Memory for all, as sbatch takes it.
    pub memory: Option<String>,
    /// Times the memory they had.
    pub memory_factor: Option<f64>,
    /// Time limit for all, as sbatch takes it.
    pub time: Option<String>,
    /// Leave out the nodes where jobs fail that succeed elsewhere.
    pub exclude_bad: bool,
}

impl Wishes {
    /// Whether jobs of this class are to run again.
    pub fn include(&self, class: Class) -> bool {
        if self.classes.is_empty() { class != Class::Cancelled } else { self.classes.contains(&class) }
    }
}

/// A member with its newest attempt.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// What the run says of it.
    pub member: &'a Member,
    /// Its events.
    pub attempt: &'a Attempt,
    /// It was asked for; the others only show what it takes to succeed.
    pub wanted: bool,
}

impl<'a> Subject<'a> {
    fn verdict(&self) -> Option<&'a Verdict> {
        self.member.verdict.as_ref()
    }

    fn failed(&self) -> bool {
        self.verdict().is_some_and(|v| v.class != Class::Ok)
    }

    fn succeeded(&self) -> bool {
        self.verdict().is_some_and(|v| v.class == Class::Ok)
    }

    /// The array that it is of.
    fn array(&self) -> Option<JobId> {
        self.member.array_job_id.filter(|_| self.member.array_task_id.is_some())
    }

    /// Whose needs tell of its own.
    fn kin(&self) -> Kin<'a> {
        let facts = &self.attempt.facts;
        let named = || facts.name.as_deref().map(|name| Kin::Named(name, facts.memory_mib));
        self.array().map(Kin::Array).or_else(named).unwrap_or(Kin::Alone(self.member.job_id))
    }

    /// Where it failed, or where it ran.
    fn node(&self) -> Option<&'a str> {
        let death = self.verdict().and_then(|v| v.first_failure.as_ref());
        death.map(|d| d.at.node.as_ref()).or_else(|| self.attempt.nodes.first().map(AsRef::as_ref))
    }
}

/// Jobs that do the same work: the members of an array, else those of one name that asked for as much memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kin<'a> {
    Array(JobId),
    Named(&'a str, Option<u64>),
    Alone(JobId),
}

/// What it took those that succeeded.
#[derive(Clone, Copy, Debug, Default)]
struct Siblings {
    jobs: usize,
    /// Those with a peak below their limit, and the highest of these.
    whole: usize,
    peak: u64,
    /// Those whose peak their limit cut off.
    clipped: usize,
    longest_us: Option<i64>,
}

impl Siblings {
    fn add(&mut self, attempt: &Attempt) {
        self.jobs += 1;
        match peak(attempt) {
            Some((_, true)) => self.clipped += 1,
            Some((peak, false)) => {
                self.whole += 1;
                self.peak = self.peak.max(peak);
            }
            None => {}
        }
        self.longest_us = self.longest_us.max(attempt.elapsed_us());
    }
}

/// The words of a job script's command.
pub type Script = Vec<String>;

/// What no node knows of a job, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Submitted {
    /// Its script.
    pub script: Option<Script>,
    /// How many members of its array may run at a time; 0 for any number.
    pub throttle: Option<u32>,
}

/// What to run again.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Plan {
    /// One command each.
    pub groups: Vec<Group>,
    /// Nodes where jobs fail that succeed elsewhere.
    pub bad_nodes: Vec<nodes::BadNode>,
    /// Members that were asked for.
    pub jobs: usize,
    /// Those of them that are left out because somebody cancelled them.
    pub cancelled: usize,
}

/// Jobs that one command runs again.
#[derive(Clone, Debug, Serialize)]
pub struct Group {
    /// Why they failed.
    pub class: Class,
    /// Whether that can help.
    pub retry: Retry,
    /// How many.
    pub jobs: usize,
    /// Which, folded.
    pub members: String,
    /// Name of the first.
    pub name: Option<String>,
    /// The command, word by word; the script is missing when it is not known.
    pub argv: Vec<String>,
    /// The command as a line for a shell; absent when it cannot be run as it is.
    pub command: Option<String>,
    /// What one should know before.
    pub notes: Vec<String>,
}

/// In place of a script that is not known.
pub const NO_SCRIPT: &str = "JOBSCRIPT";

/// Makes a plan for the failed ones of `subjects` that were asked for. `submitted`
/// tells how a job was, where that is known.
pub fn plan(
    run: &RunState,
    subjects: &[Subject<'_>],
    wishes: &Wishes,
    mut submitted: impl FnMut(&Member) -> Submitted,
) -> Plan {
    let bad_nodes = nodes::bad(subjects.iter().filter_map(|s| Some((s.node()?, s.verdict()?.class))));
    let mut siblings: BTreeMap<Kin<'_>, Siblings> = BTreeMap::new();
    for subject in subjects.iter().filter(|s| s.succeeded()) {
        siblings.entry(subject.kin()).or_default().add(subject.attempt);
    }
    let mut cancelled = 0;
    let mut groups: BTreeMap<(Class, u32), Vec<Subject<'_>>> = BTreeMap::new();
    for subject in subjects.iter().filter(|s| s.wanted && s.failed()) {
        let Some(verdict) = subject.verdict() else { continue };
        if wishes.include(verdict.class) {
            // One command runs the members of one array; a plain job has its own.
            let key = subject.array().unwrap_or(subject.member.job_id).0;
            groups.entry((verdict.class, key)).or_default().push(*subject);
        } else if wishes.classes.is_empty() {
            cancelled += 1;
        }
    }
    let bad: Vec<&str> = bad_nodes.iter().map(|n| n.node.as_str()).collect();
    let groups = groups.into_iter().map(|((class, _), members)| {
        let submitted = submitted(members[0].member);
        let siblings = siblings.get(&members[0].kin()).copied().unwrap_or_default();
        group(run, class, &members, siblings, wishes, &bad, submitted)
    });
    Plan {
        groups: groups.collect(),
        jobs: subjects.iter().filter(|s| s.wanted).count(),
        bad_nodes: bad_nodes.clone(),
        cancelled,
    }
}

fn group(
    run: &RunState,
    class: Class,
    members: &[Subject<'_>],
    siblings: Siblings,
    wishes: &Wishes,
    bad: &[&str],
    Submitted { script, throttle }: Submitted,
) -> Group {
    let first = members[0];
    let facts = &first.attempt.facts;
    let mut notes = Vec::new();
    let mut argv = vec!["sbatch".to_owned()];
    let indices: Vec<u32> = members
        .iter()
        .filter_map(|s| s.member.array_task_id.filter(|_| s.member.array_job_id.is_some()))
        .collect();
    if !indices.is_empty() {
        if throttle.is_none() && indices.len() > 1 {
            notes.push(
                "how many of its array may run at a time is not known: where --array had a %N, add it here"
                    .into(),
            );
        }
        let throttle = throttle.filter(|n| *n > 0).map_or(String::new(), |n| format!("%{n}"));
        argv.push(format!("--array={}{throttle}", fold_ranges(indices)));
    }
    argv.extend(memory(members, siblings, wishes, &mut notes).map(|m| format!("--mem={m}")));
    argv.extend(time(members, siblings, wishes, &mut notes).map(|t| format!("--time={t}")));
    argv.extend(exclude(members, wishes, bad, &mut notes).map(|n| format!("--exclude={n}")));
    // Slurm names a job by its script; what was named otherwise keeps its name.
    let script_name = script.as_ref().and_then(|s| s.first()).and_then(|s| Path::new(s).file_name());
    let plain = |n: &&String| !n.contains(char::is_control) && script_name.is_none_or(|s| s != n.as_str());
    let name = facts.name.as_ref().filter(plain).cloned();
    for (option, value) in [
        ("--partition", &facts.partition),
        ("--account", &facts.account),
        ("--job-name", &name),
        ("--chdir", &facts.work_dir),
    ] {
        let known = value.as_deref().filter(|v| !v.is_empty() && *v != "(null)");
        argv.extend(known.map(|v| format!("{option}={v}")));
    }
    if class == Class::Cancelled {
        notes.push("somebody cancelled it: run it again only if that was not meant for good".into());
    } else if first.verdict().is_some_and(|v| v.retry == Retry::Not) {
        notes.push("the same input will fail the same way: mend the cause first".into());
    }
    if run.key.won.kind == crate::runs::KeyKind::Het {
        notes.push("this is a component of a het job: its siblings are not started with it".into());
    }
    if first.attempt.steps.keys().all(|s| *s != StepId::Batch) {
        notes.push("it had no job script here (salloc or srun): give one with --script".into());
    }
    let known = script.is_some();
    if !known {
        notes.push(format!(
            "nodes do not know the path of the job script: give it with --script, or put it in place of {NO_SCRIPT}"
        ));
    }
    argv.extend(script.unwrap_or_default());
    let command = known.then(|| line(&argv)).flatten();
    if known && command.is_none() {
        notes.push("a word of the command has control characters, so it is not shown; see --json".into());
    }
    Group {
        class,
        retry: first.verdict().map_or(Retry::Not, |v| v.retry),
        jobs: members.len(),
        members: ids::fold(
            members
                .iter()
                .map(|s| (s.member.job_id.0, s.member.array_job_id.map(|a| a.0).zip(s.member.array_task_id))),
        ),
        name: facts.name.clone(),
        argv,
        command,
        notes,
    }
}

/// A line for a shell, when it can be shown on a terminal as it is.
pub fn line(argv: &[String]) -> Option<String> {
    let words: Option<Vec<_>> = argv.iter().map(|word| quote(word)).collect();
    let line = words?.join(" ");
    (crate::report::clean(&line) == line).then_some(line)
}

/// Quotes as a person would: not at all where no shell sees anything in a
/// word, and only the value of `--option=value`. An equals sign or a comma
/// means nothing behind the first word of a command and outside braces.
fn quote(word: &str) -> Option<String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:@+=,%".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        return Some(word.to_owned());
    }
    match word.split_once('=') {
        Some((option, value)) if option.starts_with("--") && option.bytes().all(plain) => {
            Some(format!("{option}={}", shlex::try_quote(value).ok()?))
        }
        _ => Some(shlex::try_quote(word).ok()?.into_owned()),
    }
}

fn needs(members: &[Subject<'_>], retry: Retry) -> bool {
    members.iter().any(|s| s.verdict().is_some_and(|v| v.retry == retry))
}

/// What the jobs had, in bytes per node, and whose limit it was.
fn limit(members: &[Subject<'_>]) -> Option<(u64, Option<Level>)> {
    let of = |s: &Subject<'_>| had(s.verdict().and_then(|v| v.first_failure.as_ref()), s.attempt);
    members.iter().filter_map(of).max_by_key(|l| l.0)
}

fn memory(
    members: &[Subject<'_>],
    siblings: Siblings,
    wishes: &Wishes,
    notes: &mut Vec<String>,
) -> Option<String> {
    if let Some(memory) = &wishes.memory {
        return Some(memory.clone());
    }
    if !needs(members, Retry::WithMoreMemory) && wishes.memory_factor.is_none() {
        return None;
    }
    let Some((limit, level)) = limit(members) else {
        notes.push("how much memory they had is not known: give it with --mem".into());
        return None;
    };
    if needs(members, Retry::WithMoreMemory) {
        notes.push(format!(
            "killed at a limit of {}: their peak was clipped there, the true need may be higher",
            bytes(limit)
        ));
    }
    match siblings {
        Siblings { jobs: 0, .. } => {
            notes.push("none of their siblings succeeded, so there is no peak to go by".into());
        }
        Siblings { whole: 0, .. } => {}
        Siblings { whole, peak, .. } => {
            notes.push(format!(
                "{whole} that succeeded peaked at {} or less (page cache included)",
                bytes(peak)
            ));
        }
    }
    if siblings.clipped > 0 {
        notes.push(format!(
            "{} that succeeded reached their limit too, so their peak says nothing",
            siblings.clipped
        ));
    }
    let factor = wishes.memory_factor.unwrap_or(MORE);
    let memory = times(limit, factor);
    if matches!(level, Some(Level::Step | Level::Task)) {
        notes.push(format!("the limit was that of a step: give its srun --mem={memory} in the script"));
        let enough =
            |s: &Subject<'_>| asked(s.attempt).is_some_and(|job| job as f64 >= limit as f64 * factor);
        if members.iter().any(enough) {
            return None;
        }
    }
    Some(memory)
}

/// Highest charge of an attempt, and whether the limit cut it off.
fn peak(attempt: &Attempt) -> Option<(u64, bool)> {
    let steps = attempt.steps.values().flat_map(|s| s.nodes.values()).map(|n| &n.memory);
    let tasks = attempt.steps.values().flat_map(|s| s.tasks.values()).filter_map(|t| t.exit.as_ref());
    let all = steps.chain(tasks.map(|e| &e.memory));
    all.filter_map(|m| Some((m.cgroup_peak_bytes?, m.clipped))).max()
}

fn time(
    members: &[Subject<'_>],
    siblings: Siblings,
    wishes: &Wishes,
    notes: &mut Vec<String>,
) -> Option<String> {
    if let Some(time) = &wishes.time {
        return Some(time.clone());
    }
    if !needs(members, Retry::WithMoreTime) {
        return None;
    }
    let limit_us = |s: &Subject<'_>| {
        let said = s.verdict().and_then(|v| v.slurm.as_ref()).and_then(|r| minutes(&r.time_limit));
        let planned = || Some(s.attempt.facts.end_limit?.since(s.attempt.started.as_ref()?.wall));
        said.map(|m| m.saturating_mul(60_000_000)).or_else(planned).or_else(|| s.attempt.elapsed_us())
    };
    let limit = members.iter().filter_map(limit_us).max()?;
    notes.push(format!("stopped after {}", duration(limit)));
    if let Some(longest) = siblings.longest_us {
        notes.push(format!("{} that succeeded took {} or less", siblings.jobs, duration(longest)));
    }
    // A fifth more than others took, because the next input is never the same.
    let wanted = (limit as f64 * 1.5).max(siblings.longest_us.unwrap_or(0) as f64 * 1.2);
    Some(time_words((wanted / 60e6).ceil() as u64))
}

fn exclude(
    members: &[Subject<'_>],
    wishes: &Wishes,
    bad: &[&str],
    notes: &mut Vec<String>,
) -> Option<String> {
    let elsewhere = members.iter().filter(|s| s.verdict().is_some_and(|v| v.retry == Retry::OnAnotherNode));
    let mut nodes: Vec<&str> = elsewhere.flat_map(|s| lost_nodes(s)).collect();
    if wishes.exclude_bad {
        nodes.extend(bad);
    } else if !bad.is_empty() && members.iter().any(|s| s.node().is_some_and(|n| bad.contains(&n))) {
        notes.push(format!(
            "jobs fail more often on {}: --exclude-bad leaves it out",
            hostlist::fold(bad.iter().copied())
        ));
    }
    nodes.sort_unstable();
    nodes.dedup();
    (!nodes.is_empty()).then(|| hostlist::fold(nodes))
}

/// Nodes of a job on which a step never ended, else the one where it failed.
fn lost_nodes<'a>(subject: &Subject<'a>) -> Vec<&'a str> {
    let parts = subject.attempt.steps.values().flat_map(|s| s.nodes.iter());
    let open: Vec<&str> = parts.filter(|(_, p)| p.ended.is_none()).map(|(n, _)| n.as_ref()).collect();
    if open.is_empty() { subject.node().into_iter().collect() } else { open }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    #[test]
    fn a_line_is_quoted_where_it_must_be() {
        let line = |words: &[&str]| super::line(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
        let words = ["sbatch", "--array=1-3,6", "--exclude=n[1-2]", "--chdir=/a b", "$(x).sh", ""];
        let wanted = "sbatch --array=1-3,6 --exclude='n[1-2]' --chdir='/a b' '$(x).sh' ''";
        assert_eq!(line(&words).as_deref(), Some(wanted));
        assert_eq!(line(&["sbatch", "--chdir=/a\u{1b}[2J"]), None);
    }

    proptest! {
        #[test]
        fn a_shell_reads_back_the_words(words in proptest::collection::vec("[ -~é]{0,12}", 1..6)) {
            let argv: Vec<String> = std::iter::once("x".to_owned()).chain(words).collect();
            let line = super::line(&argv).unwrap();
            prop_assert_eq!(shlex::split(&line).unwrap(), argv);
        }
    }
}
