//! Which of the signs is the root cause.
//!
//! The scheduler's verdict first, unless the program had failed before on its
//! own; then what ended the program; then what it stated; then kills,
//! cancellation, what is often survived, and last the wrappers.

use super::candidates::Candidate;
use super::finding::{Cause, Confidence, Finding};
use super::rules::{Strength, success};
use super::text::{Level, Line};

/// Signs further apart than this, in lines, belong to different stories.
const GAP: u64 = 300;
/// A failure this close before the scheduler's verdict led to it.
const NEAR: u64 = 40;

/// Chooses among the signs.
pub(crate) fn choose(lines: &[Line], mut signs: Vec<Candidate>) -> Finding {
    let complete = lines.iter().rposition(|l| success::complete(&l.text));
    survive(lines, &mut signs, complete);
    let Some(root) = root(lines, &signs) else {
        return Finding::nothing();
    };
    report(lines, &signs, root)
}

/// Drops what the job survived.
fn survive(lines: &[Line], signs: &mut Vec<Candidate>, complete: Option<usize>) {
    if let Some(end) = complete {
        let recovered = |from: usize| lines[from..end].iter().any(|l| recovery(&l.text));
        signs.retain(|c| {
            c.line > end
                || c.strength == Strength::Verdict
                || matches!(c.cause, Cause::Convergence) && c.strength >= Strength::Error
                || c.strength == Strength::Fatal && !recovered(c.line)
                || c.line == end
        });
    }
    // What is often survived counts only where the log ends with it.
    let last_progress =
        lines.iter().rposition(|l| success::progress(&l.text) && l.level != Some(Level::Error));
    let total = lines.len();
    signs.retain(|c| {
        if c.strength != Strength::Soft {
            return true;
        }
        let quiet = matches!(lines[c.line].level, Some(Level::Info | Level::Warn));
        let survived = last_progress.is_some_and(|p| p > c.line);
        let far = quiet && total - c.line > 12;
        !(survived || far)
    });
}

fn recovery(text: &str) -> bool {
    let t = text.to_ascii_lowercase();
    [
        "retry",
        "restart",
        "retries",
        "attempt",
        "resum",
        "recover",
        "resubmit",
        "fallback",
        "falling back",
        "skipping",
    ]
    .iter()
    .any(|w| t.contains(w))
}

fn root(lines: &[Line], signs: &[Candidate]) -> Option<usize> {
    let first = |s: Strength| signs.iter().position(|c| c.strength == s);
    let cancel = first(Strength::Cancel);
    if let Some(v) = verdict(signs) {
        return Some(own_failure_before(lines, signs, v).unwrap_or(v));
    }
    // What comes after the cancellation is its consequence.
    let horizon = cancel.map_or(usize::MAX, |c| signs[c].line);
    let before: Vec<usize> = (0..signs.len()).filter(|&i| signs[i].line <= horizon).collect();
    if let Some(best) = ended(lines, signs, &before) {
        return Some(best);
    }
    if let Some(c) = cancel {
        let killed_step = lines[signs[c].line].text.contains("STEP")
            && !lines.iter().any(|l| l.text.contains("*** JOB ") && l.text.contains("CANCELLED"));
        let wrapped = before
            .iter()
            .rev()
            .copied()
            .find(|&i| signs[i].strength == Strength::Wrapper && signs[i].rule.starts_with("srun_"));
        if let (true, Some(w)) = (killed_step, wrapped) {
            return Some(w);
        }
        let weak = before.iter().copied().find(|&i| {
            signs[i].strength == Strength::Weak && lines[horizon].number - lines[signs[i].line].number <= 15
        });
        return Some(weak.unwrap_or(c));
    }
    let all: Vec<usize> = (0..signs.len()).collect();
    let of = |s: Strength| all.iter().copied().filter(move |&i| signs[i].strength == s);
    // A kill beside a general error message explains it; a known soft sign
    // says more than a general one.
    of(Strength::Kill)
        .next()
        .or_else(|| last_story(lines, signs, of(Strength::Weak).collect()))
        .or_else(|| last_story(lines, signs, of(Strength::Soft).collect()))
        .or_else(|| of(Strength::Wrapper).next())
}

/// The scheduler's verdict: the first, but a memory kill before the others,
/// and limits named with their step beside those without.
fn verdict(signs: &[Candidate]) -> Option<usize> {
    signs.iter().position(|c| c.strength == Strength::Verdict)
}

/// A failure that the program reported on its own before the scheduler acted.
fn own_failure_before(lines: &[Line], signs: &[Candidate], v: usize) -> Option<usize> {
    let at = lines[signs[v].line].number;
    let oom = signs[v].cause == Cause::Oom;
    let mut kill_seen = false;
    for (i, c) in signs.iter().enumerate().take(v) {
        kill_seen |= c.strength == Strength::Kill;
        if c.strength != Strength::Fatal || at - lines[c.line].number > NEAR {
            continue;
        }
        let consequence = if oom {
            kill_seen
                || matches!(
                    c.cause,
                    Cause::Oom
                        | Cause::Crash
                        | Cause::Mpi
                        | Cause::Network
                        | Cause::Hang
                        | Cause::EngineWrapper
                        | Cause::Cancelled
                )
        } else {
            matches!(c.cause, Cause::EngineWrapper | Cause::Cancelled | Cause::Network | Cause::Mpi)
        };
        let went_on = lines[c.line + 1..signs[v].line]
            .iter()
            .any(|l| success::progress(&l.text) && l.level != Some(Level::Error));
        if !consequence && !went_on {
            return Some(i);
        }
    }
    None
}

/// The sign that ended the program, among those given.
fn ended(lines: &[Line], signs: &[Candidate], among: &[usize]) -> Option<usize> {
    let strong: Vec<usize> = among
        .iter()
        .copied()
        .filter(|&i| signs[i].strength >= Strength::Error && signs[i].strength < Strength::Verdict)
        .collect();
    let story = stories(lines, signs, strong);
    // The last story that holds something fatal, else the last.
    let story = story
        .iter()
        .rev()
        .find(|s| s.iter().any(|&i| signs[i].strength == Strength::Fatal))
        .or(story.last())?;
    let fatal: Vec<usize> = story.iter().copied().filter(|&i| signs[i].strength == Strength::Fatal).collect();
    let Some(&first) = fatal.first() else {
        // Statements only: the first with a known reason.
        return story.iter().copied().find(|&i| signs[i].specific).or(story.first().copied());
    };
    // Space and memory explain what was written, parsed or missing before the
    // message about them came; a broken connection is mostly the echo of
    // another rank's end.
    if let Some(&better) = fatal.iter().find(|&&i| explains(&signs[i], &signs[first])) {
        return Some(better);
    }
    // A statement right before the end says more than the end itself.
    let c = &signs[first];
    if !c.specific || c.cause == Cause::Crash {
        let near = story.iter().copied().find(|&i| {
            let d = lines[c.line].number.saturating_sub(lines[signs[i].line].number);
            i < first
                && signs[i].strength == Strength::Error
                && signs[i].specific
                && d <= 12
                && signs[i].cause != Cause::EngineWrapper
        });
        // A C++ exception's message can follow its announcement.
        let after = (c.lang == Some("c") && !c.specific)
            .then(|| {
                story.iter().copied().find(|&i| {
                    i > first
                        && signs[i].specific
                        && signs[i].cause != Cause::Crash
                        && lines[signs[i].line].number - lines[c.line].number <= 5
                })
            })
            .flatten();
        if let Some(i) = near.or(after) {
            return Some(i);
        }
    }
    Some(first)
}

fn explains(later: &Candidate, first: &Candidate) -> bool {
    let strong = matches!(later.cause, Cause::DiskFull | Cause::Oom | Cause::GpuHw | Cause::GpuOom);
    let general =
        matches!(first.cause, Cause::AppError | Cause::ParseError | Cause::Filesystem | Cause::Crash);
    let echo = matches!(first.cause, Cause::Mpi | Cause::Network | Cause::Hang);
    let own = !matches!(
        later.cause,
        Cause::Mpi | Cause::Network | Cause::Hang | Cause::EngineWrapper | Cause::Crash
    );
    strong
        && general
        && later.line > first.line
        && later.cause != first.cause
        && !matches!(first.cause, Cause::Crash if later.cause == Cause::GpuOom)
        || echo && own && later.line > first.line && first.exception.is_some()
}

fn stories(lines: &[Line], signs: &[Candidate], of: Vec<usize>) -> Vec<Vec<usize>> {
    let mut out: Vec<Vec<usize>> = Vec::new();
    for i in of {
        let at = lines[signs[i].line].number;
        match out.last_mut() {
            Some(s) if s.last().is_some_and(|&l| at - lines[signs[l].line].number <= GAP) => s.push(i),
            _ => out.push(vec![i]),
        }
    }
    out
}

/// The first known sign of the last story, else its first.
fn last_story(lines: &[Line], signs: &[Candidate], of: Vec<usize>) -> Option<usize> {
    let stories = stories(lines, signs, of);
    let story = stories.last()?;
    story.iter().copied().find(|&i| signs[i].specific).or(story.first().copied())
}

fn report(lines: &[Line], signs: &[Candidate], root: usize) -> Finding {
    let c = &signs[root];
    let line = &lines[c.line];
    let infra = c.infra.unwrap_or(c.cause.infra_by_default());
    let quote = line.quote.trim().to_owned();
    let masked_by =
        masked(lines, signs, root).map(|i| lines[i].quote.trim().to_owned()).filter(|m| *m != quote);
    Finding {
        cause: c.cause,
        class: c.cause.class(infra),
        root_cause: Some(quote),
        line_number: Some(line.number),
        exception_type: c.exception.clone(),
        masked_by,
        infra,
        confidence: match c.strength {
            Strength::Verdict => Confidence::High,
            Strength::Fatal if c.specific => Confidence::High,
            Strength::Fatal | Strength::Error | Strength::Cancel | Strength::Kill => Confidence::Medium,
            _ => Confidence::Low,
        },
        language: c.lang,
        chain: c.chain.clone(),
        rule: c.rule,
    }
}

/// What a hasty reader would quote instead: the outermost exception, else the
/// last wrapper, else the last other sign after the root, else a wrapper
/// before it.
fn masked(lines: &[Line], signs: &[Candidate], root: usize) -> Option<usize> {
    let c = &signs[root];
    let same = |i: usize| lines[i].text == lines[c.line].text;
    if let Some(o) = c.outermost
        && !same(o)
    {
        return Some(o);
    }
    let later = |f: &dyn Fn(&Candidate) -> bool| {
        signs.iter().rev().find(|s| s.line > c.line && f(s) && !same(s.line)).map(|s| s.line)
    };
    later(&|s| s.strength == Strength::Wrapper)
        .or_else(|| later(&|s| s.strength > Strength::Soft || s.strength == Strength::Aftermath))
        .or_else(|| {
            signs
                .iter()
                .find(|s| {
                    s.line < c.line
                        && matches!(s.strength, Strength::Wrapper | Strength::Kill)
                        && !same(s.line)
                })
                .map(|s| s.line)
        })
}
