//! The manual page of the verdicts, made from the rules themselves.

use std::fmt::Write;

use super::rules::{RULES, Unexplained};
use super::{Retry, Rule};
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
    out.push_str(".SH SEE ALSO\n.BR inquest-why (1)\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_on_the_page_in_its_order() {
        let page = page();
        let at: Vec<Option<usize>> =
            RULES.iter().map(|r| page.find(&format!(". {}\\fR", r.cause()))).collect();
        assert!(at.iter().all(Option::is_some) && at.is_sorted(), "{at:?}");
        assert!(!page.lines().any(|l| l.starts_with('\'')), "a line that roff would take for a request");
    }
}
