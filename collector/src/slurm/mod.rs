//! Slurm's own language: job ids as people write them, hostlists, and what
//! Slurm itself says of a job. Text in, types out; no policy.

pub mod accounting;
pub mod hostlist;
pub mod past;
pub mod sacct;
pub mod states;
pub mod target;
pub mod when;

/// The name of a signal, `SIGSEGV`, or `signal 64` for one without a name.
pub fn signal_name(number: u8) -> String {
    // signal(7), the numbers of x86 and arm; what jobs really die of.
    const NAMES: [&str; 32] = [
        "", "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
        "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU",
        "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    match NAMES.get(usize::from(number)) {
        Some(name) if !name.is_empty() => format!("SIG{name}"),
        _ => format!("signal {number}"),
    }
}
