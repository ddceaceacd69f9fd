//! The report as a page that stands alone.

use std::collections::BTreeMap;

use inquest_journal::{StepId, Timestamp};
use jiff::tz::TimeZone;
use maud::{Markup, html};

use super::children::children;
use super::deaths::told;
use super::groups::Group;
use super::{
    SHOWN, Subject, advice, before, clock, confidence, groups, killed, members, message, pictures, stalled,
    unknown,
};
use crate::report::html::{class_name, classes, page, pill};
use crate::report::logfiles::log_files;
use crate::report::{Clock, clean, nodes, time};
use crate::runs::RunState;
use crate::slurm::hostlist;
use crate::units::{count, duration};
use crate::verdict::{Class, Verdict};

/// Jobs in the table of all.
const LISTED: usize = 1000;

/// Deaths of one job.
const DEATHS: usize = 50;

/// A whole page on one or several runs, each with those of its members that
/// were asked for.
pub fn html(reports: &[(&RunState, &[Subject<'_>])], only: Option<StepId>, zone: &TimeZone) -> String {
    let title = match reports {
        [(_, [one])] => format!("Job {}: why", one.member.display_id()),
        [(run, _)] => format!("Run {}: why", run.run_id),
        _ => format!("{}: why", count(reports.len(), "run", "runs")),
    };
    let newest = reports.iter().map(|(run, _)| run.last).max();
    let body = html! {
        @for (index, (run, subjects)) in reports.iter().enumerate() {
            (report(&format!("r{index}"), run, subjects, only, zone))
        }
        footer {
            p {
                "Made by inquest " (env!("CARGO_PKG_VERSION")) " from what was recorded"
                @if let Some(at) = newest { " until " (time(at, zone)) " (" (zone_name(zone, at)) ")" }
                ". This file loads nothing from elsewhere."
            }
        }
    };
    page(&title, &body)
}

fn zone_name(zone: &TimeZone, at: Timestamp) -> String {
    let at = jiff::Timestamp::from_microsecond(at.0).unwrap_or_default();
    zone.iana_name().map_or_else(|| at.to_zoned(zone.clone()).strftime("UTC%:z").to_string(), str::to_owned)
}

/// What one run's page says, without the page around it. `id` makes names
/// unique on the page.
pub fn report(
    id: &str,
    run: &RunState,
    subjects: &[Subject<'_>],
    only: Option<StepId>,
    zone: &TimeZone,
) -> Markup {
    let groups = groups(subjects);
    let one = matches!(subjects, [_]);
    let clock = &clock(run, subjects, zone);
    html! {
        (head(id, run, subjects, zone))
        main {
            @if !one {
                (summary(subjects))
                (first(subjects, clock))
            }
            @if let [subject] = subjects {
                article class=(class_name(subject.member.verdict.as_ref().map(|v| v.class))) {
                    h2 { "What went wrong" }
                    (job(run, subject, only, clock))
                }
            } @else {
                @for (index, group) in groups.iter().take(SHOWN).enumerate() {
                    (kind(index, run, group, only, clock))
                }
                @if groups.len() > SHOWN {
                    p { (count(groups.len() - SHOWN, "more kind", "more kinds")) " of failure: " code { "inquest errors " (run.run_id) } }
                }
            }
            (pictures::times(id, run, subjects))
            (pictures::memories(id, subjects))
            @if !groups.is_empty() { (next(run, &groups)) }
            @if !one { (all(subjects, zone)) }
        }
    }
}

fn head(id: &str, run: &RunState, subjects: &[Subject<'_>], zone: &TimeZone) -> Markup {
    let failed = subjects.iter().filter(|s| s.failed()).count();
    let running = subjects.iter().filter(|s| s.member.verdict.is_none()).count();
    let mut counts: BTreeMap<Option<Class>, usize> = BTreeMap::new();
    for subject in subjects {
        *counts.entry(subject.member.verdict.as_ref().map(|v| v.class)).or_default() += 1;
    }
    let mut counts: Vec<(Option<Class>, usize)> = counts.into_iter().collect();
    // Failures first, then what ended well, then what runs.
    counts.sort_by_key(|(c, n)| (c.is_none(), *c == Some(Class::Ok), std::cmp::Reverse(*n)));
    let name = match subjects {
        [one] => one.attempt().and_then(|a| a.facts.name.as_deref()).or(run.name.as_deref()),
        _ => run.name.as_deref(),
    };
    html! {
        header class="top" {
            h1 {
                @match subjects {
                    [one] => { "Job " (one.member.display_id()) }
                    _ => { "Run " (run.run_id) }
                }
                small { (clean(name.unwrap_or("-"))) }
            }
            p class="meta" {
                (clean(&run.user)) " on " (clean(&run.cluster))
                @match subjects {
                    [one] => {
                        @if let Some(attempt) = one.attempt() {
                            " (" (clean(&hostlist::fold(attempt.nodes.iter().map(AsRef::as_ref)))) ")"
                        }
                        "; started " (time(one.member.started, zone))
                        ", took " (duration(one.member.last.since(one.member.started)))
                    }
                    _ => {
                        "; started " (time(run.started, zone)) ", took " (duration(run.last.since(run.started)))
                        @if running > 0 { " so far" }
                    }
                }
            }
            @match subjects {
                [one] => {
                    p class={ "verdict " (if failed > 0 { "bad" } else { "good" }) } {
                        (one.member.verdict.as_ref().map_or("RUNNING", |v| v.label.as_str()))
                    }
                }
                _ => {
                    p class={ "verdict " (if failed > 0 { "bad" } else { "good" }) } {
                        (failed) " of " (count(subjects.len(), "job", "jobs")) " failed"
                        @if running > 0 { ", " (running) " still running" }
                    }
                    (classes(&format!("{id}-c"), &counts))
                }
            }
        }
    }
}

fn summary(subjects: &[Subject<'_>]) -> Markup {
    let mut rows: BTreeMap<(Option<Class>, String), Vec<&Subject<'_>>> = BTreeMap::new();
    for subject in subjects.iter().filter(|s| s.failed()) {
        let verdict = subject.member.verdict.as_ref();
        let cause = subject.failure.as_ref().map(|f| &f.cause).or(verdict.map(|v| &v.cause));
        let key = (verdict.map(|v| v.class), cause.cloned().unwrap_or_default());
        rows.entry(key).or_default().push(subject);
    }
    let mut rows: Vec<_> = rows.into_iter().collect();
    rows.sort_by_key(|(_, of)| std::cmp::Reverse(of.len()));
    html! {
        @if !rows.is_empty() {
            section {
                h2 { "Summary" }
                div class="scroll" tabindex="0" {
                    table {
                        thead {
                            tr {
                                th scope="col" { "Class" } th scope="col" { "Cause" }
                                th scope="col" class="num" { "Jobs" } th scope="col" { "Members" }
                            }
                        }
                        tbody {
                            @for ((class, cause), of) in &rows {
                                tr {
                                    td { (pill(*class, &class_name(*class))) }
                                    td { (clean(cause)) }
                                    td class="num" { (of.len()) }
                                    td class="wide" { (members(of)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn first(subjects: &[Subject<'_>], clock: &Clock<'_>) -> Markup {
    let first = subjects.iter().filter(|s| s.failed()).min_by_key(|s| (s.failed_at(), s.number));
    let bad = nodes::bad(subjects.iter().filter_map(Subject::end));
    html! {
        @if let Some(first) = first {
            section {
                h2 { "First failure" }
                p {
                    span class="mono" { (clock.say(first.failed_at())) } " "
                    strong { (first.member.display_id()) }
                    @if let Some(node) = first.node() { " on " (clean(node)) }
                }
                p { (clean(message(first))) }
                @for n in &bad {
                    p {
                        "Node " strong { (clean(&n.node)) } ": " (n.says()) "."
                    }
                }
            }
        }
    }
}

fn kind(index: usize, run: &RunState, group: &Group<'_>, only: Option<StepId>, clock: &Clock<'_>) -> Markup {
    let first = group.first();
    html! {
        article class=(class_name(Some(group.class))) {
            h2 {
                (index + 1) ". " (clean(&group.label)) " " (pill(Some(group.class), &clean(&group.cause)))
            }
            p {
                strong { (count(group.subjects.len(), "job", "jobs")) } ": "
                (group.members())
                @let hosts = group.nodes();
                @if !hosts.is_empty() { " on " (clean(&hosts)) }
            }
            @if group.subjects.len() > 1 {
                h3 { "The first of them: " (first.member.display_id()) " at " (clock.say(first.failed_at())) }
            }
            (job(run, first, only, clock))
        }
    }
}

fn job(run: &RunState, subject: &Subject<'_>, only: Option<StepId>, clock: &Clock<'_>) -> Markup {
    let Some(verdict) = &subject.member.verdict else {
        return html! {
            p { "It has not ended yet, so there is no verdict." }
            @for said in stalled(subject) { p { (clean(&said)) "." } }
        };
    };
    let advice = advice(subject, verdict);
    let unknown = unknown(subject, verdict);
    let files = subject.attempt().map_or_else(Vec::new, |a| log_files(run, subject.member, a));
    html! {
        p { (clean(&verdict.detail)) }
        (log(subject))
        (happened(verdict, only, clock))
        (inside(subject, verdict, only, clock))
        @if !advice.is_empty() {
            h3 class="part" { "Advice" }
            ul class="advice" { @for a in &advice { li { (clean(a)) } } }
        }
        dl {
            @if let Some(said) = &verdict.slurm {
                dt { "Slurm says" }
                dd {
                    (clean(&said.verdict()))
                    @if verdict.class != Class::Ok && said.state_word() == "COMPLETED" { ", and does not know" }
                }
            }
            dt { "Confidence" } dd { (confidence(verdict.confidence)) }
            @if verdict.class != Class::Ok && !verdict.evidence.is_empty() {
                dt { "Evidence" }
                dd { @for e in verdict.evidence.iter().take(8) { code { (clean(&e.to_string())) } " " } }
            }
            @if !files.is_empty() {
                dt { "Logs" }
                dd { @for f in files.iter().take(8) { code { (clean(&f.path.to_string_lossy())) } " " } }
            }
            @if !verdict.clocks.is_empty() {
                dt { "Clocks" }
                dd { @for said in super::clocks(verdict) { (clean(&said)) br; } }
            }
            @if !unknown.is_empty() {
                dt { "Not known" }
                dd { @for u in &unknown { (clean(u)) br; } }
            }
        }
    }
}

/// What the log says, with the lines before it.
fn log(subject: &Subject<'_>) -> Markup {
    let Some(failure) = &subject.failure else { return html! {} };
    let file =
        |path: &std::path::Path| clean(&path.file_name().unwrap_or(path.as_os_str()).to_string_lossy());
    if let Some((log, line)) = failure.log.as_ref().and_then(|l| Some((l, l.finding.root_cause.as_ref()?))) {
        let lines = before(log);
        return html! {
            h3 class="part" {
                "Log says"
                @if let Some(n) = log.finding.line_number { ", line " (n) } " of " span class="as-is" { (file(&log.path)) }
            }
            @if lines.is_empty() {
                pre { span class="hit" { (clean(line).trim()) } }
            } @else {
                pre {
                    @for (n, text) in &lines {
                        span class="n" { (format!("{n:>6}  ")) }
                        @if Some(*n) == log.finding.line_number {
                            span class="hit" { (clean(text).trim_end()) }
                        } @else { (clean(text).trim_end()) }
                        "\n"
                    }
                }
            }
            @if let Some(hidden) = &log.finding.masked_by {
                p class="meta" { "Hidden behind: " (clean(hidden).trim()) }
            }
        };
    }
    html! {
        @if let Some(ends) = &failure.ends {
            h3 class="part" { "Log ends without an error: " span class="as-is" { (file(&ends.path)) } }
            pre {
                @for line in &ends.lines[ends.lines.len().saturating_sub(super::ENDING)..] {
                    (clean(line).trim_end()) "\n"
                }
            }
        }
    }
}

fn happened(verdict: &Verdict, only: Option<StepId>, clock: &Clock<'_>) -> Markup {
    let told = told(verdict, only);
    html! {
        @if !told.is_empty() {
            h3 class="part" { "What happened" }
            div class="scroll" tabindex="0" {
                table {
                    thead {
                        tr {
                            th scope="col" { "Time" } th scope="col" { "Offset" } th scope="col" { "Where" }
                            th scope="col" { "End" }
                        }
                    }
                    tbody {
                        @for t in told.iter().take(DEATHS) {
                            tr {
                                td class="time" { (clock.say(t.first.at.wall)) }
                                td class="time" { (t.first.offset()) }
                                td class="wide" { (clean(&t.place)) }
                                td class="wide" {
                                    (t.first.end())
                                    @if t.root { " " (pill(Some(verdict.class), if verdict.unordered.is_some() { "first?" } else { "first" })) }
                                    @if t.count > 1 { ", until +" (duration(t.last.offset_us)) }
                                    @if t.first.oom_kills > 0 { br; "killed for memory: " (killed(t.first)) }
                                    @if t.count == 1 { @if let Some(m) = t.first.memory() { br; (m) } }
                                }
                            }
                        }
                    }
                }
            }
            @if told.len() > DEATHS { p class="meta" { "and " (told.len() - DEATHS) " more" } }
        }
    }
}

/// What died inside of the tasks.
fn inside(subject: &Subject<'_>, verdict: &Verdict, only: Option<StepId>, clock: &Clock<'_>) -> Markup {
    let (children, more) = children(subject, verdict, only);
    html! {
        @if !children.is_empty() {
            h3 class="part" { "What died inside" }
            ul {
                @for child in &children {
                    li { (clock.say(child.at.wall)) " " (child.offset) " " (child.text) }
                }
            }
            @if more > 0 { p class="meta" { "and " (more) " more" } }
        }
    }
}

fn next(run: &RunState, groups: &[Group<'_>]) -> Markup {
    let mut kinds: Vec<Class> = groups.iter().map(|g| g.class).collect();
    kinds.sort_unstable();
    kinds.dedup();
    html! {
        section {
            h2 { "Run it again" }
            pre {
                "inquest rerun " (run.run_id) "\n"
                @if kinds.len() > 1 {
                    @for class in &kinds { "inquest rerun " (run.run_id) " --class " (class.to_string()) "\n" }
                }
            }
        }
    }
}

fn all(subjects: &[Subject<'_>], zone: &TimeZone) -> Markup {
    html! {
        section {
            h2 { "All jobs" }
            details {
                summary { (count(subjects.len(), "job", "jobs")) }
                div class="scroll" tabindex="0" {
                    table {
                        thead {
                            tr {
                                th scope="col" { "Job" } th scope="col" { "Class" } th scope="col" { "Node" }
                                th scope="col" { "Started" } th scope="col" class="num" { "Took" }
                                th scope="col" { "What" }
                            }
                        }
                        tbody {
                            @for s in subjects.iter().take(LISTED) {
                                @let class = s.member.verdict.as_ref().map(|v| v.class);
                                tr {
                                    td { (s.member.display_id()) }
                                    td { (pill(class, &class_name(class))) }
                                    td { (s.node().map_or_else(|| "-".into(), clean)) }
                                    td class="time" { (time(s.member.started, zone)) }
                                    td class="num" { (duration(s.member.last.since(s.member.started))) }
                                    td class="wide" { (clean(message(s))) }
                                }
                            }
                        }
                    }
                }
                @if subjects.len() > LISTED {
                    p class="meta" { "and " (subjects.len() - LISTED) " more" }
                }
            }
        }
    }
}
