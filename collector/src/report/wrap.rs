//! Lines that fit the page: at most 80 columns of prose, and of tables what the reader's page has.

use std::fmt::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Columns of a report on a page that has as many or more.
pub const WIDTH: usize = 80;

/// Columns of the narrowest page; what does not fit there is left to the terminal.
const NARROWEST: usize = 40;

/// Columns of the reader's page; 0 while nobody has said, which is a page without a right edge.
static PAGE: AtomicUsize = AtomicUsize::new(0);

/// Says how wide the page is that is written on, for the whole process.
pub fn set_page(columns: usize) {
    PAGE.store(columns.max(NARROWEST), Ordering::Relaxed);
}

/// How wide the page is; None for one without a right edge, as a file or a pipe is.
pub fn page() -> Option<usize> {
    Some(PAGE.load(Ordering::Relaxed)).filter(|columns| *columns > 0)
}

/// Columns of prose on this page.
pub fn width() -> usize {
    page().map_or(WIDTH, |columns| columns.min(WIDTH))
}

/// Writes `text` behind `first`, in lines of at most [`width`] columns; those
/// after the first are indented by `indent`. A word that is longer than a line
/// is broken after a comma where it has one, and stays whole otherwise.
/// `first` may hold styles; `columns` says how wide it is without them.
pub fn hang(out: &mut String, first: &str, columns: usize, indent: usize, text: &str) {
    hang_within(out, first, columns, indent, text, width());
}

/// `text` in lines of at most so many columns.
pub fn fold(text: &str, width: usize) -> String {
    let mut out = String::new();
    hang_within(&mut out, "", 0, 0, text, width);
    out.truncate(out.trim_end().len());
    out
}

fn hang_within(out: &mut String, first: &str, columns: usize, indent: usize, text: &str, width: usize) {
    out.push_str(first);
    let mut column = columns;
    let mut empty = true;
    for word in text.split(' ') {
        for (part, glued) in pieces(word, width.saturating_sub(indent)) {
            let wide = part.chars().count();
            let blank = usize::from(!empty && !glued);
            if !empty && column + blank + wide > width {
                trim(out);
                let _ = write!(out, "\n{:indent$}", "");
                column = indent;
            } else if blank > 0 {
                out.push(' ');
                column += 1;
            }
            out.push_str(part);
            column += wide;
            empty = false;
        }
    }
    trim(out);
    out.push('\n');
}

fn trim(out: &mut String) {
    out.truncate(out.trim_end_matches(' ').len());
}

/// A word in pieces that fit into a line, and whether each belongs to the one
/// before it.
fn pieces(word: &str, room: usize) -> Vec<(&str, bool)> {
    if word.chars().count() <= room {
        return vec![(word, false)];
    }
    word.split_inclusive(',').enumerate().map(|(i, part)| (part, i > 0)).collect()
}

/// A line cut at so many columns, as sacct cuts: with a plus sign.
pub fn cut(line: &str, width: usize) -> String {
    match line.char_indices().nth(width) {
        Some(_) => line.chars().take(width.saturating_sub(1)).chain(['+']).collect(),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hung(text: &str) -> String {
        let mut out = String::new();
        hang(&mut out, "  Key         ", 14, 14, text);
        out
    }

    #[test]
    fn words_and_lists_are_broken() {
        let ids = (0..40).map(|n| (n * 3).to_string()).collect::<Vec<_>>().join(",");
        let text = hung(&format!("members {ids} end"));
        assert!(text.lines().count() > 1 && text.lines().all(|l| l.len() <= WIDTH), "{text}");
        let back: String = text.replace("  Key ", "").split_whitespace().collect();
        assert_eq!(back, format!("members{ids}end"));
        assert_eq!(cut("abcdef", 4), "abc+");
        assert_eq!(cut("abcd", 4), "abcd");
    }

    proptest! {
        #[test]
        fn no_word_is_lost(text in "[a-zé ]{0,200}") {
            let out = hung(&text);
            let words = |t: &str| t.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            let mut wanted = vec!["Key".to_owned()];
            wanted.extend(words(&text));
            prop_assert_eq!(words(&out), wanted);
        }
    }
}
