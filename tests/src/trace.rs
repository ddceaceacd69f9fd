/*!
A process that is stopped at every system call of its first thread, so that it
can be killed exactly there, and so that one can see what it had made durable.
*/

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use libc::{c_int, c_long, c_void, pid_t};

/// A process under trace. It is killed when this is dropped.
#[derive(Debug)]
pub struct Traced {
    pid: pid_t,
    over: bool,
    entered: Option<(u64, [u64; 6])>,
    signal: c_int,
}

/// What a traced process did next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It came back from a system call.
    Returned {
        /// Its number.
        number: u64,
        /// Its arguments.
        arguments: [u64; 6],
        /// What it returned; negative is an error.
        value: i64,
    },
    /// It ended; the status as `waitpid` has it.
    Ended(c_int),
}

impl Traced {
    /// Starts `command` and stops it before its first instruction.
    ///
    /// # Errors
    ///
    /// When it cannot be started or traced.
    pub fn spawn(command: &mut Command) -> io::Result<Traced> {
        // SAFETY: between fork and exec only ptrace is called, which is a bare
        // system call.
        unsafe {
            command.pre_exec(|| {
                checked(libc::ptrace(libc::PTRACE_TRACEME, 0, std::ptr::null_mut::<c_void>(), 0))
            });
        }
        let child = command.spawn()?;
        let pid = pid_t::try_from(child.id()).map_err(io::Error::other)?;
        let traced = Traced { pid, over: false, entered: None, signal: 0 };
        if libc::WIFSTOPPED(traced.wait()?) {
            let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;
            // SAFETY: the process is our tracee and is stopped.
            unsafe {
                checked(libc::ptrace(libc::PTRACE_SETOPTIONS, pid, std::ptr::null_mut::<c_void>(), options))?;
            }
        }
        Ok(traced)
    }

    /// Its process id.
    pub fn pid(&self) -> pid_t {
        self.pid
    }

    /// Lets it run until it comes back from its next system call, or ends.
    ///
    /// # Errors
    ///
    /// When it cannot be traced any more.
    pub fn go_on(&mut self) -> io::Result<Next> {
        loop {
            // SAFETY: the process is our tracee and is stopped.
            unsafe {
                let none = std::ptr::null_mut::<c_void>();
                checked(libc::ptrace(libc::PTRACE_SYSCALL, self.pid, none, self.signal))?;
            }
            self.signal = 0;
            let status = self.wait()?;
            if !libc::WIFSTOPPED(status) {
                self.over = true;
                return Ok(Next::Ended(status));
            }
            match libc::WSTOPSIG(status) {
                signal if signal == libc::SIGTRAP | 0x80 => {}
                libc::SIGTRAP => continue,
                signal => {
                    self.signal = signal;
                    continue;
                }
            }
            match self.look()? {
                Seen::Entry(number, arguments) => self.entered = Some((number, arguments)),
                Seen::Exit(value) => {
                    if let Some((number, arguments)) = self.entered.take() {
                        return Ok(Next::Returned { number, arguments, value });
                    }
                }
            }
        }
    }

    /// Ends it at once, with all its threads.
    ///
    /// # Errors
    ///
    /// When it cannot be waited for.
    pub fn kill(&mut self) -> io::Result<()> {
        if !self.over {
            // SAFETY: the process is our child and was not waited for yet.
            unsafe { libc::kill(self.pid, libc::SIGKILL) };
            while !{
                let status = self.wait()?;
                libc::WIFSIGNALED(status) || libc::WIFEXITED(status)
            } {}
            self.over = true;
        }
        Ok(())
    }

    fn wait(&self) -> io::Result<c_int> {
        let mut status = 0;
        loop {
            // SAFETY: status is a valid place for an int.
            match unsafe { libc::waitpid(self.pid, &mut status, libc::__WALL) } {
                pid if pid == self.pid => return Ok(status),
                _ => match io::Error::last_os_error() {
                    e if e.kind() == io::ErrorKind::Interrupted => {}
                    e => return Err(e),
                },
            }
        }
    }

    fn look(&self) -> io::Result<Seen> {
        // SAFETY: all-zero is a valid value of this plain struct.
        let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
        let size = std::mem::size_of_val(&info);
        // SAFETY: the process is stopped; info has the size that is told.
        unsafe {
            checked(libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, self.pid, size, &raw mut info))?;
            match info.op {
                libc::PTRACE_SYSCALL_INFO_ENTRY => Ok(Seen::Entry(info.u.entry.nr, info.u.entry.args)),
                libc::PTRACE_SYSCALL_INFO_EXIT => Ok(Seen::Exit(info.u.exit.sval)),
                op => Err(io::Error::other(format!("a stop of kind {op}"))),
            }
        }
    }
}

enum Seen {
    Entry(u64, [u64; 6]),
    Exit(i64),
}

impl Drop for Traced {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

fn checked(result: c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
