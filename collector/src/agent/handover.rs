/*!
The socket on which the kernel tells of ends of processes, kept open by systemd
while the agent is restarted: what ends in between waits in its queue.

Protocol: sd_notify(3), sd_listen_fds(3), FileDescriptorStoreMax= in
systemd.service(5). Without systemd nothing of this happens.
*/

use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType,
};

/// The name under which the socket is kept.
const NAME: &str = "ends";
/// First descriptor that systemd passes.
const FIRST: RawFd = 3;

/// The socket that an earlier life left with systemd.
pub(super) fn take() -> Option<OwnedFd> {
    let var = |name: &str| std::env::var(name).ok();
    let at = position(
        &var("LISTEN_PID")?,
        &var("LISTEN_FDS")?,
        &var("LISTEN_FDNAMES").unwrap_or_default(),
        std::process::id(),
    )?;
    let raw = FIRST + at;
    // SAFETY: asking for flags takes any number; an answer means it is open.
    if unsafe { libc::fcntl(raw, libc::F_GETFD) } < 0 {
        return None;
    }
    // SAFETY: the descriptor is open, and systemd passed it to this process,
    // which takes it nowhere else: this runs once, at the start.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC).ok()?;
    Some(fd)
}

/// Which of the passed descriptors is ours, if they are for this process.
fn position(pid: &str, count: &str, names: &str, own: u32) -> Option<i32> {
    let count: usize = count.parse().ok()?;
    if pid.parse() != Ok(own) {
        return None;
    }
    let at = names.split(':').take(count).position(|name| name == NAME)?;
    i32::try_from(at).ok()
}

/// Asks systemd to keep the socket; nothing when it did not start us.
///
/// # Errors
///
/// What the system says to the message.
pub(super) fn leave(fd: BorrowedFd<'_>) -> io::Result<()> {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let to = address(&path)?;
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // A full queue is an error to poll(2), on which systemd would drop it.
    let words = format!("FDSTORE=1\nFDNAME={NAME}\nFDPOLL=0\n");
    let fds = [fd];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    let parts = [io::IoSlice::new(words.as_bytes())];
    rustix::net::sendmsg_addr(&socket, &to, &parts, &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn address(path: &OsStr) -> io::Result<SocketAddrUnix> {
    Ok(match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddrUnix::new_abstract_name(name)?,
        None => SocketAddrUnix::new(path.as_bytes())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_meant_for_this_process_is_taken() {
        assert_eq!(position("42", "2", "other:ends", 42), Some(1));
        assert_eq!(position("42", "1", "other:ends", 42), None);
        assert_eq!(position("41", "1", "ends", 42), None);
        assert_eq!(position("42", "x", "ends", 42), None);
        assert_eq!(position("42", "1", "", 42), None);
    }
}
