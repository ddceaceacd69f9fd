//! What a person types: arguments in, exit code out, no logic of its own.

mod collect;
mod events;
mod run;
mod runs;
mod why;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::tz::TimeZone;

use crate::report::table::{NoColumn, Style, Table};
use crate::slurm::target::{BadTarget, Target};
use crate::store::{Found, ReadError, Store};

/// A flight recorder for Slurm jobs, and the inquest when one dies.
#[derive(Debug, Parser)]
#[command(name = "inquest", version, max_term_width = 80, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
    /// When to use colour.
    #[arg(long, global = true, value_enum, default_value = "auto", value_name = "WHEN")]
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
    /// Say what went wrong in a job, array or run, and on which evidence.
    #[command(visible_alias = "wtf")]
    Why(why::Arguments),
    /// List runs.
    Runs(runs::Arguments),
    /// List the jobs of a run.
    Run(run::Arguments),
    /// List the recorded events of a job or run.
    Events(events::Arguments),
    /// Merge the journals of all nodes into run stores (a daemon).
    Collect(collect::Arguments),
}

/// Which store, and whose runs.
#[derive(Debug, Args)]
struct Where {
    /// Directory of the run stores.
    #[arg(long, env = "INQUEST_STORE", default_value = "/var/lib/inquest", value_name = "DIR")]
    store: PathBuf,
    /// Only this cluster.
    #[arg(short = 'M', long, value_name = "NAME")]
    cluster: Option<String>,
    /// Only runs of this user.
    #[arg(short = 'u', long, value_name = "NAME")]
    user: Option<String>,
}

impl Where {
    fn open(&self) -> Result<Store, ReadError> {
        Store::open(&self.store)
    }

    fn find(&self, target: &Target) -> Result<Found, ReadError> {
        self.open()?.find(target, self.cluster.as_deref(), self.user.as_deref())
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
        let style =
            Style { no_header: self.noheader, parsable: self.parsable2, columns: self.format.clone() };
        table.print(&style)
    }
}

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
    let cli = Cli::parse();
    match cli.color {
        When::Auto => {}
        When::Always => anstream::ColorChoice::Always.write_global(),
        When::Never => anstream::ColorChoice::Never.write_global(),
    }
    let zone = TimeZone::system();
    let result = match cli.verb {
        Verb::Why(a) => why::main(&a, &zone),
        Verb::Runs(a) => runs::main(&a, &zone),
        Verb::Run(a) => run::main(&a, &zone),
        Verb::Events(a) => events::main(&a, &zone),
        Verb::Collect(a) => collect::main(a),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let code = if error.downcast_ref::<std::io::Error>().is_some_and(is_broken_pipe) {
                return ExitCode::SUCCESS; // The reader has seen enough.
            } else if error.is::<NoColumn>() || error.is::<BadTarget>() {
                USAGE
            } else {
                match error.downcast_ref::<ReadError>() {
                    Some(ReadError::Denied(_)) => DENIED,
                    _ => NOT_FOUND,
                }
            };
            let _ = writeln!(std::io::stderr(), "inquest: {}", crate::report::clean(&error.to_string()));
            ExitCode::from(code)
        }
    }
}

fn is_broken_pipe(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::BrokenPipe
}

/// Writes to standard output; styles are taken out where they do not belong.
fn print(text: &str) -> std::io::Result<()> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn print_json(value: &serde_json::Value) -> std::io::Result<()> {
    print(&format!("{value:#}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }
}
