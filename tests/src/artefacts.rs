//! What the tests try out: files that were built before them.

use std::env;
use std::path::{Path, PathBuf};

/// The plugin as it is installed.
pub fn plugin() -> PathBuf {
    find("INQUEST_PLUGIN", "plugin/libspank_inquest.so", "cargo build --profile plugin -p spank-inquest")
}

/// The plugin with the feature `inject-faults`.
pub fn plugin_with_faults() -> PathBuf {
    find(
        "INQUEST_PLUGIN_FAULTS",
        "faults/plugin/libspank_inquest.so",
        "cargo build --profile plugin -p spank-inquest --features inject-faults --target-dir target/faults",
    )
}

/// The `inquest` command.
pub fn inquest() -> PathBuf {
    find("INQUEST_BIN", "release/inquest", "cargo build --release -p inquest")
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
