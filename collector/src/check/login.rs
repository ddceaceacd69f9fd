//! A login node: can people ask, and do they have the plugin's options?

use std::fs;

use super::{Finding, Options, loaded, plugin, plugstack, slurm_conf};

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
    let store = options.store();
    let shown = store.display();
    match fs::read_dir(&store) {
        Ok(entries) => match entries.flatten().filter(|e| e.path().is_dir()).count() {
            0 => Finding::warning(
                "store",
                format!("{shown} has no runs yet"),
                "mount the collector's store here, or name it: store = in the configuration",
            ),
            _ => Finding::ok("store", shown.to_string()),
        },
        Err(e) => Finding::wrong(
            "store",
            format!("{shown}: {e}"),
            "mount the collector's store here, or name it: store = in the configuration",
        ),
    }
}
