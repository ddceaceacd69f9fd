//! What a report draws: jobs and steps over time, and memory beside its limits.

use std::collections::HashSet;

use inquest_journal::{StepId, Timestamp};
use maud::{Markup, html};

use super::deaths::{Told, told};
use super::{Subject, message};
use crate::report::clean;
use crate::report::html::{Bar, Mark, Row, class_name, memory, timeline};
use crate::runs::RunState;
use crate::units::duration;
use crate::verdict::{Class, Verdict};

/// Jobs of a run, or steps and tasks of a job, over time.
pub(super) fn times(id: &str, run: &RunState, subjects: &[Subject<'_>]) -> Markup {
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
    let deaths = verdict.iter().flat_map(|v| v.first_failure.iter().chain(&v.consequences));
    let died: HashSet<(StepId, u32)> = deaths.map(|d| (d.step, d.task)).collect();
    let class = verdict.map(|v| v.class);
    let mut rows = Vec::new();
    for (&id, step) in &attempt.steps {
        for (&rank, task) in &step.tasks {
            let Some(from) = &task.started else { continue };
            let to = task.exit.as_ref().map(|e| e.at.wall);
            let bad = died.contains(&(id, rank));
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
    rows
}

pub(super) fn memories(id: &str, subjects: &[Subject<'_>]) -> Markup {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::run;
    use crate::story::{Attempt, EventId, Moment, Step, Story, Task};

    #[test]
    fn what_is_not_drawn_of_a_job_is_said() {
        let at = |seconds: i64| Moment {
            wall: Timestamp(seconds * 1_000_000),
            node: "n1".into(),
            boot: "b".into(),
            mono_us: 0,
            event: EventId { stream: "s".into(), seq: 0 },
        };
        let task = |rank: u32| Task { started: Some(at(i64::from(rank))), ..Task::default() };
        let tasks = (0..5000).map(|rank| (rank, Box::new(task(rank)))).collect();
        let mut attempt = Attempt { started: Some(at(0)), last: Some(at(5000)), ..Attempt::default() };
        attempt.steps.insert(StepId::Number(0), Step { tasks, ..Step::default() });
        let run = run(1);
        let story = Story { attempts: vec![attempt] };
        let subject = Subject { number: 1, member: &run.members[&1], story, failure: None, closed: false };
        let page = times("r", &run, &[subject]).into_string();
        assert!(page.contains("4600 more are not drawn"), "{page}");
    }
}
