//! What a language's exceptions make of a log: the root of each chain, and how
//! much it proves.

use std::collections::HashMap;

use super::candidates::Candidate;
use super::exceptions::{self, Raised};
use super::finding::Cause;
use super::forms::GUESS;
use super::rules::{RULES, Strength, python};
use super::text::{Level, Line, Writers};

/// The lines of each writer, as indices.
fn by_writer(lines: &[Line]) -> Vec<Vec<usize>> {
    let mut writers: Vec<Vec<usize>> = Vec::new();
    let mut place: HashMap<Option<&str>, usize> = HashMap::new();
    for (i, line) in lines.iter().enumerate() {
        let at = *place.entry(line.rank.as_deref()).or_insert_with(|| {
            writers.push(Vec::new());
            writers.len() - 1
        });
        writers[at].push(i);
    }
    writers
}

/// The exceptions of languages that print each in one block of lines.
fn in_blocks(lines: &[Line], own: &[usize], raised: &mut Vec<Raised>) {
    let alone: Vec<Line>;
    let block = if own.len() == lines.len() {
        lines
    } else {
        alone = own.iter().map(|&i| lines[i].clone()).collect();
        &alone
    };
    let mut found = Vec::new();
    exceptions::java(block, &mut found);
    exceptions::r(block, &mut found);
    exceptions::julia(block, &mut found);
    exceptions::cpp(block, &mut found);
    exceptions::one_line(block, &mut found);
    let before = raised.len();
    raised.extend(found.into_iter().map(|r| Raised {
        line: own[r.line],
        head: own[r.head],
        inner: r.inner.map(|inner| before + inner),
        ..r
    }));
}

/// The signs that exceptions are; lines that are part of one are `taken`.
pub(super) fn from_exceptions(
    lines: &[Line],
    writers: &Writers,
    taken: &mut [bool],
    out: &mut Vec<Candidate>,
) {
    // One stream per writer: ranks share a file line by line.
    let mut raised = Vec::new();
    let mut ignored = Vec::new();
    for mut own in by_writer(lines) {
        let before = raised.len();
        in_blocks(lines, &own, &mut raised);
        for r in &raised[before..] {
            let (head, line) = (own.partition_point(|&i| i < r.head), own.partition_point(|&i| i <= r.line));
            own[head..line].iter().for_each(|&i| taken[i] = true);
        }
        own.retain(|&i| !taken[i]);
        exceptions::python(lines, &own, &mut raised, &mut ignored);
    }
    for i in ignored {
        taken[i] = true;
    }
    for r in &raised {
        taken[r.line] = true;
        taken[r.head] = true;
    }
    let mut caused = vec![false; raised.len()];
    for r in &raised {
        if let Some(inner) = r.inner {
            caused[inner] = true;
        }
    }
    for (n, outermost) in raised.iter().enumerate() {
        if caused[n] {
            continue;
        }
        // From the outermost inwards; links point to other exceptions once,
        // the bound is against a circle.
        let mut chain = vec![outermost];
        while let Some(inner) = chain.last().and_then(|r| r.inner)
            && chain.len() <= raised.len()
        {
            chain.push(&raised[inner]);
        }
        chain.reverse();
        out.push(of_chain(lines, writers, &chain));
    }
}

struct Judged {
    cause: Cause,
    infra: Option<bool>,
    rule: &'static str,
    strength: Strength,
    specific: bool,
}

fn judge(lines: &[Line], writers: &Writers, r: &Raised) -> Judged {
    let kind = r.kind.as_deref().unwrap_or("");
    let mut base = python::strength(kind, r.traceback);
    // sys.exit("reason") says why; sys.exit(1) does not.
    if kind == "SystemExit" && r.message.len() > 4 {
        base = Strength::Fatal;
    }
    // The message may go on below its first line.
    let message = GUESS.replace_all(&r.message, "");
    let mut text = if r.lang == Some("python") && r.line == r.head {
        GUESS.replace_all(&lines[r.line].text, "").into_owned()
    } else {
        format!("{kind}: {message}")
    };
    let more: Vec<&str> = if r.lang == Some("java") {
        vec![]
    } else {
        writers
            .below(r.line)
            .take(3)
            .map(|i| &lines[i])
            .take_while(|l| l.level.is_none())
            .map(|l| l.text.as_str())
            .take_while(|t| {
                !t.trim().is_empty()
                    && !t.contains("srun:")
                    && !t.contains("slurmstepd")
                    && !t.contains("Traceback")
                    && RULES.standing(t).is_none_or(|r| {
                        !matches!(r.strength, Strength::Kill | Strength::Wrapper | Strength::Aftermath)
                    })
            })
            .collect()
    };
    // Java's loggers print the level on the line above the stack.
    let own = writers.above(r.head).next();
    let logged = own.filter(|_| r.lang == Some("java")).and_then(|i| lines[i].level);
    let level = lines[r.head].level;
    let strength = match level.or(logged) {
        Some(Level::Info | Level::Warn) if logged.is_some() && base >= Strength::Error => Strength::Soft,
        Some(Level::Info | Level::Warn) if base >= Strength::Error && !r.traceback => Strength::Soft,
        _ => base,
    };
    let of_data = kind == "SyntaxError" && r.message.contains("JSON");
    if !of_data && (python::programming(kind) || kind == "TypeError") {
        return Judged { cause: Cause::AppError, infra: None, rule: "exception", strength, specific: false };
    }
    if strength == Strength::Cancel {
        return Judged { cause: Cause::Cancelled, infra: None, rule: "interrupt", strength, specific: true };
    }
    let killed = |t: &str| RULES.matching(t).find(|m| m.strength == Strength::Kill);
    if strength == Strength::Wrapper {
        return match killed(&text) {
            Some(m) => Judged {
                cause: m.cause,
                infra: m.infra,
                rule: m.name,
                strength: Strength::Kill,
                specific: true,
            },
            None => match RULES.about(&message).filter(|m| m.strength >= Strength::Error) {
                Some(m) => Judged {
                    cause: m.cause,
                    infra: m.infra,
                    rule: m.name,
                    strength: Strength::Error,
                    specific: true,
                },
                None => Judged {
                    cause: Cause::EngineWrapper,
                    infra: None,
                    rule: "wrapper",
                    strength,
                    specific: true,
                },
            },
        };
    }
    // An exception that reports the failure of a process or a worker.
    let reported = RULES.standing(&text).filter(|m| m.strength == Strength::Wrapper && m.name == "pool");
    let engine = || {
        let said = RULES.standing(&message)?;
        (said.strength == Strength::Wrapper && said.name == "snakemake_rule").then_some(said)
    };
    if let Some(w) = reported.or_else(engine) {
        let cause = killed(&text);
        return Judged {
            cause: cause.map_or(Cause::EngineWrapper, |m| m.cause),
            infra: None,
            rule: w.name,
            strength: if cause.is_some() { Strength::Kill } else { Strength::Wrapper },
            specific: true,
        };
    }
    if kind == "FileNotFoundError" && started_program(lines, writers, r) {
        let rule = "python_subprocess";
        return Judged { cause: Cause::Env, infra: None, rule, strength, specific: true };
    }
    // A check within a library that the interpreter survived is one of data.
    let known = RULES.about(&text).filter(|m| m.name != "assertion" || kind == "AssertionError");
    let checked = text.contains("Check failed: ").then_some((Cause::Validation, None));
    let typed = python::by_type(kind).or(checked);
    // A type of its own says more than words that several kinds share.
    let known = known.filter(|m| m.strength > Strength::Text || typed.is_none());
    let known = match known {
        Some(m) => Some((m.cause, m.infra, m.name, m.strength == Strength::Fatal)),
        None => typed.map(|(c, infra)| (c, infra, "exception_type", false)).or_else(|| {
            if more.is_empty() {
                return None;
            }
            text.push(' ');
            text.push_str(&more.join(" "));
            RULES.about(&text).map(|m| (m.cause, m.infra, m.name, false))
        }),
    };
    match known {
        Some((cause, infra, rule, fatal)) => Judged {
            cause,
            infra,
            rule,
            strength: if fatal && strength == Strength::Error { Strength::Fatal } else { strength },
            specific: true,
        },
        None => Judged { cause: Cause::AppError, infra: None, rule: "exception", strength, specific: false },
    }
}

/// The file that is missing is a program: the last frame is CPython's way to
/// start one.
fn started_program(lines: &[Line], writers: &Writers, r: &Raised) -> bool {
    writers.above(r.head).take(5).any(|i| lines[i].text.contains("in _execute_child"))
}

/// The root of a chain: its innermost exception, unless that one is
/// incidental ("during handling") and a later one names a known reason.
fn of_chain(lines: &[Line], writers: &Writers, chain: &[&Raised]) -> Candidate {
    let judged: Vec<Judged> = chain.iter().map(|r| judge(lines, writers, r)).collect();
    let mut root = 0;
    while root + 1 < chain.len() {
        let here = &judged[root];
        let next = &judged[root + 1];
        let incidental = chain[root + 1].implicit && !here.specific && next.specific;
        let wraps = here.strength == Strength::Wrapper && next.strength > Strength::Wrapper;
        if incidental || wraps {
            root += 1;
        } else {
            break;
        }
    }
    let r = chain[root];
    let j = &judged[root];
    let last = chain[chain.len() - 1];
    let mut c = Candidate::new(r.line, j.rule, j.cause, j.strength, j.infra, r.lang, j.specific);
    c.exception = r.kind.clone();
    c.logged = r.lang == Some("python") && logged(lines, writers, r.head);
    // A chain that ends in a wrapper still ended the program.
    if c.strength == Strength::Error && chain.iter().any(|r| r.traceback) {
        c.strength = Strength::Fatal;
    }
    if chain.len() > 1 {
        c.chain = chain[root..].iter().map(|r| r.kind.clone().unwrap_or_else(|| r.message.clone())).collect();
    }
    if last.line != r.line {
        c.outermost = Some(last.head);
    } else if r.head != r.line && r.lang != Some("python") {
        c.outermost = Some(r.head);
    }
    c
}

/// The line above the traceback that ends at `head` has a logger's level.
fn logged(lines: &[Line], writers: &Writers, head: usize) -> bool {
    let mut above = writers.above(head).take(80).map(|i| &lines[i]);
    above.any(|l| l.text.starts_with("Traceback (most recent call"))
        && above.next().is_some_and(|l| l.level.is_some())
}
