//! Tools that announce an error on one line and say it on the next.

use std::sync::LazyLock;

use regex::Regex;

use super::finding::Cause;
use super::rules::Strength;
use super::text::{Line, re};

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
        (r"--> FOAM FATAL (?:IO )?ERROR", Some("c"), Validation, Fatal),
        (r"^Fatal error:\s*$", Some("c"), AppError, Fatal),
        (r"^(?:Error|Inconsistency|Inconsistent) (?:in )?user input:\s*$", Some("c"), Validation, Fatal),
        (r"^(?:Software inconsistency error|File input/output error|Feature not implemented|Function type error):\s*$", Some("c"), AppError, Fatal),
        (r"-+ FATAL CALLED -+|FATAL CALLED FROM FILE", Some("fortran"), AppError, Fatal),
        (r"^\s*Error in routine \S+ \([\s\-\d]+\):\s*$", Some("fortran"), AppError, Fatal),
        (r"^\s*\{?Error using \S+|^\s*Error using \S+ \(line \d+\)", Some("matlab"), AppError, Fatal),
        (r"^\s*Caused by:\s*$", Some("java"), AppError, Error),
        (r"^\s*\w+(?:Error|Exception) in (?:rule|line|file|group|module)\b.*:\s*$", Some("python"), AppError, Fatal),
        (r"^\s*WorkflowError:\s*$", Some("python"), AppError, Error),
        (r"^thread '.*' (?:\(\d+\) )?panicked at [^']*:\d+:\d+:\s*$", Some("rust"), AppError, Fatal),
        (r"^\s*(?:[*#=! ]*)(?:FATAL ERROR|ERROR MESSAGE|Error message|ERROR|Error|FATAL)[*#=! ]*:?[*#=! ]*$", None, AppError, Weak),
        (r"^\s*\*+\s*(?:Error|ERROR)\s*\*+\s*$", None, AppError, Weak),
    ]
    .into_iter()
    .map(|(p, lang, default, strength)| Announcer {
        pattern: Regex::new(p).expect("a pattern of this file compiles"),
        lang,
        default,
        strength,
    })
    .collect()
});

re!(DECORATION, r"^[\s*#=\-_+|!.~%>]*$");
re!(BOX, r"^[\s*|#]+");

/// All messages that stand under an announcement.
pub(crate) fn announced(lines: &[Line]) -> Vec<Announced> {
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
            || t.contains("not implemented"))
        {
            continue;
        }
        let Some(a) = ANNOUNCERS.iter().find(|a| a.pattern.is_match(t)) else { continue };
        let next = lines.iter().enumerate().skip(i + 1).take(4).find(|(_, l)| !DECORATION.is_match(&l.text));
        if let Some((j, said)) = next
            && !ANNOUNCERS.iter().any(|b| b.pattern.is_match(&said.text))
        {
            out.push(Announced { line: j, head: i, lang: a.lang, default: a.default, strength: a.strength });
        }
    }
    out
}

/// A boxed message without its frame.
pub(crate) fn unboxed(text: &str) -> &str {
    let start = BOX.find(text).map_or(0, |m| m.end());
    text[start..].trim_end_matches([' ', '*', '|', '#'])
}
