//! Lines of at most 80 columns.

use std::fmt::Write;

/// Columns of a report.
pub const WIDTH: usize = 80;

/// Writes `text` behind `first`, in lines of at most [`WIDTH`] columns; those
/// after the first are indented by `indent`. A word that is longer than a line
/// is broken after a comma where it has one, and stays whole otherwise.
/// `first` may hold styles; `columns` says how wide it is without them.
pub fn hang(out: &mut String, first: &str, columns: usize, indent: usize, text: &str) {
    out.push_str(first);
    let mut column = columns;
    let mut empty = true;
    for word in text.split(' ') {
        for (part, glued) in pieces(word, WIDTH.saturating_sub(indent)) {
            let wide = part.chars().count();
            let blank = usize::from(!empty && !glued);
            if !empty && column + blank + wide > WIDTH {
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

/// A line cut at [`WIDTH`] columns, as sacct cuts: with a plus sign.
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
