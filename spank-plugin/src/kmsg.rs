//! Who was killed for memory, from the kernel's log.
//!
//! The log is opened only when a counter has said that somebody was killed:
//! opening it takes half as long as everything else that is done when a step
//! starts (52 us of it). Two lines tell of a kill:
//!
//! ```text
//! oom-kill:constraint=CONSTRAINT_MEMCG,...,oom_memcg=/a/job_7,task_memcg=/a/job_7/step_0/task_0,task=eater,pid=64,uid=1001
//! Memory cgroup out of memory: Killed process 64 (eater) total-vm:205840kB, anon-rss:60416kB, ..., UID:1001 ...
//! ```
//!
//! The first names the cgroup but is rate limited; the second is always there. Where a cgroup is killed as
//! a whole (`memory.oom.group`), a line says so next, and then the second one comes for everybody in it, for the
//! victim once more; the cgroup's counter, too, counts it twice. Who is gone before it can be killed is not
//! counted, and a line that says so takes the place of the second one.

use std::collections::VecDeque;

use inquest_journal::Victim;

use crate::small::{Buf, Fd, monotonic_ns, number, text};

/// Records that one look reads at most: more than a kernel log buffer holds.
const RECORDS_MAX: usize = 16_384;

/// Kills that are kept, the newest.
const KILLS_MAX: usize = 256;

/// One kill as the kernel tells it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Kill {
    pub(crate) victim: Victim,
    /// The cgroup whose limit it was.
    pub(crate) limit_of: Option<String>,
    /// Not a cgroup's limit: the node itself was out of memory.
    pub(crate) host: bool,
    /// The kernel has named and counted it twice.
    pub(crate) twice: bool,
    /// An event has told of it.
    pub(crate) told: bool,
}

/// The end of the line that tells of a group; before it, the cgroup.
const GROUP: &[u8] = b"are going to be killed due to memory.oom.group set";

/// Before the process id of one that was chosen and is gone already.
const GONE: &[u8] = b"emory: OOM victim ";

/// The kernel's log, as far as it may be about this step.
pub(crate) struct Kmsg {
    /// Whose descriptor `fd` is: hooks may run in a clone with others.
    pid: u32,
    fd: Option<Fd>,
    /// No record before this one, in microseconds of the log's clock.
    since_us: u64,
    next_seq: u64,
    kills: VecDeque<Kill>,
    /// Who was killed last.
    last: Option<u32>,
    /// Who is going to be named for the second time.
    again: Option<u32>,
}

/// `/dev/kmsg`: major 1, minor 11 (Documentation/admin-guide/devices.txt).
const KMSG_MAJOR: u32 = 1;
const KMSG_MINOR: u32 = 11;

impl Kmsg {
    /// Remembers that the step starts now.
    pub(crate) fn new(pid: u32) -> Kmsg {
        // The log's clock is the processor's, which nobody disciplines: give
        // it 100 ppm of the uptime, and a second. Who is asked for is the newest
        // match, so an earlier attempt of the same job stays behind this one.
        let now = monotonic_ns() / 1_000;
        let since_us = now.saturating_sub(now / 10_000 + 1_000_000);
        Kmsg { pid, fd: None, since_us, next_seq: 0, kills: VecDeque::new(), last: None, again: None }
    }

    /// Kills so far, told of or not, the oldest first.
    pub(crate) fn kills(&mut self) -> &mut VecDeque<Kill> {
        let home = std::process::id() == self.pid;
        let kept = if home { self.fd.take() } else { None };
        let fd = match kept {
            Some(fd) if is_kmsg(&fd) => Some(fd),
            // Somebody has closed it, and the number is another's now.
            Some(fd) => {
                std::mem::forget(fd);
                Fd::open(c"/dev/kmsg")
            }
            None => Fd::open(c"/dev/kmsg"),
        };
        if let Some(fd) = fd {
            self.read(&fd);
            if home {
                self.fd = Some(fd);
            }
        }
        &mut self.kills
    }

    fn read(&mut self, fd: &Fd) {
        let mut buf = Buf::<4096>::new();
        for _ in 0..RECORDS_MAX {
            let Some(record) = fd.read(&mut buf) else {
                // EPIPE: the oldest records are gone, the next read goes on
                // with the oldest that is left. EINVAL: this one, which no
                // kill has, is longer than the buffer, and the next read goes on
                // behind it. EAGAIN: this was the last.
                match std::io::Error::last_os_error().raw_os_error() {
                    Some(libc::EPIPE | libc::EINVAL) => continue,
                    _ => return,
                }
            };
            if record.is_empty() {
                return;
            }
            self.take_record(record);
        }
    }

    /// `6,1234,5678901,-;the message\n KEY=value lines`: priority, number, time.
    fn take_record(&mut self, record: &[u8]) {
        let Some(semicolon) = record.iter().position(|&b| b == b';') else { return };
        let mut head = record[..semicolon].split(|&b| b == b',').map(number);
        let (Some(Some(priority)), Some(Some(seq)), Some(Some(time_us))) =
            (head.next(), head.next(), head.next())
        else {
            return;
        };
        // What a process wrote there has a facility, which makes its priority
        // 8 or more.
        if priority > 7 || seq < self.next_seq || time_us < self.since_us {
            return;
        }
        self.next_seq = seq + 1;
        self.take(record[semicolon + 1..].split(|&b| b == b'\n').next().unwrap_or_default());
    }

    fn push(&mut self, kill: Kill) {
        if self.kills.len() == KILLS_MAX {
            self.kills.pop_front();
        }
        self.kills.push_back(kill);
    }

    fn take(&mut self, message: &[u8]) {
        if let Some(kill) = parse_oom_kill(message) {
            self.push(kill);
        } else if message.ends_with(GROUP) {
            self.again = self.last;
        } else if let Some(gone) = parse_gone(message) {
            let chosen = |k: &Kill| k.victim.pid == Some(gone) && k.victim.anon_rss_bytes.is_none();
            if let Some(at) = self.kills.iter().rposition(chosen) {
                self.kills.remove(at);
            }
        } else if let Some((host, victim)) = parse_killed(message) {
            self.last = victim.pid;
            if victim.pid.is_some() && self.again == victim.pid {
                self.again = None;
                if let Some(kill) = self.kills.iter_mut().rev().find(|k| k.victim.pid == victim.pid) {
                    kill.twice = true;
                }
                return;
            }
            let same = |k: &&mut Kill| k.victim.pid == victim.pid && k.victim.anon_rss_bytes.is_none();
            if let Some(kill) = self.kills.iter_mut().rev().find(same) {
                kill.victim.anon_rss_bytes = victim.anon_rss_bytes;
                kill.victim.command = victim.command;
            } else {
                self.push(Kill { victim, host, ..Kill::default() });
            }
        }
    }
}

fn is_kmsg(fd: &Fd) -> bool {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: stat is writable, and read only when fstat succeeded.
    unsafe {
        libc::fstat(fd.0, stat.as_mut_ptr()) == 0
            && stat.assume_init().st_rdev == libc::makedev(KMSG_MAJOR, KMSG_MINOR)
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

fn rfind(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).rposition(|w| w == needle)
}

/// What stands between `key` and the next comma.
fn value<'a>(line: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let rest = &line[find(line, key)? + key.len()..];
    rest.split(|&b| b == b',').next()
}

fn pid(digits: &[u8]) -> Option<u32> {
    u32::try_from(number(digits)?).ok()
}

fn parse_oom_kill(line: &[u8]) -> Option<Kill> {
    let line = line.strip_prefix(b"oom-kill:")?;
    // A command may hold commas and look like other fields, so what follows
    // it is found from the end.
    let pid_at = rfind(line, b",pid=")?;
    let command_at = find(line, b",task=")? + 6;
    let victim = Victim {
        pid: pid(value(&line[pid_at..], b",pid=")?),
        command: Some(text(line.get(command_at..pid_at)?)),
        anon_rss_bytes: None,
        cgroup: value(&line[..command_at], b",task_memcg=").map(text),
        uid: value(&line[pid_at..], b",uid=").and_then(pid),
    };
    Some(Kill {
        victim,
        limit_of: value(&line[..command_at], b",oom_memcg=").map(text),
        host: !line.starts_with(b"constraint=CONSTRAINT_MEMCG"),
        ..Kill::default()
    })
}

/// `Memory cgroup out of memory: OOM victim PID (COMMAND) is already exiting. Skip killing the task`
fn parse_gone(line: &[u8]) -> Option<u32> {
    let rest = &line[find(line, GONE)? + GONE.len()..];
    pid(rest.split(|&b| b == b' ').next()?)
}

/// Several wordings since 3.10; all have "Killed process PID (COMMAND)", most
/// of them "anon-rss:NkB", and either "UID:N" or "UID N". Whether it was for the node itself is
/// said before it since Linux 5.3.
fn parse_killed(line: &[u8]) -> Option<(bool, Victim)> {
    let rest = &line[find(line, b"Killed process ")? + 15..];
    let open = find(rest, b" (")?;
    let close = [b") total-vm:".as_slice(), b"), UID".as_slice(), b") vmsize:".as_slice()]
        .iter()
        .filter_map(|end| rfind(rest, end))
        .next()?;
    let after = &rest[close..];
    let digits_after = |key: &[u8]| {
        let digits = &after[find(after, key)? + key.len()..];
        let end = digits.iter().position(|b| !b.is_ascii_digit()).unwrap_or(digits.len());
        number(&digits[..end])
    };
    let victim = Victim {
        pid: pid(&rest[..open]),
        command: rest.get(open + 2..close).map(text),
        anon_rss_bytes: digits_after(b"anon-rss:").map(|kib| kib.saturating_mul(1024)),
        cgroup: None,
        uid: digits_after(b"UID:").or_else(|| digits_after(b"UID ")).and_then(|n| u32::try_from(n).ok()),
    };
    victim.pid?;
    Some((line.starts_with(b"Out of memory"), victim))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Recorded on Linux 6.18 from a job that ate more than its limit.
    const OOM_KILL: &[u8] = b"oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=task_0,mems_allowed=0,oom_memcg=/slurm_n1/uid_1001/job_207,task_memcg=/slurm_n1/uid_1001/job_207/step_0/task_0,task=eater,pid=6427,uid=1001";
    const KILLED: &[u8] = b"Memory cgroup out of memory: Killed process 6427 (eater) total-vm:205840kB, anon-rss:60416kB, file-rss:600kB, shmem-rss:0kB, UID:1001 pgtables:160kB oom_score_adj:0";

    fn log() -> Kmsg {
        Kmsg { since_us: 1_000, ..Kmsg::new(0) }
    }

    #[test]
    fn two_lines_are_one_kill() {
        let mut log = log();
        log.take(b"eater invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0");
        log.take(OOM_KILL);
        log.take(KILLED);
        assert_eq!(
            log.kills,
            [Kill {
                victim: Victim {
                    pid: Some(6427),
                    command: Some("eater".into()),
                    anon_rss_bytes: Some(60416 * 1024),
                    cgroup: Some("/slurm_n1/uid_1001/job_207/step_0/task_0".into()),
                    uid: Some(1001),
                },
                limit_of: Some("/slurm_n1/uid_1001/job_207".into()),
                host: false,
                twice: false,
                told: false,
            }]
        );
    }

    #[test]
    fn who_is_killed_with_a_group_is_killed_once() {
        let mut log = log();
        log.take(OOM_KILL);
        log.take(KILLED);
        // As Linux 6.12 wrote it for a step with --oom-kill-step.
        log.take(b"Tasks in /system.slice/n1_slurmstepd.scope/job_13/step_0/user are going to be killed due to memory.oom.group set");
        log.take(b"Memory cgroup out of memory: Killed process 6420 (sleep) total-vm:3012kB, anon-rss:0kB, file-rss:1708kB, shmem-rss:0kB, UID:1001 pgtables:52kB oom_score_adj:0");
        log.take(KILLED);
        let seen: Vec<_> = log.kills.iter().map(|k| (k.victim.pid, k.twice)).collect();
        assert_eq!(seen, [(Some(6427), true), (Some(6420), false)]);
        // Another process may have the number later.
        log.take(KILLED);
        assert_eq!(log.kills.len(), 3);
    }

    #[test]
    fn who_was_gone_already_is_not_killed() {
        let mut log = log();
        log.take(OOM_KILL);
        log.take(KILLED);
        // As Linux 7.2 wrote them for a script that had just ended.
        log.take(b"oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=task_0,mems_allowed=0,oom_memcg=/system.slice/n1_slurmstepd.scope/s13DM7ZX9EKQ00,task_memcg=/system.slice/n1_slurmstepd.scope/s13DM7ZX9EKQ00/step_batch/user/task_0,task=slurm_script,pid=520,uid=1001");
        log.take(b"Memory cgroup out of memory: OOM victim 520 (slurm_script) is already exiting. Skip killing the task");
        log.take(
            b"Memory cgroup out of memory: OOM victim 6427 (eater) is already exiting. Skip killing the task",
        );
        let seen: Vec<_> = log.kills.iter().map(|k| k.victim.pid).collect();
        assert_eq!(seen, [Some(6427)]);
    }

    #[test]
    fn the_second_line_alone_is_enough() {
        let mut log = log();
        log.take(KILLED);
        assert_eq!(log.kills[0].victim.pid, Some(6427));
        assert_eq!(log.kills[0].victim.uid, Some(1001));
        assert!(!log.kills[0].host);
    }

    #[test]
    fn older_wordings_and_the_nodes_own_memory() {
        let rhel8 = b"Memory cgroup out of memory: Killed process 51 (py) x), UID 12, total-vm:9kB, anon-rss:8kB, file-rss:0kB, shmem-rss:0kB";
        let (host, victim) = parse_killed(rhel8).unwrap();
        assert!(!host);
        assert_eq!(victim.uid, Some(12));
        assert_eq!(victim.anon_rss_bytes, Some(8192));
        let host_line = b"Out of memory: Killed process 7 (a) total-vm:1kB, anon-rss:1kB, UID:0";
        assert!(parse_killed(host_line).unwrap().0);
        let unsaid = b"Killed process 7 (a) total-vm:1kB, anon-rss:1kB, file-rss:0kB, shmem-rss:0kB";
        assert!(!parse_killed(unsaid).unwrap().0, "before Linux 5.3 the line does not say");
        let named = b"Out of memory: Killed process 7 (Memory cgroup) total-vm:1kB, anon-rss:1kB, UID:0";
        assert!(parse_killed(named).unwrap().0);
        let kill = parse_oom_kill(b"oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/a,task=b,pid=3,uid=0").unwrap();
        assert!(kill.host);
        assert_eq!(kill.limit_of, None);
    }

    #[test]
    fn a_command_cannot_pretend_to_be_another_field() {
        let kill = parse_oom_kill(b"oom-kill:constraint=CONSTRAINT_MEMCG,oom_memcg=/j,task_memcg=/j/t,task=x,pid=1,uid=0,pid=77,uid=1001").unwrap();
        assert_eq!(kill.victim.pid, Some(77));
        assert_eq!(kill.victim.uid, Some(1001));
        assert_eq!(kill.victim.command.as_deref(), Some("x,pid=1,uid=0"));
        let (_, victim) = parse_killed(b"Memory cgroup out of memory: Killed process 77 (a) total-vm:1kB) total-vm:5kB, anon-rss:4kB, UID:1001").unwrap();
        assert_eq!(victim.command.as_deref(), Some("a) total-vm:1kB"));
        assert_eq!(victim.pid, Some(77));
    }

    #[test]
    fn anything_else_is_nothing() {
        for line in [
            &b""[..],
            b"oom-kill:",
            b"Killed process ",
            b"Killed process x (y) total-vm:1kB",
            b"oom-kill:,task=,pid=,uid=",
        ] {
            let mut log = log();
            log.take(line);
            assert!(log.kills.iter().all(|k| k.victim.pid.is_none()), "{line:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_record_is_read_or_passed_over(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400),
            command in "[a-z(),=:]{0,30}",
            cut in 0usize..220,
        ) {
            let mut log = log();
            log.take_record(&bytes);
            log.take(&bytes);
            let kill = format!("4,7,5000,-;Memory cgroup out of memory: Killed process 64 ({command}) \
                total-vm:205840kB, anon-rss:60416kB, file-rss:600kB, UID:1001 pgtables:160kB\n");
            log.take_record(&kill.as_bytes()[..cut.min(kill.len())]);
            proptest::prop_assert!(log.kills.len() <= 3);
            let mut log = super::tests::log();
            log.take_record(kill.as_bytes());
            proptest::prop_assert_eq!(log.kills.len(), 1);
            proptest::prop_assert_eq!(log.kills[0].victim.pid, Some(64));
            proptest::prop_assert_eq!(log.kills[0].victim.uid, Some(1001));
            proptest::prop_assert_eq!(log.kills[0].victim.command.as_deref(), Some(command.as_str()));
        }
    }

    #[test]
    fn a_flood_of_kills_is_bounded() {
        let mut log = log();
        for n in 0..10_000 {
            log.take(
                format!(
                    "Memory cgroup out of memory: Killed process {n} (x) total-vm:1kB, anon-rss:1kB, UID:1"
                )
                .as_bytes(),
            );
        }
        assert_eq!(log.kills.len(), KILLS_MAX);
        assert_eq!(log.kills.back().unwrap().victim.pid, Some(9_999));
    }

    #[test]
    fn records_of_processes_of_the_past_and_seen_ones_do_not_count() {
        let mut log = log();
        let killed = std::str::from_utf8(KILLED).unwrap();
        for (head, kills) in [
            ("12,9,2000,-", 0), // facility 1: a process
            ("4,9,999,-", 0),   // before the step
            ("4,10,2000,-", 1),
            ("4,10,2000,-", 1), // read again through another descriptor
            ("4,11,2000,c", 2),
            ("x,12,2000,-", 2),
            ("", 2),
        ] {
            log.take_record(format!("{head};{killed}\n SUBSYSTEM=x\n").as_bytes());
            assert_eq!(log.kills.len(), kills, "{head}");
            log.kills.iter_mut().for_each(|kill| kill.victim.pid = None);
        }
    }
}
