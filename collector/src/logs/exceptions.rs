//! Exceptions and their chains, in the languages that print them.
//!
//! Each parser reads the lines of one writer (one rank) and returns what was
//! raised, with a link to the exception that caused it.

use super::text::{Line, re};

mod python;

pub(crate) use python::python;

/// One exception as a language printed it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Raised {
    /// Index of the line to quote.
    pub(crate) line: usize,
    /// Index of the line that names the exception.
    pub(crate) head: usize,
    /// Unqualified type, where the language has one.
    pub(crate) kind: Option<String>,
    /// What it says.
    pub(crate) message: String,
    /// Frames stood beside it: it was not only mentioned.
    pub(crate) traceback: bool,
    /// Position, in the returned list, of the exception that caused this one.
    pub(crate) inner: Option<usize>,
    /// The link is "during handling": the inner one may be incidental.
    pub(crate) implicit: bool,
    pub(crate) lang: Option<&'static str>,
}

re!(
    JAVA,
    r#"^\s*(?P<thread>Exception in thread "[^"]*"\s+)?(?P<cause>(?:Caused by|Suppressed|Cause):\s+)?(?P<kind>(?:[a-z_]\w*\.)+[A-Z][\w$]*)(?::\s*(?P<msg>.*))?$"#
);
re!(JAVA_FRAME, r"^\s+at [\w.$<>/@]+\(.*\)\s*$|^\s*\.\.\. \d+ (?:more|common frames)");

/// Java's, Scala's and Groovy's stack traces.
pub(crate) fn java(lines: &[Line], out: &mut Vec<Raised>) {
    let mut outer: Option<usize> = None;
    for i in 0..lines.len() {
        let text = lines[i].text.as_str();
        let Some(c) = JAVA.captures(text) else {
            continue;
        };
        let follows = lines[i + 1..].iter().take(4).any(|l| JAVA_FRAME.is_match(&l.text));
        let caused = c.name("cause").is_some();
        if !follows && c.name("thread").is_none() && !caused {
            continue;
        }
        let kind = c["kind"].rsplit(['.', '$']).next().unwrap_or_default().to_owned();
        let n = out.len();
        out.push(Raised {
            line: i,
            head: i,
            kind: Some(kind),
            message: c.name("msg").map_or("", |m| m.as_str()).to_owned(),
            traceback: true,
            inner: None,
            implicit: false,
            lang: Some("java"),
        });
        if caused && let Some(o) = outer {
            out[o].inner = Some(n);
        }
        outer = Some(n);
    }
}

re!(R_ERROR, r"^\s*Error in (?P<call>.+?) : ?(?P<msg>.*)$|^\s*Error in (?P<call2>.+?) :\s*$");
re!(R_CLI, r"^\s*(?:Error(?: in `[^`]*(?:`[^`]*)?`)?|Caused by error(?: in `.*`)?):\s*$");
re!(R_CAUSED, r"^\s*Caused by error");
re!(R_PLAIN, r"^\s*Error: (?P<msg>\S.*)$");
re!(
    R_SIGN,
    r"^\s*(?:Execution halted|Calls: .*|Backtrace:|Loading required package: .*|Warning message:|In addition: Warning message.*|Attaching package: .*)\s*$|^\s*Rscript\b"
);

/// R's errors: the message is on the same line or on the next, and conditions
/// of the tidyverse put a "!" before each.
pub(crate) fn r(lines: &[Line], out: &mut Vec<Raised>) {
    let is_r = lines.iter().any(|l| R_SIGN.is_match(&l.text));
    let mut previous: Option<usize> = None;
    for i in 0..lines.len() {
        let text = lines[i].text.as_str();
        if !text.contains("rror") {
            continue;
        }
        let (mut line, mut message) = (i, String::new());
        let mut cli = false;
        if R_CLI.is_match(text) {
            let has_bang = lines.get(i + 1).is_some_and(|l| l.text.trim_start().starts_with("! "));
            if !has_bang && !is_r {
                continue;
            }
            cli = true;
        } else if let Some(c) = R_ERROR.captures(text) {
            message = c.name("msg").map_or("", |m| m.as_str()).trim().to_owned();
        } else if let (true, Some(c)) = (is_r, R_PLAIN.captures(text)) {
            message = c["msg"].trim().to_owned();
        } else {
            continue;
        }
        // The message goes on until it says something: a line that ends with
        // a colon announces the next one.
        let mut next = i + 1;
        while (message.is_empty() || message.ends_with(':')) && next < lines.len() && next < i + 5 {
            let t = lines[next].text.trim();
            if t.is_empty() || t.starts_with("Calls:") || t == "Execution halted" {
                break;
            }
            message = t.trim_start_matches("! ").to_owned();
            line = next;
            next += 1;
        }
        let n = out.len();
        let caused = cli && R_CAUSED.is_match(text);
        out.push(Raised {
            line,
            head: i,
            kind: None,
            message,
            traceback: true,
            inner: None,
            implicit: false,
            lang: Some("r"),
        });
        if caused && let Some(p) = previous {
            out[p].inner = Some(n);
        }
        previous = Some(n);
    }
}

re!(
    JULIA,
    r"^\s*(?P<how>ERROR: |caused by: |nested task error: |Got exception outside of a @test|signal \(\d+\): )(?P<load>(?:LoadError: |InitError: |On worker \d+:\s*)*)(?:(?P<kind>[A-Z]\w*(?:Error|Exception|\{.*?\})?)(?P<sep>: |:$|\(|$))?(?P<msg>.*)$"
);
re!(
    JULIA_SIGN,
    r"^\s*Stacktrace:|^\s*in expression starting at |^\s*ERROR: (?:LoadError|InitError|TaskFailedException)|\.jl:\d+\s*$"
);

/// Julia's errors and the task errors nested in them.
pub(crate) fn julia(lines: &[Line], out: &mut Vec<Raised>) {
    if !lines.iter().any(|l| JULIA_SIGN.is_match(&l.text)) {
        return;
    }
    let mut previous: Option<usize> = None;
    for (i, line) in lines.iter().enumerate() {
        // A logger's prefix may have taken the first word for its level.
        let text = match line.text.starts_with("LoadError: ") || line.text.starts_with("InitError: ") {
            true => format!("ERROR: {}", line.text),
            false => line.text.clone(),
        };
        let Some(c) = JULIA.captures(&text) else {
            continue;
        };
        let how = &c["how"];
        if !(how == "ERROR: " || how == "caused by: " || how == "nested task error: ") {
            continue;
        }
        let kind = c
            .name("kind")
            .map(|m| m.as_str().to_owned())
            .filter(|k| k.ends_with("Error") || k.ends_with("Exception"));
        let rest = text.trim_start().get(how.len()..).unwrap_or("");
        let n = out.len();
        out.push(Raised {
            line: i,
            head: i,
            kind,
            message: rest.to_owned(),
            traceback: true,
            inner: None,
            implicit: false,
            lang: Some("julia"),
        });
        if how != "ERROR: "
            && let Some(p) = previous
        {
            out[p].inner = Some(n);
        }
        previous = Some(n);
    }
}

re!(
    CPP,
    r"terminate called after throwing an instance of '(?P<kind>[^']+)'|terminating (?:with|due to) uncaught exception of type (?P<kind2>[\w:<>]+)"
);
re!(
    CPP_NOISE,
    r"^\s*$|^\[[\w.\-]+:\d+\] |^Aborted|\*\*\* |^\s*what\(\):\s*$|^\([\w./]+\.\w+:\d+\)|^\(ERR\):|^\S*srun: |: line \d+: "
);
re!(WHAT, r"^\s*what\(\):\s*(?P<msg>.*)$");

/// C++: `terminate` names the type, `what()` the message, possibly below it.
pub(crate) fn cpp(lines: &[Line], out: &mut Vec<Raised>) {
    for i in 0..lines.len() {
        let Some(c) = CPP.captures(&lines[i].text) else {
            continue;
        };
        let full = c.name("kind").or(c.name("kind2")).map_or("", |m| m.as_str());
        let kind = full.rsplit("::").next().unwrap_or(full).to_owned();
        let (mut line, mut message) = (i, String::new());
        for (j, l) in lines.iter().enumerate().skip(i + 1).take(5) {
            let said = WHAT
                .captures(&l.text)
                .map_or_else(|| l.text.trim().to_owned(), |w| w["msg"].trim().to_owned());
            if said.is_empty() || CPP_NOISE.is_match(&said) || CPP_NOISE.is_match(&l.text) {
                continue;
            }
            if said != full {
                (line, message) = (j, said);
            }
            break;
        }
        if message.is_empty() {
            message = full.to_owned();
        }
        out.push(Raised {
            line,
            head: i,
            kind: Some(kind),
            message,
            traceback: true,
            inner: None,
            implicit: false,
            lang: Some("c"),
        });
    }
}

re!(
    RUBY,
    r"^(?:[\w./+\-]+:\d+|<internal:[^>]*>:\d+):in [`'][^']*': (?P<msg>.*) \((?P<kind>[A-Z]\w*(?:::\w+)*)\)$"
);
re!(LUA, r"^lua[\w.\-]*: (?P<msg>\S.*)$");

/// What ends a Ruby or Lua program: one line that cannot be mistaken.
pub(crate) fn one_line(lines: &[Line], out: &mut Vec<Raised>) {
    for (i, line) in lines.iter().enumerate() {
        let (lang, found) = match RUBY.captures(&line.text) {
            Some(c) => ("ruby", c),
            None => match LUA.captures(&line.text) {
                Some(c) => ("lua", c),
                None => continue,
            },
        };
        let kind = found.name("kind").map(|k| k.as_str().rsplit("::").next().unwrap_or_default().to_owned());
        out.push(Raised {
            line: i,
            head: i,
            kind,
            message: found["msg"].to_owned(),
            traceback: true,
            inner: None,
            implicit: false,
            lang: Some(lang),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::text::clean;

    pub(super) fn lines(text: &str) -> Vec<Line> {
        text.lines().enumerate().map(|(i, l)| clean(i as u64 + 1, l)).collect()
    }

    #[test]
    fn java_innermost() {
        let l = lines(
            "Exception in thread \"main\" a.b.JobException: job\n\tat a.b.C.d(C.java:1)\nCaused by: java.io.IOException: disk\n\tat a.b.E.f(E.java:2)\n",
        );
        let mut out = Vec::new();
        java(&l, &mut out);
        assert_eq!((out.len(), out[0].inner, out[1].kind.as_deref()), (2, Some(1), Some("IOException")));
    }

    #[test]
    fn r_messages_on_the_next_line() {
        let l = lines("Error in f(x, y) :\n  object 'y' not found\nCalls: f\nExecution halted\n");
        let mut out = Vec::new();
        r(&l, &mut out);
        assert_eq!((out[0].line, out[0].message.as_str()), (1, "object 'y' not found"));
    }

    #[test]
    fn r_condition_chain() {
        let l = lines("Error in `fit()`:\n! Could not fit.\nCaused by error in `solve()`:\n! no way\n");
        let mut out = Vec::new();
        r(&l, &mut out);
        assert_eq!((out[0].inner, out[1].message.as_str()), (Some(1), "no way"));
    }

    #[test]
    fn julia_nested() {
        let l = lines(
            "ERROR: LoadError: TaskFailedException\n\n    nested task error: BoundsError: attempt to access\n    Stacktrace:\n",
        );
        let mut out = Vec::new();
        julia(&l, &mut out);
        assert_eq!((out[0].inner, out[1].kind.as_deref()), (Some(1), Some("BoundsError")));
    }
}
