//! A login node: can people ask, and do they have the plugin's options?

use std::path::Path;
use std::{fs, io};

use super::{Finding, Options, loaded, plugin, plugstack, slurm_conf};
use crate::store::{Store, user_names};

pub(super) fn check(options: &Options) -> Vec<Finding> {
    let mut findings = Vec::new();
    match slurm_conf::SlurmConf::read() {
        Ok(conf) => {
            let stack = plugstack::read(&conf.plugstack());
            if stack.lines.is_empty() {
                findings.push(Finding::warning(
                    "plugstack",
                    format!(
                        "{} does not name the plugin: jobs are recorded, but there is no --inquest-run",
                        stack.path.display()
                    ),
                    "install the package inquest-plugin here, too",
                ));
            } else {
                findings.extend(plugin::lines(&stack));
                findings.extend(stack.lines.iter().chain(&stack.job_lines).flat_map(plugin::file));
                findings.push(loaded());
            }
        }
        Err(why) => findings.push(Finding::warning("slurm.conf", why, "set SLURM_CONF")),
    }
    findings.push(store(options));
    findings
}

fn store(options: &Options) -> Finding {
    let root = options.store();
    let mount = "mount the collector's store here, or name it: store = in the configuration";
    if let Err(e) = fs::read_dir(&root) {
        return Finding::wrong("store", format!("{}: {e}", root.display()), mount);
    }
    let clusters = Store::open(&root).and_then(|store| store.clusters()).unwrap_or_default();
    if clusters.is_empty() {
        return Finding::warning("store", format!("{} has no runs yet", root.display()), mount);
    }
    let uid = rustix::process::geteuid().as_raw();
    let own = user_names(uid);
    let mut places = clusters.iter().flat_map(|cluster| own.iter().map(move |user| (cluster, user)));
    let closed = places.find_map(|(cluster, user)| own_is_closed(&root.join(cluster), user, uid));
    closed.unwrap_or_else(|| Finding::ok("store", root.display().to_string()))
}

/// What keeps the caller from their own runs on a cluster, if they have any.
fn own_is_closed(cluster: &Path, user: &str, uid: u32) -> Option<Finding> {
    let runs = cluster.join(user).join("runs");
    let denied = |e: &io::Error| e.kind() == io::ErrorKind::PermissionDenied;
    let what = |e| format!("you cannot read your own runs in {}: {e}", runs.display());
    match (fs::metadata(cluster.join(".")), fs::read_dir(&runs)) {
        (Err(e), _) if denied(&e) => {
            let mend = format!("where that is not meant so: chmod o+x {}", cluster.display());
            Some(Finding::warning("store", what(e), mend))
        }
        (_, Err(e)) if denied(&e) => {
            let mend = format!(
                "its ACL must name user:{uid}:r-x (getfacl shows it): mount the store with ACLs, and copy it with \
                 them (rsync -A, cp -a)"
            );
            Some(Finding::wrong("store", what(e), mend))
        }
        _ => None,
    }
}
