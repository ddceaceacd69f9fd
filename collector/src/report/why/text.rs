//! The report as text of at most 80 columns.

use std::collections::BTreeMap;
use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use inquest_journal::StepId;
use jiff::tz::TimeZone;

use super::children::children;
use super::deaths::told;
use super::{
    ENDING, LOGS_READ, SHOWN, Subject, advice, before, clock, clocks, confidence, groups, killed, members,
    message, stalled, unknown,
};
use crate::report::failures::Failure;
use crate::report::logfiles::log_files;
use crate::report::wrap::{cut, hang, width};
use crate::report::{Clock, clean, nodes, time};
use crate::runs::{KeyKind, RunState};
use crate::slurm::hostlist;
use crate::units::{count, duration};
use crate::verdict::{Class, Verdict};

const BAD: Style = AnsiColor::Red.on_default().bold();
const GOOD: Style = AnsiColor::Green.on_default();
const HEAD: Style = Style::new().bold();

/// Logs named of one job.
const LOGS: usize = 3;

/// Lines of what happened in one job.
const DEATHS: usize = 20;

/// Evidence shown of one verdict; `--json` has it all.
const EVIDENCE: usize = 4;

/// Where values begin.
const INDENT: usize = 14;

/// Where the sentences of what happened begin.
const DEEP: usize = 29;

/// Failures after the first within so many microseconds are named with it.
const SOON_US: i64 = 60_000_000;

/// The report as text. `only` restricts what happened to one step.
pub fn text(run: &RunState, subjects: &[Subject<'_>], only: Option<StepId>, zone: &TimeZone) -> String {
    let mut out = String::new();
    let clock = &clock(run, subjects, zone);
    if let [subject] = subjects {
        heading(&mut out, run, subject, zone);
        body(&mut out, run, subject, only, clock);
        return out;
    }
    head(&mut out, run, subjects, zone);
    summary(&mut out, subjects);
    first_failure(&mut out, subjects, clock);
    let groups = groups(subjects);
    for (index, group) in groups.iter().take(SHOWN).enumerate() {
        let first = group.first();
        let jobs = count(group.subjects.len(), "job", "jobs");
        let plain = format!("{}. {}  {jobs}: ", index + 1, group.label);
        let styled = format!("{HEAD}{}.{HEAD:#} {BAD}{}{BAD:#}  {jobs}: ", index + 1, group.label);
        let columns = plain.chars().count();
        let on = match group.nodes() {
            nodes if nodes.is_empty() => String::new(),
            nodes => format!(" on {}", clean(&nodes)),
        };
        hang(&mut out, &styled, columns, 4, &format!("{}{on}", group.members()));
        if group.subjects.len() > 1 {
            let at = clock.say(first.failed_at());
            let id = full_id(first);
            let _ = writeln!(out, "  the first of them is {id} at {at}:");
        }
        body(&mut out, run, first, only, clock);
        out.push('\n');
    }
    if groups.len() > SHOWN {
        let left = count(groups.len() - SHOWN, "more kind", "more kinds");
        let _ = writeln!(out, "{left} of failure: see 'inquest errors {}'\n", run.run_id);
    }
    let failed: Vec<&Subject<'_>> = subjects.iter().filter(|s| s.failed()).collect();
    if failed.len() > LOGS_READ {
        let left = count(failed.len() - LOGS_READ, "failed job", "failed jobs");
        let _ =
            writeln!(out, "The logs of {left} were not read: 'inquest errors {}' reads all\n", run.run_id);
    }
    // What was not recorded is in no store for the other commands to read.
    if failed.iter().any(|s| s.recorded()) {
        again(&mut out, run, &groups.iter().map(|g| g.class).collect::<Vec<_>>());
    }
    out
}

fn head(out: &mut String, run: &RunState, subjects: &[Subject<'_>], zone: &TimeZone) {
    let failed = subjects.iter().filter(|s| s.failed()).count();
    let running = subjects.iter().filter(|s| s.member.verdict.is_none()).count();
    let colour = if failed == 0 { GOOD } else { BAD };
    let (name, user, cluster) = (name(run.name.as_deref()), clean(&run.user), clean(&run.cluster));
    let _ = writeln!(out, "{HEAD}Run {}{HEAD:#}  {name} of {user} on {cluster}", run.run_id);
    let plain = format!("{failed} of {} failed", count(subjects.len(), "job", "jobs"));
    let still = if running > 0 { format!(", {running} still running") } else { String::new() };
    let elapsed = duration(run.last.since(run.started));
    let so_far = if running > 0 { " so far" } else { "" };
    let rest = format!("{still}; started {}, took {elapsed}{so_far}", time(run.started, zone));
    let first = format!("{colour}{plain}{colour:#}");
    // The style belongs to the first words only.
    let (glued, rest) = rest.split_once(' ').unwrap_or((&rest, ""));
    hang(out, &format!("{first}{glued} "), plain.len() + glued.len() + 1, 2, rest);
    together(out, run);
    out.push('\n');
}

/// Why the jobs are one run, where that does not go without saying.
fn together(out: &mut String, run: &RunState) {
    if !matches!(run.key.won.kind, KeyKind::Array | KeyKind::Het | KeyKind::Job) {
        hang(out, "together as ", 12, 2, &clean(&run.key.describe()));
    }
    if !run.aliases.is_empty() {
        hang(out, "also called ", 12, 2, &clean(&run.aliases.join(", ")));
    }
}

fn name(name: Option<&str>) -> String {
    format!("\"{}\"", clean(name.unwrap_or("-")))
}

/// `22_3 (25)`: as people write it, and the job's own id.
fn full_id(subject: &Subject<'_>) -> String {
    match subject.member.display_id() {
        id if id == subject.member.job_id.to_string() => id,
        id => format!("{id} ({})", subject.member.job_id),
    }
}

/// Members by cause, ids in ranges: failures first, the most frequent first.
fn summary(out: &mut String, subjects: &[Subject<'_>]) {
    let mut rows: BTreeMap<(Option<Class>, &str), Vec<&Subject<'_>>> = BTreeMap::new();
    for subject in subjects {
        let verdict = subject.member.verdict.as_ref();
        let failure = subject.failure.as_ref().filter(|_| subject.failed());
        let cause = failure.map(|f| f.cause.as_str()).or(verdict.map(|v| v.cause.as_str()));
        rows.entry((verdict.map(|v| v.class), cause.unwrap_or("-"))).or_default().push(subject);
    }
    let mut rows: Vec<_> = rows.into_iter().collect();
    let good = |class: Option<Class>| class.is_none_or(|c| c == Class::Ok);
    rows.sort_by_key(|((class, _), of)| (good(*class), class.is_none(), std::cmp::Reverse(of.len())));
    let word = |class: Option<Class>| class.map_or("running".into(), |c| c.to_string());
    let class = rows.iter().map(|((c, _), _)| word(*c).len()).max().unwrap_or(0).max(5);
    let cause = rows.iter().map(|((_, c), _)| c.chars().count()).max().unwrap_or(0).max(5);
    let jobs = rows.iter().map(|(_, of)| of.len().to_string().len()).max().unwrap_or(0).max(4);
    let _ = writeln!(out, "{HEAD}Summary{HEAD:#}");
    let _ = writeln!(out, "  {:class$}  {:cause$}  {:>jobs$}  MEMBERS", "CLASS", "CAUSE", "JOBS");
    for ((c, why), of) in &rows {
        let why = if *c == Some(Class::Ok) { "-" } else { why };
        let first = format!("  {:class$}  {why:cause$}  {:>jobs$}  ", word(*c), of.len());
        let indent = class + cause + jobs + 8;
        hang(out, &first, indent, indent, &members(of));
    }
    out.push('\n');
}

/// The first failure of a run, and what came soon after it.
fn first_failure(out: &mut String, subjects: &[Subject<'_>], clock: &Clock<'_>) {
    let mut failed: Vec<&Subject<'_>> = subjects.iter().filter(|s| s.failed()).collect();
    failed.sort_by_key(|s| (s.failed_at(), s.number));
    let [first, rest @ ..] = failed.as_slice() else { return };
    let _ = writeln!(out, "{HEAD}First failure{HEAD:#}");
    let (at, id) = (clock.say(first.failed_at()), first.member.display_id());
    let deep = INDENT + 2 + clock.wider();
    let columns = format!("  {at}  {id}: ").chars().count();
    hang(out, &format!("  {at}  {HEAD}{id}{HEAD:#}: "), columns, deep, &clean(message(first)));
    let soon: Vec<&Subject<'_>> =
        rest.iter().filter(|s| s.failed_at().since(first.failed_at()) <= SOON_US).copied().collect();
    if let Some(last) = soon.last() {
        let hosts: std::collections::BTreeSet<&str> = soon.iter().filter_map(|s| s.node()).collect();
        let text = format!(
            "{} more failed within {} after it, on {}",
            soon.len(),
            duration(last.failed_at().since(first.failed_at())),
            clean(&hostlist::fold(hosts))
        );
        hang(out, &format!("{:deep$}", ""), deep, deep, &text);
    }
    for n in nodes::bad(subjects.iter().filter_map(Subject::end)) {
        let first = format!("  Node {}: ", clean(&n.node));
        hang(out, &first, first.chars().count(), INDENT + 2, &n.says());
    }
    out.push('\n');
}

fn heading(out: &mut String, run: &RunState, subject: &Subject<'_>, zone: &TimeZone) {
    let attempt = subject.attempt();
    let (colour, label) = match subject.member.verdict.as_ref() {
        None => (Style::new(), "RUNNING"),
        Some(v) if v.class == Class::Ok => (GOOD, v.label.as_str()),
        Some(v) => (BAD, v.label.as_str()),
    };
    let job_name = attempt.and_then(|a| a.facts.name.as_deref()).or(run.name.as_deref());
    let nodes = attempt.map_or(String::new(), |a| hostlist::fold(a.nodes.iter().map(AsRef::as_ref)));
    let (id, user) = (full_id(subject), clean(&run.user));
    let _ = writeln!(
        out,
        "{HEAD}Job {id}{HEAD:#}  {} of {user} on {}  {colour}{label}{colour:#}",
        name(job_name),
        clean(&nodes)
    );
    let member = subject.member;
    let took = member.last.since(member.started);
    // What Slurm alone tells of has whole seconds: it may have taken none.
    if took >= 0 && member.started.0 > 0 {
        let so_far = if member.verdict.is_none() { " so far" } else { "" };
        let _ = writeln!(out, "  started {}, took {}{so_far}", time(member.started, zone), duration(took));
    }
}

/// Everything of one job below its heading.
fn body(out: &mut String, run: &RunState, subject: &Subject<'_>, only: Option<StepId>, clock: &Clock<'_>) {
    let member = subject.member;
    if member.attempts > 1 {
        let _ = writeln!(
            out,
            "  attempt {} of this job; the earlier ones were put back into the queue",
            member.attempts
        );
    }
    let Some(verdict) = &member.verdict else {
        let _ = writeln!(out, "  it has not ended yet, so there is no verdict");
        stalled(subject).iter().for_each(|said| hang(out, "  ", 2, 2, &clean(said)));
        return;
    };
    hang(out, "  ", 2, 2, &clean(&verdict.detail));
    if let Some(failure) = &subject.failure {
        quote(out, failure);
    }
    what_happened(out, verdict, only, clock);
    inside(out, subject, verdict, only, clock);
    if let Some(said) = &verdict.slurm {
        let silent = verdict.class != Class::Ok && said.state_word() == "COMPLETED";
        let silent = if silent { ", and does not know" } else { "" };
        value(out, "Slurm says", &format!("{}{silent}", clean(&said.verdict())));
    }
    value(out, "Confidence", confidence(verdict.confidence));
    if verdict.class != Class::Ok && !verdict.evidence.is_empty() {
        value(out, "Evidence", &evidence(verdict));
    }
    if let Some(logs) = logs(run, subject) {
        value(out, "Logs", &logs);
    }
    let mut key = "Clocks";
    for said in clocks(verdict) {
        value(out, std::mem::take(&mut key), &clean(&said));
    }
    let mut key = "Advice";
    for advice in advice(subject, verdict) {
        value(out, std::mem::take(&mut key), &clean(&advice));
    }
    let mut key = "Not known";
    for reason in unknown(subject, verdict) {
        value(out, std::mem::take(&mut key), &clean(&reason));
    }
}

/// A line with a key; the value wrapped behind it.
fn value(out: &mut String, key: &str, text: &str) {
    hang(out, &format!("  {key:<12}"), INDENT, INDENT, text);
}

fn what_happened(out: &mut String, verdict: &Verdict, only: Option<StepId>, clock: &Clock<'_>) {
    let told = told(verdict, only);
    if told.is_empty() {
        return;
    }
    let _ = writeln!(out, "  {HEAD}What happened{HEAD:#}");
    let deep = DEEP + clock.wider();
    for t in told.iter().take(DEATHS) {
        let death = t.first;
        let mark = match (t.root, &verdict.unordered) {
            (false, _) => "",
            (true, None) => "  <- first",
            (true, Some(_)) => "  <- first?",
        };
        let until = match t.count {
            1 => String::new(),
            _ => format!(", until +{}", duration(t.last.offset_us)),
        };
        let first = format!("    {}  {:>9}  ", clock.say(death.at.wall), death.offset());
        hang(out, &first, deep, deep, &format!("{}: {}{until}{mark}", clean(&t.place), death.end()));
        let deeper = format!("{:deep$}", "");
        if death.oom_kills > 0 {
            hang(out, &deeper, deep, deep, &format!("killed for memory: {}", killed(death)));
        }
        if let Some(memory) = death.memory().filter(|_| t.count == 1) {
            hang(out, &deeper, deep, deep, &memory);
        }
    }
    if told.len() > DEATHS {
        let _ = writeln!(out, "    ... and {} more", told.len() - DEATHS);
    }
}

/// What died inside of the tasks.
fn inside(
    out: &mut String,
    subject: &Subject<'_>,
    verdict: &Verdict,
    only: Option<StepId>,
    clock: &Clock<'_>,
) {
    let (children, more) = children(subject, verdict, only);
    if children.is_empty() {
        return;
    }
    let _ = writeln!(out, "  {HEAD}What died inside{HEAD:#}");
    let deep = DEEP + clock.wider();
    for child in &children {
        let first = format!("    {}  {:>9}  ", clock.say(child.at.wall), child.offset);
        hang(out, &first, deep, deep, &child.text);
    }
    if more > 0 {
        let _ = writeln!(out, "    ... and {more} more");
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

/// The line of the log that says why, where it is, what hides it, and the
/// lines before it.
fn quote(out: &mut String, failure: &Failure) {
    let Some((log, line)) = failure.log.as_ref().and_then(|l| Some((l, l.finding.root_cause.as_ref()?)))
    else {
        return ends(out, failure);
    };
    value(out, "Log says", clean(line).trim());
    let number = log.finding.line_number.map_or(String::new(), |n| format!("line {n} of "));
    let name = log.path.file_name().unwrap_or(log.path.as_os_str());
    let hidden = log.finding.masked_by.as_ref();
    let hidden = hidden.map_or(String::new(), |m| format!("; hidden behind: {}", clean(m).trim()));
    let cause = log.finding.cause.as_str();
    value(out, "", &format!("({cause}; {number}{}{hidden})", clean(&name.to_string_lossy())));
    for (number, line) in before(log) {
        let text = format!("{:INDENT$}{number:>5} | {}", "", clean(line).trim_end());
        let _ = writeln!(out, "{}", cut(&text, width()));
    }
}

/// The last lines of a log that says nothing of a failure.
fn ends(out: &mut String, failure: &Failure) {
    let Some(ends) = &failure.ends else { return };
    let name = ends.path.file_name().unwrap_or(ends.path.as_os_str());
    value(
        out,
        "Log ends",
        &format!("without an error; the last lines of {}:", clean(&name.to_string_lossy())),
    );
    let from = ends.lines.len().saturating_sub(ENDING);
    for line in &ends.lines[from..] {
        let text = format!("{:INDENT$}| {}", "", clean(line).trim_end());
        let _ = writeln!(out, "{}", cut(text.trim_end(), width()));
    }
}

/// The commands that run it again.
fn again(out: &mut String, run: &RunState, classes: &[Class]) {
    let _ = writeln!(out, "{HEAD}Next{HEAD:#}");
    let mut lines = vec![(format!("inquest rerun {}", run.run_id), "print what runs the failed jobs again")];
    let mut classes = classes.to_vec();
    classes.sort_unstable();
    classes.dedup();
    if let [first, _, ..] = classes.as_slice() {
        lines.push((format!("inquest rerun {} --class {first}", run.run_id), "one class only"));
    }
    lines.push((format!("inquest timeline {}", run.run_id), "everything in the order of time"));
    lines.push((format!("inquest errors {}", run.run_id), "one line per failed job"));
    let wide = lines.iter().map(|(c, _)| c.len()).max().unwrap_or(0);
    for (command, what) in lines {
        let _ = writeln!(out, "  {command:wide$}  {what}");
    }
}
