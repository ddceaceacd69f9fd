//! Programs of a site or user that are run when something fails.
//!
//! A handler is started word by word as it was given; what it is told comes on
//! standard input as JSON and in the environment, so that no data is ever part
//! of a command line.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// Between SIGTERM and SIGKILL to a handler that takes too long.
const MERCY: Duration = Duration::from_secs(5);

/// One failure for the handler.
#[derive(Clone, Debug)]
pub struct Call {
    /// Names the failure in messages.
    pub name: String,
    /// What it reads.
    pub input: Vec<u8>,
    /// What it finds in its environment.
    pub environment: Vec<(&'static str, String)>,
}

/// A handler that has ended.
#[derive(Debug)]
pub struct Ended {
    /// What it was called for.
    pub name: String,
    /// How it ended; an error when it could not be started.
    pub result: io::Result<ExitStatus>,
    /// It took too long.
    pub late: bool,
}

/// Handlers at work, no more than so many at a time.
#[derive(Debug)]
pub struct Handlers {
    argv: Vec<String>,
    most: usize,
    patience: Duration,
    waiting: VecDeque<Call>,
    running: Vec<Running>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    name: String,
    started: Instant,
    told: bool,
}

impl Handlers {
    /// Handlers with these words, so many at a time, each for so long.
    pub fn new(argv: Vec<String>, most: usize, patience: Duration) -> Handlers {
        Handlers { argv, most, patience, waiting: VecDeque::new(), running: Vec::new() }
    }

    /// Lets a failure wait for its turn.
    pub fn add(&mut self, call: Call) {
        self.waiting.push_back(call);
    }

    /// Nothing waits and nothing runs.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// Forgets what waits; gives how many that were.
    pub fn drop_waiting(&mut self) -> usize {
        self.waiting.drain(..).count()
    }

    /// Starts what has its turn, ends what takes too long, and gives those
    /// that have ended. Never waits.
    pub fn step(&mut self) -> Vec<Ended> {
        let mut ended = Vec::new();
        let patience = self.patience;
        self.running.retain_mut(|r| match r.child.try_wait() {
            Ok(None) => {
                r.hurry(patience);
                true
            }
            Ok(Some(status)) => {
                ended.push(Ended { name: std::mem::take(&mut r.name), result: Ok(status), late: r.told });
                false
            }
            Err(e) => {
                ended.push(Ended { name: std::mem::take(&mut r.name), result: Err(e), late: r.told });
                false
            }
        });
        while self.running.len() < self.most
            && let Some(call) = self.waiting.pop_front()
        {
            match start(&self.argv, &call) {
                Ok(child) => {
                    self.running.push(Running {
                        child,
                        name: call.name,
                        started: Instant::now(),
                        told: false,
                    });
                }
                Err(e) => ended.push(Ended { name: call.name, result: Err(e), late: false }),
            }
        }
        ended
    }
}

impl Running {
    fn hurry(&mut self, patience: Duration) {
        let ran = self.started.elapsed();
        let signal = match () {
            () if ran > patience + MERCY => Signal::KILL,
            () if ran > patience && !self.told => Signal::TERM,
            () => return,
        };
        self.told = true;
        // It leads a group of its own, so its children end with it.
        let _ = kill_process_group(Pid::from_child(&self.child), signal);
    }
}

fn start(argv: &[String], call: &Call) -> io::Result<Child> {
    let (program, words) = argv
        .split_first()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no handler was given"))?;
    // A file in memory, not a pipe: whether the handler reads it or not, nobody waits.
    let mut input = File::from(rustix::fs::memfd_create("inquest-failure", rustix::fs::MemfdFlags::CLOEXEC)?);
    input.write_all(&call.input)?;
    input.rewind()?;
    Command::new(program)
        .args(words)
        .envs(call.environment.iter().map(|(k, v)| (*k, v.as_str())))
        .stdin(Stdio::from(input))
        .process_group(0)
        .spawn()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finish(mut handlers: Handlers) -> Vec<Ended> {
        let mut all = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(60);
        while !handlers.is_idle() {
            assert!(Instant::now() < deadline, "{handlers:?}");
            all.extend(handlers.step());
            std::thread::sleep(Duration::from_millis(2));
        }
        all
    }

    fn call(name: &str, input: &[u8]) -> Call {
        Call { name: name.into(), input: input.into(), environment: vec![("WHO", name.into())] }
    }

    fn shell(script: &str) -> Vec<String> {
        ["sh", "-c", script].map(str::to_owned).to_vec()
    }

    #[test]
    fn data_is_read_and_never_a_word() {
        let evil = b"{\"x\": \"$(exit 9); `exit 9`\"}".repeat(20_000);
        let script = format!("test \"$WHO\" = '$(a)' && test $(wc -c) = {}", evil.len());
        let mut handlers = Handlers::new(shell(&script), 2, Duration::from_secs(60));
        handlers.add(call("$(a)", &evil));
        handlers.add(call("b", b""));
        let codes: Vec<_> =
            finish(handlers).into_iter().map(|e| (e.name, e.result.unwrap().code())).collect();
        assert!(
            codes.contains(&("$(a)".into(), Some(0))) && codes.contains(&("b".into(), Some(1))),
            "{codes:?}"
        );
    }

    #[test]
    fn no_more_than_so_many_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().display();
        // Each says how many are at work beside it.
        let script =
            format!("mkdir {place}/$$; ls {place} | wc -l >> {place}.most; sleep 0.05; rmdir {place}/$$");
        let mut handlers = Handlers::new(shell(&script), 3, Duration::from_secs(60));
        (0..12).for_each(|n| handlers.add(call(&n.to_string(), b"")));
        assert_eq!(finish(handlers).len(), 12);
        let most = std::fs::read_to_string(format!("{place}.most")).unwrap();
        std::fs::remove_file(format!("{place}.most")).unwrap();
        assert!(most.split_whitespace().all(|n| n.parse::<u32>().unwrap() <= 3), "{most}");
    }

    #[test]
    fn who_takes_too_long_is_ended_with_its_children() {
        let mut handlers = Handlers::new(shell("sleep 600 & wait"), 1, Duration::from_millis(20));
        handlers.add(call("slow", b""));
        let ended = finish(handlers);
        assert!(ended[0].late && !ended[0].result.as_ref().unwrap().success(), "{ended:?}");
    }

    #[test]
    fn who_cannot_be_started_is_told() {
        let mut handlers = Handlers::new(vec!["/no/such/handler".into()], 1, Duration::from_secs(1));
        handlers.add(call("x", b""));
        assert!(finish(handlers)[0].result.is_err());
    }
}
