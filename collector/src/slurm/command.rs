/*!
Slurm's own commands, started in one way by everybody here.

They get none of the caller's settings, which would change what they print, and
may hang as long as slurmctld or slurmdbd does. So each has a deadline and a
bound on what it says, and leads a process group of its own, which ends with it.
*/

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group, set_parent_process_death_signal};

/// What they may need of the caller's environment: to be found and loaded, and to find and convince Slurm.
const KEPT: [&str; 10] = [
    "PATH",
    "LD_LIBRARY_PATH",
    "HOME",
    "TZ",
    "SLURM_CONF",
    "SLURM_CONF_SERVER",
    "SLURM_JWT",
    "SLURM_SACK_JWKS",
    "SLURM_SACK_KEY",
    "SLURM_SACK_SOCKET",
];

/// Plain words, and times as seconds since 1970.
const SET: [(&str, &str); 2] = [("LC_ALL", "C"), ("SLURM_TIME_FORMAT", "%s")];

/// Bytes that an answer may have.
const ANSWER: usize = 256 << 20;

/// Bytes that are kept of what it says of an error.
const WORDS: usize = 4096;

/// Between two looks at whether it has ended: its output says so first, unless a child of it holds that open.
const LOOK: Duration = Duration::from_millis(100);

/// How long one that was killed is waited for. In a system call that hangs it outlives even that.
const BURIAL: Duration = Duration::from_secs(1);

/// A command of Slurm that gave no answer.
#[derive(Debug)]
pub struct Failure {
    program: String,
    why: Why,
}

#[derive(Debug)]
enum Why {
    NotStarted(io::Error),
    Silent(Duration),
    TooLong,
    Ended(ExitStatus, String),
    Io(io::Error),
}

impl Failure {
    /// What it said itself before it ended.
    pub fn words(&self) -> &str {
        match &self.why {
            Why::Ended(_, words) => words,
            _ => "",
        }
    }

    /// It did answer, and the answer was no.
    pub fn has_ended(&self) -> bool {
        matches!(self.why, Why::Ended(..))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = &self.program;
        let (daemon, how) = match program.as_str() {
            "sacct" | "sacctmgr" => ("slurmdbd", "sacctmgr show cluster"),
            "unmunge" => ("munged", "munge -n | unmunge"),
            _ => ("slurmctld", "scontrol ping"),
        };
        match &self.why {
            Why::NotStarted(e) => {
                write!(
                    f,
                    "{program} could not be started: {e}; install Slurm's commands here, or put them on PATH"
                )
            }
            Why::Silent(patience) => {
                write!(f, "{program} gave no answer within {patience:?}; see whether {daemon} does: {how}")
            }
            Why::TooLong => {
                write!(f, "{program} said more than {} MiB; ask it for less at once", ANSWER >> 20)
            }
            Why::Ended(status, words) => {
                write!(f, "{program} failed ({status}): {words}; see whether {daemon} answers: {how}")
            }
            Why::Io(e) => write!(f, "{program} could not be heard: {e}; try again"),
        }
    }
}

/// What a command of Slurm prints, when it ends well within `patience`.
///
/// # Errors
///
/// When it does not.
pub fn ask(
    program: impl AsRef<OsStr>,
    arguments: &[impl AsRef<OsStr>],
    patience: Duration,
) -> Result<String, Failure> {
    tell(program, arguments, b"", patience)
}

/// The same, of a command that is given something to read: at most what a pipe holds, so that nobody waits for
/// it to be read.
///
/// # Errors
///
/// When it does not end well.
pub fn tell(
    program: impl AsRef<OsStr>,
    arguments: &[impl AsRef<OsStr>],
    words: &[u8],
    patience: Duration,
) -> Result<String, Failure> {
    let name = Path::new(&program).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let failure = |why| Failure { program: name.clone(), why };
    let mut command = Command::new(&program);
    command.args(arguments).env_clear().envs(kept()).envs(SET).process_group(0);
    command.stdin(if words.is_empty() { Stdio::null() } else { Stdio::piped() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    // SAFETY: between fork and exec there is one system call. Who asked may be gone before the deadline.
    unsafe { command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?)) };
    let mut child = command.spawn().map_err(|e| failure(Why::NotStarted(e)))?;
    let told = child.stdin.take().map_or(Ok(()), |pipe| put(pipe, words)).map_err(Why::Io);
    match told.and_then(|()| hear(&mut child, patience)) {
        Ok((status, said, _)) if status.success() => Ok(into_text(said)),
        Ok((status, _, words)) => Err(failure(Why::Ended(status, into_text(words).trim().to_owned()))),
        Err(why) => {
            end(&mut child);
            Err(failure(why))
        }
    }
}

/// Writes at once or not at all. Who has ended without reading says by that how it went.
fn put(mut pipe: ChildStdin, words: &[u8]) -> io::Result<()> {
    rustix::io::ioctl_fionbio(&pipe, true)?;
    pipe.write_all(words).or_else(|e| if e.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(e) })
}

fn kept() -> impl Iterator<Item = (&'static str, OsString)> {
    KEPT.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)))
}

fn into_text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

/// How it ended, and what it said on standard output and of errors.
fn hear(child: &mut Child, patience: Duration) -> Result<(ExitStatus, Vec<u8>, Vec<u8>), Why> {
    let deadline = Instant::now() + patience;
    let (mut out, mut err) = (child.stdout.take(), child.stderr.take());
    for pipe in [out.as_ref().map(AsFd::as_fd), err.as_ref().map(AsFd::as_fd)].into_iter().flatten() {
        rustix::io::ioctl_fionbio(pipe, true).map_err(io::Error::from).map_err(Why::Io)?;
    }
    let (mut said, mut words, mut ended) = (Vec::new(), Vec::new(), None);
    loop {
        let open = [out.as_ref().map(AsFd::as_fd), err.as_ref().map(AsFd::as_fd)];
        let mut open: Vec<PollFd<'_>> =
            open.iter().flatten().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
        let wait = match (&ended, open.is_empty()) {
            (Some(_), _) => Duration::ZERO,
            (None, true) => Duration::from_millis(1), // It is about to end.
            (None, false) => LOOK.min(deadline.saturating_duration_since(Instant::now())),
        };
        let wait = Timespec { tv_sec: 0, tv_nsec: wait.subsec_nanos().into() };
        match poll(&mut open, Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(Why::Io(e.into())),
        }
        // Looked at first: what it wrote before it ended is then there to be read.
        ended = child.try_wait().map_err(Why::Io)?;
        let more = take(&mut out, &mut said, ANSWER + 1).map_err(Why::Io)?
            | take(&mut err, &mut words, WORDS).map_err(Why::Io)?;
        match ended {
            _ if said.len() > ANSWER => return Err(Why::TooLong),
            Some(status) if !more => return Ok((status, said, words)),
            _ if Instant::now() >= deadline => return Err(Why::Silent(patience)),
            _ => {}
        }
    }
}

/// Takes what is there, and keeps no more than `most` bytes of it all; says whether something was. A pipe that
/// was closed goes.
fn take(pipe: &mut Option<impl Read>, into: &mut Vec<u8>, most: usize) -> io::Result<bool> {
    let Some(from) = pipe else { return Ok(false) };
    let mut buffer = [0; 1 << 16];
    match from.read(&mut buffer) {
        Ok(0) => *pipe = None,
        Ok(n) => {
            into.extend_from_slice(&buffer[..n.min(most - into.len())]);
            return Ok(true);
        }
        Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
        Err(e) => return Err(e),
    }
    Ok(false)
}

/// Ends it with what it has started.
fn end(child: &mut Child) {
    let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
    let killed = Instant::now();
    while matches!(child.try_wait(), Ok(None)) && killed.elapsed() < BURIAL {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn shell(script: &str, patience: Duration) -> Result<String, String> {
        ask("/bin/sh", &["-c", script], patience).map_err(|e| e.to_string())
    }

    #[test]
    fn an_answer_is_whole_and_in_plain_words() {
        let many = "i=0; while [ $i -lt 30000 ]; do echo line $i; echo noise >&2; i=$((i+1)); done";
        let text = shell(many, LONG).unwrap();
        assert_eq!((text.lines().count(), text.lines().last()), (30_000, Some("line 29999")));
        assert_eq!(shell("cat; printf '\\377'", LONG).unwrap(), "\u{fffd}");
        let kept = shell("env | cut -d= -f1", LONG).unwrap();
        let shells_own = ["PWD", "OLDPWD", "SHLVL", "_"];
        for name in kept.lines().filter(|name| !shells_own.contains(name)) {
            assert!(KEPT.contains(&name) || SET.iter().any(|(set, _)| *set == name), "{name}");
        }
        assert_eq!(shell("echo $LC_ALL $SLURM_TIME_FORMAT", LONG).unwrap(), "C %s\n");
    }

    #[test]
    fn what_it_is_told_it_reads_and_nobody_waits_for_that() {
        let tell = |script: &str, words: &[u8]| tell("/bin/sh", &["-c", script], words, LONG);
        assert_eq!(tell("cat", b"a credential").unwrap(), "a credential");
        assert_eq!(tell("echo heard", b"not read").unwrap(), "heard\n");
        let said = tell("sleep 600", &[b'x'; 1 << 20]).unwrap_err().to_string();
        assert!(said.starts_with("sh could not be heard: "), "{said}");
    }

    #[test]
    fn a_failure_names_command_reason_and_next_step() {
        let said = shell("echo 'Invalid job id' >&2; exit 3", LONG).unwrap_err();
        assert_eq!(
            said,
            "sh failed (exit status: 3): Invalid job id; see whether slurmctld answers: scontrol ping"
        );
        let said = ask("/no/such/squeue", &["-h"], LONG).unwrap_err().to_string();
        assert!(said.starts_with("squeue could not be started: ") && said.contains("PATH"), "{said}");
        let endless = shell("yes >&2 & yes", LONG).unwrap_err();
        assert_eq!(endless, "sh said more than 256 MiB; ask it for less at once");
    }

    #[test]
    fn who_hangs_is_ended_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let pids = dir.path().join("pids");
        let script = format!("sleep 600 & echo $! $$ > {}; wait", pids.display());
        let said = shell(&script, Duration::from_secs(2)).unwrap_err();
        assert_eq!(said, "sh gave no answer within 2s; see whether slurmctld does: scontrol ping");
        let pids = std::fs::read_to_string(pids).unwrap();
        let gone = |pid: &str| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            status.is_empty() || status.contains(") Z ")
        };
        let begin = Instant::now();
        while !pids.split_whitespace().all(gone) {
            assert!(begin.elapsed() < LONG, "{pids}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_child_that_stays_does_not_keep_the_answer() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        // It holds standard output open until the test lets it go.
        let script = format!("mkfifo {0}; (read x < {0}) & echo here", fifo.display());
        assert_eq!(shell(&script, LONG).unwrap(), "here\n");
        std::fs::write(fifo, "\n").unwrap();
    }
}
