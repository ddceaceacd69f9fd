//! Text in a manual page.

/// Text in which roff sees no requests and no escapes: lines are trimmed, and
/// what stands in backquotes is bold.
pub(crate) fn text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut bold = false;
    let mut line_begins = true;
    let lines: Vec<&str> = text.trim().lines().map(str::trim).collect();
    for c in lines.join("\n").chars() {
        match c {
            '`' => {
                bold = !bold;
                out.push_str(if bold { "\\fB" } else { "\\fR" });
            }
            '\\' => out.push_str("\\e"),
            '-' => out.push_str("\\-"),
            '.' | '\'' if line_begins => {
                out.push_str("\\&");
                out.push(c);
            }
            _ => out.push(c),
        }
        line_begins = c == '\n';
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn nothing_is_taken_for_a_request() {
        assert_eq!(super::text(" .SH a\n 'b \\n --c `d`"), "\\&.SH a\n\\&'b \\en \\-\\-c \\fBd\\fR");
    }
}
