/*!
Kills for memory, from the kernel's log.

Of every kill the kernel writes two lines that matter: `oom-kill:` says whose
limit it was and where the victim lived, and is dropped with the rest of the
dump when many happen at once; `Killed process` says who and how large, and is
always there. The second one makes an event, with what the first one added.
*/

use std::collections::VecDeque;
use std::path::Path;

use inquest_journal::{Level, OomKill, Victim};

use super::cgroup::{Mounts, StepPath};

/// A record of /dev/kmsg (Documentation/ABI/testing/dev-kmsg).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    /// Number of the record in this boot.
    pub(super) seq: u64,
    /// When it was written, in microseconds; close to CLOCK_MONOTONIC.
    pub(super) us: u64,
    /// The kernel wrote it, not a process.
    pub(super) of_kernel: bool,
    /// Its first line, with `\xHH` for what is not printable.
    pub(super) text: &'a str,
}

impl<'a> Record<'a> {
    /// Reads what one read(2) gave.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Record<'a>> {
        let end = bytes.iter().position(|&b| b == b'\n').unwrap_or(bytes.len());
        let line = std::str::from_utf8(&bytes[..end]).ok()?;
        let (head, text) = line.split_once(';')?;
        let mut fields = head.split(',');
        let priority: u64 = fields.next()?.parse().ok()?;
        let seq = fields.next()?.parse().ok()?;
        let us = fields.next()?.parse().ok()?;
        // Facility 0 is the kernel's own and cannot be had by writing to the device.
        Some(Record { seq, us, of_kernel: priority >> 3 == 0, text })
    }
}

/// What a line of the log says of a kill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Whose limit, and where the victim lived.
    Why(Why),
    /// Who was killed.
    Killed(Killed),
    /// All others in a cgroup are killed, too (`memory.oom.group`), and who was is named once more.
    Group,
}

/// The end of the line; before it, the cgroup.
const GROUP: &str = "are going to be killed due to memory.oom.group set";

/// The `oom-kill:` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Why {
    pid: u32,
    /// Cgroup whose limit was hit; absent when the node itself had no memory.
    limit_of: Option<String>,
    /// Cgroup of the victim.
    victim_in: Option<String>,
}

/// The `Killed process` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Killed {
    pub(super) pid: u32,
    command: String,
    anon_rss_bytes: Option<u64>,
    pub(super) uid: Option<u32>,
    /// The line says that the node was out of memory, and no cgroup; before Linux 5.3 it says neither.
    host: bool,
}

/// Reads one line of the kernel.
pub(super) fn parse(text: &str) -> Option<Line> {
    if let Some(rest) = text.strip_prefix("oom-kill:") {
        return why(rest).map(Line::Why);
    }
    if text.ends_with(GROUP) {
        return Some(Line::Group);
    }
    killed(text).map(Line::Killed)
}

/// The command is the victim's choice and stands before pid and uid, so these
/// are looked for from the end.
fn why(text: &str) -> Option<Why> {
    let (rest, _uid) = text.rsplit_once(",uid=")?;
    let (rest, pid) = rest.rsplit_once(",pid=")?;
    let (rest, victim_in) = match rest.split_once(",task_memcg=") {
        Some((rest, path)) => (rest, path.split_once(",task=").map(|(path, _)| unescape(path))),
        None => (rest, None),
    };
    let limit_of = rest.split_once(",oom_memcg=").map(|(_, path)| unescape(path));
    Some(Why { pid: pid.parse().ok()?, limit_of, victim_in })
}

/// `Memory cgroup out of memory: Killed process 42 (name) total-vm:...`, and
/// without anything before it until Linux 5.3.
fn killed(text: &str) -> Option<Killed> {
    let (before, rest) = text.split_once("Killed process ")?;
    if !(before.is_empty() || before.contains("ut of memory")) {
        return None;
    }
    let (pid, rest) = rest.split_once([' ', ','])?;
    let (_, rest) = rest.split_once('(')?;
    let (command, figures) = rest.rsplit_once(") total-vm:").or_else(|| rest.rsplit_once("), UID"))?;
    let anon = figures.split_once("anon-rss:").and_then(|(_, r)| r.split_once("kB"));
    let uid = figures.split_once("UID:").map(|(_, r)| r.split([' ', ',']).next().unwrap_or(r));
    Some(Killed {
        pid: pid.parse().ok()?,
        command: unescape(command),
        anon_rss_bytes: anon.and_then(|(kb, _)| kb.parse::<u64>().ok()?.checked_mul(1024)),
        uid: uid.and_then(|uid| uid.parse().ok()),
        host: before.starts_with("Out of memory"),
    })
}

/// Takes back the `\xHH` of /dev/kmsg and repairs what is not UTF-8.
fn unescape(text: &str) -> String {
    if !text.contains("\\x") {
        return text.into();
    }
    let (mut out, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((&first, others)) = rest.split_first() {
        let escaped = rest.strip_prefix(b"\\x").and_then(|r| r.get(..2));
        let byte = escaped
            .filter(|h| h.iter().all(u8::is_ascii_hexdigit))
            .and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match byte {
            Some(byte) => {
                out.push(byte);
                rest = &rest[4..];
            }
            None => {
                out.push(first);
                rest = others;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A kill of which both lines were seen, as far as they were there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kill {
    pub(super) killed: Killed,
    why: Option<Why>,
}

impl Kill {
    /// The cgroup the victim lived in, where the kernel said so.
    pub(super) fn victim_in(&self) -> Option<&str> {
        self.why.as_ref()?.victim_in.as_deref()
    }

    /// A cgroup that is no step's ran out of memory: a container, say.
    pub(super) fn is_elsewhere(&self) -> bool {
        !self.is_hosts() && self.victim_in().is_some_and(|path| StepPath::parse(path).is_none())
    }

    /// The kernel says that no cgroup's limit was hit.
    fn is_hosts(&self) -> bool {
        self.killed.host || self.why.as_ref().is_some_and(|why| why.limit_of.is_none())
    }

    /// Whose limit it was, where the kernel said so. A cgroup above all jobs, or the kernel without
    /// any, is the node.
    pub(super) fn level(&self) -> Option<Level> {
        if self.is_hosts() {
            return Some(Level::Host);
        }
        let limit_of = self.why.as_ref()?.limit_of.as_deref()?;
        if let Some(path) = StepPath::parse(limit_of) {
            return Some(if path.task.is_some() { Level::Task } else { Level::Step });
        }
        // The directory of a job, by whatever name, is the one above a step's.
        let step_dir = self.victim_in().and_then(StepPath::parse).map(|p| p.step_dir);
        let job_dir = step_dir.and_then(|dir| Some(dir.rsplit_once('/')?.0));
        Some(if job_dir == Some(limit_of) { Level::Job } else { Level::Host })
    }

    /// The outermost cgroup from the victim's up to the one whose limit it was that is killed as a whole.
    fn group(&self, mounts: &Mounts) -> Option<Level> {
        let victim_in = self.victim_in()?;
        let up_to = self.why.as_ref()?.limit_of.as_deref().unwrap_or_default().trim_end_matches('/');
        let inside =
            |path: &&str| path.strip_prefix(up_to).is_some_and(|r| r.is_empty() || r.starts_with('/'));
        let parents = std::iter::successors(Some(victim_in), |path| Some(path.rsplit_once('/')?.0));
        let is_set = |path: &&str| {
            let dir = mounts.memory_dir(path).filter(|(_, version)| *version == 2);
            dir.is_some_and(|(dir, _)| read_number(&dir.join("memory.oom.group")) == Some(1))
        };
        let set = parents.take_while(inside).filter(is_set).last()?;
        Some(match StepPath::parse(set) {
            Some(path) if path.task.is_some() => Level::Task,
            Some(_) => Level::Step,
            None => Level::Job,
        })
    }

    /// The event. The cgroups are asked for limit and peak, if they still are.
    pub(super) fn event(&self, mounts: &Mounts) -> OomKill {
        let number = |path: &str, v1: &str, v2: &str| {
            let (dir, version) = mounts.memory_dir(path)?;
            read_number(&dir.join(if version == 1 { v1 } else { v2 }))
        };
        let limit_of = self.why.as_ref().and_then(|w| w.limit_of.as_deref());
        let victim = Victim {
            pid: Some(self.killed.pid),
            command: Some(self.killed.command.clone()),
            anon_rss_bytes: self.killed.anon_rss_bytes,
            cgroup: self.victim_in().map(str::to_owned),
            uid: self.killed.uid,
        };
        OomKill {
            count: Some(1),
            level: self.level(),
            limit_bytes: limit_of.and_then(|p| number(p, "memory.limit_in_bytes", "memory.max")),
            peak_bytes: self.victim_in().and_then(|p| number(p, "memory.max_usage_in_bytes", "memory.peak")),
            victims: vec![victim],
            oom_group: self.group(mounts),
            reported_by_slurm: None,
        }
    }
}

/// A number of bytes in a file of one; `None` for `max` and v1's way to say it.
pub(super) fn read_number(path: &Path) -> Option<u64> {
    let bytes: u64 = std::fs::read_to_string(path).ok()?.trim().parse().ok()?;
    (bytes < 1 << 60).then_some(bytes)
}

/// `oom-kill:` lines whose victims have not been named yet.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    open: VecDeque<Why>,
    /// Who was killed last.
    last: Option<u32>,
    /// Who is going to be named for the second time.
    again: Option<u32>,
}

/// Kills that can be under way at once; the kernel does one after another.
const MOST_PAIRS: usize = 64;

impl Pairs {
    /// Takes a line; gives the kill that it completes.
    pub(super) fn push(&mut self, line: Line) -> Option<Kill> {
        match line {
            Line::Why(why) => {
                if self.open.len() >= MOST_PAIRS {
                    self.open.pop_front();
                }
                self.open.push_back(why);
                None
            }
            Line::Group => {
                self.again = self.last;
                None
            }
            Line::Killed(killed) if self.again == Some(killed.pid) => {
                self.again = None;
                None
            }
            Line::Killed(killed) => {
                self.last = Some(killed.pid);
                let at = self.open.iter().rposition(|why| why.pid == killed.pid);
                let why = at.and_then(|at| self.open.remove(at));
                Some(Kill { killed, why })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // Recorded on 6.18 (cgroup v1) and, in form, from 4.18 and 3.10.
    const WHY: &str = "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=task_0,mems_allowed=0,\
        oom_memcg=/slurm_n1/uid_1001/job_207,task_memcg=/slurm_n1/uid_1001/job_207/step_0/task_0,\
        task=eater,pid=6427,uid=1001";
    const KILLED: &str = "Memory cgroup out of memory: Killed process 6427 (eater) total-vm:205840kB, \
        anon-rss:60416kB, file-rss:600kB, shmem-rss:0kB, UID:1001 pgtables:160kB oom_score_adj:0";
    const GLOBAL: &str = "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,\
        task_memcg=/slurm/uid_1/job_9/step_batch/task_0,task=R,pid=77,uid=1";

    fn kill(lines: &[&str]) -> Kill {
        let mut pairs = Pairs::default();
        lines.iter().filter_map(|l| pairs.push(parse(l).unwrap())).last().unwrap()
    }

    #[test]
    fn records_of_the_device() {
        let line = format!("3,592,2882700468,-;{KILLED}\n SUBSYSTEM=x\n");
        let record = Record::parse(line.as_bytes()).unwrap();
        assert_eq!((record.seq, record.us, record.of_kernel), (592, 2_882_700_468, true));
        assert_eq!(record.text, KILLED);
        assert!(!Record::parse(b"12,1,2,-;Killed process 1 (x) total-vm:1kB").unwrap().of_kernel);
        assert!(Record::parse(b"6,1,2,c,more=1;text").is_some());
        assert_eq!(Record::parse(b"no record"), None);
    }

    #[test]
    fn both_lines_make_one_kill() {
        let kill = kill(&[WHY, KILLED]);
        assert_eq!(kill.level(), Some(Level::Job));
        let event = kill.event(&Mounts::default());
        let victim = &event.victims[0];
        assert_eq!(
            (victim.pid, victim.uid, victim.anon_rss_bytes),
            (Some(6427), Some(1001), Some(60_416 << 10))
        );
        assert_eq!(victim.command.as_deref(), Some("eater"));
        assert_eq!(victim.cgroup.as_deref(), Some("/slurm_n1/uid_1001/job_207/step_0/task_0"));
    }

    #[test]
    fn the_second_line_alone_is_enough() {
        let kill = kill(&[KILLED]);
        assert_eq!((kill.level(), kill.victim_in()), (None, None));
        assert_eq!(kill.event(&Mounts::default()).count, Some(1));
    }

    #[test]
    fn who_is_killed_with_a_group_is_killed_once() {
        // As Linux 6.12 wrote it for a step with --oom-kill-step.
        let group = "Tasks in /system.slice/n1_slurmstepd.scope/job_13/step_0/user are going to be killed due to memory.oom.group set";
        let other = KILLED.replace("6427 (eater)", "6420 (sleep)");
        let mut pairs = Pairs::default();
        let mut killed = |lines: &[&str]| {
            let kills = lines.iter().filter_map(|l| pairs.push(parse(l).unwrap()));
            kills.map(|kill| kill.killed.pid).collect::<Vec<_>>()
        };
        assert_eq!(killed(&[WHY, KILLED, group, &other, KILLED]), [6427, 6420]);
        // Another process may have the number later.
        assert_eq!(killed(&[WHY, KILLED]), [6427]);
        assert_eq!(killed(&[KILLED]), [6427]);
    }

    #[test]
    fn levels() {
        let at = |limit_of: &str| {
            kill(&[&WHY.replace("_memcg=/slurm_n1/uid_1001/job_207,", limit_of), KILLED]).level()
        };
        assert_eq!(at("_memcg=/slurm_n1/uid_1001/job_207/step_0,"), Some(Level::Step));
        assert_eq!(at("_memcg=/slurm_n1/uid_1001/job_207/step_0/task_0,"), Some(Level::Task));
        assert_eq!(at("_memcg=/slurm_n1,"), Some(Level::Host));
        assert_eq!(at("_memcg=/,"), Some(Level::Host));
        let sluid = "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,\
            oom_memcg=/system.slice/n1_slurmstepd.scope/s6P1M7Y1TACN00,\
            task_memcg=/system.slice/n1_slurmstepd.scope/s6P1M7Y1TACN00/step_0/user/task_0,task=eater,pid=6427,uid=1";
        assert_eq!(kill(&[sluid, KILLED]).level(), Some(Level::Job));
        let global = "Out of memory: Killed process 77 (R) total-vm:1kB, anon-rss:1kB, file-rss:0kB, shmem-rss:0kB, UID:1 pgtables:1kB oom_score_adj:0";
        let global = kill(&[GLOBAL, global]);
        assert_eq!(global.level(), Some(Level::Host));
        assert_eq!(global.victim_in(), Some("/slurm/uid_1/job_9/step_batch/task_0"));
    }

    #[test]
    fn a_container_is_elsewhere_a_job_is_not() {
        let docker = "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,\
            oom_memcg=/docker/1,task_memcg=/docker/1,task=x,pid=6427,uid=0";
        assert!(kill(&[docker, KILLED]).is_elsewhere());
        assert!(!kill(&[WHY, KILLED]).is_elsewhere());
        assert!(!kill(&[KILLED]).is_elsewhere());
    }

    #[test]
    fn older_kernels() {
        let plain = "Killed process 42 (my (prog) 1) total-vm:205840kB, anon-rss:60416kB, file-rss:600kB";
        let Some(Line::Killed(killed)) = parse(plain) else { panic!("not read") };
        assert_eq!((killed.pid, killed.command.as_str(), killed.uid), (42, "my (prog) 1", None));
        let level = |why| Kill { killed: killed.clone(), why }.level();
        assert_eq!(level(None), None, "whose limit it was is not said");
        let why =
            |limit_of: Option<&str>| Why { pid: 42, limit_of: limit_of.map(Into::into), victim_in: None };
        assert_eq!(level(Some(why(None))), Some(Level::Host));
        assert_eq!(level(Some(why(Some("/slurm/uid_1/job_7/step_0")))), Some(Level::Step));
        let rhel7 =
            "Killed process 42 (x), UID 1001, total-vm:1kB, anon-rss:8kB, file-rss:0kB, shmem-rss:0kB";
        let Some(Line::Killed(killed)) = parse(rhel7) else { panic!("not read") };
        assert_eq!((killed.pid, killed.anon_rss_bytes), (42, Some(8192)));
    }

    #[test]
    fn a_hostile_command_changes_nothing_but_itself() {
        let hostile = WHY.replace("task=eater", "task=a,pid=1,uid=0");
        let Some(Line::Why(why)) = parse(&hostile) else { panic!("not read") };
        assert_eq!(why.pid, 6427);
        let hostile = KILLED.replace("(eater)", r"(\x1b) total-vm:)");
        let Some(Line::Killed(killed)) = parse(&hostile) else { panic!("not read") };
        assert_eq!((killed.pid, killed.command.as_str()), (6427, "\u{1b}) total-vm:"));
        assert_eq!(unescape(r"\xff\x41\x4"), "\u{fffd}A\\x4");
        assert_eq!(parse("systemd: unit x: Killed process 1 (x) total-vm:1kB"), None);
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_refused(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            text in "(oom-kill:|Killed process |,pid=|,uid=|,task=|,task_memcg=|\\(|\\) total-vm:|[0-9]{1,12}|/|é|\\\\x[0-9a-f]{0,2}){0,12}",
        ) {
            let _ = Record::parse(&bytes);
            let mut pairs = Pairs::default();
            if let Some(kill) = parse(&text).and_then(|l| pairs.push(l)) {
                let _ = (kill.level(), kill.is_elsewhere(), kill.event(&Mounts::default()));
            }
        }
    }
}
