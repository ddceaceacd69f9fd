/*!
Is everything installed, and does it flow?

A machine has up to three roles: a compute node, which records; the collector's
host, which merges; a login node, where people ask. For each there is a list of
[`Finding`]s: what was looked at, how it is, and for whatever is wrong the way
to mend it. Nothing is changed, nothing is written, and no daemon is asked
anything that it would not tell every user.
*/

mod collector;
mod files;
mod login;
mod node;
mod plugin;
mod plugstack;
mod slurm_conf;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::config::{Config, ConfigError};
use crate::slurm::command;
use slurm_conf::SlurmConf;

/// How long a command of Slurm is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, but somebody should know.
    Warning,
    /// It does not work, or not safely.
    Wrong,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How it is.
    pub level: Level,
    /// What was looked at, in a word.
    pub subject: &'static str,
    /// How it is, in a sentence.
    pub what: String,
    /// What to do, when something is to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

impl Finding {
    fn ok(subject: &'static str, what: impl Into<String>) -> Finding {
        Finding { level: Level::Ok, subject, what: what.into(), mend: None }
    }

    fn warning(subject: &'static str, what: impl Into<String>, mend: impl Into<String>) -> Finding {
        Finding { level: Level::Warning, subject, what: what.into(), mend: Some(mend.into()) }
    }

    fn wrong(subject: &'static str, what: impl Into<String>, mend: impl Into<String>) -> Finding {
        Finding { level: Level::Wrong, subject, what: what.into(), mend: Some(mend.into()) }
    }
}

/// What a machine is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Jobs run here and are recorded.
    Node,
    /// The journals of all nodes are merged here.
    Collector,
    /// People submit jobs and ask about them here.
    Login,
}

/// What is to be looked at.
#[derive(Debug)]
pub struct Options {
    /// Name of this node in Slurm.
    pub node: String,
    /// The configuration, as far as it can be read.
    pub config: Result<Config, ConfigError>,
    /// Directory of the journals, where a flag says so.
    pub journal: Option<PathBuf>,
    /// Directory of the stores, where a flag says so.
    pub store: Option<PathBuf>,
}

impl Options {
    /// The directory of the journals, as the collector knows it.
    fn journal(&self) -> PathBuf {
        self.journal.clone().unwrap_or_else(|| self.or_default().site.journal)
    }

    fn store(&self) -> PathBuf {
        self.store.clone().unwrap_or_else(|| self.or_default().site.store)
    }

    fn or_default(&self) -> Config {
        self.config.as_ref().cloned().unwrap_or_default()
    }
}

/// What this machine seems to be for.
pub fn roles(options: &Options) -> Vec<Role> {
    let conf = SlurmConf::read().ok();
    let names_us = conf.is_some_and(|c| !plugstack::read(&c.plugstack()).lines.is_empty());
    let runs_jobs = program("slurmd").is_some();
    let merges = options.store().join(crate::store::LEDGER).exists();
    let mut roles = Vec::new();
    if runs_jobs {
        roles.push(Role::Node);
    }
    if merges {
        roles.push(Role::Collector);
    }
    if !runs_jobs && (names_us || !merges) {
        roles.push(Role::Login);
    }
    roles
}

/// Looks at everything that matters for this role.
pub fn check(role: Role, options: &Options, now: SystemTime) -> Vec<Finding> {
    let mut findings = configuration(options);
    findings.extend(match role {
        Role::Node => node::check(options),
        Role::Collector => collector::check(options, now),
        Role::Login => login::check(options),
    });
    findings
}

fn configuration(options: &Options) -> Vec<Finding> {
    match &options.config {
        Ok(_) => Vec::new(),
        Err(error) => {
            let lines = error.lines().into_iter();
            lines
                .map(|line| {
                    Finding::wrong(
                        "config",
                        line,
                        "mend the file; inquest collect --check-config looks at it again",
                    )
                })
                .collect()
        }
    }
}

/// Where a program is, on the path or where daemons are.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/usr/local/sbin", "/opt/slurm/sbin", "/opt/slurm/bin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).map(|dir| dir.join(name)).find(|p| p.is_file())
}

/// What a command of Slurm prints; `Err` says why there is nothing.
fn slurm_says(name: &str, arguments: &[&str]) -> Result<String, String> {
    let program = program(name).ok_or_else(|| format!("{name} is not installed here"))?;
    command::ask(program, arguments, PATIENCE).map_err(|e| e.to_string())
}

/// Whether Slurm's own commands have loaded the plugin: only then do they know
/// its options.
fn loaded() -> Finding {
    match slurm_says("sbatch", &["--help"]) {
        Ok(help) if help.contains("--inquest-run") => {
            let version = slurm_says("sbatch", &["--version"]).unwrap_or_default();
            Finding::ok("loaded", format!("{} has loaded the plugin", version.trim()))
        }
        Ok(_) => Finding::wrong(
            "loaded",
            "Slurm does not load the plugin: sbatch does not know its option --inquest-run",
            "see what slurmd's log says of spank_inquest; a Slurm newer than the plugin is refused (spank_inquest(8), \
             FILES)",
        ),
        Err(why) => Finding::warning(
            "loaded",
            format!("whether Slurm loads the plugin cannot be seen: {why}"),
            "install Slurm's commands here, or look for spank_inquest in slurmd's log",
        ),
    }
}
