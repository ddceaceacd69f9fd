//! slurm.conf and cgroup.conf, as far as recording depends on them.

use std::path::{Path, PathBuf};

/// Where slurmd looks, in its order.
const USUAL: [&str; 3] =
    ["/etc/slurm/slurm.conf", "/run/slurm/conf/slurm.conf", "/etc/slurm-llnl/slurm.conf"];

/// Files that include each other are followed this deep.
const DEPTH: usize = 4;

/// A file of `Key=Value` lines.
#[derive(Clone, Debug, Default)]
pub(super) struct SlurmConf {
    /// The file.
    pub(super) path: PathBuf,
    /// Keys in lower case, and values as they stand.
    keys: Vec<(String, String)>,
}

impl SlurmConf {
    /// slurm.conf: where `SLURM_CONF` says, else where slurmd looks.
    pub(super) fn read() -> Result<SlurmConf, String> {
        let told = std::env::var_os("SLURM_CONF").map(PathBuf::from);
        let candidates: Vec<PathBuf> = match told {
            Some(path) => vec![path],
            None => USUAL.map(PathBuf::from).to_vec(),
        };
        let path = candidates
            .iter()
            .find(|p| p.exists())
            .ok_or_else(|| format!("there is no {}", candidates[0].display()))?;
        SlurmConf::read_file(path)
    }

    /// Another file beside it, `cgroup.conf`.
    pub(super) fn beside(&self, name: &str) -> Result<SlurmConf, String> {
        SlurmConf::read_file(&self.path.with_file_name(name))
    }

    fn read_file(path: &Path) -> Result<SlurmConf, String> {
        let mut conf = SlurmConf { path: path.to_owned(), keys: Vec::new() };
        conf.add(path, DEPTH)?;
        Ok(conf)
    }

    fn add(&mut self, path: &Path, depth: usize) -> Result<(), String> {
        let text = std::fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        for line in logical_lines(&String::from_utf8_lossy(&text)) {
            let mut words = line.split_whitespace();
            match (words.next(), words.next()) {
                (Some(word), Some(name)) if word.eq_ignore_ascii_case("include") && depth > 0 => {
                    self.add(&path.with_file_name(name), depth - 1)?;
                }
                _ => self.keys.extend(pairs(&line)),
            }
        }
        Ok(())
    }

    /// The value of a key; the last one counts.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.keys.iter().rev().find(|(k, _)| *k == key.to_ascii_lowercase()).map(|(_, v)| v.as_str())
    }

    /// Whether a list such as `task/affinity,task/cgroup` names something.
    pub(super) fn lists(&self, key: &str, item: &str) -> bool {
        self.get(key).is_some_and(|v| v.split(',').any(|i| i.trim().eq_ignore_ascii_case(item)))
    }

    /// plugstack.conf.
    pub(super) fn plugstack(&self) -> PathBuf {
        match self.get("PlugStackConfig") {
            Some(path) => path.into(),
            None => self.path.with_file_name("plugstack.conf"),
        }
    }
}

/// Lines without comments; one that ends in a backslash goes on in the next.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut open = String::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim_end();
        match line.strip_suffix('\\') {
            Some(part) => open.push_str(part),
            None => lines.push(std::mem::take(&mut open) + line),
        }
    }
    lines
}

/// The `Key=Value` of a line: blanks may stand around the sign, and inside of quotes.
fn pairs(mut line: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    while let Some((key, rest)) = line.split_once('=') {
        let rest = rest.trim_start();
        let quoted = rest.strip_prefix('"').and_then(|rest| rest.split_once('"'));
        let (value, rest) =
            quoted.unwrap_or_else(|| rest.split_once(char::is_whitespace).unwrap_or((rest, "")));
        let key = key.split_whitespace().next_back().unwrap_or_default();
        pairs.push((key.to_ascii_lowercase(), value.to_owned()));
        line = rest;
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_as_slurm_finds_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("slurm.conf");
        std::fs::write(dir.path().join("more.conf"), "taskplugin=task/affinity,task/cgroup\n").unwrap();
        std::fs::write(
            &path,
            "# ProctrackType=x\nPROCTRACKTYPE = \\\n proctrack/cgroup # here\nInclude more.conf\n\
             ClusterName=lab SlurmctldHost=c(10.0.0.1) Prolog=\"/a b\" ReturnToService=2\n",
        )
        .unwrap();
        let conf = SlurmConf::read_file(&path).unwrap();
        assert_eq!(conf.get("ProctrackType"), Some("proctrack/cgroup"));
        assert!(conf.lists("TaskPlugin", "task/cgroup") && !conf.lists("TaskPlugin", "task"));
        let keys = ["ClusterName", "SlurmctldHost", "prolog", "ReturnToService"];
        assert_eq!(keys.map(|k| conf.get(k).unwrap()), ["lab", "c(10.0.0.1)", "/a b", "2"]);
        assert_eq!(conf.plugstack(), dir.path().join("plugstack.conf"));
        assert!(conf.beside("cgroup.conf").is_err());
    }
}
