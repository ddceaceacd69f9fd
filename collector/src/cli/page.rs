//! The page that is written on: how wide it is, and which letters it has.

use std::borrow::Cow;
use std::io::IsTerminal;

/// Columns of the terminal. `COLUMNS` says something else, or says it where there is no terminal.
pub(super) fn columns() -> Option<usize> {
    let named = std::env::var("COLUMNS").ok().and_then(|word| word.parse::<usize>().ok());
    let stdout = std::io::stdout();
    let seen = || rustix::termios::tcgetwinsize(&stdout).ok().map(|size| usize::from(size.ws_col));
    // A serial line has a terminal of no size.
    named.or_else(seen).filter(|columns| *columns > 0)
}

/// As the terminal can show it: in a locale without UTF-8, other letters than those of ASCII are question
/// marks, as they are for ls. Files and pipes get what there is.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    if text.is_ascii() || !std::io::stdout().is_terminal() || utf8(|name| std::env::var(name).ok()) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect())
}

/// Whether the locale is one of UTF-8: the first variable that is set decides, as setlocale(3) has it.
fn utf8(variable: impl Fn(&str) -> Option<String>) -> bool {
    let mut set = ["LC_ALL", "LC_CTYPE", "LANG"].iter().filter_map(|name| variable(name));
    let locale = set.find(|value| !value.is_empty()).unwrap_or_default().to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

#[cfg(test)]
mod tests {
    use super::utf8;

    #[test]
    fn the_first_that_is_set_decides() {
        for (all, ctype, lang, wanted) in [
            ("", "", "", false),
            ("C", "", "de_DE.UTF-8", false),
            ("", "", "C.utf8", true),
            ("", "en_US.UTF-8", "C", true),
            ("POSIX", "en_US.UTF-8", "", false),
        ] {
            let variable = |name: &str| {
                Some(
                    match name {
                        "LC_ALL" => all,
                        "LC_CTYPE" => ctype,
                        _ => lang,
                    }
                    .to_owned(),
                )
            };
            assert_eq!(utf8(variable), wanted, "{all:?} {ctype:?} {lang:?}");
        }
    }
}
