//! Tools that announce an error on one line and say it on the next.

use std::sync::LazyLock;

use regex::Regex;

use super::finding::Cause;
use super::rules::Strength;
use super::text::{Line, Writers, re, regex};

struct Announcer {
    pattern: Regex,
    lang: Option<&'static str>,
    /// When the message matches no rule.
    default: Cause,
    strength: Strength,
}

/// A message found below its announcement.
pub(crate) struct Announced {
    pub(crate) line: usize,
    pub(crate) head: usize,
    pub(crate) lang: Option<&'static str>,
    pub(crate) default: Cause,
    pub(crate) strength: Strength,
}

static ANNOUNCERS: LazyLock<Vec<Announcer>> = LazyLock::new(|| {
    use Cause::{AppError, Validation};
    use Strength::{Error, Fatal, Weak};
    [
        (r"\*\*\* caught (?:segfault|bus error|illegal operation) \*\*\*", Some("r"), Cause::Crash, Fatal),
        (r"^\s*Root Exception:\s*$", Some("julia"), AppError, Fatal),
        (r"--> FOAM FATAL (?:IO )?ERROR", Some("c"), Validation, Fatal),
        (r"^Fatal error:\s*$", Some("c"), AppError, Fatal),
        (r"^(?:Error|Inconsistency|Inconsistent) (?:in )?user input:\s*$", Some("c"), Validation, Fatal),
        (r"^(?:Software inconsistency error|File input/output error|Feature not implemented|Function type error):\s*$", Some("c"), AppError, Fatal),
        (r"^\s*(?:ERROR )?\d+ \[file .*\]:\s*$", Some("c"), Validation, Fatal),
        (r"^message: \|$", Some("fortran"), Validation, Error),
        (r"^\s*\|\s*E{5,}\s+R{4,}", Some("fortran"), Validation, Fatal),
        (r"-+ FATAL CALLED -+|FATAL CALLED FROM FILE", Some("fortran"), AppError, Fatal),
        (r"^\s*Error in routine \S+ \([\s\-\d]+\):\s*$", Some("fortran"), AppError, Fatal),
        (r"^\s*\{?Error using \S+|^\s*Error using \S+ \(line \d+\)", Some("matlab"), AppError, Fatal),
        (r"^\s*Caused by:\s*$", Some("java"), AppError, Error),
        (r"^\s*\w+(?:Error|Exception) in (?:rule|line|file|group|module)\b.*:\s*$", Some("python"), AppError, Fatal),
        (r"^\s*WorkflowError:\s*$", Some("python"), AppError, Error),
        (r"^thread '.*' (?:\(\d+\) )?panicked at [^']*:\d+:\d+:\s*$", Some("rust"), AppError, Fatal),
        (r"^\s*(?:[*#=! ]*)(?:FATAL ERROR(?: ABORT)?|ERROR MESSAGE|Error message|ERROR|Error|FATAL)[*#=! ]*:?[*#=! ]*$", None, AppError, Weak),
        (r"^\s*\*+\s*(?:Error|ERROR)\s*\*+\s*$", None, AppError, Weak),
    ]
    .into_iter()
    .map(|(p, lang, default, strength)| Announcer {
        pattern: regex(p),
        lang,
        default,
        strength,
    })
    .collect()
});

re!(DECORATION, r"^[\s*#=\-_+|!.~%>]*$|^\s*\|[\sERO#]*\|\s*$");
// Where in the program it happened stands before what happened.
re!(
    LOCATION,
    r"(?i)^\s*(?:fatal )?(?:in|at) (?:file|line|function|routine|module)\b|^\s*(?:file|line|rank)\s*[:=]"
);
re!(BOX, r"^[\s*|#]+");

/// All messages that stand under an announcement.
pub(crate) fn announced(lines: &[Line], writers: &Writers) -> Vec<Announced> {
    let mut out = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        let t = &line.text;
        // Every announcement names an error in one of these ways.
        if !(t.contains("rror")
            || t.contains("ERROR")
            || t.contains("FATAL")
            || t.contains("atal")
            || t.contains("aused")
            || t.contains("xception")
            || t.contains("panicked")
            || t.contains("nconsisten")
            || t.contains("not implemented")
            || t.contains("*** caught")
            || t.contains("[file ")
            || t.contains("EEEEE")
            || t.starts_with("message: |"))
        {
            continue;
        }
        let Some(a) = ANNOUNCERS.iter().find(|a| a.pattern.is_match(t)) else {
            continue;
        };
        let own = writers.below(i).map(|j| (j, &lines[j]));
        // Letters five lines high need room.
        let reach = if t.contains("EEEEE") { 10 } else { 5 };
        let mut own = own.take(reach);
        let passed_by = |text: &str| DECORATION.is_match(text) || LOCATION.is_match(text);
        let next = own.by_ref().find(|(_, l)| !passed_by(&l.text));
        if let Some((j, said)) = next
            && !ANNOUNCERS.iter().any(|b| b.pattern.is_match(&said.text))
        {
            // "Can not open file:" announces once more.
            let j = match own.next() {
                Some((k, next))
                    if said.text.trim_end().ends_with(':') && !DECORATION.is_match(&next.text) =>
                {
                    k
                }
                _ => j,
            };
            out.push(Announced { line: j, head: i, lang: a.lang, default: a.default, strength: a.strength });
        }
    }
    out
}

re!(MATLAB_FRAME, r"^\s*\{?\s*Error in \S.* \(line \d+\)\s*$");

/// MATLAB prints an uncaught error's message above its frames. Gives, for
/// each run of frames, the message's line and the lines of the frames.
pub(crate) fn matlab(lines: &[Line]) -> Vec<(usize, Vec<usize>)> {
    let mut out: Vec<(usize, Vec<usize>)> = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        if !line.text.contains("Error in ") || !MATLAB_FRAME.is_match(&line.text) {
            continue;
        }
        // A frame is followed by its source line and a blank one.
        if let Some((_, frames)) = out.last_mut()
            && frames.last().is_some_and(|&f| i - f <= 4)
        {
            frames.push(i);
            continue;
        }
        let above = lines[..i].iter().enumerate().rev().take(3).find(|(_, l)| !DECORATION.is_match(&l.text));
        if let Some((m, _)) = above {
            out.push((m, vec![i]));
        }
    }
    out
}

re!(STACK, r"^\s*(?:\w+\(\d+\)|\(unknown\)\(\))\.*:\s*(?P<msg>\S.*)?$");

/// MPICH's error stacks: the deepest level with a message is the reason.
pub(crate) fn mpich_stacks(lines: &[Line]) -> Vec<(usize, usize)> {
    let mut out = Vec::new();
    let mut i = 0;
    while i < lines.len() {
        let rank = &lines[i].rank;
        let (head, mut deepest, mut depth) = (i, None, 0);
        while i < lines.len()
            && lines[i].rank == *rank
            && let Some(c) = STACK.captures(&lines[i].text)
        {
            // The first level repeats the call; the reason is below it.
            if depth > 0 && c.name("msg").is_some_and(|m| !m.as_str().starts_with("Other MPI error")) {
                deepest = Some(i);
            }
            depth += 1;
            i += 1;
        }
        match deepest {
            Some(d) => out.push((head, d)),
            // No reason at any level: the announcement says as much.
            None if depth >= 2 => out.push((head, head.saturating_sub(1))),
            None => i = i.max(head + 1),
        }
    }
    out
}

/// A message that says little, with indented details below it: the first detail
/// that `known` tells something of, else the message.
pub(crate) fn detail(
    lines: &[Line],
    writers: &Writers,
    message: usize,
    known: impl Fn(&str) -> bool,
) -> usize {
    let indent = |text: &str| text.len() - text.trim_start().len();
    let least = indent(&lines[message].text);
    if known(&lines[message].text) {
        return message;
    }
    let mut details =
        writers.below(message).map(|i| (i, &lines[i])).take(4).take_while(|(_, l)| indent(&l.text) > least);
    details.find(|(_, l)| known(&l.text)).map_or(message, |(i, _)| i)
}

/// A boxed message without its frame.
pub(crate) fn unboxed(text: &str) -> &str {
    let start = BOX.find(text).map_or(0, |m| m.end());
    text[start..].trim_end_matches([' ', '*', '|', '#'])
}
