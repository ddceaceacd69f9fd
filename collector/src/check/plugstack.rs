//! plugstack.conf: which lines of it name the plugin.

use std::path::{Path, PathBuf};

/// Name of the plugin's file.
pub(super) const FILE: &str = "spank_inquest.so";

/// Name of the file with the hooks of a job's prolog and epilog.
pub(super) const JOB_FILE: &str = "spank_inquest_job.so";

/// Files that include each other are followed this deep.
const DEPTH: usize = 4;

/// A line that names the plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// `FILE:LINE`.
    pub(super) place: String,
    /// `optional`, not `required`.
    pub(super) optional: bool,
    /// The path as written.
    pub(super) path: PathBuf,
    /// What stands behind it.
    pub(super) arguments: Vec<String>,
}

/// What there is to know of plugstack.conf.
#[derive(Clone, Debug, Default)]
pub(super) struct Plugstack {
    /// Where it is.
    pub(super) path: PathBuf,
    /// Lines that name the plugin, in Slurm's order.
    pub(super) lines: Vec<Line>,
    /// Lines that name the one of the job's hooks.
    pub(super) job_lines: Vec<Line>,
    /// Files that were read.
    pub(super) files: Vec<PathBuf>,
    /// Files that cannot be read.
    pub(super) unreadable: Vec<String>,
}

/// Reads it, and whatever it includes.
pub(super) fn read(path: &Path) -> Plugstack {
    let mut stack = Plugstack { path: path.to_owned(), ..Plugstack::default() };
    stack.add(path, DEPTH);
    stack
}

impl Plugstack {
    fn add(&mut self, path: &Path, depth: usize) {
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(e) => return self.unreadable.push(format!("{}: {e}", path.display())),
        };
        self.files.push(path.to_owned());
        for (number, line) in String::from_utf8_lossy(&text).lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_whitespace().map(str::to_owned);
            match (words.next().as_deref(), words.next()) {
                (Some("include"), Some(pattern)) if depth > 0 => self.include(path, &pattern, depth),
                (Some(kind @ ("optional" | "required")), Some(plugin))
                    if plugin.ends_with(FILE) || plugin.ends_with(JOB_FILE) =>
                {
                    let lines = if plugin.ends_with(FILE) { &mut self.lines } else { &mut self.job_lines };
                    lines.push(Line {
                        place: format!("{}:{}", path.display(), number + 1),
                        optional: kind == "optional",
                        path: plugin.into(),
                        arguments: words.collect(),
                    });
                }
                _ => {}
            }
        }
    }

    /// A pattern without a leading slash is relative to the file it stands in.
    fn include(&mut self, from: &Path, pattern: &str, depth: usize) {
        let pattern = from.with_file_name(pattern);
        let found = glob::glob(&pattern.to_string_lossy());
        for path in found.into_iter().flatten().flatten() {
            self.add(&path, depth - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn included_lines_are_found_where_they_stand() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("plugstack.conf.d")).unwrap();
        std::fs::write(at("plugstack.conf"), "optional other.so\ninclude plugstack.conf.d/*.conf\n").unwrap();
        std::fs::write(at("plugstack.conf.d/job.conf"), "optional /x/spank_inquest_job.so journal=/j\n")
            .unwrap();
        let line = "# the recorder\nrequired  /x/spank_inquest.so journal=/j sync=never # why\n";
        std::fs::write(at("plugstack.conf.d/inquest.conf"), line).unwrap();
        std::fs::write(at("plugstack.conf.d/inquest.conf.rpmsave"), line).unwrap();
        let stack = read(&at("plugstack.conf"));
        let [line] = stack.lines.as_slice() else { panic!("{stack:?}") };
        assert_eq!(line.place, format!("{}:2", at("plugstack.conf.d/inquest.conf").display()));
        assert!(!line.optional);
        assert_eq!(line.arguments, ["journal=/j", "sync=never"]);
        assert_eq!(stack.files.len(), 3);
        assert_eq!(stack.job_lines.len(), 1);
    }
}
