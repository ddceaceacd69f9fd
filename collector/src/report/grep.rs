/*!
Searching the logs of jobs, with ripgrep's libraries.

One pass over each file, one line in memory at a time. What is shown of a
line is what a terminal would have shown, without the codes that steer it.
*/

use std::io;
use std::path::Path;

use anstyle::{AnsiColor, Style};
use grep_matcher::Matcher;
use grep_regex::{RegexMatcher, RegexMatcherBuilder};
use grep_searcher::{BinaryDetection, Searcher, SearcherBuilder, Sink, SinkContext, SinkMatch};
use serde::Serialize;

use super::clean;
use super::logfiles::{Content, LogError, Whose, open_log};
use crate::logs::text::{last_state, repair, strip_controls};

/// The longest line that is searched; a longer one is reported, not held.
const LINE_MAX: usize = 64 << 20;

/// Characters of a line that are shown.
const SHOWN: usize = 1000;

/// What to search for.
#[derive(Clone, Debug)]
pub struct Options {
    /// The same in upper and lower case.
    pub ignore_case: bool,
    /// The pattern is plain text.
    pub fixed: bool,
    /// Lines around a match.
    pub context: usize,
}

/// A pattern that is no regular expression.
#[derive(Debug, thiserror::Error)]
#[error("'{}' is no regular expression: {reason}; -F takes it as plain text", .pattern.escape_debug())]
pub struct BadPattern {
    pattern: String,
    reason: String,
}

/// A line of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hit {
    /// Where, counted from 1.
    pub line_number: u64,
    /// The line, cut at 1000 characters.
    pub text: String,
    /// Matches, or stands beside one that does.
    pub is_match: bool,
    /// Lines are left out before this one.
    pub gap: bool,
}

/// A pattern, ready to search.
#[derive(Debug)]
pub struct Grep {
    matcher: RegexMatcher,
    searcher: Searcher,
}

impl Grep {
    /// Makes a pattern ready.
    ///
    /// # Errors
    ///
    /// When it is no regular expression.
    pub fn new(pattern: &str, options: &Options) -> Result<Grep, BadPattern> {
        let matcher = RegexMatcherBuilder::new()
            .case_insensitive(options.ignore_case)
            .fixed_strings(options.fixed)
            .line_terminator(Some(b'\n'))
            .build(pattern)
            .map_err(|e| BadPattern { pattern: pattern.into(), reason: one_line(&e.to_string()) })?;
        let searcher = SearcherBuilder::new()
            .before_context(options.context)
            .after_context(options.context)
            // Logs hold zero bytes (holes of a truncated file) and are logs still.
            .binary_detection(BinaryDetection::none())
            .heap_limit(Some(LINE_MAX))
            .build();
        Ok(Grep { matcher, searcher })
    }

    /// Searches a log; `each` says whether to go on.
    ///
    /// # Errors
    ///
    /// When the file cannot be read (inner), or `each` failed (outer).
    pub fn search(
        &mut self,
        path: &Path,
        whose: Whose,
        each: impl FnMut(Hit) -> io::Result<bool>,
    ) -> io::Result<Result<(), LogError>> {
        let file = match open_log(path, whose) {
            Ok((file, meta)) => Content::of(file, &meta),
            Err(e) => return Ok(Err(e)),
        };
        let mut lines = Lines { matcher: &self.matcher, each, gap: false, failed: None };
        let result = self.searcher.search_reader(&self.matcher, file, &mut lines);
        match (lines.failed, result) {
            (Some(e), _) => Err(e),
            (None, Ok(())) => Ok(Ok(())),
            (None, Err(e)) => Ok(Err(e.into())),
        }
    }

    /// Whether some line matches, in a file that the caller named.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn any(&mut self, path: &Path) -> Result<bool, LogError> {
        let mut any = false;
        let result = self.search(path, Whose::Any, |hit| {
            any |= hit.is_match;
            Ok(!any)
        });
        result.map_err(LogError::from)??;
        Ok(any)
    }
}

/// The reason of a regex error without the drawing around it.
fn one_line(text: &str) -> String {
    let last = text.lines().map(str::trim).rfind(|l| !l.is_empty()).unwrap_or("it cannot be read");
    last.trim_start_matches("error: ").to_owned()
}

struct Lines<'a, F> {
    matcher: &'a RegexMatcher,
    each: F,
    gap: bool,
    /// Why `each` gave up; the searcher's own errors are of the file.
    failed: Option<io::Error>,
}

impl<F: FnMut(Hit) -> io::Result<bool>> Lines<'_, F> {
    fn line(&mut self, number: Option<u64>, bytes: &[u8], is_match: bool) -> bool {
        let text = shown(self.matcher, bytes, is_match);
        let gap = std::mem::take(&mut self.gap);
        let hit = Hit { line_number: number.unwrap_or(0), text, is_match, gap };
        (self.each)(hit).unwrap_or_else(|e| {
            self.failed = Some(e);
            false
        })
    }
}

impl<F: FnMut(Hit) -> io::Result<bool>> Sink for Lines<'_, F> {
    type Error = io::Error;

    fn matched(&mut self, _: &Searcher, hit: &SinkMatch<'_>) -> io::Result<bool> {
        Ok(self.line(hit.line_number(), hit.bytes(), true))
    }

    fn context(&mut self, _: &Searcher, line: &SinkContext<'_>) -> io::Result<bool> {
        Ok(self.line(line.line_number(), line.bytes(), false))
    }

    fn context_break(&mut self, _: &Searcher) -> io::Result<bool> {
        self.gap = true;
        Ok(true)
    }
}

/// What a person sees of a line: of a progress bar the state that matches,
/// or its last; of a long line the part around the match.
fn shown(matcher: &RegexMatcher, bytes: &[u8], is_match: bool) -> String {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let matches = |part: &[u8]| is_match && matcher.is_match(part).unwrap_or(false);
    let state = bytes.split(|b| *b == b'\r').rfind(|part| matches(part));
    let window = state.map(|part| match matcher.find(part) {
        Ok(Some(found)) if part.len() > SHOWN => {
            let from = found.start().saturating_sub(SHOWN / 4);
            &part[from..(from + 4 * SHOWN).min(part.len())]
        }
        _ => part,
    });
    // Without a matching state, the end of a long line says most.
    let rest = &bytes[bytes.len().saturating_sub(64 * SHOWN)..];
    let text = window.map_or_else(|| last_state(&repair(rest)).to_owned(), |part| repair(part).into_owned());
    strip_controls(&text).trim_end().chars().take(SHOWN).collect()
}

const PATH: Style = Style::new().bold();
const MATCH: Style = AnsiColor::Red.on_default();

/// `20_1  /path/of/the/log`, the line above the hits in a file.
pub fn heading(job: &str, path: &Path) -> String {
    format!("{PATH}{job}  {}{PATH:#}\n", clean(&path.to_string_lossy()))
}

/// `  12: text` for a match, `  13- text` for a line beside one.
pub fn line(hit: &Hit) -> String {
    let gap = if hit.gap { "     --\n" } else { "" };
    let text = clean(&hit.text.replace('\t', "    "));
    if hit.is_match {
        format!("{gap}{MATCH}{:>6}:{MATCH:#} {text}\n", hit.line_number)
    } else {
        format!("{gap}{:>6}- {text}\n", hit.line_number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grep(pattern: &str) -> Grep {
        Grep::new(pattern, &Options { ignore_case: false, fixed: false, context: 0 }).unwrap()
    }

    #[test]
    fn of_a_progress_bar_the_state_that_matches() {
        let matcher = grep("Error|50%").matcher;
        assert_eq!(shown(&matcher, b" 10%\r 50%\r 99%\r\n", true), " 50%");
        assert_eq!(shown(&matcher, b" 10%\r 98%\r\n", false), " 98%");
        assert_eq!(shown(&matcher, b"\x1b[31mError\x1b[0m\xff\0 x\n", true), "Error\u{fffd} x");
        let long = [&[b'a'; 100_000][..], b"Error here", &[b'b'; 100_000]].concat();
        let text = shown(&matcher, &long, true);
        assert!(text.contains("Error here") && text.len() == SHOWN, "{text}");
    }

    #[test]
    fn a_bad_pattern_says_what_is_wrong_in_one_line() {
        let options = Options { ignore_case: false, fixed: false, context: 0 };
        for bad in ["(", "a\nb", "[z-a]", "*", "\\p{nope}"] {
            let error = Grep::new(bad, &options).unwrap_err().to_string();
            assert!(!error.contains('\n') && error.contains("-F"), "{error}");
        }
        assert!(Grep::new("(", &Options { fixed: true, ..options }).is_ok());
    }
}
