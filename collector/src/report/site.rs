//! The rules of a site, tried on jobs whose logs can be read.

use std::collections::BTreeMap;

use inquest_journal::JobId;

use super::grep::{Grep, Options};
use super::logfiles::log_files;
use super::table::Table;
use crate::runs::RunState;
use crate::story::Story;
use crate::verdict::{Class, RULES, Rule, SiteRules, Unexplained, judge};

/// Logs that are read of one job.
const LOGS: usize = 8;

/// Gives members the verdicts of the site's rules, where one holds.
pub fn refine(rules: &SiteRules, run: &mut RunState, members: &[u32], stories: &BTreeMap<JobId, Story>) {
    for number in members {
        let Some(member) = run.members.get(number) else { continue };
        let Some(attempt) = stories.get(&member.job_id).and_then(|s| s.attempts.last()) else { continue };
        let Some(known) = &member.verdict else { continue };
        // A rule is tried on what the built-in ones say, also where one of the
        // site's decided before.
        let again = known.rule.is_some().then(|| judge(attempt, known.slurm.as_ref()));
        let verdict = again.as_ref().unwrap_or(known);
        let files = log_files(run, member, attempt);
        let mut ask = |pattern: &regex::Regex| {
            let options = Options { ignore_case: false, fixed: false, context: 0 };
            let mut grep = Grep::new(pattern.as_str(), &options).map_err(|_| ())?;
            let mut read = false;
            for file in files.iter().take(LOGS) {
                let mut found = None;
                let result = grep.search(&file.path, file.whose, |hit| {
                    found = Some(hit.text);
                    Ok(false)
                });
                match result {
                    Ok(_) if found.is_some() => return Ok(found),
                    Ok(Ok(())) => read = true,
                    Ok(Err(_)) | Err(_) => {}
                }
            }
            if read { Ok(None) } else { Err(()) }
        };
        let nodes: Vec<&str> = attempt.nodes.iter().map(AsRef::as_ref).collect();
        let refined = rules.refine(&attempt.facts, &nodes, verdict, Some(&mut ask));
        let Some(new) = refined.or_else(|| again.clone()).filter(|new| new != known) else { continue };
        let (before, after) = (known.class, new.class);
        if let Some(member) = run.members.get_mut(number) {
            member.verdict = Some(new);
        }
        count(&mut run.classes, before, after);
    }
}

fn count(classes: &mut BTreeMap<Class, u32>, before: Class, after: Class) {
    if let Some(n) = classes.get_mut(&before) {
        *n = n.saturating_sub(1);
    }
    classes.retain(|_, n| *n > 0);
    *classes.entry(after).or_default() += 1;
}

/// All rules in the order in which they are tried: the site's, the built-in.
pub fn table(site: &SiteRules) -> Table {
    let mut table = Table::new(&["ORDER", "FROM", "CAUSE", "CLASS", "LABEL", "PRIORITY", "HOLDS"])
        .spare(&["PRIORITY", "LABEL", "FROM"]);
    let mut order = 0;
    let mut row = |from: &str, cause: &str, class: Class, label: &str, priority: String, holds: String| {
        order += 1;
        table.row(vec![
            order.to_string(),
            from.into(),
            cause.into(),
            class.to_string(),
            super::clean(label),
            priority,
            super::clean(&holds),
        ]);
    };
    for rule in site.rules() {
        row("site", &rule.name, rule.class, &rule.label, rule.priority.to_string(), rule.says());
    }
    let last: &dyn Rule = &Unexplained;
    for rule in RULES.iter().copied().chain([last]) {
        row("inquest", rule.cause(), rule.class(), rule.label(), "-".into(), rule.when().into());
    }
    table
}
