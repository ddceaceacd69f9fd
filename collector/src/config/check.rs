//! What is wrong with a file, and what was meant.

use std::fmt;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Config, Key};

/// Something wrong in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong and what to write instead.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.what)
    }
}

impl Problem {
    fn at(text: &str, span: Range<usize>, what: String) -> Problem {
        let before = &text.as_bytes()[..span.start.min(text.len())];
        Problem { line: 1 + before.iter().filter(|b| **b == b'\n').count(), what }
    }

    /// What the parser says.
    pub(super) fn of(text: &str, error: &toml::de::Error) -> Problem {
        let what = error.message().trim_end().replace('\n', ", ");
        Problem::at(text, error.span().unwrap_or_default(), what)
    }
}

/// Looks at every key of the file.
pub(super) fn check(text: &str) -> Result<(), Vec<Problem>> {
    let table = DeTable::parse(text).map_err(|e| vec![Problem::of(text, &e)])?;
    let mut checker = Checker { text, keys: Config::keys(), problems: Vec::new() };
    checker.table("", table.get_ref());
    if checker.problems.is_empty() { Ok(()) } else { Err(checker.problems) }
}

struct Checker<'a> {
    text: &'a str,
    keys: Vec<Key>,
    problems: Vec<Problem>,
}

impl Checker<'_> {
    fn table(&mut self, section: &str, table: &DeTable<'_>) {
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in entries {
            let name: &str = key.get_ref();
            let is_section = section.is_empty() && self.is_section(name);
            match value.get_ref() {
                DeValue::Table(inner) if is_section => self.table(name, inner),
                DeValue::Table(_) if section.is_empty() => self.no_section(name, key.span()),
                _ if is_section => {
                    self.say(key.span(), format!("{name} is a section; write it as [{name}]"));
                }
                _ => match self.keys.iter().find(|k| k.section == section && k.name == name).cloned() {
                    Some(known) => self.value(&known, value),
                    None => self.no_key(section, name, key.span()),
                },
            }
        }
    }

    fn say(&mut self, span: Range<usize>, what: String) {
        self.problems.push(Problem::at(self.text, span, what));
    }

    fn is_section(&self, name: &str) -> bool {
        self.keys.iter().any(|k| !name.is_empty() && k.section == name)
    }

    fn no_section(&mut self, name: &str, span: Range<usize>) {
        let sections = Config::sections().map(|(name, _)| name);
        let meant = match nearest(name, sections.iter().copied()) {
            Some(near) => format!("did you mean [{near}]?"),
            None => format!("known are {}", sections[1..].join(", ")),
        };
        self.say(span, format!("there is no section [{name}]; {meant}"));
    }

    fn no_key(&mut self, section: &str, name: &str, span: Range<usize>) {
        let here: Vec<&str> = self.keys.iter().filter(|k| k.section == section).map(|k| k.name).collect();
        let elsewhere = self.keys.iter().find(|k| k.name == name);
        let meant = match (elsewhere, nearest(name, here.iter().copied())) {
            (Some(Key { section: "", .. }), _) => "write it before the first section".to_owned(),
            (Some(key), _) => format!("write it in [{}]", key.section),
            (None, Some(near)) => format!("did you mean {near}?"),
            (None, None) => format!("known are {}", here.join(", ")),
        };
        let place = match (section, elsewhere) {
            ("", None) => String::new(),
            ("", Some(_)) => " before the first section".to_owned(),
            (section, _) => format!(" in [{section}]"),
        };
        self.say(span, format!("there is no key {name}{place}; {meant}"));
    }

    fn value(&mut self, key: &Key, value: &Spanned<DeValue<'_>>) {
        let span = value.span();
        let written = &self.text[span.clone()];
        let reason = match (&key.range, value.get_ref()) {
            (Some(range), DeValue::Integer(_)) => {
                match toml::from_str::<toml::Table>(&format!("x = {written}")) {
                    Ok(table) => table
                        .get("x")
                        .and_then(toml::Value::as_integer)
                        .filter(|n| !range.contains(n))
                        .map(|n| format!("{n} is outside of {} to {}", range.start(), range.end())),
                    Err(e) => Some(Problem::of("", &e).what),
                }
            }
            _ => key.refuses(written),
        };
        if let Some(reason) = reason {
            let (section, name, example) = (key.section, key.name, key.example());
            let dot = if section.is_empty() { "" } else { "." };
            self.say(span, format!("{section}{dot}{name}: {reason}; write for example {name} = {example}"));
        }
    }
}

impl Key {
    /// Why the key cannot have a value that is written so.
    fn refuses(&self, written: &str) -> Option<String> {
        let text = match self.section {
            "" => format!("{} = {written}", self.name),
            section => format!("{section}.{} = {written}", self.name),
        };
        let error = toml::from_str::<Config>(&text).err()?;
        Some(Problem::of("", &error).what)
    }

    /// A value that one may begin with, as it is written.
    pub fn example(&self) -> String {
        match &self.default {
            Some(value) => value.to_string(),
            None => self.example.to_owned(),
        }
    }
}

/// The name that was probably meant.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.filter(|k| !k.is_empty()).map(|k| (strsim::jaro_winkler(name, k), k));
    scored.filter(|(score, _)| *score > 0.8).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, k)| k)
}
