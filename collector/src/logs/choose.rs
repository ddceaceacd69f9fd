//! Which of the signs is the root cause.
//!
//! The scheduler's verdict first, unless the program had failed before on its
//! own; then what ended the program; then what it stated; then kills,
//! cancellation, what is often survived, and last the wrappers.

use std::cell::OnceCell;
use std::ops::Range;

use super::candidates::Candidate;
use super::finding::{Cause, Confidence, Finding};
use super::rules::{Strength, python, success as known};
use super::text::{Level, Line};

/// Signs further apart than this, in lines, belong to different stories.
const GAP: u64 = 300;
/// A failure this close before the scheduler's verdict led to it.
const NEAR: u64 = 40;

/// What is asked of the lines between two others, for each of the signs: whether one of them shows that work
/// went on, or that a failure was dealt with. How many do is counted once up to each line, so that every answer
/// is a subtraction.
struct Course<'a> {
    lines: &'a [Line],
    progress: OnceCell<Vec<u32>>,
    recovery: OnceCell<Vec<u32>>,
    info: OnceCell<Vec<u32>>,
}

impl<'a> Course<'a> {
    fn of(lines: &'a [Line]) -> Course<'a> {
        let (progress, recovery, info) = Default::default();
        Course { lines, progress, recovery, info }
    }

    fn went_on(&self, among: Range<usize>) -> bool {
        self.any(&self.progress, among, |l| l.level != Some(Level::Error) && progress(&l.text))
    }

    fn recovered(&self, among: Range<usize>) -> bool {
        self.any(&self.recovery, among, |l| recovery(&l.text))
    }

    fn informed(&self, among: Range<usize>) -> bool {
        self.any(&self.info, among, |l| l.level == Some(Level::Info))
    }

    fn any(&self, counts: &OnceCell<Vec<u32>>, among: Range<usize>, is: impl Fn(&Line) -> bool) -> bool {
        let counts = counts.get_or_init(|| {
            let up_to = self.lines.iter().scan(0, |n, line| {
                *n += u32::from(is(line));
                Some(*n)
            });
            std::iter::once(0).chain(up_to).collect()
        });
        counts[among.start] < counts[among.end]
    }
}

fn progress(text: &str) -> bool {
    #[cfg(test)]
    tests::ASKED.set(tests::ASKED.get() + 1);
    known::progress(text)
}

/// Chooses among the signs.
pub(crate) fn choose(lines: &[Line], mut signs: Vec<Candidate>, success: &[String]) -> Finding {
    let site = |l: &Line| success.iter().any(|s| !s.is_empty() && l.quote.contains(s.as_str()));
    let complete =
        lines.iter().rposition(|l| known::complete(&l.text) || site(l)).max(closing(lines, &signs));
    let course = Course::of(lines);
    survive(&course, &mut signs, complete);
    let Some(root) = root(&course, &signs) else {
        return Finding::nothing();
    };
    report(lines, &signs, root)
}

/// The last line, when it says that the work was done: by what it made, or
/// in a word, where the log shows how each failure before was dealt with.
fn closing(lines: &[Line], signs: &[Candidate]) -> Option<usize> {
    let last = lines.iter().rposition(|l| !l.text.trim().is_empty())?;
    let line = &lines[last];
    if line.level == Some(Level::Error) || signs.iter().any(|c| c.line == last) {
        return None;
    }
    let dealt_with =
        || signs.last().is_none_or(|c| lines[c.line + 1..last].iter().any(|l| recovery(&l.text)));
    (known::made(&line.text) || known::closed(&line.text) && dealt_with()).then_some(last)
}

/// Drops what the job survived.
fn survive(course: &Course<'_>, signs: &mut Vec<Candidate>, complete: Option<usize>) {
    let lines = course.lines;
    if let Some(end) = complete {
        signs.retain(|c| {
            c.line > end
                || c.strength == Strength::Verdict
                || matches!(c.cause, Cause::Convergence) && c.strength >= Strength::Error
                || c.strength == Strength::Fatal && !course.recovered(c.line..end) && !logged(course, c, end)
                || c.line == end
        });
    }
    // Layers below try one way after the other, and say so.
    let went_on = lines.iter().rposition(|l| progress(&l.text) && l.level.is_none_or(|l| l == Level::Info));
    signs.retain(|c| {
        !(c.cause == Cause::Mpi && c.strength == Strength::Error && went_on.is_some_and(|p| p > c.line))
    });
    // A service that was not there is done without, where the log says so.
    let without = lines.iter().rposition(|l| recovery(&l.text));
    signs.retain(|c| {
        !(c.cause == Cause::Network
            && c.strength == Strength::Error
            && without.is_some_and(|w| w > c.line + 1))
    });
    // What is often survived counts only where the log ends with it.
    let last_progress = lines.iter().rposition(|l| progress(&l.text) && l.level != Some(Level::Error));
    let total = lines.len();
    let last_sign = signs.last().map_or(0, |c| c.line);
    signs.retain(|c| {
        if c.strength != Strength::Soft {
            return true;
        }
        let level = lines[c.line].level;
        let quiet = matches!(level, Some(Level::Info | Level::Warn));
        let survived = last_progress.is_some_and(|p| p > c.line);
        let far = quiet && total - c.line > 12;
        // Clients of services log their last failed request quietly; others
        // who log below the level of an error mean it.
        let service =
            matches!(c.cause, Cause::RateLimit | Cause::Billing | Cause::Network | Cause::EmptyResponse);
        let warned = matches!(
            c.cause,
            Cause::Oom
                | Cause::GpuOom
                | Cause::Hang
                | Cause::License
                | Cause::ParseError
                | Cause::Convergence
        );
        let meant = !quiet || service || warned && level == Some(Level::Warn);
        !(survived || far || !meant || c.mended && last_sign + 5 < total)
    });
}

/// The program logged the traceback itself, and went on to log good news.
fn logged(course: &Course<'_>, c: &Candidate, end: usize) -> bool {
    c.logged && course.informed(c.line + 1..end + 1)
}

fn recovery(text: &str) -> bool {
    #[cfg(test)]
    tests::ASKED.set(tests::ASKED.get() + 1);
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
        "instead",
        "going on",
        "using the ",
        "continuing",
        "starting without",
        "building without",
        "proceeding without",
    ]
    .iter()
    .any(|w| t.contains(w))
}

fn root(course: &Course<'_>, signs: &[Candidate]) -> Option<usize> {
    let lines = course.lines;
    let first = |s: Strength| signs.iter().position(|c| c.strength == s);
    let cancel = first(Strength::Cancel);
    if let Some(v) = verdict(signs) {
        return Some(own_failure_before(course, signs, v).unwrap_or(v));
    }
    // What comes after the cancellation is its consequence.
    let horizon = cancel.map_or(usize::MAX, |c| signs[c].line);
    let went_on = |c: &Candidate| {
        cancel.is_some()
            && c.strength < Strength::Fatal
            && course.went_on(c.line + 1..horizon.max(c.line + 1))
    };
    let before: Vec<usize> =
        (0..signs.len()).filter(|&i| signs[i].line <= horizon && !went_on(&signs[i])).collect();
    if let Some(best) = ended(lines, signs, &before) {
        return Some(best);
    }
    if let Some(c) = cancel {
        let killed_step = lines[signs[c].line].text.contains("STEP")
            && !lines.iter().any(|l| l.text.contains("*** JOB ") && l.text.contains("CANCELLED"));
        let wrapped = before.iter().rev().copied().find(|&i| {
            signs[i].strength == Strength::Wrapper
                && (signs[i].rule.starts_with("srun_") || signs[i].rule.starts_with("mpi"))
        });
        if let (true, Some(w)) = (killed_step, wrapped) {
            return Some(w);
        }
        // A step is cancelled after one of its tasks died.
        if let Some(kill) = before.iter().copied().find(|&i| signs[i].rule == "srun_crash") {
            return Some(kill);
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
    let vague: Vec<usize> = all
        .iter()
        .copied()
        .filter(|&i| matches!(signs[i].strength, Strength::Weak | Strength::Soft))
        .collect();
    of(Strength::Kill)
        .next()
        .or_else(|| last_story(lines, signs, vague))
        .or_else(|| of(Strength::Wrapper).next())
}

/// The scheduler's verdict: the first, but a memory kill before the others,
/// and limits named with their step beside those without.
fn verdict(signs: &[Candidate]) -> Option<usize> {
    signs.iter().position(|c| c.strength == Strength::Verdict)
}

/// A failure that the program reported on its own before the scheduler acted.
fn own_failure_before(course: &Course<'_>, signs: &[Candidate], v: usize) -> Option<usize> {
    let lines = course.lines;
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
        if !consequence && !course.went_on(c.line + 1..signs[v].line) {
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
    // The shell's report of a kill explains the errors that come after it,
    // and outweighs statements long before it.
    if let Some(kill) = among.iter().copied().find(|&i| signs[i].rule == "bash_killed")
        && strong.iter().all(|&i| {
            i > kill
                || signs[i].strength < Strength::Fatal
                    && lines[signs[kill].line].number - lines[signs[i].line].number > 10
        })
    {
        return Some(kill);
    }
    let story = stories(lines, signs, strong);
    // The last story that holds something fatal, else the last.
    let story = story
        .iter()
        .rev()
        .find(|s| s.iter().any(|&i| signs[i].strength == Strength::Fatal))
        .or(story.last())?;
    let fatal: Vec<usize> = story.iter().copied().filter(|&i| signs[i].strength == Strength::Fatal).collect();
    let Some(&first) = fatal.first() else {
        // Statements only: the first with a known reason, or the exception
        // that it announces.
        let first = story.iter().copied().find(|&i| signs[i].specific).or(story.first().copied())?;
        let c = &signs[first];
        let exception = story.iter().copied().find(|&i| {
            let e = &signs[i];
            i > first
                && c.exception.is_none()
                && e.exception.is_some()
                && e.cause == c.cause
                && lines[e.line].number - lines[c.line].number <= 5
        });
        return Some(exception.unwrap_or(first));
    };
    // Space and memory explain what was written, parsed or missing before the
    // message about them came; a broken connection is mostly the echo of
    // another rank's end.
    if let Some(&better) = fatal.iter().find(|&&i| explains(&signs[i], &signs[first])) {
        return Some(better);
    }
    // A statement right before the end says more than the end itself.
    let c = &signs[first];
    // R warns with the file's name and then fails without it, or the other
    // way round.
    if c.rule == "r_connection"
        && let Some(named) = signs.iter().position(|s| {
            s.cause == Cause::Filesystem && s.rule == "rscript_cant_open" && s.line.abs_diff(c.line) <= 12
        })
    {
        return Some(named);
    }
    let vague = !c.specific || c.cause == Cause::Crash || c.rule == "orte_lost";
    // A library aborts for the reason that it gave; a fault has none to give.
    let aborted = lines[c.line].text.contains("bort");
    // C++ says that it ends, and not why, when nobody catches.
    let bare = c.lang == Some("c") && lines[c.line].text.contains("terminate called");
    if c.cause != Cause::Launch {
        // In the lines of its own writer: others do not come between.
        let own = (0..c.line).rev().filter(|&i| lines[i].rank == lines[c.line].rank).take(13);
        let own: Vec<usize> = own.collect();
        let within = |i: usize, d: usize| own.get(d).is_none_or(|&too_far| signs[i].line > too_far);
        let near = (0..first).find(|&i| {
            let same = signs[i].cause == c.cause && matches!(c.cause, Cause::Mpi | Cause::Crash);
            let stated = signs[i].strength == Strength::Error && signs[i].specific && within(i, 12);
            let said =
                bare && signs[i].strength == Strength::Weak && signs[i].rule == "statement" && within(i, 5);
            (vague || same)
                && (stated || said)
                && (signs[i].cause != Cause::Mpi || c.cause != Cause::Crash || aborted)
                && signs[i].cause != Cause::EngineWrapper
                && signs[i].rule != "self_test"
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
    // A louder level says more: the first of the loudest.
    let loud = |i: usize| match (signs[i].mended, lines[signs[i].line].level) {
        (true, _) => 0,
        (_, Some(Level::Info)) => 1,
        (_, Some(Level::Warn)) => 2,
        _ => 3,
    };
    let best = |known: bool| {
        story
            .iter()
            .copied()
            .filter(|&i| signs[i].specific || !known)
            .max_by_key(|&i| (loud(i), std::cmp::Reverse(i)))
    };
    best(true).or_else(|| best(false))
}

fn report(lines: &[Line], signs: &[Candidate], root: usize) -> Finding {
    let c = &signs[root];
    let line = &lines[continued(lines, c)];
    let infra = c.infra.unwrap_or(c.cause.infra_by_default());
    let quote = line.quote.trim().to_owned();
    let masked_by =
        masked(lines, signs, root).map(|i| lines[i].quote.trim().to_owned()).filter(|m| *m != quote);
    Finding {
        cause: c.cause,
        class: c.cause.class(infra),
        root_cause: Some(quote),
        line_number: Some(line.number),
        exception_type: exception_type(lines, signs, c),
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

/// Container runtimes chain reasons with colons and may break the line at
/// one: the reason is where the chain ends.
fn continued(lines: &[Line], c: &Candidate) -> usize {
    let mut at = c.line;
    if c.cause == Cause::Container {
        while lines[at].text.trim_end().ends_with(':')
            && at < c.line + 4
            && let Some(next) = lines.get(at + 1)
            && next.text.starts_with(' ')
            && !next.text.trim().is_empty()
        {
            at += 1;
        }
    }
    // Open MPI names the call, its job and its communicator before the reason.
    if lines[at].text.contains("An error occurred in MPI_")
        && let Some(reason) = (at..lines.len().min(at + 7)).find(|&i| lines[i].text.contains("*** MPI_ERR_"))
    {
        at = reason;
    }
    at
}

/// The type at the root; else the one whose message CPython words like this;
/// else the exception by which the program ended near the root.
fn exception_type(lines: &[Line], signs: &[Candidate], c: &Candidate) -> Option<String> {
    if c.cause == Cause::EngineWrapper && c.lang != Some("python") {
        return None;
    }
    if c.exception.is_some() {
        return c.exception.clone();
    }
    if let Some(kind) = python::worded(&lines[c.line].text) {
        return Some(kind.to_owned());
    }
    let at = lines[c.line].number;
    signs
        .iter()
        .rev()
        .find(|s| {
            s.lang == Some("python")
                && s.exception.is_some()
                && s.strength > Strength::Soft
                && lines[s.line].number.abs_diff(at) <= NEAR
        })
        .or_else(|| {
            signs.iter().rev().find(|s| {
                s.strength == Strength::Wrapper
                    && s.exception.is_some()
                    && s.lang == Some("python")
                    && lines[s.line].number.abs_diff(at) <= NEAR
            })
        })
        .and_then(|s| s.exception.clone())
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use crate::logs::analyze_lines;

    thread_local! {
        /// Lines that were asked whether they show progress or recovery.
        pub(super) static ASKED: Cell<usize> = const { Cell::new(0) };
    }

    fn asked(log: &[String]) -> usize {
        let lines: Vec<&str> = log.iter().map(String::as_str).collect();
        ASKED.set(0);
        analyze_lines(&lines);
        ASKED.get()
    }

    /// Whatever a user's job writes, reading it takes as many questions as it has lines, not as many as pairs.
    #[test]
    fn the_work_grows_with_the_lines() {
        let end = |lines: Vec<String>, last: &str| [lines, vec![last.to_owned()]].concat();
        let names = |n: usize| format!("{}{}", (b'a' + (n % 26) as u8) as char, n / 26);
        let cancelled = (0..800).map(|n| format!("ERROR: no {} there", names(n))).collect();
        let cancelled =
            end(cancelled, "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-11-21T14:00:00 ***");
        let traced = |n| ["Traceback (most recent call last):".into(), format!("ValueError: {}", names(n))];
        let survived = end((0..800).flat_map(traced).collect(), "Training finished successfully");
        for log in [cancelled, survived] {
            let asked = asked(&log);
            assert!(asked <= 5 * log.len(), "{asked} of {} lines, {}", log.len(), log[0]);
        }
    }
}
