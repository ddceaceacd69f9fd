//! Another release of Slurm than the machine's: the programs of another root directory.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

/// In a mount namespace of its own, the root's /usr takes the place of the machine's. All else is the
/// machine's at the same path (/proc, cgroups, accounts, the cluster's directory, the plugin), so the
/// same configuration serves every release; and the mounts end with the processes, whatever ends them.
const ENTER: &str = r#"
mount --bind "$0/usr" /usr
mount --bind "$0/etc/ld.so.cache" /etc/ld.so.cache
exec "$@"
"#;

/// A command from `root`, or from the machine itself, run as `user` (user and group id) or as root.
/// The process that is started becomes the program; it has its process id.
pub(super) fn command(root: Option<&Path>, user: Option<(u32, u32)>, program: &str) -> Command {
    let Some(root) = root else {
        let mut command = Command::new(program);
        if let Some((uid, gid)) = user {
            // std drops the supplementary groups when it changes the user.
            command.uid(uid).gid(gid);
        }
        return command;
    };
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-e", "-c", ENTER]).arg(root);
    if let Some((uid, gid)) = user {
        // After the mounts, which need root.
        command
            .arg("setpriv")
            .args([format!("--reuid={uid}"), format!("--regid={gid}")])
            .arg("--clear-groups");
    }
    command.arg(program);
    command
}
