//! What a person types: arguments in, exit code out, no logic of its own.

mod agent;
mod check;
mod collect;
mod compare;
mod errors;
mod events;
mod export;
mod gc;
mod grep;
mod help;
mod index;
mod log;
mod logs;
mod man;
mod mcp;
mod members;
mod note;
mod page;
mod report;
mod rerun;
mod rules;
mod run;
mod runs;
mod scan;
mod serve;
mod timeline;
mod top;
mod watch;
mod why;

use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use self::members::Members;
use crate::config::{self, Config, ConfigError, help};
use crate::report::clean_json;
use crate::report::logfiles::LogError;
use crate::report::site;
use crate::report::table::{NoColumn, Style, Table};
use crate::report::wrap;
use crate::slurm::target::{BadTarget, Target};
use crate::store::{Found, LEDGER, ReadError, Store, user_called, user_name};
use crate::verdict::{RulesError, SiteRules};
use crate::zone;

/// A flight recorder for Slurm jobs, and the inquest when one dies.
#[derive(Debug, Parser)]
#[command(name = "inquest", version, max_term_width = 80, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
    /// Colour: auto (on a terminal, unless NO_COLOR is set), always or never.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "auto",
        value_name = "WHEN",
        hide_possible_values = true,
        hide_default_value = true
    )]
    color: When,
}

const EXIT_CODES: &str = "\
Exit status: 0 nothing failed, 1 failures found, 2 wrong usage,\n\
3 not found or unreadable, 4 permission denied.";

#[derive(Clone, Copy, Debug, ValueEnum)]
enum When {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

#[derive(Debug, Subcommand)]
enum Verb {
    #[command(visible_alias = "wtf")]
    Why(why::Arguments),
    /// List runs, the newest last.
    Runs(runs::Arguments),
    /// List the jobs of a run.
    Run(run::Arguments),
    Events(events::Arguments),
    Timeline(timeline::Arguments),
    Logs(logs::Arguments),
    Grep(grep::Arguments),
    Errors(errors::Arguments),
    Compare(compare::Arguments),
    Rerun(rerun::Arguments),
    Top(top::Arguments),
    Rules(rules::Arguments),
    Watch(watch::Arguments),
    Scan(scan::Arguments),
    /// Merge the journals of all nodes into run stores (a daemon).
    Collect(collect::Arguments),
    Check(check::Arguments),
    /// Record deaths of processes on this node (a daemon, one per node).
    Agent(agent::Arguments),
    Index(index::Arguments),
    Gc(gc::Arguments),
    Export(export::Arguments),
    Serve(serve::Arguments),
    Mcp(mcp::Arguments),
    Report(report::Arguments),
    /// Say a stage, a message, an error or progress from inside a job.
    Note(note::Arguments),
    /// Write the manual pages.
    #[command(hide = true)]
    Man(man::Man),
    /// Print a completion script.
    #[command(hide = true)]
    Completions(man::Completions),
}

/// Which store, and whose runs.
#[derive(Debug, Args)]
struct Where {
    #[arg(long, env = "INQUEST_STORE", value_name = "DIR", help = help("", "store"))]
    store: Option<PathBuf>,
    /// Only this cluster.
    #[arg(short = 'M', long, value_name = "NAME")]
    cluster: Option<String>,
    /// Only runs of this user.
    #[arg(short = 'u', long, value_name = "NAME", value_parser = directory_of)]
    user: Option<String>,
}

/// The user as the store calls them.
fn directory_of(name: &str) -> Result<String, std::convert::Infallible> {
    Ok(user_called(name))
}

impl Where {
    fn open(&self) -> anyhow::Result<Store> {
        Ok(Store::open(&store_dir(self.store.as_deref())?)?)
    }

    /// Whose jobs are meant when none are named: the caller's own; anybody's
    /// for root, who runs none.
    fn whose(&self) -> Option<String> {
        let uid = uzers::get_effective_uid();
        self.user.clone().or_else(|| (uid != 0).then(|| user_name(uid)))
    }

    /// What was asked for, judged by the site's rules too.
    fn judged(&self, target: &Target, judging: &rules::Judging) -> anyhow::Result<Found> {
        let mut found = self.find(target)?;
        self::judge(&mut found, &judging.load()?)?;
        Ok(found)
    }

    /// As `judged`, where the rest of the run does not matter.
    fn judged_members(&self, target: &Target, judging: &rules::Judging) -> anyhow::Result<Found> {
        let mut found = self.find_members(target)?;
        self::judge(&mut found, &judging.load()?)?;
        Ok(found)
    }

    fn find(&self, target: &Target) -> anyhow::Result<Found> {
        let store = self.open()?;
        self.or_run(&store, target, store.find(target, self.cluster.as_deref(), self.user.as_deref()))
    }

    /// As `find`, where the rest of the run does not matter.
    fn find_members(&self, target: &Target) -> anyhow::Result<Found> {
        let store = self.open()?;
        self.or_run(&store, target, store.find_members(target, self.cluster.as_deref(), self.user.as_deref()))
    }

    /// A user may call a run 2026: where there is no such job, the run is meant.
    fn or_run(
        &self,
        store: &Store,
        target: &Target,
        found: Result<Found, ReadError>,
    ) -> anyhow::Result<Found> {
        match (found, target.as_run()) {
            (Err(no_job @ ReadError::NotFound(_)), Some(run)) => {
                let run = store.find(&run, self.cluster.as_deref(), self.user.as_deref());
                Ok(run.map_err(|_| no_job)?)
            }
            (found, _) => Ok(found?),
        }
    }
}

/// The store that was named, or else the configured one.
fn store_dir(named: Option<&Path>) -> Result<PathBuf, ConfigError> {
    named.map_or_else(|| Ok(Config::load(None)?.site.store), |store| Ok(store.to_owned()))
}

/// Judges by a site's rules, which may want to read logs.
fn judge(found: &mut Found, rules: &SiteRules) -> Result<(), ReadError> {
    if !rules.is_empty() {
        let stories = why::stories(found)?;
        site::refine(rules, &mut found.run, &found.members, &stories);
    }
    Ok(())
}

/// Which configuration a daemon reads.
#[derive(Debug, Args)]
struct ConfigFile {
    /// Read this configuration; /etc/inquest/inquest.toml, if it is there, when
    /// not given.
    #[arg(long, env = "INQUEST_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigFile {
    fn load(&self) -> Result<Config, ConfigError> {
        Config::load(self.config.as_deref())
    }
}

/// Reads a number that a key of the configuration may have.
fn number(section: &str, name: &str) -> clap::builder::RangedU64ValueParser {
    let parser = clap::builder::RangedU64ValueParser::new();
    match config::key(section, name).and_then(|k| k.range.clone()) {
        Some(range) => parser.range(range.start().cast_unsigned()..=range.end().cast_unsigned()),
        None => parser,
    }
}

/// How a table is printed.
#[derive(Debug, Args)]
struct Form {
    /// Print JSON.
    #[arg(long, conflicts_with_all = ["noheader", "parsable2", "format"])]
    json: bool,
    /// Leave out the line of column names.
    #[arg(short = 'n', long)]
    noheader: bool,
    /// Separate columns by '|', without padding.
    #[arg(short = 'P', long)]
    parsable2: bool,
    /// Print these columns only.
    #[arg(short = 'o', long, value_delimiter = ',', value_name = "COLUMN,...")]
    format: Vec<String>,
}

impl Form {
    fn print(&self, table: &Table) -> Result<String, NoColumn> {
        let style = Style {
            no_header: self.noheader,
            parsable: self.parsable2,
            columns: self.format.clone(),
            ..Style::page()
        };
        table.print(&style)
    }
}

/// Where a file that a command makes goes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Output {
    Stdout,
    File(PathBuf),
}

impl From<std::ffi::OsString> for Output {
    fn from(word: std::ffi::OsString) -> Output {
        if word == "-" { Output::Stdout } else { Output::File(word.into()) }
    }
}

impl Output {
    fn is_stdout(&self) -> bool {
        *self == Output::Stdout
    }

    fn write(&self, text: &str) -> anyhow::Result<()> {
        match self {
            Output::Stdout => Ok(print(text)?),
            Output::File(path) => std::fs::write(path, text).map_err(|e| match e.kind() {
                ErrorKind::PermissionDenied => NoPermission(format!("write {}", path.display())).into(),
                _ => anyhow::anyhow!("cannot write {}: {e}; name another file", path.display()),
            }),
        }
    }
}

/// A file or directory that was named and cannot be read.
fn unreadable(path: &Path, reason: &LogError) -> anyhow::Error {
    let path = path.display();
    match reason {
        LogError::Denied => NoPermission(format!("read {path}")).into(),
        LogError::Missing => anyhow::anyhow!("{path}: there is no such file or directory; check the name"),
        other => anyhow::anyhow!("{path} {other}; name a file"),
    }
}

/// The operating system does not let the caller do it.
#[derive(Debug, thiserror::Error)]
#[error("no permission to {0}; ask its owner, or do it as a user who may")]
struct NoPermission(String);

/// What the caller must not do; says who may, and how.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NotYours(String);

/// Refuses to write to a store as root where a collector of another account does: it could not open what root
/// leaves there. Who wrote the ledger is whose the store is.
fn leave_to_collector(store: &Path, verb: &str) -> Result<(), NotYours> {
    let meta = std::fs::metadata(store.join(LEDGER)).or_else(|_| std::fs::metadata(store));
    let Some(owner) = meta.ok().map(|m| m.uid()).filter(|uid| *uid != 0 && uzers::get_effective_uid() == 0)
    else {
        return Ok(());
    };
    let account = uzers::get_user_by_uid(owner).and_then(|u| u.name().to_str().map(str::to_owned));
    let (shown, whose, who) = match account {
        Some(name) => (store.display(), name.clone(), name),
        None => (store.display(), format!("uid {owner}"), format!("'#{owner}'")),
    };
    Err(NotYours(format!(
        "the store {shown} belongs to {whose}, whose collector could not open what root writes there: sudo -u {who} \
         inquest {verb}"
    )))
}

/// An argument that cannot be meant so; says what to write instead.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

/// Nothing failed.
const GOOD: u8 = 0;
/// Failures were found.
const FAILURES: u8 = 1;
const USAGE: u8 = 2;
const NOT_FOUND: u8 = 3;
const DENIED: u8 = 4;

/// Reads the command line, does what it says, and gives the exit code.
pub fn main() -> ExitCode {
    // A parse error prints usage and exits with 2, help and version with 0.
    let cli = help::parse();
    if let Some(columns) = page::columns() {
        wrap::set_page(columns);
    }
    match cli.color {
        When::Auto => {}
        When::Always => anstream::ColorChoice::Always.write_global(),
        When::Never => anstream::ColorChoice::Never.write_global(),
    }
    let zone = zone::local();
    let result = match cli.verb {
        Verb::Why(a) => why::main(&a, &zone),
        Verb::Runs(a) => runs::main(&a, &zone),
        Verb::Run(a) => run::main(&a, &zone),
        Verb::Events(a) => events::main(&a, &zone),
        Verb::Timeline(a) => timeline::main(&a, &zone),
        Verb::Logs(a) => logs::main(&a, &zone),
        Verb::Grep(a) => grep::main(&a),
        Verb::Errors(a) => errors::main(&a),
        Verb::Compare(a) => compare::main(&a),
        Verb::Rerun(a) => rerun::main(&a),
        Verb::Watch(a) => watch::main(&a),
        Verb::Rules(a) => rules::main(&a),
        Verb::Top(a) => top::main(&a, &zone),
        Verb::Scan(a) => scan::main(&a),
        Verb::Collect(a) => collect::main(&a),
        Verb::Check(a) => check::main(a),
        Verb::Agent(a) => agent::main(a),
        Verb::Index(a) => index::main(&a),
        Verb::Gc(a) => gc::main(&a, &zone),
        Verb::Export(a) => export::main(&a, &zone),
        Verb::Report(a) => report::main(&a, &zone),
        Verb::Serve(a) => serve::main(&a),
        Verb::Mcp(a) => mcp::main(&a),
        Verb::Note(a) => Ok(note::main(&a)),
        Verb::Man(a) => man::man(&a),
        Verb::Completions(a) => man::completions(&a),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let code = if error.downcast_ref::<std::io::Error>().is_some_and(is_broken_pipe) {
                return ExitCode::SUCCESS; // The reader has seen enough.
            } else if error.is::<NoColumn>()
                || error.is::<BadTarget>()
                || error.is::<Usage>()
                || error.is::<ConfigError>()
                || error.is::<RulesError>()
            {
                USAGE
            } else if error.is::<NoPermission>() || error.is::<NotYours>() {
                DENIED
            } else {
                match error.downcast_ref::<ReadError>() {
                    Some(ReadError::Denied(_)) => DENIED,
                    _ => NOT_FOUND,
                }
            };
            let config = error.downcast_ref::<ConfigError>().map(ConfigError::lines);
            let lines = config.or_else(|| Some(error.downcast_ref::<RulesError>()?.lines()));
            let lines = lines.unwrap_or_else(|| vec![error.to_string()]);
            for line in lines {
                let _ = writeln!(std::io::stderr(), "inquest: {}", crate::report::clean(&line));
            }
            ExitCode::from(code)
        }
    }
}

fn is_broken_pipe(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::BrokenPipe
}

/// Writes to standard output; styles are taken out where they do not belong.
fn print(text: &str) -> std::io::Result<()> {
    let mut out = anstream::stdout().lock();
    out.write_all(page::plain(text).as_bytes())?;
    out.flush()
}

fn print_json(value: &serde_json::Value) -> std::io::Result<()> {
    print(&clean_json(&format!("{value:#}\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }
}
