use std::path::PathBuf;

use clap::Args;

use super::{Form, GOOD, Usage, print, print_json};
use crate::config::{Config, help};
use crate::report::site;
use crate::units::count;
use crate::verdict::{SITE_KEYS, SITE_PATH, SiteRules};

const EXAMPLES: &str = "\
Examples:
  inquest rules                        all rules in the order of trial
  inquest rules --check rules.toml
  INQUEST_RULES=my.toml inquest why --last

A file of rules, /etc/inquest/rules.toml for a site:

  [[rule]]
  name = \"scratch-full\"
  priority = 100
  class = \"infra\"
  advice = [\"write to /work instead\"]
  retry = \"on_another_node\"
  [rule.match]
  class = [\"app_error\"]
  node = [\"n1*\"]
  log = 'scratch\\d+ is full'

  [[success]]
  marker = 'ALL \\d+ DONE'
  job_name = [\"fit-*\"]

Rules that say nothing of logs are tried by the collector too; rules with a
pattern, and markers of success, by why, run, errors, compare and rerun. The
counts of runs, top and the site's pages are the collector's, which reads no
logs: there such a job has the class that its events alone give it.";

/// Show the rules of verdicts, or check a site's own.
///
/// A site's rules come before the built-in ones.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, after_long_help = long())]
pub(super) struct Arguments {
    /// Say what is wrong with this file, line by line, and exit.
    #[arg(long, value_name = "FILE", conflicts_with = "rules")]
    check: Option<PathBuf>,
    #[command(flatten)]
    rules: Rules,
    #[command(flatten)]
    form: Form,
}

fn long() -> String {
    format!("{EXAMPLES}\n\nKeys:\n{SITE_KEYS}")
}

/// By which rules jobs are judged beside the built-in ones.
#[derive(Debug, Args)]
pub(super) struct Rules {
    #[arg(long, env = "INQUEST_RULES", value_name = "FILE", help = help("", "rules"))]
    rules: Option<PathBuf>,
}

impl Rules {
    /// The file that was named here or in the configuration.
    fn path(&self) -> anyhow::Result<Option<PathBuf>> {
        Ok(match &self.rules {
            Some(path) => Some(path.clone()),
            None => Config::load(None)?.site.rules,
        })
    }

    pub(super) fn load(&self) -> anyhow::Result<SiteRules> {
        Ok(SiteRules::load(self.path()?.as_deref())?)
    }
}

/// By what jobs are judged again when their logs can be read.
#[derive(Debug, Args)]
pub(super) struct Judging {
    #[command(flatten)]
    rules: Rules,
    /// A job that exits 0 must say this in its log, a regular expression for
    /// whole words, or has failed its validation.
    #[arg(long, value_name = "PATTERN")]
    success: Option<String>,
}

impl Judging {
    pub(super) fn load(&self) -> anyhow::Result<SiteRules> {
        let mut rules = self.rules.load()?;
        if let Some(marker) = &self.success {
            rules.expect(marker).map_err(Usage)?;
        }
        Ok(rules)
    }
}

pub(super) fn main(arguments: &Arguments) -> anyhow::Result<u8> {
    if let Some(path) = &arguments.check {
        let rules = SiteRules::load(Some(path))?;
        let rules =
            count(rules.rules().len(), "rule, nothing is wrong with it", "rules, nothing is wrong with them");
        print(&format!("{}: {rules}\n", path.display()))?;
        return Ok(GOOD);
    }
    let rules = arguments.rules.load()?;
    let table = site::table(&rules);
    if arguments.form.json {
        let path = arguments.rules.path()?.unwrap_or_else(|| SITE_PATH.into());
        print_json(
            &serde_json::json!({ "schema": crate::report::JSON_SCHEMA, "path": path, "rules": table.json() }),
        )?;
    } else {
        print(&arguments.form.print(&table)?)?;
    }
    Ok(GOOD)
}
