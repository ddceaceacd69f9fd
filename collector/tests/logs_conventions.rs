//! Small logs in our own words, one for each convention that a rule stands
//! for: the cause, and words of the line to quote.

use inquest::logs::{analyze_lines, scan_reader};

/// One example: line of the file, cause, words of the root cause, log.
type Example = (usize, String, String, Vec<String>);

fn examples() -> Vec<Example> {
    let text = include_str!("logs/conventions.txt");
    let mut out: Vec<Example> = Vec::new();
    for (i, line) in text.lines().enumerate() {
        match line.strip_prefix("## ") {
            Some(head) => {
                let (cause, quote) = head.split_once('|').expect("## cause | quote");
                out.push((i + 1, cause.trim().to_owned(), quote.trim().to_owned(), Vec::new()));
            }
            None => out.last_mut().expect("a head before its log").3.push(line.to_owned()),
        }
    }
    out
}

#[test]
fn every_convention_is_read() {
    let mut wrong = Vec::new();
    for (line, cause, quote, log) in examples() {
        let lines: Vec<&str> = log.iter().map(String::as_str).collect();
        let found = analyze_lines(&lines);
        let said = found.root_cause.clone().unwrap_or_default();
        if found.cause.as_str() != cause || !said.contains(&quote) {
            wrong.push(format!(
                "line {line}: want {cause} {quote:?}, found {} {said:?} by {}",
                found.cause.as_str(),
                found.rule
            ));
        }
        // The streaming path must not see less.
        let streamed = scan_reader(log.join("\n").as_bytes(), &Default::default()).expect("memory reads");
        assert_eq!(streamed.finding, found, "line {line}");
    }
    assert!(wrong.is_empty(), "{}\n{} wrong", wrong.join("\n"), wrong.len());
}
