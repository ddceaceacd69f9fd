//! The report: what went wrong in a run or a job, on which evidence, and what to do.

use std::collections::BTreeMap;
use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use inquest_journal::{StepId, Timestamp};
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::failures::Failure;
use super::logfiles::log_files;
use super::{JSON_SCHEMA, clean, clock, time};
use crate::runs::{Member, RunState};
use crate::slurm::hostlist;
use crate::slurm::target::fold_ranges;
use crate::story::{Attempt, Story};
use crate::units::duration;
use crate::verdict::{Class, Confidence, Death, Verdict};

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
}

impl Subject<'_> {
    fn failed(&self) -> bool {
        self.member.verdict.as_ref().is_some_and(|v| v.class != Class::Ok)
    }

    fn attempt(&self) -> Option<&Attempt> {
        self.story.attempts.last()
    }
}

const BAD: Style = AnsiColor::Red.on_default().bold();
const GOOD: Style = AnsiColor::Green.on_default();
const HEAD: Style = Style::new().bold();

/// Failures shown at full length; the rest is in the summary.
pub const SHOWN: usize = 20;

/// Logs named of one job.
const LOGS: usize = 3;

/// Evidence shown of one verdict; `--json` has it all.
const EVIDENCE: usize = 6;

/// The report as text. `only` restricts what happened to one step.
pub fn text(run: &RunState, subjects: &[Subject<'_>], only: Option<StepId>, zone: &TimeZone) -> String {
    let mut out = String::new();
    let failed: Vec<&Subject<'_>> = subjects.iter().filter(|s| s.failed()).collect();
    if let [subject] = subjects {
        member(&mut out, run, subject, only, zone);
        return out;
    }
    let running = subjects.iter().filter(|s| s.member.verdict.is_none()).count();
    let colour = if failed.is_empty() { GOOD } else { BAD };
    let _ = writeln!(out, "{HEAD}Run {}{HEAD:#}  {} of {}", run.run_id, name(run.name.as_deref()), run.user);
    let _ = write!(out, "{colour}{} of {} jobs failed{colour:#}", failed.len(), subjects.len());
    if running > 0 {
        let _ = write!(out, ", {running} still running");
    }
    let elapsed = duration(run.last.since(run.started));
    let so_far = if running > 0 { " so far" } else { "" };
    let _ = writeln!(out, "; started {}, took {elapsed}{so_far}\n", time(run.started, zone));
    summary(&mut out, subjects);
    if let Some(first) = failed.iter().min_by_key(|s| failed_at(s)) {
        let detail = first.member.verdict.as_ref().map_or("", |v| v.detail.as_str());
        let at = failed_at(first).map_or(String::new(), |t| clock(t, zone));
        let _ = writeln!(
            out,
            "{HEAD}First failure{HEAD:#}\n  {at}  {}: {}\n",
            first.member.display_id(),
            clean(detail)
        );
    }
    for subject in failed.iter().take(SHOWN) {
        member(&mut out, run, subject, only, zone);
        out.push('\n');
    }
    if failed.len() > SHOWN {
        let _ = writeln!(out, "{} more failures: see 'inquest run {}'", failed.len() - SHOWN, run.run_id);
    }
    out
}

fn failed_at(subject: &Subject<'_>) -> Option<Timestamp> {
    let verdict = subject.member.verdict.as_ref()?;
    Some(verdict.first_failure.as_ref().map_or(subject.member.last, |d| d.at.wall))
}

fn name(name: Option<&str>) -> String {
    format!("\"{}\"", clean(name.unwrap_or("-")))
}

/// Members by cause, ids in ranges.
fn summary(out: &mut String, subjects: &[Subject<'_>]) {
    let mut groups: BTreeMap<(Class, &str), Vec<&Member>> = BTreeMap::new();
    for subject in subjects {
        if let Some(verdict) = &subject.member.verdict {
            groups.entry((verdict.class, &verdict.cause)).or_default().push(subject.member);
        }
    }
    let mut table = super::table::Table::new(&["CLASS", "CAUSE", "JOBS", "MEMBERS"]);
    for ((class, cause), members) in groups.iter().rev() {
        table.row(vec![class.to_string(), (*cause).into(), members.len().to_string(), member_ids(members)]);
    }
    let _ = writeln!(out, "{HEAD}Summary{HEAD:#}");
    for line in table.print(&super::table::Style::default()).unwrap_or_default().lines() {
        let _ = writeln!(out, "  {line}");
    }
    out.push('\n');
}

/// `12_[1-3,7]`, or plain ids.
fn member_ids(members: &[&Member]) -> String {
    let mut arrays: BTreeMap<Option<u32>, Vec<u32>> = BTreeMap::new();
    for member in members {
        let array = member.array_job_id.filter(|_| member.array_task_id.is_some());
        let number = member.array_task_id.filter(|_| array.is_some()).unwrap_or(member.job_id.0);
        arrays.entry(array.map(|id| id.0)).or_default().push(number);
    }
    let fold = |(array, numbers): (Option<u32>, Vec<u32>)| match (array, numbers.as_slice()) {
        (Some(id), [one]) => format!("{id}_{one}"),
        (Some(id), _) => format!("{id}_[{}]", fold_ranges(numbers)),
        (None, _) => fold_ranges(numbers),
    };
    arrays.into_iter().map(fold).collect::<Vec<_>>().join(",")
}

fn member(out: &mut String, run: &RunState, subject: &Subject<'_>, only: Option<StepId>, zone: &TimeZone) {
    let member = subject.member;
    let attempt = subject.attempt();
    let facts = attempt.map(|a| &a.facts);
    let verdict = member.verdict.as_ref();
    let (colour, label) = match verdict {
        None => (Style::new(), "RUNNING"),
        Some(v) if v.class == Class::Ok => (GOOD, v.label.as_str()),
        Some(v) => (BAD, v.label.as_str()),
    };
    let id = match member.display_id() {
        id if id == member.job_id.to_string() => id,
        id => format!("{id} ({})", member.job_id),
    };
    let job_name = facts.and_then(|f| f.name.as_deref()).or(run.name.as_deref());
    let nodes = attempt.map_or(String::new(), |a| hostlist::fold(a.nodes.iter().map(String::as_str)));
    let _ = writeln!(
        out,
        "{HEAD}Job {id}{HEAD:#}  {} of {} on {nodes}  {colour}{label}{colour:#}",
        name(job_name),
        run.user
    );
    if member.attempts > 1 {
        let _ = writeln!(
            out,
            "  attempt {} of this job; the earlier ones were put back into the queue",
            member.attempts
        );
    }
    let Some(verdict) = verdict else {
        let _ = writeln!(out, "  it has not ended yet, so there is no verdict");
        return;
    };
    wrap(out, "", &clean(&verdict.detail));
    if let Some(failure) = &subject.failure {
        quote(out, failure);
    }
    what_happened(out, verdict, only, zone);
    let mut facts_lines: Vec<(&str, String)> = Vec::new();
    if let Some(said) = &verdict.slurm {
        let differs = if verdict.class != Class::Ok && said.state_word() == "COMPLETED" {
            ", and does not know"
        } else {
            ""
        };
        facts_lines.push(("Slurm says", format!("{}{differs}", clean(&said.verdict()))));
    }
    facts_lines.push(("Confidence", confidence(verdict.confidence).into()));
    if verdict.class != Class::Ok {
        facts_lines.push(("Evidence", evidence(verdict)));
    }
    facts_lines.extend(logs(run, subject).map(|l| ("Logs", l)));
    for advice in &verdict.advice {
        facts_lines.push(("Advice", clean(advice)));
    }
    if let Some(lost) = attempt.map(|a| a.lost).filter(|&n| n > 0) {
        facts_lines
            .push(("Not known", format!("{lost} events of this job could not be written on its nodes")));
    }
    for reason in subject.failure.iter().flat_map(|f| &f.unread) {
        facts_lines.push(("Not known", format!("the log could not be read: {}", clean(reason))));
    }
    for (key, value) in facts_lines {
        wrap(out, key, &value);
    }
}

fn what_happened(out: &mut String, verdict: &Verdict, only: Option<StepId>, zone: &TimeZone) {
    let here = |d: &&Death| only.is_none_or(|step| d.step == step);
    let mut deaths: Vec<&Death> =
        verdict.first_failure.iter().chain(&verdict.consequences).filter(here).collect();
    deaths.sort_by_key(|d| d.offset_us);
    if deaths.is_empty() {
        return;
    }
    let _ = writeln!(out, "  {HEAD}What happened{HEAD:#}");
    for death in deaths.iter().take(SHOWN) {
        let first = verdict.first_failure.as_ref().is_some_and(|f| f.at.event == death.at.event);
        let mark = if first && deaths.len() > 1 { "  <- first" } else { "" };
        let pid = death.pid.map_or(String::new(), |p| format!(" (pid {p})"));
        let (at, offset) = (clock(death.at.wall, zone), death.offset());
        let _ = writeln!(out, "    {at}  {offset:>9}  {}{pid}: {}{mark}", death.place(), death.end());
        if death.oom_kills > 0 {
            let _ = writeln!(out, "{:29}killed for memory: {}", "", killed(death));
        }
        if let Some(memory) = death.memory() {
            let _ = writeln!(out, "{:29}{memory}", "");
        }
    }
    if deaths.len() > SHOWN {
        let _ = writeln!(out, "    ... and {} more", deaths.len() - SHOWN);
    }
}

/// Who was killed, by name where the kernel's record could be read.
fn killed(death: &Death) -> String {
    let named =
        |v: &inquest_journal::Victim| Some(format!("{}, pid {}", clean(v.command.as_deref()?), v.pid?));
    let names: Vec<String> = death.victims.iter().filter_map(named).collect();
    if names.is_empty() { format!("{} process(es)", death.oom_kills) } else { names.join("; ") }
}

fn confidence(confidence: Confidence) -> &'static str {
    match confidence {
        Confidence::Fact => "fact: the kernel, slurmstepd or Slurm itself said so",
        Confidence::Log => "log: the job's own log says so",
        Confidence::Inferred => "inferred: something else could look the same",
    }
}

fn evidence(verdict: &Verdict) -> String {
    let mut ids: Vec<String> = verdict.evidence.iter().take(EVIDENCE).map(ToString::to_string).collect();
    if verdict.evidence.len() > EVIDENCE {
        ids.push(format!("and {} more", verdict.evidence.len() - EVIDENCE));
    }
    clean(&ids.join(", "))
}

/// Where the job wrote.
fn logs(run: &RunState, subject: &Subject<'_>) -> Option<String> {
    let files = log_files(run, subject.member, subject.attempt()?);
    let paths: Vec<String> = files.iter().take(LOGS).map(|f| clean(&f.path.to_string_lossy())).collect();
    let more = files.len().saturating_sub(LOGS);
    match (paths.is_empty(), more) {
        (true, _) => None,
        (_, 0) => Some(paths.join(" and ")),
        (_, n) => Some(format!("{} and {n} more", paths.join(", "))),
    }
}

/// The line of the log that says why, where it is, and what hides it.
fn quote(out: &mut String, failure: &Failure) {
    let Some(log) = &failure.log else { return };
    let Some(line) = &log.finding.root_cause else { return };
    wrap(out, "Log says", clean(line).trim());
    let number = log.finding.line_number.map_or(String::new(), |n| format!("line {n} of "));
    let name = log.path.file_name().unwrap_or(log.path.as_os_str());
    let hidden = log.finding.masked_by.as_ref();
    let hidden = hidden.map_or(String::new(), |m| format!("; hidden behind: {}", clean(m).trim()));
    let cause = log.finding.cause.as_str();
    wrap(out, " ", &format!("({cause}; {number}{}{hidden})", clean(&name.to_string_lossy())));
}

/// Lines of at most 80 columns with a hanging key; a longer word stays whole.
fn wrap(out: &mut String, key: &str, text: &str) {
    let indent = if key.is_empty() { 2 } else { 14 };
    let mut line = if key.is_empty() { "  ".to_owned() } else { format!("  {key:<12}") };
    let mut empty = true;
    for word in text.split(' ') {
        if !empty && line.chars().count() + 1 + word.chars().count() > 80 {
            let _ = writeln!(out, "{}", line.trim_end());
            line = " ".repeat(indent);
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    let _ = writeln!(out, "{}", line.trim_end());
}

/// The report as JSON: the verdict and the story of each member.
pub fn json(run: &RunState, subjects: &[Subject<'_>]) -> Value {
    let jobs = subjects.iter().map(|s| {
        json!({
            "chunk_id": s.number,
            "id": s.member.display_id(),
            "job_id": s.member.job_id,
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
        "jobs": jobs.collect::<Vec<_>>(),
    })
}
