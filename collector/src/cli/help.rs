//! The first page of help, by what people want, and what a mistyped verb was meant to be.

use std::fmt::Write as _;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory, Error, FromArgMatches};

use super::Cli;
use crate::slurm::target::Target;

/// Who wants what, and the verbs for it.
const GROUPS: [(&str, &[&str]); 4] = [
    (
        "Ask about jobs",
        &["why", "runs", "run", "top", "timeline", "events", "errors", "logs", "grep", "compare"],
    ),
    ("Do something about them", &["rerun", "watch", "mcp", "note", "scan"]),
    ("Look at the whole site", &["report", "export", "rules", "serve"]),
    ("Run it", &["check", "collect", "agent", "index", "gc"]),
];

const TEMPLATE: &str = "{about}\n\n{usage-heading} {usage}\n{before-help}Options:\n{options}{after-help}";

const START: &str = "\
Begin with 'inquest why --last' or 'inquest why JOB'; 'inquest VERB --help' has
examples.

";

/// The command line; where it makes no sense, says so and exits with 2.
pub(super) fn parse() -> Cli {
    let matches = command().try_get_matches().map_err(meant).unwrap_or_else(|e| e.exit());
    Cli::from_arg_matches(&matches).unwrap_or_else(|e| e.exit())
}

fn command() -> Command {
    let command = Cli::command();
    let mut verbs = String::new();
    for (what, names) in GROUPS {
        let _ = writeln!(verbs, "\n{what}:");
        for name in names {
            if let Some(verb) = command.find_subcommand(name) {
                let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
                let _ = writeln!(verbs, "  {name:<9} {about}");
            }
        }
    }
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    command.help_template(TEMPLATE).before_help(verbs).after_help(format!("{START}{after}"))
}

/// Adds what a word that is no verb may have been meant to be. clap compares by common letters, to which
/// short words with two letters swapped are strangers.
fn meant(mut error: Error) -> Error {
    let silent = |e: &Error| e.get(ContextKind::SuggestedSubcommand).is_none();
    if error.kind() != ErrorKind::InvalidSubcommand || !silent(&error) {
        return error;
    }
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand) else { return error };
    let word = word.clone();
    if let Some(meant) = nearest(&word) {
        error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(vec![meant]));
    }
    error
}

fn nearest(word: &str) -> Option<String> {
    // A job where the verb should be is a question, too.
    if word.starts_with(|c: char| c.is_ascii_digit())
        && matches!(word.parse(), Ok(target) if !matches!(target, Target::Run(_)))
    {
        return Some(format!("why {word}"));
    }
    let command = Cli::command();
    let names =
        command.get_subcommands().flat_map(|c| std::iter::once(c.get_name()).chain(c.get_visible_aliases()));
    let near = names.map(|name| (strsim::osa_distance(word, name), name)).min()?;
    (near.0 <= 1 + word.len() / 4).then(|| near.1.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_is_on_the_first_page_once_and_fits() {
        let command = Cli::command();
        let shown: Vec<&str> =
            command.get_subcommands().filter(|c| !c.is_hide_set()).map(Command::get_name).collect();
        let mut grouped: Vec<&str> = GROUPS.iter().flat_map(|g| g.1).copied().collect();
        let all = grouped.len();
        grouped.sort_unstable();
        grouped.dedup();
        assert_eq!(grouped.len(), all, "once");
        assert!(shown.iter().all(|name| grouped.contains(name)), "{shown:?} {grouped:?}");
        let page = super::command().render_help().to_string();
        for line in page.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }

    #[test]
    fn a_mistyped_verb_is_known() {
        for (word, wanted) in [
            ("wyh", Some("why")),
            ("tiemline", Some("timeline")),
            ("erors", Some("errors")),
            ("4711", Some("why 4711")),
            ("4700_[1-3]", Some("why 4700_[1-3]")),
            ("frobnicate", None),
        ] {
            let error = super::command().try_get_matches_from(["inquest", word]).map_err(meant).unwrap_err();
            let said = error.to_string();
            match wanted {
                Some(wanted) => assert!(said.contains(&format!("'{wanted}'")), "{said}"),
                None => assert!(!said.contains("tip:"), "{said}"),
            }
        }
    }
}
