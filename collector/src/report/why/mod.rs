//! The report: what went wrong in a run or a job, on which evidence, and what to do.

mod advice;
mod children;
mod deaths;
mod groups;
mod html;
mod pictures;
mod text;

use std::collections::BTreeSet;

use inquest_journal::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

pub use groups::{Group, groups, members};
pub use html::{html, report};
pub use text::text;

use super::failures::{Failure, FromLog, log_decides};
use super::{Clock, JSON_SCHEMA, clean};
use crate::runs::{Member, RunState};
use crate::story::clocks::seconds;
use crate::story::{Attempt, Orphan, Story};
use crate::units::count;
use crate::verdict::{Class, Confidence, Death, Verdict, processes};

/// One member of a run with its story.
#[derive(Debug)]
pub struct Subject<'a> {
    /// Number in the run.
    pub number: u32,
    /// What the run says of it.
    pub member: &'a Member,
    /// Its events.
    pub story: Story,
    /// What its log says, when it failed and its log was read.
    pub failure: Option<Failure>,
    /// Whatever was recorded of it is not the caller's to read: it is told of by what Slurm tells them.
    pub closed: bool,
}

impl Subject<'_> {
    /// It ended badly.
    pub fn failed(&self) -> bool {
        self.member.failed()
    }

    /// The plugin saw it run.
    pub fn recorded(&self) -> bool {
        self.attempt().is_some_and(|a| a.started.is_some())
    }

    /// Its newest attempt.
    pub fn attempt(&self) -> Option<&Attempt> {
        self.story.attempts.last()
    }

    /// When the first failure was noticed; the newest event of one that ended
    /// without a death.
    pub fn failed_at(&self) -> Timestamp {
        let death = self.member.verdict.as_ref().and_then(|v| v.first_failure.as_ref());
        death.map_or(self.member.last, |d| d.at.wall)
    }

    /// Where and as what it ended.
    fn end(&self) -> Option<(&str, Class)> {
        Some((self.node()?, self.member.verdict.as_ref()?.class))
    }

    /// Where it failed, or where it ran.
    pub fn node(&self) -> Option<&str> {
        let death = self.member.verdict.as_ref().and_then(|v| v.first_failure.as_ref());
        death
            .map(|d| d.at.node.as_ref())
            .or_else(|| self.attempt().and_then(|a| a.nodes.first()).map(AsRef::as_ref))
    }
}

/// For the times of a report.
fn clock<'a>(run: &RunState, subjects: &[Subject<'_>], zone: &'a TimeZone) -> Clock<'a> {
    match subjects {
        [one] => Clock::between(one.member.started, one.member.last, zone),
        _ => Clock::between(run.started, run.last, zone),
    }
}

/// Kinds of failure shown at full length; the rest is in the summary.
pub const SHOWN: usize = 20;

/// Failed jobs of one report whose logs are read.
pub const LOGS_READ: usize = 500;

/// What is said of a job whose records are not the caller's to read: the same whether there are any.
const CLOSED: &str = "what was recorded of it, if anything was, is for its owner and for operators to read; this is \
    what Slurm tells you. The site's server (inquest serve) shows coordinators the jobs of their accounts";

/// Last lines of a log that says nothing of a failure.
const ENDING: usize = 5;

/// Lines of a log before the root cause.
const BEFORE: u64 = 3;

/// Who was killed, by name where the kernel's record could be read.
fn killed(death: &Death) -> String {
    let named =
        |v: &inquest_journal::Victim| Some(format!("{}, pid {}", clean(v.command.as_deref()?), v.pid?));
    let names: Vec<String> = death.victims.iter().filter_map(named).collect();
    if names.is_empty() { processes(death.oom_kills) } else { names.join("; ") }
}

/// The lines just before the root cause and that line itself, when something
/// is said before it.
fn before(log: &FromLog) -> Vec<(u64, &str)> {
    let Some(at) = log.finding.line_number else { return Vec::new() };
    let near = |n: u64| n <= at && n + BEFORE >= at;
    let lines: Vec<(u64, &str)> =
        log.excerpt.iter().filter(|(n, _)| near(*n)).map(|(n, l)| (*n, l.as_str())).collect();
    if lines.len() > 1 { lines } else { Vec::new() }
}

/// What was to be recorded of a job and is not there, where, and why.
fn lost(attempt: &Attempt) -> Option<String> {
    let streams = || attempt.streams.values().filter(|s| s.lost() > 0);
    let nodes: BTreeSet<String> = streams().map(|s| clean(&s.node).to_string()).collect();
    let on = match nodes.len() {
        0 => String::new(),
        n if n > NODES => format!(" on {} and {} more", join(nodes.iter().take(NODES)), n - NODES),
        _ => format!(" on {}", join(nodes.iter())),
    };
    let reason = streams().find_map(|s| s.reason.as_deref());
    let missing = if attempt.lost == 1 { "its number is" } else { "their numbers are" };
    let reason = reason.map_or(format!("{missing} missing in the journals"), |r| clean(r).to_string());
    let events = count(attempt.lost, "event", "events");
    (attempt.lost > 0).then(|| format!("{events} of this job lost{on}: {reason}"))
}

/// Nodes that are named where events were lost.
const NODES: usize = 3;

fn join<'a>(words: impl Iterator<Item = &'a String>) -> String {
    words.map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// Why a job may never be seen to end by itself, in sentences.
pub fn stalled(subject: &Subject<'_>) -> Vec<String> {
    let orphans = subject.attempt().into_iter().flat_map(Attempt::orphans);
    let says = |orphan: Orphan<'_>| {
        format!(
            "{}: Slurm is not told when the step ends, and may call the job running until its time limit; scancel {} \
             ends it",
            orphan.says(),
            subject.member.display_id()
        )
    };
    orphans.map(says).collect()
}

/// What is not known of a job, in sentences.
pub fn unknown(subject: &Subject<'_>, verdict: &Verdict) -> Vec<String> {
    let mut out = Vec::new();
    if let Some(attempt) = subject.attempt() {
        if subject.closed {
            out.push(format!("what happened on the node: {CLOSED}"));
        } else if !subject.recorded() {
            out.push(
                "what happened on the node: nothing was recorded there; this is what Slurm's accounting and the log \
                 say"
                    .into(),
            );
        }
        out.extend(lost(attempt));
        let open =
            attempt.steps.iter().flat_map(|(id, s)| s.nodes.iter().map(move |(n, part)| (id, n, part)));
        let open: Vec<String> = open
            .filter(|(_, _, part)| part.started.is_some() && part.ended.is_none())
            .map(|(id, node, _)| format!("step {id} on {node}"))
            .collect();
        if let Some(first) = open.first() {
            let more = match open.len() - 1 {
                0 => String::new(),
                n => format!(" and {n} more"),
            };
            let why = attempt.orphans().next().map_or(String::new(), |o| format!("; {}", o.says()));
            out.push(format!("how {first}{more} ended: a start was recorded and no end{why}"));
        }
    }
    if let Some(order) = &verdict.unordered {
        let place = verdict.consequences.iter().find(|d| d.at.event == order.nearest).map(Death::place);
        let more = match order.deaths - 1 {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        let sure = order.within_us.map_or("nothing compares the clocks of their nodes".into(), |us| {
            format!("order between their nodes is uncertain within {}", seconds(us))
        });
        let who = place.unwrap_or_else(|| order.nearest.to_string());
        out.push(format!("whether {who}{more} failed before it: {sure}"));
    }
    if verdict.slurm.is_none() && verdict.class != Class::Ok {
        out.push("what Slurm says: it was not asked, or had forgotten the job".into());
    }
    if verdict.first_failure.as_ref().is_some_and(|d| d.oom_kills > 0 && d.victims.is_empty()) {
        out.push("who was killed: the kernel's record of it could not be read".into());
    }
    let silent =
        |f: &&Failure| log_decides(f.class) && f.log.is_none() && f.ends.is_none() && f.unread.is_empty();
    if subject.failure.as_ref().is_some_and(|f| silent(&f)) {
        out.push("what the program itself says: its log is empty".into());
    }
    out.extend(subject.failure.iter().flat_map(|f| &f.unread).map(|r| format!("what the log says: {r}")));
    out
}

/// Clocks that are said to be wrong.
const CLOCKS: usize = 3;

/// What clocks of the job's nodes were wrong, in sentences.
pub fn clocks(verdict: &Verdict) -> Vec<String> {
    let mut out: Vec<String> = verdict.clocks.iter().take(CLOCKS).map(ToString::to_string).collect();
    match verdict.clocks.len() {
        0 => {}
        n if n > CLOCKS => out.push(format!("and {} more; offsets are put right by that", n - CLOCKS)),
        _ => out.push("offsets are put right by that, times are as the nodes wrote them".into()),
    }
    out
}

/// What to do, in order of usefulness: what the facts say, and where only a
/// log told the cause, what is known of that.
pub fn advice(subject: &Subject<'_>, verdict: &Verdict) -> Vec<String> {
    let told =
        subject.failure.as_ref().filter(|f| f.confidence == Confidence::Log).and_then(|f| f.log.as_ref());
    let known = told.and_then(|log| advice::advice(log.finding.cause)).map(str::to_owned);
    known.into_iter().chain(verdict.advice.iter().cloned()).collect()
}

/// Why it failed, in one line: its log where that decides, else the verdict.
pub fn message<'a>(subject: &'a Subject<'_>) -> &'a str {
    let told = subject.failure.as_ref().filter(|f| f.confidence == Confidence::Log);
    let detail = subject.member.verdict.as_ref().map_or("", |v| v.detail.as_str());
    told.map_or(detail, |f| f.message.as_str())
}

/// How sure a verdict is, in a sentence.
pub fn confidence(confidence: Confidence) -> &'static str {
    match confidence {
        Confidence::Fact => "fact: the kernel, slurmstepd or Slurm itself said so",
        Confidence::Log => "log: the job's own log says so",
        Confidence::Inferred => "inferred: something else could look the same",
    }
}

/// The report as JSON: the verdict and the story of each member.
pub fn json(run: &RunState, subjects: &[Subject<'_>]) -> Value {
    let jobs = subjects.iter().map(|s| {
        json!({
            "chunk_id": s.number,
            "id": s.member.display_id(),
            "job_id": s.member.job_id,
            "name": s.attempt().and_then(|a| a.facts.name.as_deref()),
            "recorded": (!s.closed).then(|| s.recorded()),
            "attempts": s.member.attempts,
            "verdict": s.member.verdict,
            "story": s.story,
            "log": s.failure.as_ref().and_then(|f| f.log.as_ref()),
            "logs_unread": s.failure.as_ref().map_or(&[][..], |f| &f.unread),
        })
    });
    json!({
        "schema": JSON_SCHEMA,
        "run_id": run.run_id,
        "cluster": run.cluster,
        "user": run.user,
        "key": run.key,
        "status": run.status,
        "classes": run.classes,
        "failures": groups(subjects).iter().map(Group::row).collect::<Vec<_>>(),
        "jobs": jobs.collect::<Vec<_>>(),
    })
}
