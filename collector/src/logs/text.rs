//! Lines of a log as a terminal would have shown them, and who wrote them.
//!
//! Launchers put a rank in front of every line, loggers a time and a level.
//! Both are taken off before any rule looks, so that one rule serves all, and
//! the rank keeps the tracebacks of different ranks apart.

use std::borrow::Cow;
use std::collections::HashMap;
use std::iter::successors;

use regex::Regex;

/// The longest line that is looked at and quoted, in bytes. Longer lines keep
/// their end, where programs put the reason.
pub const MAX_LINE: usize = 4096;

/// The level that a logging framework put in front of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// INFO, DEBUG, TRACE, NOTE.
    Info,
    /// WARNING.
    Warn,
    /// ERROR, CRITICAL, FATAL.
    Error,
}

/// One cleaned line.
#[derive(Clone, Debug)]
pub struct Line {
    /// Position in the log, counted from 1.
    pub number: u64,
    /// The whole line without terminal codes: what is quoted.
    pub quote: String,
    /// The line for matching: prefixes taken off, typographic quotes made
    /// plain, indentation kept.
    pub text: String,
    /// Who wrote it, when several writers share the log.
    pub rank: Option<String>,
    /// Level of the logging framework's prefix.
    pub level: Option<Level>,
}

/// Which lines are of one writer: the next and the one before of each, so that nobody has to look for them.
pub(crate) struct Writers {
    next: Vec<Option<usize>>,
    previous: Vec<Option<usize>>,
}

impl Writers {
    pub(crate) fn of(lines: &[Line]) -> Writers {
        let mut next = vec![None; lines.len()];
        let mut last: HashMap<Option<&str>, usize> = HashMap::new();
        let mut previous = Vec::with_capacity(lines.len());
        for (i, line) in lines.iter().enumerate() {
            let before = last.insert(line.rank.as_deref(), i);
            if let Some(before) = before {
                next[before] = Some(i);
            }
            previous.push(before);
        }
        Writers { next, previous }
    }

    /// The lines of the same writer below.
    pub(crate) fn below(&self, line: usize) -> impl Iterator<Item = usize> {
        successors(self.next[line], |&line| self.next[line])
    }

    /// The lines of the same writer above, upwards.
    pub(crate) fn above(&self, line: usize) -> impl Iterator<Item = usize> {
        successors(self.previous[line], |&line| self.previous[line])
    }
}

/// Repairs bytes into text: invalid UTF-8 becomes U+FFFD.
pub fn repair(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// Removes terminal escape sequences (CSI, OSC, two-byte ones), backspaces
/// with what they erase, and other control characters except tab.
pub fn strip_controls(s: &str) -> Cow<'_, str> {
    if !s.chars().any(|c| c.is_control() && c != '\t') {
        return Cow::Borrowed(s);
    }
    let mut out = String::with_capacity(s.len());
    let mut it = s.chars().peekable();
    while let Some(c) = it.next() {
        match c {
            '\u{1b}' => match it.next() {
                Some('[') => {
                    for d in it.by_ref() {
                        if ('\u{40}'..='\u{7e}').contains(&d) {
                            break;
                        }
                    }
                }
                Some(']') => {
                    while let Some(d) = it.next() {
                        if d == '\u{7}' {
                            break;
                        }
                        if d == '\u{1b}' {
                            it.next();
                            break;
                        }
                    }
                }
                _ => {}
            },
            '\u{9b}' => {
                for d in it.by_ref() {
                    if ('\u{40}'..='\u{7e}').contains(&d) {
                        break;
                    }
                }
            }
            '\u{8}' => {
                out.pop();
            }
            '\t' => out.push('\t'),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// What a terminal shows of a line with carriage returns: its last state that
/// is not empty.
pub fn last_state(s: &str) -> &str {
    s.rsplit('\r').find(|part| !part.trim().is_empty()).unwrap_or("")
}

/// Cuts to [`MAX_LINE`] bytes at a character boundary. The end is kept.
fn bounded(s: &str) -> &str {
    if s.len() <= MAX_LINE {
        return s;
    }
    let mut from = s.len() - MAX_LINE;
    while !s.is_char_boundary(from) {
        from += 1;
    }
    &s[from..]
}

/// Typographic quotes and dashes that locales produce, made plain.
fn plain(s: &str) -> Cow<'_, str> {
    if s.is_ascii() {
        return Cow::Borrowed(s);
    }
    Cow::Owned(
        s.chars()
            .map(|c| match c {
                '\u{2018}' | '\u{2019}' | '\u{201b}' => '\'',
                '\u{201c}' | '\u{201d}' => '"',
                '\u{a0}' => ' ',
                c => c,
            })
            .collect(),
    )
}

/// Compiles a pattern of ours. Its classes are ASCII's: those of Unicode make
/// it a hundred times larger, and no tool reports in other digits or words.
pub(crate) fn regex(pattern: &str) -> Regex {
    let mut ascii = String::with_capacity(pattern.len() + 64);
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match (c, if c == '\\' { chars.next() } else { None }) {
            (_, Some('w')) => ascii.push_str("[0-9A-Za-z_]"),
            (_, Some('W')) => ascii.push_str("[^0-9A-Za-z_]"),
            (_, Some('d')) => ascii.push_str("[0-9]"),
            (_, Some('s')) => ascii.push_str("[\\t-\\r\\x20]"),
            (_, Some('S')) => ascii.push_str("[^\\t-\\r\\x20]"),
            (_, Some('b')) => ascii.push_str("(?-u:\\b)"),
            (_, Some(other)) => ascii.extend(['\\', other]),
            (c, None) => ascii.push(c),
        }
    }
    Regex::new(&ascii).expect("a pattern of ours compiles")
}

macro_rules! re {
    ($vis:vis $name:ident, $pattern:expr) => {
        $vis static $name: ::std::sync::LazyLock<::regex::Regex> =
            ::std::sync::LazyLock::new(|| $crate::logs::text::regex($pattern));
    };
}
pub(crate) use re;

re!(BARE_COLOUR, r"\[(?:\d{1,3};){0,4}\d{1,3}m");

// Who wrote the line. One blank after the mark belongs to the mark, the rest
// is the program's own indentation.
re!(
    RANK,
    r"(?x)^(?:
        \s*\[rank\s?(?P<torch>\d+)\]:\s?                              # torch: [rank3]:
      | \s*\[(?P<ompi>\d+,\d+)\]<(?:std(?:err|out|diag))>:\s?         # mpirun --tag-output
      | \s{0,8}(?P<srun>\d{1,5}):(?:\s|$)                             # srun --label
      | \s*\[(?P<rankpid>[A-Za-z0-9_]+\ Rank\ \d+)\]:?\s?
      | \s*\((?P<actor>[A-Za-z_][\w.<>]*(?:\ [A-Za-z_][\w.]*=[^\s,)]+)?(?:\ ?pid=\d+)[^)]*)\)\s?   # ray, vLLM
      | \s*\[(?P<hydra>\d{1,5})\]\s(?:[A-Z][a-z]|\s{2}|[a-z_]+\.)     # mpiexec -l, kept: see below
    )"
);

// Time, level and origin that loggers write. Each alternative is one
// framework's own layout; what it leaves is the message.
re!(
    LOGGER,
    r"(?x)^\s*(?:
        # 16004.6s  633  (notebook runners)
        \d+(?:\.\d+)?s\s+\d+(?:\t|\ |$)
        # E1202 00:21:27.564198 1657241 torch/x.py:869]   (glog, absl)
      | (?P<glog>[IWEF])\d{4}\s\d\d:\d\d:\d\d\.\d+\s+\d+\s+[^\s\]]+:\d+\]
      | \[(?P<c10>[IWEF])\d{4}\s\d\d:\d\d:\d\d\.\d+\s+[^\s\]]+:\d+\]
      | (?P<glog2>[IWEF])0000\s00:00:\d+\.\d+\s+\d+\s+[^\s\]]+:\d+\]
        # 2025-08-21 02:37:18.288748: E path/file.cc:32]   (TensorFlow)
      | \d{4}-\d\d-\d\d\s\d\d:\d\d:\d\d\.\d+:\s(?P<tf>[IWEF])\s[^\s\]]+:\d+\]
        # ERROR 03-10 09:58:19 [core.py:1031]   (vLLM)
      | (?P<vllm>INFO|DEBUG|WARNING|ERROR|CRITICAL)\s\d\d-\d\d\s\d\d:\d\d:\d\d\s(?:\[[^\]\s]+:\d+\]|[^\s\]]+:\d+\])
        # [2021-05-25 06:45:27,395] [INFO] [engine.py:1867:f]
      | \[\d{4}-\d\d-\d\d[\ T][\d:,.]+[^\]]*\]\s?(?:\[(?P<br>[A-Za-z]+)\]|(?P<br2>trace|debug|info|notice|warn|warning|error|critical|fatal):)(?:\s?\[[^\]]*\])?
        # [INFO|trainer.py:889] 2021-05-25 06:45:27,774 >>
      | \[(?P<hf>INFO|DEBUG|WARNING|ERROR|CRITICAL)\|[^\]]+\]\s\d{4}-\d\d-\d\d\s[\d:,.]+\s>>
        # 2025-07-17 14:31:27,269 - name - INFO - , and loguru's 2025-07-17 14:31:27.269 | INFO     | a:b:1 -
      | \d{4}-\d\d-\d\d[\ T][\d:,.]+Z?(?:[+-]\d\d:?\d\d)?\s*[-|]\s*(?:[^\s|]+\s*[-|]\s*)?(?P<py>TRACE|DEBUG|INFO|SUCCESS|WARNING|WARN|ERROR|CRITICAL|FATAL)\s*(?:[-|:]\s*)(?:[\w.<>]+:[\w<>]+:\d+\s-)?
        # 2025-07-17 14:31:27,269 ERROR name:   (log4j, slf4j, Python)
      | \[?\d{4}[-/]\d\d[-/]\d\d[\ T][\d:,.]+Z?(?:[+-]\d\d:?\d\d)?\]?\s+(?:\[[^\]]*\]\s*|[a-z_][\w.\-]*\s+)?\[?(?P<l4j>TRACE|DEBUG|INFO|WARNING|WARN|ERROR|CRITICAL|FATAL|SEVERE)\]?:?
        # 24/05/01 12:00:00 ERROR Executor:   (Spark, Hadoop)
      | \d\d/\d\d/\d\d\s\d\d:\d\d:\d\d\s(?P<spark>TRACE|DEBUG|INFO|WARN|ERROR|FATAL)
        # May-04 20:06:53.889 [Task monitor] ERROR a.b.C -   (Nextflow)
      | [A-Z][a-z]{2}-\d\d\s\d\d:\d\d:\d\d\.\d+\s\[[^\]]+\]\s(?P<nf>TRACE|DEBUG|INFO|WARN|ERROR)\s+[\w.$@]+\s-
        # [18:06:53] ERROR     (rich)
      | \[\d\d:\d\d:\d\d\]\s(?P<rich>DEBUG|INFO|WARNING|ERROR|CRITICAL)\s
        # distributed.worker - ERROR -
      | [A-Za-z_][\w.]*\s-\s(?P<dask>DEBUG|INFO|WARNING|ERROR|CRITICAL)\s-
        # INFO:httpx:message (Python's basicConfig)
      | (?P<basic>DEBUG|INFO|WARNING|ERROR|CRITICAL):[\w.\-]+:
        # [E::function]   (htslib, bwa, minimap2)
      | \[(?P<hts>[EWMD])::[\w:.*]+\]
        # [  12.345678] kernel, and [2025-12-17T01:57:03.485] of Slurm's daemons
      | \[\s*\d+\.\d{6}\]
      | \[\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?\]
        # Apr 08 03:37:03.834962 3444994 slurmstepd   0x155552ddfd40:   and syslog
      | [A-Z][a-z]{2}\s[\ \d]\d\s\d\d:\d\d:\d\d(?:\.\d+)?\s(?:\d+\s\w+\s+0x[0-9a-f]+|[\w.\-]+\s[\w./\-]+(?:\[\d+\])?):
    )"
);

re!(
    LEVEL_ONLY,
    r"^\s*\[?(?P<l>INFO|DEBUG|TRACE|NOTE|WARN|WARNING|Warning|warning|info|debug)\]?(?:\s*\([^)]*\))?(?::|\s*\|\s|\s-\s|\]\s?|\s{2,})"
);

// "UserWarning: text", "FutureWarning:", GROMACS' notes.
re!(
    WARNING_TEXT,
    r"(?:^|[\s:])(?:[A-Z]\w*Warning:|WARNING[:\s]|[Ww]arning:|npm WARN|UCX\s+WARN|\*\*\* WARNING|NOTE \d)|^\s*(?:WARN|Warning|warning|warn)\b"
);

fn level_of(word: &str) -> Level {
    match word.as_bytes().first() {
        Some(b'W' | b'w') => Level::Warn,
        Some(b'E' | b'F' | b'C' | b'e' | b'f' | b'c') => Level::Error,
        // SEVERE is an error, SUCCESS is not.
        Some(b'S') if word.starts_with("SEV") => Level::Error,
        _ => Level::Info,
    }
}

/// Cleans one line of a log.
///
/// `raw` has no newline. Of its carriage-return states, the last one is
/// taken.
pub fn clean(number: u64, raw: &str) -> Line {
    let shown = last_state(raw);
    let stripped = strip_controls(bounded(shown));
    let quote = stripped.trim_end();
    // Colour codes whose escape byte was lost on the way.
    let bare = if quote.contains("[0m") || quote.contains("[31m") || quote.contains(";1m") {
        BARE_COLOUR.replace_all(quote, "")
    } else {
        Cow::Borrowed(quote)
    };
    let (mut rest, rank) = take_rank(&bare);
    let mut level = None;
    // Two rounds: a logger inside a launcher inside a logger.
    for _ in 0..2 {
        let Some(c) = LOGGER.captures(rest) else {
            break;
        };
        for name in [
            "glog", "glog2", "tf", "vllm", "br", "br2", "hf", "py", "l4j", "spark", "nf", "rich", "dask",
            "basic", "hts", "c10",
        ] {
            if let Some(word) = c.name(name) {
                level = level.max(Some(level_of(word.as_str())));
            }
        }
        rest = &rest[c.get(0).map_or(0, |m| m.end())..];
        // One blank separates the prefix from the message.
        rest = rest.strip_prefix(' ').unwrap_or(rest);
    }
    if level.is_none() {
        if let Some(c) = LEVEL_ONLY.captures(rest) {
            level = c.name("l").map(|m| level_of(m.as_str()));
        } else if WARNING_TEXT.is_match(rest) {
            level = Some(Level::Warn);
        }
    }
    Line { number, text: plain(rest).into_owned(), quote: quote.to_owned(), rank, level }
}

fn take_rank(s: &str) -> (&str, Option<String>) {
    let Some(c) = RANK.captures(s) else {
        return (s, None);
    };
    for (name, tag) in [("torch", "rank"), ("ompi", "ompi"), ("srun", "task"), ("actor", ""), ("rankpid", "")]
    {
        if let Some(m) = c.name(name) {
            return (&s[c.get(0).map_or(0, |m| m.end())..], Some(format!("{tag}{}", m.as_str())));
        }
    }
    (s, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_codes_and_progress_bars() {
        assert_eq!(strip_controls("\u{1b}[31mred\u{1b}[0m \u{1b}]0;title\u{7}x"), "red x");
        assert_eq!(last_state("10%\r20%\r100% done\r"), "100% done");
        assert_eq!(clean(1, "a\rb\r").quote, "b");
        assert_eq!(strip_controls("ab\u{8}c"), "ac");
    }

    #[test]
    fn ranks() {
        for (raw, rank, text) in [
            ("[rank3]: ValueError: x", Some("rank3"), "ValueError: x"),
            ("[rank3]:   File \"a\"", Some("rank3"), "  File \"a\""),
            ("3: hello", Some("task3"), "hello"),
            ("  12:   File", Some("task12"), "  File"),
            ("[1,0]<stderr>: boom", Some("ompi1,0"), "boom"),
            ("(train_fn pid=123, ip=10.0.0.1) boom", Some("train_fn pid=123, ip=10.0.0.1"), "boom"),
            ("12:30:01 started", None, "12:30:01 started"),
            ("no rank", None, "no rank"),
        ] {
            let line = clean(1, raw);
            assert_eq!((line.rank.as_deref(), line.text.as_str()), (rank, text), "{raw}");
        }
    }

    #[test]
    fn levels() {
        for (raw, level, text) in [
            ("2025-07-17 14:31:27,269 - app.io - ERROR - no way", Some(Level::Error), "no way"),
            ("INFO:httpx:ok", Some(Level::Info), "ok"),
            ("W0102 00:00:00.123456 77 a/b.py:9] careful", Some(Level::Warn), "careful"),
            ("/a/b.py:9: FutureWarning: old", Some(Level::Warn), "/a/b.py:9: FutureWarning: old"),
            ("plain", None, "plain"),
        ] {
            let line = clean(1, raw);
            assert_eq!((line.level, line.text.as_str()), (level, text), "{raw}");
        }
    }

    #[test]
    fn long_lines_keep_their_end() {
        let raw = format!("{}é the reason", "x".repeat(3 * MAX_LINE));
        let line = clean(1, &raw);
        assert!(line.quote.len() <= MAX_LINE && line.quote.ends_with("the reason"));
    }
}
