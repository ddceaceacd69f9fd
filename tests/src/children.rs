//! Processes that tests start.

use std::env;
use std::ffi::OsStr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::artefacts;

/// A process that ends with its test.
#[derive(Debug)]
pub struct Ends(pub Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `inquest collect` of what is in a journal directory, into a store, without a word from Slurm.
pub fn collect_once(journal: &Path, store: &Path) -> Command {
    let mut collect = apart(artefacts::inquest());
    collect.args(["collect", "--once", "--accounting", "off", "--journal"]).arg(journal);
    collect.arg("--store").arg(store).stdin(Stdio::null());
    collect
}

/// A command that hears nothing of the Slurm and the Inquest of this machine, nor of our caller's settings.
pub fn apart(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("INQUEST_")) {
        command.env_remove(name);
    }
    // Files that set nothing. For one that is not there, Slurm's commands would wait a minute.
    command.env("INQUEST_CONFIG", "/dev/null").env("SLURM_CONF", "/dev/null");
    command
}
