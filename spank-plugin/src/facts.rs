//! From what Slurm and the kernel say to the fields of events.
//!
//! The environment is the user's: it is read by an allow-list, bounded, and
//! never used for a path or a decision.

use std::collections::BTreeMap;

use inquest_journal::{JobId, KEY_MAX, RUN_KEYS, Timestamp, VALUE_MAX, is_fit};

use crate::abi::{Spank, Strings};
use crate::small::{Buf, Fd, Fixed, find_line, number, proc_path, read_file, read_link, text};

/// Longest text of any other kind that is copied. The journal cuts lower, and
/// says so in the line.
const TEXT_MAX: usize = 4096;

/// What the environment of a step says about its job.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct JobEnv {
    /// There was one at all; the extern step has none.
    pub(crate) present: bool,
    pub(crate) name: Option<String>,
    pub(crate) account: Option<String>,
    pub(crate) partition: Option<String>,
    pub(crate) qos: Option<String>,
    pub(crate) node_list: Option<String>,
    pub(crate) node_count: Option<u32>,
    pub(crate) submit_dir: Option<String>,
    pub(crate) restart: Option<u32>,
    pub(crate) end_limit: Option<Timestamp>,
    pub(crate) het_job_id: Option<JobId>,
    pub(crate) het_offset: Option<u32>,
    pub(crate) run_keys: BTreeMap<String, String>,
}

/// Reads the job's environment, once through.
pub(crate) fn job_env(spank: &Spank<'_>, job: JobId, extra: &[String]) -> JobEnv {
    scan_env(spank.env(), job, extra)
}

/// First letters of the variables that are looked for.
const INITIALS: [bool; 256] = {
    let mut wanted = [false; 256];
    wanted[b'S' as usize] = true; // SLURM_
    let mut at = 0;
    while at < RUN_KEYS.len() {
        wanted[RUN_KEYS[at].as_bytes()[0] as usize] = true;
        at += 1;
    }
    wanted
};

fn scan_env(env: Strings<'_>, job: JobId, extra: &[String]) -> JobEnv {
    let mut found = JobEnv::default();
    // Most of an environment is passed over by its first letter.
    let mut wanted = INITIALS;
    extra.iter().filter_map(|key| key.bytes().next()).for_each(|b| wanted[usize::from(b)] = true);
    for entry in env {
        if !wanted[usize::from(entry.first())] {
            continue;
        }
        let head = entry.head(KEY_MAX + 1);
        let Some(eq) = head.iter().position(|&b| b == b'=') else { continue };
        let Ok(key) = std::str::from_utf8(&head[..eq]) else { continue };
        let value = entry.skip(eq + 1);
        let string = || Some(text(value.head(TEXT_MAX))).filter(|s| !s.is_empty());
        let count = || number(value.head(21)).and_then(|n| u32::try_from(n).ok());
        if key.starts_with("SLURM_") {
            found.present = true;
            match key {
                "SLURM_JOB_NAME" => found.name = string(),
                "SLURM_JOB_ACCOUNT" => found.account = string(),
                "SLURM_JOB_PARTITION" => found.partition = string(),
                "SLURM_JOB_QOS" => found.qos = string(),
                "SLURM_JOB_NODELIST" => found.node_list = string(),
                "SLURM_JOB_NUM_NODES" => found.node_count = count(),
                "SLURM_SUBMIT_DIR" => found.submit_dir = string(),
                "SLURM_RESTART_COUNT" => found.restart = count(),
                "SLURM_JOB_END_TIME" => {
                    let seconds = number(value.head(21)).filter(|&s| s > 0);
                    found.end_limit =
                        seconds.and_then(|s| i64::try_from(s).ok()?.checked_mul(1_000_000)).map(Timestamp);
                }
                // The leader is told the id of every component, and hands it on.
                _ if let Some(group) = key.strip_prefix("SLURM_JOB_ID_HET_GROUP_") => {
                    let id = count().map(JobId);
                    if group == "0" {
                        found.het_job_id = id;
                    }
                    if id == Some(job) {
                        found.het_offset = group.parse().ok();
                    }
                }
                _ => {}
            }
        }
        if RUN_KEYS.binary_search(&key).is_ok() || extra.iter().any(|k| k == key) {
            let value = value.head(VALUE_MAX + 1);
            if is_fit(value) {
                found.run_keys.insert(key.to_owned(), text(value));
            }
        }
    }
    // Slurm sets it only from the first restart on.
    if found.present {
        found.restart.get_or_insert(0);
    }
    found
}

/// The first arguments of a command, enough to recognise it by.
pub(crate) fn argv(spank: &Spank<'_>) -> Vec<String> {
    const ARGS_MAX: usize = 32;
    const BYTES_MAX: usize = 2048;
    let mut left = BYTES_MAX;
    let mut args = Vec::new();
    for arg in spank.argv().take(ARGS_MAX) {
        if left == 0 {
            break;
        }
        let bytes = arg.head(left);
        left -= bytes.len();
        args.push(text(bytes));
    }
    args
}

/// How many cores a list such as `0-3,8` names; `None` for what is no list.
pub(crate) fn cores(list: &[u8]) -> Option<u32> {
    let list = std::str::from_utf8(list).ok()?.trim();
    let mut sum: u32 = 0;
    for part in list.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to): (u32, u32) = (from.parse().ok()?, to.parse().ok()?);
        sum = sum.checked_add(to.checked_sub(from)?.checked_add(1)?)?;
    }
    Some(sum)
}

/// The target of a link below `/proc/<pid>/`, when it is a path.
pub(crate) fn proc_link(pid: u32, link: &[u8]) -> Option<String> {
    let mut buf = Buf::<4096>::new();
    let target = read_link(proc_path(pid, link)?.as_c_str(), &mut buf)?;
    target.starts_with(b"/").then(|| text(target))
}

/// The file behind a task's descriptor; a terminal is none.
pub(crate) fn log_path(pid: u32, link: &[u8]) -> Option<String> {
    proc_link(pid, link).filter(|path| !path.starts_with("/dev/") || path == "/dev/null")
}

/// The cluster's name from slurm.conf, whose path slurmstepd has in its own
/// environment. The job's environment could be forged, and the extern step
/// has none.
pub(crate) fn cluster_of_slurm_conf() -> Option<String> {
    let mut path = Fixed::<1024>::new();
    path.push(&own_env(c"SLURM_CONF")?)?;
    // Followed if it is a link: it is the admin's file, in the admin's place.
    // SAFETY: path is NUL-terminated.
    let fd =
        unsafe { libc::open(path.as_c_str().as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK) };
    if fd < 0 {
        return None;
    }
    find_line(&Fd(fd), 1 << 18, cluster_name)
}

/// `ClusterName=lab # comment`; the keys of slurm.conf know no case.
fn cluster_name(line: &[u8]) -> Option<String> {
    let line = std::str::from_utf8(line).ok()?.split('#').next()?;
    let (key, value) = line.split_once('=')?;
    let value = value.trim().trim_matches('"');
    (key.trim().eq_ignore_ascii_case("ClusterName") && !value.is_empty()).then(|| value.to_owned())
}

/// A variable of slurmstepd itself.
pub(crate) fn own_env(name: &std::ffi::CStr) -> Option<Vec<u8>> {
    // SAFETY: name is NUL-terminated. Slurm does not change its environment
    // while a hook runs, and the value is copied at once.
    unsafe {
        let value = libc::getenv(name.as_ptr());
        (!value.is_null()).then(|| std::ffi::CStr::from_ptr(value).to_bytes().to_vec())
    }
}

/// This node as Slurm calls it, else the short host name.
pub(crate) fn node_name() -> String {
    if let Some(name) = own_env(c"SLURMD_NODENAME").filter(|n| !n.is_empty()) {
        return text(&name);
    }
    let mut buf = [0u8; 256];
    // SAFETY: buf is writable for its length less one, so it stays terminated.
    unsafe { libc::gethostname(buf.as_mut_ptr().cast(), buf.len() - 1) };
    let name = buf.split(|&b| b == 0 || b == b'.').next().unwrap_or_default();
    text(name)
}

/// The first eight digits of the kernel's boot id; `0` where it is hidden.
pub(crate) fn boot_id() -> String {
    let mut path = Fixed::<64>::new();
    let mut buf = Buf::<64>::new();
    path.push(b"/proc/sys/kernel/random/boot_id")
        .and_then(|()| read_file(&path, &mut buf)?.get(..8))
        .filter(|id| id.iter().all(u8::is_ascii_hexdigit))
        .map_or_else(|| "0".to_owned(), text)
}

/// How a task ended, from its raw wait status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) exit_code: Option<u8>,
    pub(crate) signal: Option<u8>,
    pub(crate) core: bool,
}

impl End {
    /// wait(2): the low seven bits are the signal, the eighth is the core
    /// flag, the next byte is the exit code.
    pub(crate) fn from_status(status: i32) -> End {
        let signal = (status & 0x7f) as u8;
        if signal == 0 {
            End { exit_code: Some((status >> 8 & 0xff) as u8), ..End::default() }
        } else {
            End { exit_code: None, signal: Some(signal), core: status & 0x80 != 0 }
        }
    }

    pub(crate) fn failed(&self) -> bool {
        self.signal.is_some() || self.exit_code.is_some_and(|c| c != 0)
    }
}

/// What all reaped processes of slurmstepd have used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reaped {
    /// Microseconds.
    pub(crate) user_us: u64,
    pub(crate) system_us: u64,
    /// Largest resident set of any single one, in bytes.
    pub(crate) largest_bytes: u64,
    pub(crate) read_bytes: u64,
    pub(crate) written_bytes: u64,
    pub(crate) major_faults: u64,
}

/// Asks the kernel; `None` where it does not say.
pub(crate) fn reaped() -> Option<Reaped> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: usage is writable; zeroed is a valid rusage.
    let usage = unsafe {
        if libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr()) != 0 {
            return None;
        }
        usage.assume_init()
    };
    let count = |n: libc::c_long| u64::try_from(n).unwrap_or(0);
    let us = |t: libc::timeval| count(t.tv_sec).saturating_mul(1_000_000).saturating_add(count(t.tv_usec));
    // getrusage(2): kilobytes, and blocks of 512 bytes.
    Some(Reaped {
        user_us: us(usage.ru_utime),
        system_us: us(usage.ru_stime),
        largest_bytes: count(usage.ru_maxrss).saturating_mul(1024),
        read_bytes: count(usage.ru_inblock).saturating_mul(512),
        written_bytes: count(usage.ru_oublock).saturating_mul(512),
        major_faults: count(usage.ru_majflt),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_counted() {
        assert_eq!(cores(b"0-3,8"), Some(5));
        assert_eq!(cores(b"0"), Some(1));
        for bad in ["", "3-0", "x", "0-", "0-4294967295"] {
            assert_eq!(cores(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn wait_statuses() {
        assert_eq!(End::from_status(0x0300), End { exit_code: Some(3), ..End::default() });
        assert_eq!(End::from_status(0x8b), End { exit_code: None, signal: Some(11), core: true });
        assert_eq!(End::from_status(9), End { exit_code: None, signal: Some(9), core: false });
        assert!(!End::from_status(0).failed());
    }

    #[test]
    fn the_name_of_the_cluster() {
        assert_eq!(cluster_name(b"clustername = lab # x").as_deref(), Some("lab"));
        assert_eq!(cluster_name(b"#ClusterName=lab"), None);
        assert_eq!(cluster_name(b"ClusterName="), None);
        assert_eq!(cluster_name(b"\xff"), None);
    }
}
