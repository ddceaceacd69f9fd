//! Slurm's own language: job ids as people write them, hostlists, and what
//! Slurm itself says of a job. Text in, types out; no policy.

pub mod accounting;
pub mod command;
pub mod hostlist;
pub mod past;
pub mod sacct;
pub mod states;
pub mod target;
pub mod warning;
pub mod when;

/// Names of signals by number: signal(7), the numbers of x86 and arm; what jobs really die of.
const SIGNALS: [&str; 32] = [
    "", "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// The name of a signal, `SIGSEGV`, or `signal 64` for one without a name.
pub fn signal_name(number: u8) -> String {
    match SIGNALS.get(usize::from(number)) {
        Some(name) if !name.is_empty() => format!("SIG{name}"),
        _ => format!("signal {number}"),
    }
}

/// A time limit as Slurm prints it (`10:00`, `1-02:00:00`) in seconds; `None` for one without end.
pub fn limit_seconds(text: &str) -> Option<i64> {
    let (days, clock) = text.split_once('-').unwrap_or(("0", text));
    let parts: Vec<i64> = clock.split(':').map(str::parse).collect::<Result<_, _>>().ok()?;
    let seconds = match parts[..] {
        [m, s] => m.checked_mul(60)?.checked_add(s)?,
        [h, m, s] => h.checked_mul(3600)?.checked_add(m.checked_mul(60)?)?.checked_add(s)?,
        _ => return None,
    };
    days.parse::<i64>().ok()?.checked_mul(86_400)?.checked_add(seconds)
}
