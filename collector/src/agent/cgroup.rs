//! Which job step a cgroup belongs to: paths as Slurm makes them on cgroup v1
//! and v2, and where the hierarchies are mounted.

use std::path::{Path, PathBuf};

use inquest_journal::{JobId, StepId};

/// A cgroup path that leads through a directory of a job step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StepPath<'a> {
    /// Up to and with the directory of the step: what every process of the
    /// step has in common.
    pub(super) step_dir: &'a str,
    /// The directory that holds the job's, made by root.
    pub(super) parent: &'a str,
    /// The job, where its directory is named by it. From Slurm 26.05 on it is
    /// named by the SLUID, which says nothing about the job id.
    pub(super) job_id: Option<JobId>,
    /// The step.
    pub(super) step: StepId,
    /// Rank of the task, below the step's directory.
    pub(super) task: Option<u32>,
    /// User id, where v1 has a directory for it.
    pub(super) uid: Option<u32>,
    /// Node that the path names: Slurm built for several slurmd on one host
    /// keeps their cgroups apart by it.
    pub(super) node: Option<&'a str>,
}

impl<'a> StepPath<'a> {
    /// Reads a path below a hierarchy's mount point. The first step in it
    /// counts: what is deeper can be made by the job itself.
    pub(super) fn parse(path: &'a str) -> Option<StepPath<'a>> {
        let mut found: Option<StepPath<'a>> = None;
        let (mut before, mut grand) = (None, None);
        let (mut uid, mut node) = (None, None);
        let mut at = 0;
        for name in path.split('/') {
            let end = at + name.len();
            if let Some(found) = &mut found {
                if let Some(task) = name.strip_prefix("task_") {
                    found.task = number(task);
                    break;
                }
            } else if let (Some(step), Some((_, job))) = (step_of(name), before) {
                let parent = grand.map_or("/", |end| &path[..end]);
                let job_id = str::strip_prefix(job, "job_").and_then(number).map(JobId);
                found =
                    Some(StepPath { step_dir: &path[..end], parent, job_id, step, task: None, uid, node });
            } else {
                uid = name.strip_prefix("uid_").and_then(number).or(uid);
                node = node_of(name).or(node);
            }
            if !name.is_empty() {
                grand = before.map(|(end, _)| end);
                before = Some((end, name));
            }
            at = end + 1;
        }
        found
    }
}

fn number(digits: &str) -> Option<u32> {
    digits.parse::<JobId>().ok().map(|n| n.0)
}

/// `step_0`, `step_batch`; versions before 20.11 wrote special steps as numbers.
fn step_of(name: &str) -> Option<StepId> {
    match name.strip_prefix("step_")?.parse().ok()? {
        StepId::Number(n) => Some(StepId::from_raw(n)),
        step => Some(step),
    }
}

fn node_of(name: &str) -> Option<&str> {
    name.strip_suffix("_slurmstepd.scope").or_else(|| name.strip_prefix("slurm_"))
}

/// The path of a process in one hierarchy, from the text of its
/// `/proc/<pid>/cgroup`: of the memory controller when that leads to a step,
/// else of any hierarchy that does.
pub(super) fn step_path(text: &str) -> Option<&str> {
    let mut other = None;
    for line in text.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let path = path.strip_suffix(" (deleted)").unwrap_or(path);
        if StepPath::parse(path).is_none() {
            continue;
        }
        if controllers.split(',').any(|c| c == "memory") {
            return Some(path);
        }
        other = other.or(Some(path));
    }
    other
}

/// Where the hierarchies that matter are mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mounts {
    /// The memory controller of cgroup v1.
    pub(super) memory: Option<PathBuf>,
    /// The unified hierarchy.
    pub(super) unified: Option<PathBuf>,
    /// All of them.
    pub(super) all: Vec<PathBuf>,
}

impl Mounts {
    /// Reads the text of `/proc/self/mountinfo`. Only mounts of a whole
    /// hierarchy count; others show part of it under another path.
    pub(super) fn parse(mountinfo: &str) -> Mounts {
        let mut mounts = Mounts::default();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let mut left = left.split(' ').skip(3);
            let (Some("/"), Some(point)) = (left.next(), left.next()) else { continue };
            let mut right = right.split(' ');
            let point = PathBuf::from(point);
            match (right.next(), right.nth(1)) {
                (Some("cgroup2"), _) => {
                    mounts.unified.get_or_insert_with(|| point.clone());
                }
                (Some("cgroup"), Some(options)) => {
                    if options.split(',').any(|o| o == "memory") {
                        mounts.memory.get_or_insert_with(|| point.clone());
                    }
                }
                _ => continue,
            }
            mounts.all.push(point);
        }
        mounts
    }

    /// The mounts of this host; none when /proc cannot be read.
    pub(super) fn of_this_host() -> Mounts {
        std::fs::read_to_string("/proc/self/mountinfo").map(|t| Mounts::parse(&t)).unwrap_or_default()
    }

    /// The directory of a memory cgroup, and the version of its hierarchy.
    pub(super) fn memory_dir(&self, path: &str) -> Option<(PathBuf, u8)> {
        let below = path.trim_start_matches('/');
        let v1 = self.memory.as_ref().map(|m| (m.join(below), 1));
        v1.or_else(|| self.unified.as_ref().map(|m| (m.join(below), 2)))
    }

    /// Whether only root can have made the entries of the directory `path`;
    /// `None` when it is gone. Below a cgroup that was delegated to a user,
    /// that user could make a directory by the name of anybody's job.
    pub(super) fn is_roots(&self, path: &str) -> Option<bool> {
        use std::os::unix::fs::MetadataExt;
        let below = path.trim_start_matches('/');
        let of_root = |dir: &Path| {
            std::fs::symlink_metadata(dir).ok().map(|m| m.is_dir() && m.uid() == 0 && m.mode() & 0o022 == 0)
        };
        self.all.iter().filter_map(|mount| of_root(&mount.join(below))).reduce(|all, good| all && good)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_of_every_version() {
        let v1 = StepPath::parse("/slurm_n1/uid_1001/job_207/step_0/task_3").unwrap();
        assert_eq!((v1.job_id, v1.step, v1.task), (Some(JobId(207)), StepId::Number(0), Some(3)));
        assert_eq!((v1.uid, v1.node), (Some(1001), Some("n1")));
        assert_eq!((v1.step_dir, v1.parent), ("/slurm_n1/uid_1001/job_207/step_0", "/slurm_n1/uid_1001"));

        let v2 = StepPath::parse("/system.slice/slurmstepd.scope/job_7/step_batch/user/task_0").unwrap();
        assert_eq!((v2.job_id, v2.step, v2.task), (Some(JobId(7)), StepId::Batch, Some(0)));
        assert_eq!((v2.uid, v2.node), (None, None));
        assert_eq!(v2.step_dir, "/system.slice/slurmstepd.scope/job_7/step_batch");
        assert_eq!(v2.parent, "/system.slice/slurmstepd.scope");

        let sluid =
            StepPath::parse("/system.slice/n1_slurmstepd.scope/s6P1M7Y1TACN00/step_extern/slurm").unwrap();
        assert_eq!((sluid.job_id, sluid.step, sluid.task), (None, StepId::Extern, None));
        assert_eq!(sluid.node, Some("n1"));

        assert_eq!(StepPath::parse("/job_5/step_1").unwrap().parent, "/");
        assert_eq!(StepPath::parse("/slurm/uid_1/job_5/step_4294967291").unwrap().step, StepId::Batch);
    }

    #[test]
    fn paths_that_are_no_step() {
        for path in
            ["/", "", "/slurm/uid_1/job_5", "/step_0", "/job_5/step_x", "/job_5/step_", "/job_5/step_-1"]
        {
            assert_eq!(StepPath::parse(path), None, "{path}");
        }
    }

    #[test]
    fn a_job_cannot_pretend_to_be_another_one_deeper_down() {
        let path = StepPath::parse("/slurm/uid_1/job_5/step_0/task_0/job_6/step_9/task_4").unwrap();
        assert_eq!((path.job_id, path.step, path.task), (Some(JobId(5)), StepId::Number(0), Some(0)));
    }

    #[test]
    fn memory_is_asked_first() {
        let text = "12:freezer:/slurm/uid_1/job_5/step_0\n7:memory:/slurm/uid_1/job_5/step_0/task_1\n0::/\n";
        assert_eq!(step_path(text), Some("/slurm/uid_1/job_5/step_0/task_1"));
        let text = "7:memory:/system.slice/slurmd.service\n12:freezer:/slurm/uid_1/job_5/step_0\n";
        assert_eq!(step_path(text), Some("/slurm/uid_1/job_5/step_0"));
        let text = "0::/system.slice/slurmstepd.scope/job_5/step_0/user/task_0 (deleted)\n";
        assert_eq!(step_path(text), Some("/system.slice/slurmstepd.scope/job_5/step_0/user/task_0"));
        assert_eq!(step_path("0::/user.slice\n"), None);
    }

    #[test]
    fn mounts_of_both_versions() {
        let text = "\
25 1 0:22 / /sys/fs/cgroup/memory rw,nosuid shared:9 - cgroup cgroup rw,memory
26 1 0:23 / /sys/fs/cgroup/unified rw shared:4 - cgroup2 cgroup2 rw
27 1 0:24 /part /elsewhere rw - cgroup cgroup rw,memory
28 1 8:1 / / rw - ext4 /dev/vda rw
nonsense";
        let mounts = Mounts::parse(text);
        assert_eq!(mounts.memory.as_deref(), Some(Path::new("/sys/fs/cgroup/memory")));
        assert_eq!(mounts.unified.as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
        assert_eq!(mounts.all.len(), 2);
        assert_eq!(mounts.memory_dir("/a/b"), Some(("/sys/fs/cgroup/memory/a/b".into(), 1)));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(
            text in any::<String>(),
            path in "(/(job_[0-9]{0,12}|step_[a-z0-9]{0,6}|task_[0-9]{0,3}|uid_1|s[A-Z0-9]{3}|é)){0,8}",
        ) {
            let _ = step_path(&text);
            let _ = Mounts::parse(&text);
            if let Some(found) = StepPath::parse(&path) {
                prop_assert!(path.starts_with(found.step_dir));
                prop_assert!(found.step_dir.starts_with(found.parent));
            }
        }
    }
}
