//! Exceptions and their chains, in the languages that print them.
//!
//! Each parser reads the lines of one writer (one rank) and returns what was
//! raised, with a link to the exception that caused it.

use super::text::{Line, re};

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

re!(TRACEBACK, r"\bTraceback \(most recent call (?:last|first)\)");
re!(
    FRAME,
    r#"^\s*(?:File "[^"]*", line \d+|File [~/\w<][^,]*(?:, in |:\d+)|Cell In\s?\[\d+\], line \d+|Input In \[)"#
);
re!(
    IN_TRACE,
    r"^(?P<indent>[\s|+!>]*)(?P<kind>(?:[A-Za-z_][\w<>]*\.)*[A-Za-z_]\w*)(?P<colon>:)?(?:\s+(?P<msg>.*))?$"
);
re!(
    ALONE,
    r"^(?P<indent>(?:[\s|+!>*\-]|E\s{3})*)(?:(?:ERROR|Error|error|FATAL|Exception|stderr|Uncaught exception|Caused by|Unhandled exception)\s?:\s+)?(?P<kind>(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt|Timeout|Expired|Warning|Failure|Exhausted|NotFound|Forbidden|Unauthorized|KilledWorker|BrokenProcessPool|WorkerLost|ManagerLost))(?P<colon>:)?(?:\s+(?P<msg>.*))?$"
);
re!(DIRECT, r"The above exception was the direct cause of the following exception");
re!(DURING, r"During handling of the above exception, another exception occurred");
re!(CARETS, r"^[\s^~|]*$");
re!(REPEATED, r"^\s*\[Previous line repeated");

#[derive(Default)]
struct Stream {
    in_trace: bool,
    started: usize,
    indent: usize,
    last_frame: Option<usize>,
    header_kind: Option<String>,
    // The exception that the next one follows from.
    link: Option<(usize, bool)>,
    last: Option<usize>,
    // The interpreter prints this one and goes on.
    ignored: bool,
    // "Original Traceback": the next exception is the cause of this one.
    reraised: Option<usize>,
}

fn unqualified(kind: &str) -> String {
    kind.rsplit('.').next().unwrap_or(kind).to_owned()
}

fn looks_like_type(kind: &str) -> bool {
    let last = kind.rsplit('.').next().unwrap_or(kind);
    let first_upper = last.starts_with(|c: char| c.is_ascii_uppercase());
    first_upper
        || kind.contains('.')
            && (last == "error" || last == "timeout" || last == "gaierror" || last == "herror")
}

/// Python's tracebacks in the lines of one writer, given as indices. Lines
/// that name an exception which ended nothing go to `ignored`.
pub(crate) fn python(lines: &[Line], writer: &[usize], out: &mut Vec<Raised>, ignored: &mut Vec<usize>) {
    let mut s = Stream::default();
    for (at, &i) in writer.iter().enumerate() {
        let text = lines[i].text.as_str();
        let trimmed = text.trim();
        if trimmed.is_empty() {
            continue;
        }
        if let Some(m) = TRACEBACK.find(text) {
            // A traceback inside one that has not ended replaces it: the outer
            // one was cut by another writer.
            s.in_trace = true;
            s.started = i;
            s.last_frame = None;
            s.ignored = writer[..at]
                .iter()
                .rev()
                .map(|&p| lines[p].text.trim())
                .find(|t| !t.is_empty())
                .is_some_and(|t| t.starts_with("Exception ignored ") || t == "--- Logging error ---");
            let before = text[..m.start()].trim();
            s.header_kind = (!before.is_empty() && looks_like_type(before) && !before.contains(' '))
                .then(|| unqualified(before));
            s.indent = if before.is_empty() || s.header_kind.is_some() {
                text.len() - text.trim_start().len()
            } else {
                0
            };
            if text.contains("Original Traceback") {
                s.reraised = s.last;
            }
            continue;
        }
        if DIRECT.is_match(text) || DURING.is_match(text) {
            s.link = s.last.map(|l| (l, DURING.is_match(text)));
            s.in_trace = false;
            continue;
        }
        if FRAME.is_match(text) {
            // Clean-up at exit, whose failure changes no result.
            s.ignored |= text.contains("in _run_finalizers");
            if !s.in_trace && s.last_frame.is_none_or(|f| i.saturating_sub(f) > 12) {
                s.started = i;
            }
            s.last_frame = Some(i);
            continue;
        }
        if CARETS.is_match(text) || REPEATED.is_match(text) {
            continue;
        }
        let near_frames = s.last_frame.is_some_and(|f| at_distance(writer, at, f) <= 6);
        let mut hit = None;
        if (s.in_trace || near_frames)
            && let Some(c) = IN_TRACE.captures(text)
        {
            let kind = &c["kind"];
            let indent = c["indent"].len();
            let known = ALONE.is_match(text);
            let shallow =
                if s.in_trace && s.header_kind.is_none() { indent <= s.indent } else { indent <= 2 };
            let named = s.header_kind.as_deref().is_none_or(|h| unqualified(kind) == h);
            let bare = c.name("colon").is_none();
            // A bare word with text after it is a sentence or code.
            let sentence = bare && c.name("msg").is_some();
            if looks_like_type(kind)
                && !sentence
                && named
                && (shallow && (s.last_frame.is_some() || known) || known && indent <= s.indent + 2)
            {
                hit = Some((
                    kind.to_owned(),
                    c.name("msg").map_or("", |m| m.as_str()).to_owned(),
                    c.name("colon").is_some(),
                    true,
                ));
            }
        }
        if hit.is_none()
            && let Some(c) = ALONE.captures(text)
        {
            let kind = &c["kind"];
            let colon = c.name("colon").is_some();
            // Without frames the name alone must look the part: it ends the
            // line or is followed by a colon.
            if !kind.ends_with("Warning") && (colon || c.name("msg").is_none()) {
                hit = Some((
                    kind.to_owned(),
                    c.name("msg").map_or("", |m| m.as_str()).to_owned(),
                    colon,
                    s.in_trace || near_frames,
                ));
            }
        }
        let Some((kind, mut message, colon, traceback)) = hit else {
            continue;
        };
        if kind.ends_with("RemoteTraceback") {
            s.in_trace = false;
            continue;
        }
        if std::mem::take(&mut s.ignored) && traceback {
            ignored.push(i);
            s.in_trace = false;
            s.last_frame = None;
            continue;
        }
        let mut quote = i;
        // "Type: Graph execution error:" and the reason below a blank line.
        if message.ends_with(':')
            && message.split(' ').count() <= 3
            && let Some(&next) = writer[at + 1..].iter().take(3).find(|&&n| !lines[n].text.trim().is_empty())
            && !FRAME.is_match(&lines[next].text)
            && !TRACEBACK.is_match(&lines[next].text)
        {
            message = format!("{message} {}", lines[next].text.trim());
            quote = next;
        }
        if message.is_empty()
            && let Some(&next) = writer.get(at + 1)
        {
            let t = lines[next].text.trim();
            let continued = colon
                && !t.is_empty()
                && !FRAME.is_match(t)
                && !TRACEBACK.is_match(t)
                && !t.starts_with("=====");
            // Writers that share a pipe cut "Type: message" before the colon.
            if continued || t.starts_with(": ") {
                message = t.trim_start_matches(": ").to_owned();
                quote = next;
            }
        }
        let n = out.len();
        let (inner, implicit) = match s.link.take() {
            Some((l, implicit)) => (Some(l), implicit),
            None => (None, false),
        };
        out.push(Raised {
            line: quote,
            head: i,
            kind: Some(unqualified(&kind)),
            message,
            traceback,
            inner,
            implicit,
            lang: Some("python"),
        });
        if let Some(outer) = s.reraised.take()
            && outer < n
            && inner != Some(outer)
        {
            out[outer].inner = Some(n);
            // What follows is about the outer one again.
            s.last = Some(outer);
        } else {
            s.last = Some(n);
        }
        s.in_trace = false;
        s.last_frame = None;
        s.header_kind = None;
    }
}

fn at_distance(writer: &[usize], at: usize, frame: usize) -> usize {
    match writer.binary_search(&frame) {
        Ok(p) => at.saturating_sub(p),
        Err(_) => usize::MAX,
    }
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

    fn lines(text: &str) -> Vec<Line> {
        text.lines().enumerate().map(|(i, l)| clean(i as u64 + 1, l)).collect()
    }

    fn py(text: &str) -> Vec<(String, String, Option<usize>)> {
        let l = lines(text);
        let all: Vec<usize> = (0..l.len()).collect();
        let mut out = Vec::new();
        python(&l, &all, &mut out, &mut Vec::new());
        out.into_iter().map(|r| (r.kind.unwrap_or_default(), r.message, r.inner)).collect()
    }

    #[test]
    fn chains_are_linked() {
        let got = py(
            "Traceback (most recent call last):\n  File \"a.py\", line 1, in f\n    x()\nOSError: [Errno 28] full\n\nThe above exception was the direct cause of the following exception:\n\nTraceback (most recent call last):\n  File \"a.py\", line 9, in g\n    f()\nmy.pkg.StageError: stage failed\n",
        );
        assert_eq!(
            got,
            [
                ("OSError".into(), "[Errno 28] full".into(), None),
                ("StageError".into(), "stage failed".into(), Some(0))
            ]
        );
    }

    #[test]
    fn pool_reraise_is_the_outer_one() {
        let got = py(
            "Traceback (most recent call last):\n  File \"m.py\", line 1, in f\n    x()\nKeyError: Caught KeyError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  File \"w.py\", line 2, in g\n    d['k']\nKeyError: 'k'\n",
        );
        assert_eq!(got[0].2, Some(1));
        assert_eq!(got[1].1, "'k'");
    }

    #[test]
    fn types_without_suffix_need_frames() {
        assert_eq!(py("Empty\n"), []);
        assert_eq!(
            py(
                "Traceback (most recent call last):\n  File \"q.py\", line 1, in <module>\n    q.get()\nqueue.Empty\n"
            ),
            [("Empty".into(), String::new(), None)]
        );
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
