use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, GOOD, print};

/// Writes the manual: one page per command, made from the definitions that
/// --help is made from, the rules of the verdicts in their order, the keys of the
/// configuration, and the fields of the journal.
#[derive(Debug, Args)]
pub(super) struct Man {
    /// Directory to write into; made when it is not there.
    dir: PathBuf,
}

/// Prints a completion script, made from the definitions that --help is made
/// from.
#[derive(Debug, Args)]
pub(super) struct Completions {
    /// For this shell.
    shell: Shell,
}

pub(super) fn man(arguments: &Man) -> anyhow::Result<u8> {
    let dir = &arguments.dir;
    let made = std::fs::create_dir_all(dir)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), dir))
        .and_then(|()| std::fs::write(dir.join("inquest-verdicts.7"), crate::verdict::manual::page()))
        .and_then(|()| std::fs::write(dir.join("inquest-rules.toml.5"), crate::verdict::manual::rules_page()))
        .and_then(|()| std::fs::write(dir.join("inquest-journal.5"), crate::follow::manual::page()))
        .and_then(|()| std::fs::write(dir.join("inquest-tables.5"), crate::export::manual::page()))
        .and_then(|()| std::fs::write(dir.join("inquest.toml.5"), crate::config::page()));
    made.map_err(|e| {
        anyhow::anyhow!("cannot write manual pages into {}: {e}; name another directory", dir.display())
    })?;
    Ok(GOOD)
}

pub(super) fn completions(arguments: &Completions) -> anyhow::Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "inquest", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(GOOD)
}
