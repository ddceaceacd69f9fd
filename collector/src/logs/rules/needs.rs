//! What a pattern needs: words one of which is in whatever it matches.

use std::collections::BTreeSet;

use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Class, Hir, HirKind};

use super::{NEEDS, RULES, set, tables};
use crate::logs::trigger::may_matter;

/// Texts that a part of a pattern can be.
const MANY: usize = 8;

/// Letters of a word that says something.
const SHORT: usize = 3;

/// Letters of a word that are looked for.
const LONG: usize = 12;

/// A part of a pattern, in small letters.
struct Part {
    /// Its text is one of these.
    is: Option<Vec<String>>,
    /// One of these is in its text.
    has: Option<Vec<String>>,
}

impl Part {
    fn any() -> Part {
        Part { is: None, has: None }
    }

    fn exactly(texts: Vec<String>) -> Part {
        let few = texts.len() <= MANY;
        Part { has: words(&texts), is: few.then_some(texts) }
    }
}

/// The texts, when each of them is long enough to tell something.
fn words(texts: &[String]) -> Option<Vec<String>> {
    texts.iter().all(|t| t.len() >= SHORT).then(|| texts.to_vec())
}

/// Words that most lines about a failure have tell as little as short ones.
const COMMON: [&str; 10] =
    ["error", "errors", "failed", "failure", "failed to ", "cannot ", "unable to ", "exit", "memory", "file"];

/// The longest words, and of those the fewest.
fn better(a: Option<Vec<String>>, b: Option<Vec<String>>) -> Option<Vec<String>> {
    let length = |word: &String| {
        if COMMON.iter().any(|c| c.contains(word.trim_matches([' ', ':']))) { SHORT } else { word.len() }
    };
    let worth = |words: &Option<Vec<String>>| {
        let words = words.as_ref()?;
        Some((words.iter().map(length).min()?.min(8), std::cmp::Reverse(words.len())))
    };
    if worth(&b) > worth(&a) { b } else { a }
}

fn part(hir: &Hir) -> Part {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => Part::exactly(vec![String::new()]),
        HirKind::Literal(literal) => match std::str::from_utf8(&literal.0) {
            Ok(text) => Part::exactly(vec![text.to_ascii_lowercase()]),
            Err(_) => Part::any(),
        },
        HirKind::Class(Class::Bytes(class)) => {
            let bytes = class.ranges().iter().flat_map(|r| r.start()..=r.end());
            let mut letters: Vec<u8> = bytes.map(|b| b.to_ascii_lowercase()).collect();
            letters.sort_unstable();
            letters.dedup();
            if letters.len() > 4 || !letters.is_ascii() {
                return Part::any();
            }
            Part::exactly(letters.into_iter().map(|b| char::from(b).to_string()).collect())
        }
        HirKind::Class(Class::Unicode(_)) => Part::any(),
        HirKind::Capture(capture) => part(&capture.sub),
        HirKind::Repetition(repeated) => match (repeated.min, repeated.max) {
            (1, Some(1)) => part(&repeated.sub),
            (0, Some(1)) => match part(&repeated.sub).is {
                Some(mut texts) => {
                    texts.push(String::new());
                    Part { has: None, ..Part::exactly(texts) }
                }
                None => Part::any(),
            },
            (0, _) => Part::any(),
            _ => Part { is: None, has: part(&repeated.sub).has },
        },
        HirKind::Alternation(parts) => {
            let parts: Vec<Part> = parts.iter().map(part).collect();
            let all = |pick: fn(&Part) -> Option<&Vec<String>>| {
                let texts: Option<Vec<&Vec<String>>> = parts.iter().map(pick).collect();
                texts.map(|texts| texts.into_iter().flatten().cloned().collect::<Vec<String>>())
            };
            let is = all(|p| p.is.as_ref()).filter(|texts| texts.len() <= MANY);
            Part { is, has: all(|p| p.has.as_ref()) }
        }
        HirKind::Concat(parts) => {
            let (mut run, mut has, mut whole) = (vec![String::new()], None, true);
            for p in parts.iter().map(part) {
                let joined: Option<Vec<String>> = p.is.map(|texts| {
                    run.iter().flat_map(|a| texts.iter().map(move |b| format!("{a}{b}"))).collect()
                });
                match joined.filter(|texts| texts.len() <= MANY) {
                    Some(texts) => run = texts,
                    None => {
                        has = better(better(has, words(&run)), p.has);
                        (run, whole) = (vec![String::new()], false);
                    }
                }
            }
            has = better(has, words(&run));
            Part { is: whole.then_some(run), has }
        }
    }
}

/// A line of the file.
fn line(name: &str, pattern: &str) -> String {
    let hir = ParserBuilder::new().unicode(false).utf8(false).build().parse(pattern).unwrap();
    let mut words = part(&hir).has.unwrap_or_default();
    // Their beginnings tell nearly as much, and many have the same.
    words.iter_mut().for_each(|w| w.truncate(w.floor_char_boundary(LONG)));
    words.sort();
    words.dedup();
    // A word that another one is part of says nothing more.
    let all = words.clone();
    words.retain(|w| !all.iter().any(|other| other != w && w.contains(other.as_str())));
    assert!(words.iter().all(|w| !w.contains(['\t', '\n'])), "{name}: {words:?}");
    std::iter::once(name.to_owned()).chain(words).collect::<Vec<_>>().join("\t") + "\n"
}

#[test]
fn the_words_are_those_of_the_patterns() {
    let wanted: String = tables().into_iter().flatten().map(|r| line(r.name, r.pattern)).collect();
    if std::env::var_os("INQUEST_UPDATE").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/logs/rules/needs.txt");
        std::fs::write(path, &wanted).unwrap();
    }
    assert!(wanted == NEEDS, "run the tests once with INQUEST_UPDATE=1 and commit needs.txt");
    let always = wanted.lines().filter(|l| !l.contains('\t')).count();
    assert!(always * 10 < RULES.rules.len(), "{always} of {} rules have no word", RULES.rules.len());
}

#[test]
fn the_words_of_a_pattern() {
    for (pattern, wanted) in [
        (r"(?i)\bOut of Memory\b", "x\tout of memor\n"),
        (r"oo?m-kill|killed \d+", "x\tkilled \tom-kill\n"),
        (r"\d+ .*", "x\n"),
        (r"(?:abc)?defg+\s", "x\tdef\n"),
        (r"[Tt]oo many (?:open )?files", "x\ttoo many fil\ttoo many ope\n"),
        (r"^a$|bcd", "x\n"),
        (r"(?i)error: .{0,9}\bquota\b", "x\tquota\n"),
    ] {
        assert_eq!(line("x", pattern), wanted, "{pattern}");
    }
}

/// Rules that are compiled one by one find what all together find.
#[test]
fn the_same_rules_match_as_of_all_of_them() {
    let rules: Vec<_> = tables().into_iter().flatten().collect();
    let all = set(rules.iter().map(|r| r.pattern));
    let place = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/logs");
    let read = |name: &str| std::fs::read_to_string(format!("{place}/{name}")).unwrap();
    let (conventions, real) = (read("conventions.txt"), read("real.jsonl"));
    let mut lines: BTreeSet<String> = conventions.lines().map(str::to_owned).collect();
    for log in real.lines() {
        let log: serde_json::Value = serde_json::from_str(log).unwrap();
        let said = log["lines"].as_array().unwrap().iter().filter_map(|l| l.as_str());
        lines.extend(said.filter(|l| may_matter(l.as_bytes())).map(str::to_owned));
    }
    let mut seen = 0;
    for text in &lines {
        let wanted: Vec<&str> = all.matches(text.as_bytes()).into_iter().map(|i| rules[i].name).collect();
        let found: Vec<&str> = RULES.matching(text).map(|r| r.name).collect();
        assert_eq!(found, wanted, "{text}");
        seen += usize::from(!wanted.is_empty());
    }
    assert!(seen > 100, "{seen} lines matched");
}
