//! What the tests try out: files that were built before them.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The plugin as it is installed.
pub fn plugin() -> PathBuf {
    find("INQUEST_PLUGIN", "plugin/libspank_inquest.so", "cargo build --profile plugin -p spank-inquest")
}

/// The plugin with the hooks of a job's prolog and epilog.
pub fn plugin_of_jobs() -> PathBuf {
    find(
        "INQUEST_PLUGIN_JOB",
        "plugin/libspank_inquest_job.so",
        "cargo build --profile plugin -p spank-inquest-job",
    )
}

/// The plugin with the feature `inject-faults`.
pub fn plugin_with_faults() -> PathBuf {
    find(
        "INQUEST_PLUGIN_FAULTS",
        "faults/plugin/libspank_inquest.so",
        "cargo build --profile plugin -p spank-inquest --features inject-faults --target-dir target/faults",
    )
}

/// The plugin with the hooks of a job's prolog and epilog, with the feature `inject-faults`.
pub fn plugin_of_jobs_with_faults() -> PathBuf {
    find(
        "INQUEST_PLUGIN_JOB_FAULTS",
        "faults/plugin/libspank_inquest_job.so",
        "cargo build --profile plugin -p spank-inquest-job --features inject-faults --target-dir target/faults",
    )
}

/// The `inquest` command.
pub fn inquest() -> PathBuf {
    find("INQUEST_BIN", "release/inquest", "cargo build --release -p inquest")
}

/// A root directory with this Debian suite's Slurm, for `cluster::Config`. Fetched when it is not there.
pub fn slurm(suite: &str) -> PathBuf {
    let roots = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ci/roots");
    let output = match Command::new(&roots).arg(suite).stderr(Stdio::inherit()).output() {
        Ok(output) => output,
        Err(e) => panic!("{}: {e}", roots.display()),
    };
    assert!(output.status.success(), "{} {suite} ended with {}", roots.display(), output.status);
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim_end())
}

/// A file that a test cannot do without: a test that did without would pass
/// for nothing.
fn find(variable: &str, below_target: &str, command: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let path = env::var_os(variable).map_or_else(|| target.join(below_target), PathBuf::from);
    match path.canonicalize() {
        Ok(path) => path,
        Err(e) => panic!("{}: {e}; build it with '{command}', or run ci/test, which does", path.display()),
    }
}
