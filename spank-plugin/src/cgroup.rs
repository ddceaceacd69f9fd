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

use inquest_journal::{Level, Memory, Pressure};

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
fn parse(text: &[u8]) -> Lines<'_> {
    let mut lines = Lines::default();
    for line in text.split(|&b| b == b'\n') {
        let mut parts = line.splitn(3, |&b| b == b':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let unified = controllers.is_empty();
        let memory = controllers.split(|&b| b == b',').any(|c| c == b"memory");
        if !(unified || memory) || step_at(path).is_none() {
            continue;
        }
        let Ok(path) = std::str::from_utf8(path) else { continue };
        if unified {
            lines.unified = Some(path);
        }
        if memory {
            lines.memory = Some(path);
        }
    }
    lines
}

/// Where the step's directory is in a path.
fn step_at(path: &[u8]) -> Option<usize> {
    path.windows(6).position(|w| w == b"/step_")
}

/// Splits a path into the step's directory and what lies below it.
fn split_step(path: &str) -> Option<(&str, &str)> {
    let at = step_at(path.as_bytes())? + 1;
    let end = path[at..].find('/').map_or(path.len(), |n| at + n);
    Some(path.split_at(end))
}

impl StepCgroup {
    /// The step of process `pid`, and the process' own directory below the
    /// step's (`/task_0`, `/user/task_0`).
    pub(crate) fn of(pid: u32) -> Option<(StepCgroup, Box<str>)> {
        let mut buf = Buf::<4096>::new();
        let text = read_file(&proc_path(pid, b"cgroup")?, &mut buf)?;
        let lines = parse(text);
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
        let lines = parse(text);
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

    /// The outermost cgroup from the task up to `level` that the kernel kills
    /// as a whole. Slurm sets this at the step for `--oom-kill-step`.
    pub(crate) fn oom_group(&self, below: &str, level: Level) -> Option<Level> {
        if self.version == 1 {
            return None;
        }
        let set = |dir| self.read_number(dir, "", "memory.oom.group") == Some(1);
        let levels = self.levels(below);
        let up_to = levels.iter().position(|l| l.1 == level).unwrap_or(levels.len() - 1);
        levels[..=up_to].iter().rev().find(|l| set(l.0)).map(|l| l.1)
    }

    /// What is known of swap where a limit of memory is set: on v2 of swap
    /// alone, on v1 of memory and swap together.
    pub(crate) fn look_at_swap(&self, level: Level, memory: &mut Memory) {
        let Some(dir) = self.levels("").into_iter().find(|l| l.1 == level).map(|l| l.0) else { return };
        if self.version == 1 {
            let number = |file| self.read_number(dir, file, "");
            memory.memsw_limit_bytes = number("memory.memsw.limit_in_bytes").filter(|&n| n < NO_LIMIT);
            memory.memsw_peak_bytes = number("memory.memsw.max_usage_in_bytes");
        } else {
            let number = |file| self.read_number(dir, "", file);
            memory.swap_limit_bytes = number("memory.swap.max");
            memory.swap_peak_bytes = number("memory.swap.peak");
        }
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

    /// What the step has used so far. Only v2 has it: on v1 it is in other
    /// hierarchies, where the step need not be; the processes' own times are
    /// known there.
    pub(crate) fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        if self.version == 1 {
            return usage;
        }
        let dir = [self.step.as_str(), self.users()];
        let mut buf = Buf::<1024>::new();
        if let Some(text) = self.read(dir, "cpu.stat", &mut buf) {
            usage.cpu_us = field(text, b"usage_usec");
            usage.user_us = field(text, b"user_usec");
            usage.system_us = field(text, b"system_usec");
            // Without a quota there is nothing to be throttled by.
            if field(text, b"nr_periods").is_some_and(|n| n > 0) {
                usage.throttled_count = field(text, b"nr_throttled");
                usage.throttled_us = field(text, b"throttled_usec");
            }
        }
        let mut stalls = |file| {
            let text = self.read(dir, file, &mut buf).unwrap_or_default();
            (stall(text, b"some"), stall(text, b"full"))
        };
        // The "full" of a CPU is always 0 or not there.
        let (cpu, memory, io) = (stalls("cpu.pressure"), stalls("memory.pressure"), stalls("io.pressure"));
        usage.pressure = Pressure {
            cpu_some_us: cpu.0,
            memory_some_us: memory.0,
            memory_full_us: memory.1,
            io_some_us: io.0,
            io_full_us: io.1,
        };
        // A line per disk; of a node with very many, the first ones.
        let mut buf = Buf::<4096>::new();
        if let Some(text) = self.read(dir, "io.stat", &mut buf) {
            (usage.read_bytes, usage.written_bytes) = (io_sum(text, b"rbytes="), io_sum(text, b"wbytes="));
        }
        usage
    }
}

/// Totals of a cgroup; see the fields of the same names in `StepEnded`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    pub(crate) cpu_us: Option<u64>,
    pub(crate) user_us: Option<u64>,
    pub(crate) system_us: Option<u64>,
    pub(crate) throttled_count: Option<u64>,
    pub(crate) throttled_us: Option<u64>,
    pub(crate) pressure: Pressure,
    pub(crate) read_bytes: Option<u64>,
    pub(crate) written_bytes: Option<u64>,
}

/// The total of a line of a PSI file, in microseconds:
/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=1234`.
fn stall(text: &[u8], line: &[u8]) -> Option<u64> {
    let rest = text.split(|&b| b == b'\n').find_map(|l| l.strip_prefix(line)?.strip_prefix(b" "))?;
    number(rest.split(|&b| b == b' ').find_map(|f| f.strip_prefix(b"total="))?)
}

/// The sum over all disks of io.stat: `8:0 rbytes=4096 wbytes=0 rios=1 ...`.
/// `None` where no disk is named, which means that nothing was read or written
/// or that the controller is off.
fn io_sum(text: &[u8], key: &[u8]) -> Option<u64> {
    // Behind the last newline is a line that was cut, or nothing.
    let whole = text.iter().rposition(|&b| b == b'\n').map_or(&text[..0], |end| &text[..end]);
    let fields = whole.split(|&b| b == b'\n' || b == b' ');
    let values = fields.filter_map(|f| number(f.strip_prefix(key)?));
    values.fold(None, |sum: Option<u64>, n| Some(sum.unwrap_or(0).saturating_add(n)))
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
        let lines = parse(v1.as_bytes());
        assert_eq!(lines.memory, Some("/slurm_n1/uid_1001/job_7/step_0/task_0"));
        assert_eq!(lines.unified, None);
        let v2 = "0::/system.slice/n1_slurmstepd.scope/s6P1M7Y1TACN00/step_extern/user/task_special\n";
        let lines = parse(v2.as_bytes());
        assert_eq!(
            split_step(lines.unified.unwrap()),
            Some(("/system.slice/n1_slurmstepd.scope/s6P1M7Y1TACN00/step_extern", "/user/task_special"))
        );
    }

    #[test]
    fn a_path_without_a_step_is_nobodys() {
        assert_eq!(parse(b"9:memory:/slurmd\n0::/user.slice/job_7\n:::\ngarbage\n"), Lines::default());
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
                ("x.scope/s6P/memory.oom.group", "0\n"),
                ("x.scope/s6P/step_0/user/memory.oom.group", "1\n"),
                ("x.scope/s6P/step_0/user/task_1/memory.oom.group", "0\n"),
                ("x.scope/s6P/step_0/user/memory.swap.max", "1048576\n"),
                ("x.scope/s6P/step_0/user/memory.swap.peak", "4096\n"),
                ("x.scope/s6P/memory.swap.max", "max\n"),
                ("x.scope/s6P/step_0/user/memory.max", "52428800\n"),
                ("x.scope/s6P/step_0/user/memory.peak", "52424704\n"),
                ("x.scope/s6P/step_0/user/memory.events.local", "max 7\n"),
                (
                    "x.scope/s6P/step_0/user/cpu.stat",
                    "usage_usec 1234\nuser_usec 1000\nsystem_usec 234\nnice_usec 0\ncore_sched.force_idle_usec 0\n\
                     nr_periods 20\nnr_throttled 3\nthrottled_usec 70000\nnr_bursts 0\nburst_usec 0\n",
                ),
                (
                    "x.scope/s6P/step_0/user/memory.pressure",
                    "some avg10=0.00 avg60=1.20 avg300=0.00 total=810\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=799\n",
                ),
                ("x.scope/s6P/step_0/user/cpu.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=55\n"),
                (
                    "x.scope/s6P/step_0/user/io.stat",
                    "254:0 rbytes=4096 wbytes=512 rios=1 wios=1 dbytes=0 dios=0\n\
                     254:16 rbytes=1 wbytes=2 rios=1 wios=1 dbytes=0 dios=0\n7:0 \n",
                ),
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
        let usage = Usage {
            cpu_us: Some(1234),
            user_us: Some(1000),
            system_us: Some(234),
            throttled_count: Some(3),
            throttled_us: Some(70_000),
            pressure: Pressure {
                cpu_some_us: Some(55),
                memory_some_us: Some(810),
                memory_full_us: Some(799),
                ..Pressure::default()
            },
            read_bytes: Some(4097),
            written_bytes: Some(514),
        };
        assert_eq!(step.usage(), usage);
        for (level, group) in
            [(Level::Task, None), (Level::Step, Some(Level::Step)), (Level::Job, Some(Level::Step))]
        {
            assert_eq!(step.oom_group("/user/task_1", level), group, "{level:?}");
        }
        // The node's own limit: everything of the job is below it.
        assert_eq!(step.oom_group("/user/task_1", Level::Host), Some(Level::Step));
        let swap = |level| {
            let mut memory = Memory::default();
            step.look_at_swap(level, &mut memory);
            memory
        };
        let limited =
            Memory { swap_limit_bytes: Some(1 << 20), swap_peak_bytes: Some(4096), ..Memory::default() };
        assert_eq!(swap(Level::Step), limited);
        assert_eq!(swap(Level::Job), Memory::default());
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
                ("slurm/uid_1/job_7/memory.memsw.limit_in_bytes", "209715200\n"),
                ("slurm/uid_1/job_7/memory.memsw.max_usage_in_bytes", "104857600\n"),
                ("slurm/uid_1/job_7/step_0/memory.memsw.limit_in_bytes", "9223372036854771712\n"),
                ("slurm/uid_1/job_7/step_0/task_0/memory.oom.group", "1\n"),
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
        assert_eq!(step.oom_group("/task_0", Level::Job), None);
        let mut memory = Memory::default();
        step.look_at_swap(Level::Job, &mut memory);
        assert_eq!((memory.memsw_limit_bytes, memory.memsw_peak_bytes), (Some(200 << 20), Some(100 << 20)));
        let mut memory = Memory::default();
        step.look_at_swap(Level::Step, &mut memory);
        assert_eq!(memory, Memory::default());
        assert_eq!(step.usage(), Usage::default());
    }

    #[test]
    fn totals_are_read_or_left_out() {
        assert_eq!(stall(b"some avg10=0.00 total=7\nfull total=x\n", b"some"), Some(7));
        assert_eq!(stall(b"some avg10=0.00 total=7\nfull total=x\n", b"full"), None);
        assert_eq!(stall(b"", b"some"), None);
        assert_eq!(io_sum(b"", b"rbytes="), None);
        assert_eq!(io_sum(b"8:0 rbytes=5 wbytes=1\n8:16 rbytes=77", b"rbytes="), Some(5));
        let most = format!("8:0 rbytes={0}\n8:1 rbytes={0}\n", u64::MAX);
        assert_eq!(io_sum(most.as_bytes(), b"rbytes="), Some(u64::MAX));
    }

    proptest::proptest! {
        /// What the kernel's files could hold, and what they never do.
        #[test]
        fn any_file_is_read_or_left_out(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300),
            lines in "([0-9]{0,2}:?(memory|cpu,memory|)?:?(/[a-z_0-9.é]{0,8}){0,5}(/step_[a-z0-9]{0,3})?(/task_[0-9]{1,2})?\n){0,6}",
            figures in "((some|full|8:0|oom_kill|usage_usec) ?(total=|rbytes=|avg10=)?[0-9.-]{0,24}[ \n]?){0,12}",
        ) {
            for text in [lines.as_str(), &figures, &String::from_utf8_lossy(&bytes)] {
                let found = parse(text.as_bytes());
                for path in [found.memory, found.unified].into_iter().flatten() {
                    let (step, below) = split_step(path).expect("a line counts for its step only");
                    proptest::prop_assert_eq!(format!("{step}{below}"), path);
                    proptest::prop_assert!(below.is_empty() || below.starts_with('/'));
                }
                let _ = parse_mount(text, 1).or(parse_mount(text, 2));
            }
            for text in [&bytes[..], lines.as_bytes(), figures.as_bytes()] {
                let _ = (stall(text, b"some"), stall(text, b"full"), io_sum(text, b"rbytes="));
                let _ = (field(text, b"oom_kill"), number(text));
            }
        }
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
