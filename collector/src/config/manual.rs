//! The manual page and the example file, made from the keys.

use std::fmt::Write;

use super::Config;
use crate::roff::text as roff;

/// `inquest.toml(5)` as roff.
pub fn page() -> String {
    let mut out = String::from(
        ".TH inquest.toml 5\n.SH NAME\ninquest.toml \\- configuration of Inquest\n.SH SYNOPSIS\n\
         /etc/inquest/inquest.toml\n.SH DESCRIPTION\nThe file is TOML. It need not be there, and it need not say \
         more than what is to\ndiffer from the defaults. A flag or an environment variable of a command comes \
         before\nit. A key that is not listed here is an error.\n.PP\n\\fBinquest collect \\-\\-check\\-config\\fR \
         says what is wrong with the file, and what will be used.\n",
    );
    for (section, about) in Config::sections() {
        let title = match section {
            "" => "KEYS BEFORE THE FIRST SECTION".to_owned(),
            section => format!("SECTION [{section}]"),
        };
        let _ = write!(out, ".SH {title}\n{}\n", roff(about));
        for key in Config::keys().into_iter().filter(|k| k.section == section) {
            let default = match &key.default {
                Some(value) => format!("Default: {value}."),
                None => format!("Not set by default. Example: {}.", key.example),
            };
            let range = match &key.range {
                Some(range) if *range.end() < i64::from(u32::MAX) => {
                    format!(" From {} to {}.", range.start(), range.end())
                }
                _ => String::new(),
            };
            let text = roff(&format!("{default}{range}"));
            let about = roff(key.about).replace("\n\n", "\n");
            let _ = write!(out, ".TP\n\\fB{}\\fR\n{about}\n{text}\n", roff(key.name));
        }
    }
    out.push_str(".SH SEE ALSO\n.BR inquest-collect (1),\n.BR inquest-agent (1)\n");
    out
}

/// An example file: every key with what it says, commented out.
pub fn example() -> String {
    let mut out = String::from(
        "# Configuration of Inquest, /etc/inquest/inquest.toml; see inquest.toml(5). Every key is\n\
         # shown as it is when it is not set. After a change: inquest collect --check-config\n",
    );
    for (section, about) in Config::sections() {
        out.push('\n');
        comment(&mut out, about);
        if !section.is_empty() {
            let _ = writeln!(out, "[{section}]");
        }
        for key in Config::keys().into_iter().filter(|k| k.section == section) {
            out.push('\n');
            comment(&mut out, key.about);
            let unset = if key.default.is_none() { "  # not set; an example" } else { "" };
            let _ = writeln!(out, "#{} = {}{unset}", key.name, key.example());
        }
    }
    out
}

fn comment(out: &mut String, text: &str) {
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let _ = writeln!(out, "# {line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_on_the_page_and_in_the_example() {
        let (page, example) = (page(), example());
        for key in Config::keys() {
            assert!(page.contains(&format!("\\fB{}\\fR", roff(key.name))), "{}", key.name);
            assert!(example.contains(&format!("\n#{} = ", key.name)), "{}", key.name);
            assert!(!key.about.trim().is_empty() && !key.example().is_empty(), "{}", key.name);
        }
        assert!(!page.lines().any(|l| l.starts_with('\'')), "a line that roff would take for a request");
    }

    #[test]
    fn the_example_says_the_defaults_and_so_does_every_key_alone() {
        assert_eq!(Config::parse(&example()).unwrap(), Config::default());
        let uncommented: String = example()
            .lines()
            .map(|l| match l.strip_prefix('#') {
                Some(key) if !key.starts_with(' ') => format!("{key}\n"),
                _ => format!("{l}\n"),
            })
            .collect();
        let mut all = Config::parse(&uncommented).unwrap();
        assert!(all.agent.keep_days.is_some() && all.agent.node.is_some());
        assert!(all.keep.days.is_some());
        (all.keep.days, all.keep.user_bytes, all.keep.total_bytes) = (None, None, None);
        assert!(all.site.rules.take().is_some());
        let agent = &mut all.agent;
        (agent.node, agent.cluster, agent.keep_days, agent.max_bytes) = (None, None, None, None);
        let serve = &mut all.serve;
        assert!(serve.proxy_header.is_some() && serve.listen.is_some());
        (serve.listen, serve.proxy_header, serve.proxy_user) = (None, None, None);
        (serve.proxy_secret, serve.textfile) = (None, None);
        assert_eq!(all, Config::default());
    }

    #[test]
    fn the_example_file_is_up_to_date() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/inquest.toml");
        if std::env::var_os("INQUEST_UPDATE").is_some() {
            std::fs::write(&path, example()).unwrap();
        }
        assert!(
            std::fs::read_to_string(&path).unwrap_or_default() == example(),
            "{} is not what the keys say; run the tests once with INQUEST_UPDATE=1 and commit the file",
            path.display()
        );
    }
}
