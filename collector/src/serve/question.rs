//! What a URL asks for, and URLs that ask for it.

use std::fmt::Write;

use inquest_journal::Timestamp;

use super::access::Viewer;
use super::data::Problem;
use crate::store::index::{CLASSES, Filter};
use crate::verdict::Class;

/// Bytes of one value.
const VALUE_MAX: usize = 256;

/// Entries of one page, unless it says fewer or more.
pub const LIMIT: usize = 50;

/// Entries of one page at most.
pub const LIMIT_MAX: usize = 1000;

const SECOND_US: i64 = 1_000_000;
const DAY_US: i64 = 86_400 * SECOND_US;

/// Days from which on a time back is one of whole days.
const WHOLE_DAYS: i64 = 3;

/// Names of what can be asked for, in the order of a form.
pub const NAMES: [&str; 10] =
    ["since", "until", "cluster", "partition", "node", "class", "user", "account", "cause", "fingerprint"];

/// A question, with the words in which it was asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Question {
    /// In the order of [`NAMES`]; empty when it was not said.
    words: [String; NAMES.len()],
    /// The time of the question.
    pub now: Timestamp,
    /// First moment.
    pub since: Timestamp,
    /// First moment after.
    pub until: Timestamp,
    /// Classes; empty for any.
    pub classes: Vec<Class>,
    /// Entries of a page.
    pub limit: usize,
    /// Where the page before ended.
    pub before: Option<(Option<Timestamp>, i64)>,
    /// What else was said that this kind of question knows.
    pub other: Vec<(String, String)>,
}

impl Question {
    /// Reads the pairs of a URL. `others` are further names that are known.
    ///
    /// # Errors
    ///
    /// When a name is not known, twice there, or a value makes no sense.
    pub fn read(pairs: Vec<(String, String)>, others: &[&str], now: Timestamp) -> Result<Question, Problem> {
        let mut asked = Question { now, limit: LIMIT, ..Question::default() };
        let mut seen: Vec<String> = Vec::new();
        for (name, value) in pairs {
            if seen.contains(&name) && name != "class" {
                return Err(Problem::Bad(format!("{} is there twice; say it once", short(&name))));
            }
            if value.len() > VALUE_MAX || value.chars().any(char::is_control) {
                return Err(Problem::Bad(format!("the value of {} is too long or not text", short(&name))));
            }
            if value.is_empty() {
                continue; // A field of the form that was left empty.
            }
            match (name.as_str(), NAMES.iter().position(|n| *n == name)) {
                ("class", Some(at)) => {
                    for word in value.split(',') {
                        asked.classes.push(class(word)?);
                    }
                    if !asked.words[at].is_empty() {
                        asked.words[at].push(',');
                    }
                    asked.words[at].push_str(&value);
                }
                (_, Some(at)) => asked.words[at] = value,
                ("limit", None) => {
                    asked.limit =
                        value.parse().ok().filter(|n| (1..=LIMIT_MAX).contains(n)).ok_or_else(|| {
                            Problem::Bad(format!("limit is a number from 1 to {LIMIT_MAX}"))
                        })?;
                }
                ("before", None) => asked.before = Some(cursor(&value)?),
                (other, None) if others.contains(&other) => asked.other.push((name.clone(), value)),
                _ => {
                    let known = NAMES.iter().chain(&["limit", "before"]).chain(others);
                    let known: Vec<&str> = known.copied().collect();
                    return Err(Problem::Bad(format!(
                        "there is no parameter {}; known are {}",
                        short(&name),
                        known.join(", ")
                    )));
                }
            }
            seen.push(name);
        }
        asked.until = match asked.word("until") {
            "" => Timestamp(now.0 + SECOND_US),
            text => moment(text, now)?,
        };
        asked.since = match asked.word("since") {
            "" => Timestamp((asked.until.0 - 7 * DAY_US).div_euclid(DAY_US) * DAY_US),
            text => moment(text, now)?,
        };
        if asked.since >= asked.until {
            return Err(Problem::Bad("since has to be before until".into()));
        }
        Ok(asked)
    }

    /// A word of the question as it was written; empty when it was not.
    pub fn word(&self, name: &str) -> &str {
        NAMES.iter().position(|n| *n == name).map_or("", |at| &self.words[at])
    }

    /// Another parameter.
    pub fn other(&self, name: &str) -> Option<&str> {
        self.other.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Where jobs or events of a run are to begin.
    ///
    /// # Errors
    ///
    /// When it is no number.
    pub fn from<T: Default + std::str::FromStr>(&self) -> Result<T, Problem> {
        match self.other("from").map(str::parse) {
            None => Ok(T::default()),
            Some(Ok(from)) => Ok(from),
            Some(Err(_)) => Err(Problem::Bad("from is what 'next' of another page said, or 0".into())),
        }
    }

    /// The length of the time in microseconds.
    pub fn span_us(&self) -> i64 {
        self.until.since(self.since)
    }

    /// The question to the index, as far as this person may ask it.
    pub fn filter(&self, viewer: &Viewer) -> Filter {
        let said = |name| Some(self.word(name).to_owned()).filter(|w| !w.is_empty());
        Filter {
            since: Some(self.since),
            until: Some(self.until),
            cluster: said("cluster"),
            user: said("user"),
            account: said("account"),
            partition: said("partition"),
            node: said("node"),
            classes: self.classes.clone(),
            cause: said("cause"),
            fingerprint: said("fingerprint"),
            before: self.before,
            visible: viewer.visible(),
            ..Filter::default()
        }
    }

    /// The same of the failures that have ended, of jobs of a name if one is asked for.
    pub fn failures(&self, viewer: &Viewer) -> Filter {
        let name = self.other("name").map(str::to_owned);
        Filter { failed: true, open: Some(false), name, ..self.filter(viewer) }
    }

    /// The same of what is of the status that is asked for: any, failed or
    /// running.
    ///
    /// # Errors
    ///
    /// When there is no such status.
    pub fn of_status(&self, viewer: &Viewer) -> Result<Filter, Problem> {
        let filter = Filter { name: self.other("name").map(str::to_owned), ..self.filter(viewer) };
        match self.other("status") {
            None | Some("any") => Ok(filter),
            Some("failed") => Ok(Filter { failed: true, ..filter }),
            Some("running") => Ok(Filter { open: Some(true), ..filter }),
            Some(_) => Err(Problem::Bad("status is any, failed or running".into())),
        }
    }

    /// Takes the entry away that was asked for beyond the page; says where the
    /// next page begins, if there was one.
    pub fn cut<T>(
        &self,
        entries: &mut Vec<T>,
        place: impl Fn(&T) -> (Option<Timestamp>, i64),
    ) -> Option<String> {
        let more = entries.len() > self.limit;
        entries.truncate(self.limit);
        let (ended, id) = place(entries.last().filter(|_| more)?);
        Some(after(ended, id))
    }

    /// The address of `path` with this question, and these words instead.
    pub fn link(&self, path: &str, instead: &[(&str, &str)]) -> String {
        let mut link = path.to_owned();
        let words = NAMES.iter().zip(&self.words).map(|(name, word)| (*name, word.as_str()));
        let instead_of = |name: &str| instead.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
        let kept = words.map(|(name, word)| (name, instead_of(name).unwrap_or(word)));
        let added = instead.iter().filter(|(n, _)| !NAMES.contains(n)).copied();
        let mut first = true;
        for (name, value) in kept.chain(added).filter(|(_, v)| !v.is_empty()) {
            let _ = write!(link, "{}{name}={}", if first { '?' } else { '&' }, encode(value));
            first = false;
        }
        link
    }
}

/// Where the next page begins, as a word.
pub fn after(ended: Option<Timestamp>, id: i64) -> String {
    format!("{}.{id}", ended.map_or("-".into(), |t| t.0.to_string()))
}

fn cursor(text: &str) -> Result<(Option<Timestamp>, i64), Problem> {
    let bad = || Problem::Bad("before is what 'next' of another page said".into());
    let (ended, id) = text.split_once('.').ok_or_else(bad)?;
    let ended = match ended {
        "-" => None,
        text => Some(Timestamp(text.parse().map_err(|_| bad())?)),
    };
    Ok((ended, id.parse().map_err(|_| bad())?))
}

fn class(word: &str) -> Result<Class, Problem> {
    CLASSES.into_iter().find(|c| c.to_string() == word).ok_or_else(|| {
        let known: Vec<String> = CLASSES.iter().map(ToString::to_string).collect();
        Problem::Bad(format!("there is no class {}; known are {}", short(word), known.join(", ")))
    })
}

/// `7d`, `36h`, `now`, `2026-11-21`, `2026-11-21T14:30`, all UTC; RFC 3339.
/// From three days on, days begin at midnight: pictures show whole days, and the
/// sums by day tell all of it.
fn moment(text: &str, now: Timestamp) -> Result<Timestamp, Problem> {
    let bad = || {
        Problem::Bad(format!("{} is no time; write 36h, 7d, 4w, 2026-11-21 or 2026-11-21T14:30", short(text)))
    };
    if text == "now" {
        return Ok(now);
    }
    let unit = match text.chars().last() {
        Some('h') => 3600,
        Some('d') => 86_400,
        Some('w') => 7 * 86_400,
        _ => 0,
    };
    if unit > 0 {
        let n: i64 = text[..text.len() - 1].parse().map_err(|_| bad())?;
        if !(1..=100_000).contains(&n) {
            return Err(bad());
        }
        let (at, day) = (now.0 - n * unit * SECOND_US, DAY_US);
        let whole = unit >= 86_400 && n * unit >= WHOLE_DAYS * 86_400;
        return Ok(Timestamp(if whole { at - at.rem_euclid(day) } else { at }));
    }
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Ok(Timestamp(at.as_microsecond()));
    }
    let date: jiff::civil::DateTime =
        text.parse().or_else(|_| text.parse::<jiff::civil::Date>().map(Into::into)).map_err(|_| bad())?;
    let at = date.to_zoned(jiff::tz::TimeZone::UTC).map_err(|_| bad())?;
    Ok(Timestamp(at.timestamp().as_microsecond()))
}

/// What was said, cut, for a message.
fn short(text: &str) -> String {
    let text = crate::report::clean(text);
    match text.char_indices().nth(40) {
        Some((at, _)) => format!("'{}...'", &text[..at]),
        None => format!("'{text}'"),
    }
}

/// Text as one part of a URL.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_795_269_600_000_000);

    fn read(pairs: &[(&str, &str)]) -> Result<Question, Problem> {
        let pairs = pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        Question::read(pairs.collect(), &["by"], NOW)
    }

    #[test]
    fn times_in_every_form() {
        let day = 86_400_000_000;
        let midnight = NOW.0 - NOW.0 % day;
        let asked = read(&[]).unwrap();
        assert_eq!((asked.since.0, asked.limit), (midnight - 7 * day, LIMIT));
        for (text, since) in [
            ("1d", NOW.0 - day),
            ("71h", NOW.0 - 71 * day / 24),
            ("3d", midnight - 3 * day),
            ("2w", midnight - 14 * day),
            ("2026-11-21", NOW.0 - 14 * 3_600_000_000),
            ("2026-11-21T13:00", NOW.0 - 3_600_000_000),
            ("2026-11-21T14:00:00+01:00", NOW.0 - 3_600_000_000),
        ] {
            assert_eq!(read(&[("since", text)]).unwrap().since.0, since, "{text}");
        }
        for bad in ["x", "0d", "-3d", "9999999999d", "2026-13-01", "d", "é"] {
            assert!(read(&[("since", bad)]).is_err(), "{bad}");
        }
        assert!(read(&[("since", "1d"), ("until", "2d")]).is_err());
    }

    #[test]
    fn what_is_not_known_is_named_and_cut() {
        let long = "x".repeat(100);
        let error = read(&[(&long, "1")]).unwrap_err().to_string();
        assert!(error.len() < 200 && error.contains("known are since"), "{error}");
        for pairs in [
            [("user", "a"), ("user", "b")],
            [("class", "oom"), ("class", "bad")],
            [("limit", "0"), ("by", "x")],
            [("limit", "1e9"), ("by", "x")],
            [("before", "1"), ("by", "x")],
            [("node", "a\nb"), ("by", "x")],
        ] {
            assert!(read(&pairs).is_err(), "{pairs:?}");
        }
    }

    #[test]
    fn a_link_asks_the_same_again() {
        let asked = read(&[("node", "n 1&x=\"<"), ("class", "oom,crash"), ("since", "1d")]).unwrap();
        let link = asked.link("/failures", &[("user", "ann"), ("before", "5.6")]);
        assert_eq!(link, "/failures?since=1d&node=n%201%26x%3D%22%3C&class=oom%2Ccrash&user=ann&before=5.6");
        assert_eq!(asked.classes, [Class::Oom, Class::Crash]);
        assert_eq!(asked.link("/", &[("node", ""), ("since", ""), ("class", "")]), "/");
        let cursor = after(Some(NOW), 7);
        assert_eq!(read(&[("before", &cursor)]).unwrap().before, Some((Some(NOW), 7)));
    }
}
