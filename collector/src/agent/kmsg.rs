//! The kernel's log as a device: one read, one record.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// An open log, at its oldest record.
#[derive(Debug)]
pub(super) struct Kmsg {
    file: File,
    buffer: Vec<u8>,
}

/// What a read gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Got<'a> {
    Record(&'a [u8]),
    /// Records were overwritten before they were read.
    Overwritten,
    /// No more for now.
    Nothing,
}

impl Kmsg {
    /// Opens the log.
    ///
    /// # Errors
    ///
    /// Usually EPERM, for want of CAP_SYSLOG.
    pub(super) fn open(path: &Path) -> io::Result<Kmsg> {
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        // The longest record the kernel gives is shorter (CONSOLE_EXT_LOG_MAX).
        Ok(Kmsg { file, buffer: vec![0; 8192] })
    }

    /// Takes one record without waiting.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub(super) fn read(&mut self) -> io::Result<Got<'_>> {
        loop {
            return match self.file.read(&mut self.buffer) {
                Ok(0) => Ok(Got::Nothing),
                Ok(n) => Ok(Got::Record(&self.buffer[..n])),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(Got::Nothing),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) if e.raw_os_error() == Some(libc::EPIPE) => Ok(Got::Overwritten),
                Err(e) => Err(e),
            };
        }
    }
}

impl AsFd for Kmsg {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
