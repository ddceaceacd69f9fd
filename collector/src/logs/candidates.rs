//! Every sign of failure in the lines, before any is chosen.

use super::announce::{announced, detail, matlab, mpich_stacks, unboxed};
use super::chains::from_exceptions;
use super::finding::Cause;
use super::forms::{
    ADVICE, AT_LINE, CALLED, DIE, ECHO, GNU, HARMLESS, INLINE_EXCEPTION, LAST_WORD, MARKED, MENDED, METRIC,
    NAME, NOISE, PLACED, R_TRACE, SENTENCE, STARRED, STATEMENT, TROUBLE, UTILITY,
};
use super::rules::{RULES, Rule, Strength, python, success};
use super::text::{Level, Line, Writers};
use super::trigger::may_matter;

/// One sign of failure.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    /// Index of the line to quote.
    pub(crate) line: usize,
    pub(crate) rule: &'static str,
    pub(crate) cause: Cause,
    pub(crate) strength: Strength,
    pub(crate) infra: Option<bool>,
    pub(crate) exception: Option<String>,
    pub(crate) lang: Option<&'static str>,
    /// Names of the exceptions from the root outwards.
    pub(crate) chain: Vec<String>,
    /// Index of the outermost exception's line, when it is another one.
    pub(crate) outermost: Option<usize>,
    /// A known reason, not a general sign.
    pub(crate) specific: bool,
    /// The line says that it will be tried again or done without.
    pub(crate) mended: bool,
    /// A logger printed the traceback: the program was there to do it.
    pub(crate) logged: bool,
}

/// How many lines are the last.
const LAST_LINES: usize = 8;

/// Collects the signs, ordered by line.
pub(crate) fn collect(lines: &[Line]) -> Vec<Candidate> {
    let mut out = Vec::new();
    let mut taken = vec![false; lines.len()];
    let writers = Writers::of(lines);
    from_exceptions(lines, &writers, &mut taken, &mut out);
    for mut a in announced(lines, &writers) {
        if taken[a.line] {
            continue;
        }
        a.line = detail(lines, &writers, a.line, |text| RULES.about(unboxed(text)).is_some());
        let message = unboxed(&lines[a.line].text);
        let known = RULES.standing(&lines[a.line].text).filter(|r| r.strength <= Strength::Wrapper);
        let about = RULES.about(message);
        let (rule, cause, strength, infra, specific) = match (known, about) {
            (Some(k), None) => (k.name, k.cause, k.strength, k.infra, false),
            (_, Some(r)) => (r.name, r.cause, a.strength.max(Strength::Error), r.infra, true),
            (None, None) => ("announced", a.default, a.strength, None, false),
        };
        taken[a.line] = true;
        taken[a.head] = true;
        let mut c = Candidate::new(a.line, rule, cause, strength, infra, a.lang, specific);
        // Groovy's own wording of two exceptions.
        c.exception = match message {
            m if m.starts_with("No signature of method") => Some("MissingMethodException".to_owned()),
            m if m.starts_with("No such property") => Some("MissingPropertyException".to_owned()),
            _ => None,
        };
        c.outermost = Some(a.head);
        out.push(c);
    }
    for (message, frames) in matlab(lines) {
        for f in frames {
            taken[f] = true;
        }
        if !taken[message] {
            taken[message] = true;
            let about = RULES.about(&lines[message].text);
            let mut c = match about {
                Some(r) => Candidate::of_rule(message, r, Strength::Fatal),
                None => {
                    Candidate::new(message, "matlab", Cause::AppError, Strength::Fatal, None, None, false)
                }
            };
            c.lang = Some("matlab");
            out.push(c);
        }
    }
    for (head, deepest) in mpich_stacks(lines) {
        taken[head..head.max(deepest) + 1].fill(true);
        // "Fatal error in MPI_X: ..., error stack:" stands right above.
        let above = head.checked_sub(1).filter(|&a| lines[a].text.contains("error stack")).unwrap_or(head);
        taken[above] = true;
        let mut c =
            Candidate::new(deepest, "mpich_stack", Cause::Mpi, Strength::Fatal, None, Some("c"), true);
        c.outermost = Some(above);
        out.push(c);
    }
    command_error(lines, &taken, &mut out);
    // The last lines are looked at whatever they say.
    let last = lines.len().saturating_sub(LAST_LINES);
    for (i, line) in lines.iter().enumerate() {
        if !taken[i] && (i >= last || line.level == Some(Level::Error) || may_matter(line.text.as_bytes())) {
            out.extend(from_line(i, line));
        }
    }
    if out.is_empty() {
        out.extend(last_lines(lines));
    }
    out.sort_by_key(|c| c.line);
    out
}

/// With no other sign, the first of the last lines that a rule knows the reason
/// of, else what a script says under its own name in the very last.
fn last_lines(lines: &[Line]) -> Option<Candidate> {
    let said = lines.iter().enumerate().rev().filter(|(_, l)| !l.text.trim().is_empty()).take(LAST_LINES);
    let mut found = None;
    for (i, line) in said {
        let t = line.text.as_str();
        if success::made(t) || success::closed(t) || success::complete(t) || success::progress(t) {
            return None;
        }
        let fine = line.level == Some(Level::Info)
            || t.contains("Warning:")
            || !TROUBLE.is_match(t)
            || [&HARMLESS, &NOISE, &MENDED, &ECHO, &ADVICE].iter().any(|harmless| harmless.is_match(t));
        if !fine && let Some(rule) = RULES.about(t) {
            found = Some(Candidate::of_rule(i, rule, Strength::Weak));
        }
    }
    found.or_else(|| last_word(lines))
}

/// With no other sign, what a script says under its own name in the last line.
fn last_word(lines: &[Line]) -> Option<Candidate> {
    let (i, line) = lines.iter().enumerate().rev().find(|(_, l)| !l.text.trim().is_empty())?;
    let quiet = matches!(line.level, Some(Level::Info | Level::Warn));
    let fine = HARMLESS.is_match(&line.text) || success::made(&line.text) || success::progress(&line.text);
    (LAST_WORD.is_match(&line.text) && may_matter(line.text.as_bytes()) && !quiet && !fine)
        .then(|| Candidate::new(i, "last_word", Cause::AppError, Strength::Weak, None, None, false))
}

impl Candidate {
    pub(super) fn new(
        line: usize,
        rule: &'static str,
        cause: Cause,
        strength: Strength,
        infra: Option<bool>,
        lang: Option<&'static str>,
        specific: bool,
    ) -> Self {
        Candidate {
            line,
            rule,
            cause,
            strength,
            infra,
            exception: None,
            lang,
            chain: Vec::new(),
            outermost: None,
            specific,
            mended: false,
            logged: false,
        }
    }

    /// A runtime's way to report any error says nothing of its kind; its
    /// message may.
    fn carry(&mut self, text: &str) {
        let telling = |r: &&Rule| {
            !matches!(r.cause, Cause::AppError | Cause::EngineWrapper | Cause::Crash)
                && !matches!(r.strength, Strength::Aftermath | Strength::Wrapper | Strength::Cancel)
        };
        if let Some(inner) = RULES.matching(text).find(telling) {
            (self.rule, self.cause, self.infra) = (inner.name, inner.cause, inner.infra);
        }
    }

    fn of_rule(line: usize, rule: &'static Rule, strength: Strength) -> Self {
        Candidate::new(line, rule.name, rule.cause, strength, rule.infra, rule.lang, true)
    }
}

fn from_line(i: usize, line: &Line) -> Option<Candidate> {
    let text = line.text.as_str();
    if ECHO.is_match(text) {
        // A prompt can share its line with the scheduler's message.
        let verdict = RULES.standing(text).filter(|r| r.strength == Strength::Verdict)?;
        return Some(Candidate::of_rule(i, verdict, Strength::Verdict));
    }
    if NOISE.is_match(text) || ADVICE.is_match(text) || NAME.is_match(text) {
        return None;
    }
    let mended = MENDED.is_match(text);
    let quiet = matches!(line.level, Some(Level::Info | Level::Warn));
    let soften = |s: Strength| {
        if (quiet || mended) && s < Strength::Verdict && s > Strength::Soft && s != Strength::Cancel {
            Strength::Soft
        } else {
            s
        }
    };
    if let Some(rule) = RULES.standing(text) {
        if quiet && rule.strength <= Strength::Wrapper {
            return None;
        }
        if rule.strength < Strength::Fatal && HARMLESS.is_match(text) {
            return None;
        }
        // A wrapper's line may carry the reason it wraps.
        if rule.strength == Strength::Wrapper
            && let Some(inner) = RULES.matching(text).find(|r| r.strength >= Strength::Kill)
        {
            return Some(Candidate::of_rule(i, inner, soften(inner.strength)));
        }
        // Some codes call a failed cycle a warning.
        let strength = if rule.name == "scf_not_converged" { rule.strength } else { soften(rule.strength) };
        let mut c = Candidate::of_rule(i, rule, strength);
        if rule.carries {
            c.carry(text);
        }
        c.mended = mended;
        c.exception = inline_kind(text);
        if c.exception.is_some() && c.lang.is_none() {
            c.lang = Some("python");
        }
        return Some(c);
    }
    if HARMLESS.is_match(text) {
        return None;
    }
    let statement = [&STATEMENT, &PLACED, &STARRED, &MARKED].into_iter().find_map(|form| form.captures(text));
    let (message, strong) = match &statement {
        Some(c) => (c.name("msg").map_or("", |m| m.as_str()), true),
        None if line.level == Some(Level::Error) => (text, true),
        None => match UTILITY
            .captures(text)
            .or_else(|| CALLED.captures(text))
            .or_else(|| SENTENCE.captures(text))
            .or_else(|| AT_LINE.captures(text))
            .or_else(|| DIE.captures(text))
            .or_else(|| GNU.captures(text).filter(|c| RULES.about(&c["msg"]).is_some()))
        {
            Some(c) => (c.name("msg").map_or("", |m| m.as_str()), false),
            None => match inline_kind(text) {
                Some(_) => (text, false),
                None => return None,
            },
        },
    };
    if METRIC.is_match(message) || message.trim().is_empty() || quiet && !strong {
        return None;
    }
    let kind = inline_kind(text);
    let by_type = kind.as_deref().and_then(python::by_type);
    let mut c = match (RULES.about(text), by_type) {
        (Some(r), _) if kind.as_deref().is_none_or(|k| !python::programming(k)) => {
            Candidate::of_rule(i, r, soften(if strong { Strength::Error } else { Strength::Weak }))
        }
        (_, Some((cause, infra))) => Candidate::new(
            i,
            "exception_type",
            cause,
            soften(if strong { Strength::Error } else { Strength::Weak }),
            infra,
            Some("python"),
            true,
        ),
        _ => Candidate::new(i, "statement", Cause::AppError, soften(Strength::Weak), None, None, false),
    };
    c.exception = kind;
    c.mended = mended;
    Some(c)
}

fn inline_kind(text: &str) -> Option<String> {
    INLINE_EXCEPTION.captures(text).map(|c| c["kind"].to_owned())
}

/// Nextflow prints the task's own error output under "Command error:". Its
/// last line is the task's last word, when no rule knows a better one.
fn command_error(lines: &[Line], taken: &[bool], out: &mut Vec<Candidate>) {
    for (i, line) in lines.iter().enumerate() {
        if line.text.trim() != "Command error:" {
            continue;
        }
        let mut last = None;
        for (j, l) in lines.iter().enumerate().skip(i + 1).take(60) {
            let t = l.text.trim();
            if t.starts_with("Work dir:") || t.starts_with("Tip: ") || t.starts_with("Container:") {
                break;
            }
            if !t.is_empty() && t != "(empty)" && !R_TRACE.is_match(t) && t != "Execution halted" {
                last = Some(j);
            }
        }
        if let Some(j) = last
            && !taken[j]
            && RULES.standing(&lines[j].text).is_none()
            && lines[j].level.is_none()
        {
            out.push(Candidate::new(j, "task_stderr", Cause::AppError, Strength::Weak, None, None, false));
        }
    }
}
