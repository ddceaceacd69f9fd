//! What Slurm calls this node and its cluster, found the way the plugin does:
//! both must write the same names.

use std::path::PathBuf;

/// This host's name up to its first dot, Slurm's own default.
pub fn node_name() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    host.split('.').next().unwrap_or_default().to_owned()
}

/// The cluster's name from slurm.conf: where `SLURM_CONF` says, else in the
/// places that slurmd itself looks at. `unknown`, like the plugin, if there is none.
pub fn cluster_name() -> String {
    let told = std::env::var_os("SLURM_CONF").map(PathBuf::from);
    let usual = ["/etc/slurm/slurm.conf", "/run/slurm/conf/slurm.conf", "/etc/slurm-llnl/slurm.conf"];
    let mut texts = told.into_iter().chain(usual.map(PathBuf::from)).filter_map(|p| std::fs::read(p).ok());
    let text = texts.next().unwrap_or_default();
    cluster_of(&String::from_utf8_lossy(&text)).unwrap_or("unknown").to_owned()
}

/// `ClusterName=lab # comment`; the keys of slurm.conf know no case.
fn cluster_of(conf: &str) -> Option<&str> {
    conf.lines().find_map(|line| {
        let (key, value) = line.split('#').next()?.split_once('=')?;
        let value = value.trim().trim_matches('"');
        (key.trim().eq_ignore_ascii_case("ClusterName") && !value.is_empty()).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_found_as_slurm_would() {
        let conf = "# ClusterName=old\nSlurmctldHost=c\n clustername = lab-1 # ours\nClusterName=other\n";
        assert_eq!(cluster_of(conf), Some("lab-1"));
        assert_eq!(cluster_of("ClusterName=\n"), None);
        assert!(!node_name().contains('.'));
    }
}
