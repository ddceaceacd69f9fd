//! What the kernel counts for the cgroups of a job.
//!
//! Paths are never built from ids: they come from `/proc/<pid>/cgroup` of a
//! task, and count only when they lead through a `/step_` directory. Without
//! one, Slurm has given the step no memory cgroup (it depends on
//! `ConstrainRAMSpace` and `JobAcctGatherType`), and the figures there would
//! be those of slurmd or of the whole node.
//!
//! ```text
//! v1   /slurm_n1/uid_1001/job_7/step_0/task_0                 limits on job and step
//! v2   /system.slice/slurmstepd.scope/job_7/step_0/user/task_0   limits on job and user
//! ```
//!
//! From 26.05 on the job's directory on v2 has a name that is no number; daemons
//! of several nodes on one host have the node's name in the first part.

use inquest_journal::Level;

use crate::small::{Buf, Dir, Fd, Fixed, field, find_line, number, proc_path, read_file};

/// The memory cgroup of one step on this node.
#[derive(Debug)]
pub(crate) struct StepCgroup {
    /// 1 or 2.
    pub(crate) version: u8,
    /// Where the hierarchy is mounted.
    mount: String,
    /// The step's directory below that.
    pub(crate) step: String,
    /// That directory: each file below costs half as much from here as by a
    /// path of ten names.
    dir: Option<Dir>,
}

/// A limit and where it is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) bytes: u64,
    pub(crate) level: Level,
}

/// v1 says "no limit" with the largest number of whole pages.
const NO_LIMIT: u64 = 1 << 62;

/// A path of a file below a cgroup mount. Longer ones than this no kernel
/// control group of Slurm has; they read as absent.
type FilePath = Fixed<768>;

const V1_MOUNT: &str = "/sys/fs/cgroup/memory";
const V2_MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// Where a process is, in the hierarchies that matter.
#[derive(Debug, Default, PartialEq, Eq)]
struct Lines<'a> {
    memory: Option<&'a str>,
    unified: Option<&'a str>,
}

/// Reads `/proc/<pid>/cgroup`; only lines that lead through a step count.
fn parse(text: &str) -> Lines<'_> {
    let mut lines = Lines::default();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        if !path.contains("/step_") {
            continue;
        }
        if controllers.is_empty() {
            lines.unified = Some(path);
        }
        if controllers.split(',').any(|c| c == "memory") {
            lines.memory = Some(path);
        }
    }
    lines
}

/// Splits a path into the step's directory and what lies below it.
fn split_step(path: &str) -> Option<(&str, &str)> {
    let at = path.find("/step_")? + 1;
    let end = path[at..].find('/').map_or(path.len(), |n| at + n);
    Some(path.split_at(end))
}

impl StepCgroup {
    /// The step of process `pid`, and the process' own directory below the
    /// step's (`/task_0`, `/user/task_0`).
    pub(crate) fn of(pid: u32) -> Option<(StepCgroup, Box<str>)> {
        let mut buf = Buf::<4096>::new();
        let text = read_file(&proc_path(pid, b"cgroup")?, &mut buf)?;
        let lines = parse(std::str::from_utf8(text).ok()?);
        // On v1 and on hybrid systems memory is where its own line says.
        let (version, path) = match (lines.memory, lines.unified) {
            (Some(path), _) => (1, path),
            (None, Some(path)) => (2, path),
            (None, None) => return None,
        };
        let (step, below) = split_step(path)?;
        let (mount, dir) = find_mount(version, step)?;
        Some((StepCgroup { version, mount, step: step.to_owned(), dir: Some(dir) }, below.into()))
    }

    /// The directory of another process below this step's.
    pub(crate) fn below(&self, pid: u32) -> Option<Box<str>> {
        let mut buf = Buf::<4096>::new();
        let text = read_file(&proc_path(pid, b"cgroup")?, &mut buf)?;
        let lines = parse(std::str::from_utf8(text).ok()?);
        let path = if self.version == 1 { lines.memory } else { lines.unified }?;
        path.strip_prefix(self.step.as_str()).filter(|rest| rest.starts_with('/')).map(Into::into)
    }

    /// The job's directory below the mount.
    fn job(&self) -> &str {
        self.step.rfind('/').map_or("", |at| &self.step[..at])
    }

    /// Where the processes of the step are: on v2 slurmstepd has a directory
    /// of its own beside `user`, on v1 it is in the step's.
    fn users(&self) -> &'static str {
        if self.version == 2 { "/user" } else { "" }
    }

    fn read<'b, const N: usize>(&self, dir: [&str; 2], file: &str, buf: &'b mut Buf<N>) -> Option<&'b [u8]> {
        if let Some(open) = self.dir.as_ref().filter(|_| dir[0] == self.step) {
            let mut path = FilePath::new();
            for part in [dir[1].trim_start_matches('/'), if dir[1].is_empty() { "" } else { "/" }, file] {
                path.push(part.as_bytes())?;
            }
            if let Some(file) = open.open_file(path.as_c_str()) {
                return file.read(buf);
            }
        }
        let mut path = FilePath::new();
        for part in [&self.mount, dir[0], dir[1], "/", file] {
            path.push(part.as_bytes())?;
        }
        read_file(&path, buf)
    }

    /// A file that holds one number.
    fn read_number(&self, dir: [&str; 2], v1: &str, v2: &str) -> Option<u64> {
        let mut buf = Buf::<32>::new();
        number(self.read(dir, if self.version == 1 { v1 } else { v2 }, &mut buf)?)
    }

    /// Highest charge of a task, page cache included.
    pub(crate) fn task_peak(&self, below: &str) -> Option<u64> {
        self.read_number([&self.step, below], "memory.max_usage_in_bytes", "memory.peak")
    }

    /// Highest charge of the step; on v1 slurmstepd's own megabyte is in it.
    pub(crate) fn step_peak(&self) -> Option<u64> {
        self.task_peak(self.users())
    }

    /// Processes of this task that were killed for memory, whoever's limit it was.
    pub(crate) fn task_oom_kills(&self, below: &str) -> Option<u64> {
        let mut buf = Buf::<512>::new();
        let file = if self.version == 1 { "memory.oom_control" } else { "memory.events" };
        field(self.read([&self.step, below], file, &mut buf)?, b"oom_kill")
    }

    /// The same for the whole step. v1 counts only where the victim was, so
    /// there it is not known.
    pub(crate) fn step_oom_kills(&self) -> Option<u64> {
        if self.version == 1 { None } else { self.task_oom_kills("") }
    }

    /// The tightest memory limit of the step, and whose it is. `whole` says
    /// that Slurm gave the step all memory of its job, or not; then one file
    /// is enough.
    pub(crate) fn limit(&self, whole: Option<bool>) -> Option<Limit> {
        let of = |level| self.limit_at("", level).map(|bytes| Limit { bytes, level });
        let step = of(Level::Step);
        match (step, whole) {
            // Of equal limits the outer one is named: with several steps
            // alive it is the one that is hit first.
            (Some(step), Some(true)) => Some(Limit { level: Level::Job, ..step }),
            (Some(step), Some(false)) => Some(step),
            (step, _) => match (step, of(Level::Job)) {
                (Some(step), Some(job)) if step.bytes < job.bytes => Some(step),
                (step, job) => job.or(step),
            },
        }
    }

    /// The limit that is set at one level.
    pub(crate) fn limit_at(&self, below: &str, level: Level) -> Option<u64> {
        let dir = self.levels(below).into_iter().find(|l| l.1 == level)?.0;
        self.read_number(dir, "memory.limit_in_bytes", "memory.max").filter(|&n| n < NO_LIMIT)
    }

    /// How often a limit was hit; reclaim of page cache counts too.
    pub(crate) fn limit_hits(&self, below: &str, level: Level) -> Option<u64> {
        let dir = self.levels(below).into_iter().find(|l| l.1 == level)?.0;
        if self.version == 1 {
            return self.read_number(dir, "memory.failcnt", "");
        }
        let mut buf = Buf::<512>::new();
        field(self.read(dir, "memory.events.local", &mut buf)?, b"max")
    }

    /// The directories from the task outwards that may carry a limit. Without
    /// `user` on v1, and without the task where `below` is not one.
    fn levels<'a>(&'a self, below: &'a str) -> [([&'a str; 2], Level); 3] {
        [
            ([&self.step, below], Level::Task),
            ([&self.step, self.users()], Level::Step),
            ([self.job(), ""], Level::Job),
        ]
    }

    /// Which of this step's levels a cgroup path of the kernel's log is.
    pub(crate) fn level_of(&self, path: &str) -> Option<Level> {
        if path == self.job() {
            return Some(Level::Job);
        }
        let rest = path.strip_prefix(self.step.as_str())?;
        match rest {
            "" | "/user" => Some(Level::Step),
            _ if rest.starts_with('/') => Some(Level::Task),
            _ => None,
        }
    }

    /// Whether a cgroup path of the kernel's log is that of a task, or below it.
    pub(crate) fn is_task(&self, below: &str, path: &str) -> bool {
        path.strip_prefix(self.step.as_str())
            .and_then(|rest| rest.strip_prefix(below))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// CPU time of the step so far, in microseconds. On v1 another hierarchy
    /// has it, where the step need not be; the processes' own times are known.
    pub(crate) fn cpu_us(&self) -> Option<u64> {
        if self.version == 1 {
            return None;
        }
        let mut buf = Buf::<512>::new();
        field(self.read([&self.step, self.users()], "cpu.stat", &mut buf)?, b"usage_usec")
    }
}

/// Where the hierarchy is mounted that `path` is in, and that directory: the
/// usual places first, because /proc/self/mountinfo of a busy node is long.
fn find_mount(version: u8, path: &str) -> Option<(String, Dir)> {
    let usual: &[&str] = if version == 1 { &[V1_MOUNT] } else { &V2_MOUNTS };
    let there = |mount: &str| open_dir(mount, path).map(|dir| (mount.to_owned(), dir));
    if let Some(found) = usual.iter().find_map(|mount| there(mount)) {
        return Some(found);
    }
    let fd = Fd::open(c"/proc/self/mountinfo")?;
    find_line(&fd, 1 << 20, |line| there(parse_mount(std::str::from_utf8(line).ok()?, version)?))
}

/// The mount point of a line of mountinfo, when it is the memory hierarchy.
fn parse_mount(line: &str, version: u8) -> Option<&str> {
    let (left, right) = line.split_once(" - ")?;
    let mut right = right.split(' ');
    let good = match (version, right.next()?) {
        (1, "cgroup") => right.nth(1)?.split(',').any(|option| option == "memory"),
        (2, "cgroup2") => true,
        _ => false,
    };
    good.then(|| left.split(' ').nth(4))?
}

fn open_dir(mount: &str, path: &str) -> Option<Dir> {
    let mut full = FilePath::new();
    full.push(mount.as_bytes())?;
    full.push(path.as_bytes())?;
    Dir::open(full.as_c_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(version: u8, step: &str) -> StepCgroup {
        StepCgroup { version, mount: "/nowhere".into(), step: step.into(), dir: None }
    }

    #[test]
    fn a_task_is_found_on_v1_v2_and_both() {
        let v1 = "12:memory:/slurm_n1/uid_1001/job_7/step_0/task_0\n\
                  4:cpu,cpuacct:/slurm_n1\n\
                  0::/\n";
        let lines = parse(v1);
        assert_eq!(lines.memory, Some("/slurm_n1/uid_1001/job_7/step_0/task_0"));
        assert_eq!(lines.unified, None);
        let v2 = "0::/system.slice/n1_slurmstepd.scope/s6P1M7Y1TACN00/step_extern/user/task_special\n";
        let lines = parse(v2);
        assert_eq!(
            split_step(lines.unified.unwrap()),
            Some(("/system.slice/n1_slurmstepd.scope/s6P1M7Y1TACN00/step_extern", "/user/task_special"))
        );
    }

    #[test]
    fn a_path_without_a_step_is_nobodys() {
        assert_eq!(parse("9:memory:/slurmd\n0::/user.slice/job_7\n:::\ngarbage\n"), Lines::default());
    }

    #[test]
    fn levels_of_the_kernels_paths() {
        let s = step(1, "/slurm_n1/uid_1/job_20/step_0");
        assert_eq!(s.level_of("/slurm_n1/uid_1/job_20"), Some(Level::Job));
        assert_eq!(s.level_of("/slurm_n1/uid_1/job_20/step_0"), Some(Level::Step));
        assert_eq!(s.level_of("/slurm_n1/uid_1/job_20/step_0/task_0"), Some(Level::Task));
        assert_eq!(s.level_of("/slurm_n1/uid_1/job_2"), None);
        assert_eq!(s.level_of("/slurm_n1/uid_1/job_20/step_01"), None);
        assert!(s.is_task("/task_1", "/slurm_n1/uid_1/job_20/step_0/task_1/deep"));
        assert!(!s.is_task("/task_1", "/slurm_n1/uid_1/job_20/step_0/task_10"));
        let s = step(2, "/x.scope/s6P/step_0");
        assert_eq!(s.level_of("/x.scope/s6P/step_0/user"), Some(Level::Step));
        assert_eq!(s.level_of("/x.scope/s6P"), Some(Level::Job));
    }

    /// A hierarchy made of plain files.
    fn tree(version: u8, step: &str, files: &[(&str, &str)]) -> (tempfile::TempDir, StepCgroup) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let mount = dir.path().to_str().unwrap().to_owned();
        let open = open_dir(&mount, step);
        assert!(open.is_some());
        (dir, StepCgroup { version, mount, step: step.into(), dir: open })
    }

    #[test]
    fn v2_counts_from_the_leaf_to_the_job() {
        // Layout and contents as in Slurm 24.11 and 26.05 on Linux 6.12.
        let (_dir, step) = tree(
            2,
            "/x.scope/s6P/step_0",
            &[
                ("x.scope/s6P/memory.max", "104857600\n"),
                ("x.scope/s6P/memory.events.local", "low 0\nhigh 0\nmax 12\noom 1\noom_kill 0\n"),
                ("x.scope/s6P/step_0/memory.max", "max\n"),
                (
                    "x.scope/s6P/step_0/memory.events",
                    "low 0\nhigh 0\nmax 9\noom 1\noom_kill 3\noom_group_kill 0\n",
                ),
                ("x.scope/s6P/step_0/user/memory.max", "52428800\n"),
                ("x.scope/s6P/step_0/user/memory.peak", "52424704\n"),
                ("x.scope/s6P/step_0/user/memory.events.local", "max 7\n"),
                ("x.scope/s6P/step_0/user/cpu.stat", "usage_usec 1234\nuser_usec 1000\nsystem_usec 234\n"),
                ("x.scope/s6P/step_0/user/task_1/memory.peak", "4096\n"),
                ("x.scope/s6P/step_0/user/task_1/memory.events", "oom 0\noom_kill 2\noom_group_kill 1\n"),
            ],
        );
        let limit = Limit { bytes: 52_428_800, level: Level::Step };
        assert_eq!(step.limit(None), Some(limit));
        assert_eq!(step.limit(Some(false)), Some(limit));
        assert_eq!(step.limit(Some(true)), Some(Limit { level: Level::Job, ..limit }));
        assert_eq!(step.limit_hits("", Level::Step), Some(7));
        assert_eq!(step.limit_hits("", Level::Job), Some(12));
        assert_eq!(step.limit_at("", Level::Job), Some(104_857_600));
        assert_eq!(step.step_peak(), Some(52_424_704));
        assert_eq!(step.task_peak("/user/task_1"), Some(4096));
        assert_eq!(step.task_oom_kills("/user/task_1"), Some(2));
        assert_eq!(step.step_oom_kills(), Some(3));
        assert_eq!(step.cpu_us(), Some(1234));
        // A task that is gone, and a kernel without memory.peak.
        assert_eq!(step.task_oom_kills("/user/task_2"), None);
        assert_eq!(step.task_peak("/user/task_2"), None);
    }

    #[test]
    fn v1_counts_only_where_the_victim_was() {
        let (_dir, step) = tree(
            1,
            "/slurm/uid_1/job_7/step_0",
            &[
                ("slurm/uid_1/job_7/memory.limit_in_bytes", "104857600\n"),
                ("slurm/uid_1/job_7/memory.failcnt", "5\n"),
                ("slurm/uid_1/job_7/step_0/memory.limit_in_bytes", "9223372036854771712\n"),
                ("slurm/uid_1/job_7/step_0/memory.max_usage_in_bytes", "300\n"),
                (
                    "slurm/uid_1/job_7/step_0/task_0/memory.oom_control",
                    "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
                ),
            ],
        );
        assert_eq!(step.limit(None), Some(Limit { bytes: 104_857_600, level: Level::Job }));
        assert_eq!(step.limit_hits("", Level::Job), Some(5));
        assert_eq!(step.limit_at("", Level::Step), None);
        assert_eq!(step.step_peak(), Some(300));
        assert_eq!(step.task_oom_kills("/task_0"), Some(1));
        assert_eq!(step.step_oom_kills(), None);
        assert_eq!(step.cpu_us(), None);
    }

    #[test]
    fn mounts_are_recognised() {
        let v1 = "36 35 0:30 / /sys/fs/cgroup/memory rw,nosuid shared:9 - cgroup cgroup rw,memory";
        let v2 = "28 22 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate";
        assert_eq!(parse_mount(v1, 1), Some("/sys/fs/cgroup/memory"));
        assert_eq!(parse_mount(v1, 2), None);
        assert_eq!(parse_mount(v2, 2), Some("/sys/fs/cgroup"));
        assert_eq!(parse_mount("1 2 0:1 / / rw - ext4 /dev/vda rw", 2), None);
        assert_eq!(parse_mount("", 1), None);
    }
}
