//! From what Slurm and the kernel say to the fields of events.
//!
//! The environment is the user's: it is read by an allow-list, bounded, and
//! never used for a path or a decision.

use std::collections::BTreeMap;

use inquest_journal::{JobId, KEY_MAX, RUN_KEYS, Timestamp, VALUE_MAX, is_fit};

use crate::abi::{Spank, Strings};
use crate::small::{Buf, Fd, Fixed, find_line, monotonic_ns, number, proc_path, read_file, read_link, text};

/// Longest text of any other kind that is copied. The journal cuts lower, and
/// says so in the line.
const TEXT_MAX: usize = 4096;

/// What the environment of a step says about its job.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct JobEnv {
    pub(crate) name: Option<String>,
    pub(crate) account: Option<String>,
    pub(crate) partition: Option<String>,
    pub(crate) qos: Option<String>,
    pub(crate) node_list: Option<String>,
    pub(crate) node_count: Option<u32>,
    pub(crate) submit_dir: Option<String>,
    pub(crate) attempt: Told,
    pub(crate) end_limit: Option<Timestamp>,
    pub(crate) het_job_id: Option<JobId>,
    pub(crate) het_offset: Option<u32>,
    /// SBATCH_SIGNAL.
    pub(crate) warning: Option<String>,
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
            match key {
                "SLURM_JOB_NAME" => found.name = string(),
                "SLURM_JOB_ACCOUNT" => found.account = string(),
                "SLURM_JOB_PARTITION" => found.partition = string(),
                "SLURM_JOB_QOS" => found.qos = string(),
                "SLURM_JOB_NODELIST" => found.node_list = string(),
                "SLURM_JOB_NUM_NODES" => found.node_count = count(),
                "SLURM_SUBMIT_DIR" => found.submit_dir = string(),
                "SLURM_PROCID" => found.attempt.of_task = true,
                "SLURM_RESTART_COUNT" => found.attempt.restart = count(),
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
        if key == "SBATCH_SIGNAL" {
            found.warning = warning(value.head(WARNING_MAX + 1));
        }
        if RUN_KEYS.binary_search(&key).is_ok() || extra.iter().any(|k| k == key) {
            let value = value.head(VALUE_MAX + 1);
            if is_fit(value) {
                found.run_keys.insert(key.to_owned(), text(value));
            }
        }
    }
    found
}

/// What an environment says of how often its job was restarted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// It has what Slurm gives every task, and so would have the number, too. srun hands both on, unless it
    /// was called from elsewhere or by `env -i`.
    of_task: bool,
    /// Slurm sets it only from the first restart on.
    restart: Option<u32>,
}

impl Told {
    /// The number, in a step of srun.
    pub(crate) fn restart(self) -> Option<u32> {
        self.restart.or(self.of_task.then_some(0))
    }

    /// The number, in the environment of a script at its end: by then Slurm has put there what it gives the
    /// script (seen on 22.05, 24.11 and 26.05). Before, as in `first`, there is only what sbatch was called
    /// with, which in a restarted job is that job's own number, and stays where Slurm has none to put there.
    pub(crate) fn restart_of_script(self, first: Told) -> Option<u32> {
        self.restart().filter(|_| first.restart.is_none() || first.restart != self.restart)
    }
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

/// Longest value of `--signal` that is one.
const WARNING_MAX: usize = 32;

/// A value of `--signal`, as far as its form goes.
fn warning(value: &[u8]) -> Option<String> {
    let good = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b':' | b'@' | b'+' | b'-');
    ((1..=WARNING_MAX).contains(&value.len()) && value.iter().all(good)).then(|| text(value))
}

/// The warning signal that the script of a job asks for. The command of a
/// batch step is Slurm's own copy of the script, in the spool of slurmd.
pub(crate) fn warning_of_script(spank: &Spank<'_>) -> Option<String> {
    let mut path = Fixed::<768>::new();
    path.push(spank.argv().next()?.head(768)).filter(|()| path.as_c_str().to_bytes().starts_with(b"/"))?;
    let mut buf = Buf::<4096>::new();
    let mut script = read_file(&path, &mut buf)?;
    if script.len() == 4096 {
        // The last line may be cut, and with it a number.
        script = &script[..script.iter().rposition(|&b| b == b'\n')?];
    }
    signal_option(script)
}

/// `#SBATCH --signal=VALUE` before the first command of a script; as sbatch
/// does, the last one counts.
fn signal_option(script: &[u8]) -> Option<String> {
    let mut found = None;
    for line in script.split(|&b| b == b'\n').map(<[u8]>::trim_ascii) {
        let options = line.strip_prefix(b"#SBATCH").filter(|o| o.first().is_none_or(u8::is_ascii_whitespace));
        let Some(options) = options else {
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            break;
        };
        let mut words = options.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        while let Some(word) = words.next() {
            let value = match word.strip_prefix(b"--signal") {
                _ if word.starts_with(b"#") => break,
                Some(b"") => words.next(),
                Some(rest) => rest.strip_prefix(b"="),
                None => continue,
            };
            let bare = |v: &[u8]| v.iter().copied().filter(|b| !b"'\"".contains(b)).collect::<Vec<u8>>();
            found = value.and_then(|v| warning(&bare(v))).or(found);
        }
    }
    found
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

/// Files behind descriptors 1 and 2.
pub(crate) type Logs = (Option<String>, Option<String>);

/// How long to wait for the descriptors of a step's tasks, in nanoseconds: a
/// few turns of a busy processor.
pub(crate) const PATIENCE_NS: u64 = 20_000_000;

/// The files behind descriptors 1 and 2 of a task that was just forked. Its
/// process is still putting them in place, in the order of their numbers, and
/// until then 1 is slurmstepd's own: /dev/null, which would be told as the
/// task's. The task cannot begin before its process is done with this, so to
/// leave it the processor for a moment seldom holds anybody up. `None` when
/// that did not help within `patience_ns`, as when another plugin is slow there.
pub(crate) fn logs(pid: u32, patience_ns: u64) -> Option<Logs> {
    let began = monotonic_ns();
    loop {
        let stdout = log_path(pid, b"fd/1");
        if stdout.as_deref() != Some("/dev/null") || !is_our_stdout(pid) {
            return Some((stdout, log_path(pid, b"fd/2")));
        }
        if monotonic_ns().saturating_sub(began) >= patience_ns {
            return None;
        }
        // SAFETY: takes nothing, touches nothing.
        unsafe { libc::sched_yield() };
    }
}

/// The file behind a task's descriptor; a terminal is none.
fn log_path(pid: u32, link: &[u8]) -> Option<String> {
    proc_link(pid, link).filter(|path| !path.starts_with("/dev/") || path == "/dev/null")
}

/// Whether descriptor 1 of a process is still what it has from us: not just the
/// same file, but opened once for both. Kernels that cannot say say no.
fn is_our_stdout(pid: u32) -> bool {
    const KCMP_FILE: libc::c_int = 0;
    // SAFETY: kcmp(2) with numbers only.
    unsafe { libc::syscall(libc::SYS_kcmp, std::process::id(), pid, KCMP_FILE, 1usize, 1usize) == 0 }
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
    fn the_signal_that_a_script_asks_for() {
        let of = |script: &str| signal_option(script.as_bytes());
        assert_eq!(
            of("#!/bin/sh\n#SBATCH -n1\n#SBATCH --signal=B:USR1@120\ntrue\n").as_deref(),
            Some("B:USR1@120")
        );
        assert_eq!(of("#SBATCH -n1 --signal 'TERM' # --signal=KILL\n").as_deref(), Some("TERM"));
        assert_eq!(
            of("#SBATCH --signal=10\n\n# words\n#SBATCH\t--signal=\"USR2@5\"\n").as_deref(),
            Some("USR2@5")
        );
        for none in [
            "",
            "true\n#SBATCH --signal=USR1\n",
            "#SBATCH --signal=\n",
            "#SBATCHX --signal=USR1\n",
            "##SBATCH --signal=USR1",
            "#SBATCH --signal=$(x)\n",
            "#SBATCH --signals=USR1\n",
            "#SBATCH --signal",
        ] {
            assert_eq!(of(none), None, "{none}");
        }
        assert_eq!(of(&format!("#SBATCH --signal={}\n", "9".repeat(33))), None);
    }

    const ENV_KEYS: [&str; 14] = [
        "SLURM_JOB_NAME=",
        "SLURM_JOB_ACCOUNT=",
        "SLURM_JOB_NODELIST=",
        "SLURM_JOB_NUM_NODES=",
        "SLURM_SUBMIT_DIR=",
        "SLURM_PROCID=",
        "SLURM_RESTART_COUNT=",
        "SLURM_JOB_END_TIME=",
        "SLURM_JOB_ID_HET_GROUP_",
        "SBATCH_SIGNAL=",
        "WANDB_RUN_ID=",
        "MINE=",
        "S",
        "",
    ];

    proptest::proptest! {
        #[test]
        fn any_script_is_read_or_left_out(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
            likely in "((#SBATCH|#|x)?[ \t]?(--signal)?[= ]?[A-Z0-9:@'\"]{0,40}\n?){0,6}",
        ) {
            for script in [&bytes[..], likely.as_bytes()] {
                if let Some(found) = signal_option(script) {
                    proptest::prop_assert!((1..=WARNING_MAX).contains(&found.len()) && found.is_ascii());
                }
            }
        }

        /// Lists of cores and lines of slurm.conf, and what are none.
        #[test]
        fn any_list_or_line_is_read_or_left_out(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..100),
            list in "([0-9]{1,11}-?,? ?){0,8}",
            line in "[ \t]*([Cc]luster[Nn]ame)?[ \t]*=?[ \ta-z0-9_#\"=é]{0,40}",
            status in proptest::prelude::any::<i32>(),
        ) {
            for text in [&bytes[..], list.as_bytes(), line.as_bytes()] {
                if let Some(n) = cores(text) {
                    // Every number and every range is a core at least.
                    proptest::prop_assert!(n as usize > text.iter().filter(|&&b| b == b',').count());
                }
                if let Some(name) = cluster_name(text) {
                    let bare = |c: char| c.is_whitespace() || c == '"';
                    let good = !name.is_empty() && !name.contains('#') && name.trim_matches(bare).len() <= text.len();
                    proptest::prop_assert!(good, "{:?}", name);
                }
            }
            let end = End::from_status(status);
            proptest::prop_assert!(end.signal.is_some() != end.exit_code.is_some());
            proptest::prop_assert!(end.signal.is_none_or(|n| (1..128).contains(&n)));
        }

        /// Whatever a user may put into an environment.
        #[test]
        fn any_environment_is_read_and_bounded(
            entries in proptest::collection::vec((0usize..ENV_KEYS.len(), proptest::prop_oneof![
                proptest::collection::vec(1u8..=255, 0..40),
                proptest::collection::vec(1u8..=255, 4_000..9_000),
                proptest::strategy::Strategy::prop_map("[0-9]{1,24}", String::into_bytes),
            ]), 0..12),
        ) {
            let strings: Vec<Vec<u8>> =
                entries.iter().map(|(key, value)| [ENV_KEYS[*key].as_bytes(), value, b"\0"].concat()).collect();
            let mut list: Vec<*mut std::ffi::c_char> =
                strings.iter().map(|s| s.as_ptr().cast_mut().cast()).chain([std::ptr::null_mut()]).collect();
            let host = crate::abi::Host::find();
            let spank = Spank { host: &host, handle: std::ptr::null_mut() };
            let found = scan_env(Strings::of(&mut list, &spank), JobId(7), &["MINE".to_owned()]);
            for string in [&found.name, &found.account, &found.node_list, &found.submit_dir].into_iter().flatten() {
                // A byte that is no UTF-8 becomes three.
                proptest::prop_assert!(!string.is_empty() && string.len() <= 3 * TEXT_MAX);
            }
            for (key, value) in &found.run_keys {
                proptest::prop_assert!(value.len() <= 3 * VALUE_MAX && (key == "MINE" || RUN_KEYS.contains(&key.as_str())));
            }
            let of_task = entries.iter().any(|(key, _)| ENV_KEYS[*key] == "SLURM_PROCID=");
            proptest::prop_assert!(found.attempt.restart() != Some(0) || of_task || found.attempt.restart == Some(0));
            proptest::prop_assert!(found.warning.is_none_or(|w| w.len() <= WARNING_MAX && w.is_ascii()));
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
