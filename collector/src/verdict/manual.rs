//! The manual pages of the verdicts, made from the rules themselves, and of a site's own rules, made from
//! the keys that their reader knows.

use std::fmt::Write;

use super::rules::{RULES, Unexplained};
use super::{Retry, Rule, SITE_KEYS, SITE_PATH};
use crate::roff::text;

/// `inquest-verdicts(7)` as roff.
pub fn page() -> String {
    let mut out = String::from(
        ".TH inquest-verdicts 7\n.SH NAME\ninquest-verdicts \\- how Inquest judges a job\n.SH DESCRIPTION\n\
         Rules are tried in this order; the first that holds decides.\nFacts of the node come before what Slurm \
         says, and both before what is inferred.\nThe class is for counting, the cause for acting.\n.SH RULES\n",
    );
    let last: &dyn Rule = &Unexplained;
    for (number, rule) in RULES.iter().copied().chain([last]).enumerate() {
        let retry = match rule.retry() {
            Retry::Not => "",
            Retry::AsItIs => " Run again: as it is.",
            Retry::WithMoreMemory => " Run again: with more memory.",
            Retry::WithMoreTime => " Run again: with more time.",
            Retry::OnAnotherNode => " Run again: on another node.",
        };
        let (cause, class, label) = (rule.cause(), rule.class(), rule.label());
        let when = text(rule.when());
        let _ = write!(
            out,
            ".TP\n\\fB{}. {cause}\\fR (class {class}, shown as {label})\n{when}.{retry}\n",
            number + 1
        );
    }
    out.push_str(".SH SEE ALSO\n.BR inquest-why (1),\n.BR inquest-rules.toml (5)\n");
    out
}

/// Rules of a site as an example, and a marker of success.
const EXAMPLE: &str = "\
[[rule]]
name = \"scratch-full\"
priority = 100
class = \"infra\"
detail = \"the scratch file system was full.\"
advice = [\"write to /work instead, or remove what you do not need from scratch\"]
retry = \"on_another_node\"
[rule.match]
class = [\"app_error\"]
node = [\"n1*\"]
log = 'scratch\\d+ is full'

[[rule]]
name = \"licence\"
priority = 90
class = \"infra\"
advice = [\"run it again later: all licences of the solver were in use\"]
retry = \"as_it_is\"
[rule.match]
exit_code = [42]
job_name = [\"solve-*\"]

[[success]]
marker = 'ALL \\d+ STEPS DONE'
job_name = [\"fit-*\"]
";

/// `inquest-rules.toml(5)` as roff.
pub fn rules_page() -> String {
    let mut out = format!(
        ".TH inquest-rules.toml 5\n.SH NAME\ninquest-rules.toml \\- rules of a site for the verdicts of Inquest\n\
         .SH SYNOPSIS\n{SITE_PATH}\n.SH DESCRIPTION\nThe file is TOML and need not be there. Its rules are tried before \
         the built-in ones of\n.BR inquest-verdicts (7),\nthe highest priority first; the first that holds decides. \
         Rules that say nothing of logs are tried by\nthe collector too; rules with a pattern, and markers of success, \
         by the commands\nwhy, run, errors, compare and rerun, with the permissions of whoever asks. A key that\nis not \
         listed here is an error.\n.PP\n\\fBinquest rules \\-\\-check FILE\\fR says what is wrong with a file, line by \
         line.\n.SH KEYS\n"
    );
    for line in SITE_KEYS.lines() {
        let line = line.trim_end();
        match line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')) {
            Some(item) => {
                let (keys, about) = item.split_once("  ").unwrap_or((item, ""));
                let _ = write!(out, ".TP\n\\fB{}\\fR\n", text(keys));
                if !about.is_empty() {
                    let _ = writeln!(out, "{}", text(about.trim()));
                }
            }
            None => _ = writeln!(out, "{}", text(line.trim())),
        }
    }
    out.push_str(".SH EXAMPLE\n.nf\n");
    for line in EXAMPLE.lines() {
        let _ = writeln!(out, "{}", text(line));
    }
    out.push_str(".fi\n.SH SEE ALSO\n.BR inquest-rules (1),\n.BR inquest-verdicts (7)\n");
    out
}

/// The file as it is installed: what may stand in it, all of it commented out.
pub fn rules_example() -> String {
    let mut out = String::from(
        "# Rules of this site for the verdicts of Inquest, /etc/inquest/rules.toml; see\n# inquest-rules.toml(5). They are \
         tried before the built-in ones. After a change:\n# inquest rules --check /etc/inquest/rules.toml\n#\n# Keys:\n",
    );
    for line in SITE_KEYS.lines() {
        let _ = writeln!(out, "{}", format!("# {line}").trim_end());
    }
    out.push_str("\n# Examples:\n\n");
    for line in EXAMPLE.lines() {
        let _ = writeln!(out, "{}", if line.is_empty() { String::new() } else { format!("#{line}") });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::SiteRules;

    #[test]
    fn the_example_of_rules_is_good_and_says_nothing_until_it_is_uncommented() {
        assert!(SiteRules::parse(&rules_example()).unwrap().is_empty());
        let rules = SiteRules::parse(EXAMPLE).unwrap();
        assert_eq!(rules.rules().len(), 2);
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/rules.toml");
        if std::env::var_os("INQUEST_UPDATE").is_some() {
            std::fs::write(&path, rules_example()).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        let path = path.display();
        assert_eq!(
            kept,
            rules_example(),
            "{path}; run the tests once with INQUEST_UPDATE=1 and commit the file"
        );
    }

    #[test]
    fn every_key_of_the_reader_is_on_the_page_of_rules() {
        let page = rules_page();
        let rule = "[[rule]]\nname = \"a\"\npriority = 1\nclass = \"infra\"\n";
        for text in [
            format!("{rule}zzz = 1\n[rule.match]\n"),
            format!("{rule}[rule.match]\nzzz = 1\n"),
            "[[success]]\nzzz = 1\n".into(),
        ] {
            // The reader names all that it knows.
            let said = SiteRules::parse(&text).unwrap_err().remove(0).what;
            let known: Vec<&str> = said.split('`').skip(3).step_by(2).collect();
            assert!(known.len() >= 3, "{said}");
            for key in known.iter().filter(|key| **key != "match") {
                assert!(page.contains(*key), "{key} is not on the page: {said}");
            }
        }
        assert!(!page.lines().any(|l| l.starts_with('\'')), "a line that roff would take for a request");
    }

    #[test]
    fn every_rule_is_on_the_page_in_its_order() {
        let page = page();
        let at: Vec<Option<usize>> =
            RULES.iter().map(|r| page.find(&format!(". {}\\fR", r.cause()))).collect();
        assert!(at.iter().all(Option::is_some) && at.is_sorted(), "{at:?}");
        assert!(!page.lines().any(|l| l.starts_with('\'')), "a line that roff would take for a request");
    }
}
