//! The report as a page that stands alone.

use std::collections::BTreeMap;

use inquest_journal::{StepId, Timestamp};
use jiff::tz::TimeZone;
use maud::{Markup, html};

use super::children::children;
use super::deaths::{Told, told};
use super::groups::Group;
use super::{SHOWN, Subject, advice, before, confidence, groups, killed, members, message, unknown};
use crate::report::html::{Bar, Mark, Row, class_name, classes, memory, page, pill, timeline};
use crate::report::logfiles::log_files;
use crate::report::{clean, clock, nodes, time};
use crate::runs::RunState;
use crate::slurm::hostlist;
use crate::units::{count, duration};
use crate::verdict::{Class, Verdict};

/// Jobs in the table of all.
const LISTED: usize = 1000;

/// Deaths of one job.
const DEATHS: usize = 50;

/// Rows of a picture of one job.
const ROWS: usize = 400;

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
    html! {
        (head(id, run, subjects, zone))
        main {
            @if !one {
                (summary(subjects))
                (first(subjects, zone))
            }
            @if let [subject] = subjects {
                article class=(class_name(subject.member.verdict.as_ref().map(|v| v.class))) {
                    h2 { "What went wrong" }
                    (job(run, subject, only, zone))
                }
            } @else {
                @for (index, group) in groups.iter().take(SHOWN).enumerate() {
                    (kind(index, run, group, only, zone))
                }
                @if groups.len() > SHOWN {
                    p { (count(groups.len() - SHOWN, "more kind", "more kinds")) " of failure: " code { "inquest errors " (run.run_id) } }
                }
            }
            (times(id, run, subjects))
            (memories(id, subjects))
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

fn first(subjects: &[Subject<'_>], zone: &TimeZone) -> Markup {
    let first = subjects.iter().filter(|s| s.failed()).min_by_key(|s| (s.failed_at(), s.number));
    let ends = subjects.iter().filter(|s| s.member.verdict.is_some());
    let bad = nodes::bad(ends.filter_map(|s| Some((s.node()?, s.failed()))));
    html! {
        @if let Some(first) = first {
            section {
                h2 { "First failure" }
                p {
                    span class="mono" { (clock(first.failed_at(), zone)) } " "
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

/// Jobs of a run, or steps and tasks of a job, over time.
fn times(id: &str, run: &RunState, subjects: &[Subject<'_>]) -> Markup {
    let rows = match subjects {
        [one] => rows_of_job(one),
        _ => rows_of_run(subjects),
    };
    let what = match subjects {
        [one] => format!("Steps and tasks of job {} over time", one.member.display_id()),
        _ => format!("Jobs of run {} over time", run.run_id),
    };
    html! {
        @if !rows.is_empty() {
            section {
                h2 { "Timeline" }
                (timeline(&format!("{id}-time"), &what, &rows))
                @if rows.iter().any(|r| !r.marks.is_empty()) {
                    p class="meta" { "A diamond is a death; point at a bar or a diamond to read what it is." }
                }
            }
        }
    }
}

fn rows_of_run(subjects: &[Subject<'_>]) -> Vec<Row> {
    let Some(start) = subjects.iter().map(|s| s.member.started).min() else { return Vec::new() };
    let mut subjects: Vec<&Subject<'_>> = subjects.iter().collect();
    subjects.sort_by_key(|s| (s.member.started, s.number));
    let row = |s: &&Subject<'_>| {
        let verdict = s.member.verdict.as_ref();
        let class = verdict.map(|v| v.class);
        let ran = duration(s.member.last.since(s.member.started));
        Row {
            name: s.member.display_id(),
            from_us: s.member.started.since(start),
            to_us: s.member.last.since(start),
            class,
            title: clean(&format!("{}: {}, {ran}. {}", s.member.display_id(), class_name(class), message(s))),
            marks: verdict.map_or_else(Vec::new, |v| marks(v, start)),
        }
    };
    subjects.iter().map(row).collect()
}

fn marks(verdict: &Verdict, start: Timestamp) -> Vec<Mark> {
    let mark = |t: &Told<'_>| Mark {
        at_us: t.first.at.wall.since(start),
        title: clean(&format!("{}: {}", t.place, t.first.end())),
    };
    told(verdict, None).iter().map(mark).collect()
}

fn rows_of_job(subject: &Subject<'_>) -> Vec<Row> {
    let (Some(attempt), verdict) = (subject.attempt(), subject.member.verdict.as_ref()) else {
        return Vec::new();
    };
    let Some(start) = attempt.started.as_ref().map(|m| m.wall) else { return Vec::new() };
    let last = attempt.last.as_ref().map_or(start, |m| m.wall);
    let died = |step: StepId, task: u32| {
        let mut deaths = verdict.iter().flat_map(|v| v.first_failure.iter().chain(&v.consequences));
        deaths.any(|d| (d.step, d.task) == (step, task))
    };
    let class = verdict.map(|v| v.class);
    let mut rows = Vec::new();
    for (&id, step) in &attempt.steps {
        for (&rank, task) in &step.tasks {
            let Some(from) = &task.started else { continue };
            let to = task.exit.as_ref().map(|e| e.at.wall);
            let bad = died(id, rank);
            let end = match &task.exit {
                None => "no end was recorded".to_owned(),
                Some(e) => match (e.signal, e.code) {
                    (Some(signal), _) => crate::slurm::signal_name(signal),
                    (None, code) => format!("exit code {}", code.unwrap_or(0)),
                },
            };
            let at = to.unwrap_or(last).since(start);
            rows.push(Row {
                name: format!("{id}/{rank} on {}", clean(&task.node)),
                from_us: from.wall.since(start),
                to_us: at,
                class: match (bad, to) {
                    (true, _) => class,
                    (false, None) => None,
                    (false, Some(_)) => Some(Class::Ok),
                },
                title: clean(&format!("step {id} task {rank} on {}: {end}", task.node)),
                marks: if bad { vec![Mark { at_us: at, title: end }] } else { Vec::new() },
            });
        }
    }
    rows.sort_by_key(|r| r.from_us);
    rows.truncate(ROWS);
    rows
}

fn memories(id: &str, subjects: &[Subject<'_>]) -> Markup {
    let bars: Vec<Bar> = match subjects {
        [one] => bars_of_job(one),
        _ => subjects.iter().filter_map(bar_of).collect(),
    };
    html! {
        @if !bars.is_empty() {
            section {
                h2 { "Memory" }
                (memory(&format!("{id}-mem"), "Peak of memory beside its limit", &bars))
            }
        }
    }
}

/// The death for memory of a job, else the part of it that came closest to
/// its limit.
fn bar_of(subject: &Subject<'_>) -> Option<Bar> {
    let bars = bars_of_job(subject);
    let share = |b: &Bar| b.limit.map_or(0.0, |l| b.peak as f64 / l.max(1) as f64);
    let most = bars.into_iter().max_by(|a, b| share(a).total_cmp(&share(b)).then(a.peak.cmp(&b.peak)))?;
    Some(Bar { name: subject.member.display_id(), ..most })
}

fn bars_of_job(subject: &Subject<'_>) -> Vec<Bar> {
    let Some(attempt) = subject.attempt() else { return Vec::new() };
    let class = subject.member.verdict.as_ref().map(|v| v.class);
    let death = subject.member.verdict.as_ref().and_then(|v| v.first_failure.as_ref());
    let mut bars = Vec::new();
    for (id, step) in &attempt.steps {
        for (node, part) in &step.nodes {
            let tasks = step.tasks.values().filter(|t| t.node == *node).filter_map(|t| t.exit.as_ref());
            let tasks: Vec<_> = tasks.map(|e| &e.memory).collect();
            let all = || tasks.iter().copied().chain([&part.memory]);
            let Some(peak) = all().filter_map(|m| m.cgroup_peak_bytes).max() else { continue };
            let here = death.filter(|d| d.step == *id && d.at.node == *node);
            let limit = here.and_then(|d| d.limit_bytes).or(part.limit_bytes);
            bars.push(Bar {
                name: format!("{id} on {}", clean(node)),
                peak,
                limit: limit.or_else(|| all().find_map(|m| m.limit_bytes)),
                class: if here.is_some() { class } else { class.map(|_| Class::Ok) },
                clipped: all().any(|m| m.clipped),
            });
        }
    }
    bars
}

fn kind(index: usize, run: &RunState, group: &Group<'_>, only: Option<StepId>, zone: &TimeZone) -> Markup {
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
                h3 { "The first of them: " (first.member.display_id()) " at " (clock(first.failed_at(), zone)) }
            }
            (job(run, first, only, zone))
        }
    }
}

fn job(run: &RunState, subject: &Subject<'_>, only: Option<StepId>, zone: &TimeZone) -> Markup {
    let Some(verdict) = &subject.member.verdict else {
        return html! { p { "It has not ended yet, so there is no verdict." } };
    };
    let advice = advice(subject, verdict);
    let unknown = unknown(subject, verdict);
    let files = subject.attempt().map_or_else(Vec::new, |a| log_files(run, subject.member, a));
    html! {
        p { (clean(&verdict.detail)) }
        (log(subject))
        (happened(verdict, only, zone))
        (inside(subject, verdict, only, zone))
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

fn happened(verdict: &Verdict, only: Option<StepId>, zone: &TimeZone) -> Markup {
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
                                td class="time" { (clock(t.first.at.wall, zone)) }
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
fn inside(subject: &Subject<'_>, verdict: &Verdict, only: Option<StepId>, zone: &TimeZone) -> Markup {
    let (children, more) = children(subject, verdict, only);
    html! {
        @if !children.is_empty() {
            h3 class="part" { "What died inside" }
            ul {
                @for child in &children {
                    li { (clock(child.at.wall, zone)) " " (child.offset) " " (child.text) }
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
