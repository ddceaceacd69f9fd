//! Python's tracebacks.

use super::Raised;
use crate::logs::text::{Line, re};

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::exceptions::tests::lines;

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
}
