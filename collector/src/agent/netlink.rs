/*!
As much netlink as one request and one kind of message need.

The crates for it bring a type for every attribute of every family; here two
requests are sent in a life, and what arrives is read in place.
*/

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::netlink::{CONNECTOR, GENERIC, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

use super::taskstats::Instruction;

/// Bytes of the generic netlink header: command, version, two unused.
pub(super) const GENL_HEADER: usize = 4;

const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;

/// One message as it lies in the buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    /// `nlmsg_type`.
    pub(super) kind: u16,
    /// Everything behind the header.
    pub(super) payload: &'a [u8],
}

/// The messages of one datagram; a damaged one ends it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Messages<'a>(&'a [u8]);

impl<'a> Messages<'a> {
    /// Messages of `datagram`.
    pub(super) fn new(datagram: &'a [u8]) -> Messages<'a> {
        Messages(datagram)
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let head = self.0.get(..HEADER)?;
        let len = u32::from_ne_bytes(head[..4].try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(head[4..6].try_into().ok()?);
        let payload = self.0.get(HEADER..len)?;
        self.0 = self.0.get(len.checked_next_multiple_of(4)?..).unwrap_or_default();
        Some(Message { kind, payload })
    }
}

/// The attributes in a payload, type and value; a damaged one ends them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    /// Attributes of `bytes`.
    pub(super) fn new(bytes: &'a [u8]) -> Attributes<'a> {
        Attributes(bytes)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let head = self.0.get(..4)?;
        let len = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        // The two highest bits say "nested" and "big-endian".
        let kind = u16::from_ne_bytes([head[2], head[3]]) & 0x3fff;
        let value = self.0.get(4..len)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// A request with one attribute.
fn request(kind: u16, seq: u32, command: u8, attribute: u16, value: &[u8]) -> Vec<u8> {
    let len = 4 + value.len();
    let mut m = vec![0; HEADER + GENL_HEADER + len.next_multiple_of(4)];
    let total = u32::try_from(m.len()).unwrap_or(u32::MAX);
    m[..4].copy_from_slice(&total.to_ne_bytes());
    m[4..6].copy_from_slice(&kind.to_ne_bytes());
    m[6..8].copy_from_slice(&(NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    m[8..12].copy_from_slice(&seq.to_ne_bytes());
    m[HEADER] = command;
    m[HEADER + 1] = 1;
    let at = HEADER + GENL_HEADER;
    m[at..at + 2].copy_from_slice(&u16::try_from(len).unwrap_or(u16::MAX).to_ne_bytes());
    m[at + 2..at + 4].copy_from_slice(&attribute.to_ne_bytes());
    m[at + 4..at + 4 + value.len()].copy_from_slice(value);
    m
}

/// A generic netlink socket bound to one family.
#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    family: u16,
    port: u32,
    seq: u32,
}

/// Bytes the kernel may queue for us: some 10,000 records, which is five
/// seconds of 2,000 abnormal ends a second with nobody reading.
const RECEIVE_BUFFER: usize = 16 << 20;

impl Socket {
    /// Opens a socket and asks the kernel for the number of `family`.
    ///
    /// # Errors
    ///
    /// What the kernel says, ENOENT for a family it was built without.
    pub(super) fn open(family: &str) -> io::Result<Socket> {
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(GENERIC),
        )?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, 0))?;
        // Above the system's maximum only with CAP_NET_ADMIN, so fall back.
        if sockopt::set_socket_recv_buffer_size_force(&fd, RECEIVE_BUFFER).is_err() {
            sockopt::set_socket_recv_buffer_size(&fd, RECEIVE_BUFFER)?;
        }
        let mut socket = Socket { port: port_of(&fd)?, fd, family: GENL_ID_CTRL, seq: 0 };
        let name = [family.as_bytes(), b"\0"].concat();
        let mut id = None;
        socket.call(CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_NAME, &name, |message| {
            let body = message.payload.get(GENL_HEADER..).unwrap_or_default();
            let found = Attributes::new(body).find(|(kind, _)| *kind == CTRL_ATTR_FAMILY_ID);
            id = id.or(found.and_then(|(_, v)| Some(u16::from_ne_bytes(v.get(..2)?.try_into().ok()?))));
        })?;
        socket.family = id.ok_or_else(|| io::Error::other("the kernel named no such netlink family"))?;
        Ok(socket)
    }

    /// Opens a socket of the kernel's connector and joins one of its groups.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub(super) fn open_connector(group: u32) -> io::Result<Socket> {
        let kind = SocketType::DGRAM;
        let fd =
            rustix::net::socket_with(AddressFamily::NETLINK, kind, SocketFlags::CLOEXEC, Some(CONNECTOR))?;
        let mask = 1u32.checked_shl(group.saturating_sub(1)).unwrap_or(0);
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, mask))?;
        // Some thousand messages; what is behind them would be too late anyway.
        let _ = sockopt::set_socket_recv_buffer_size_force(&fd, 2 << 20);
        Ok(Socket { port: port_of(&fd)?, fd, family: 0, seq: 0 })
    }

    /// Sends one message that is not answered.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub(super) fn send(&self, kind: u16, payload: &[u8]) -> io::Result<()> {
        let mut m = Vec::with_capacity(HEADER + payload.len());
        let total = u32::try_from(HEADER + payload.len()).map_err(io::Error::other)?;
        m.extend(total.to_ne_bytes());
        m.extend(kind.to_ne_bytes());
        // No flags, no number, and the port that the kernel gave us.
        m.resize(HEADER, 0);
        m.extend(payload);
        rustix::net::send(&self.fd, &m, SendFlags::empty())?;
        Ok(())
    }

    /// The same family on a socket that another process opened for it.
    ///
    /// # Errors
    ///
    /// When it is no netlink socket.
    pub(super) fn adopt(self, fd: OwnedFd) -> io::Result<Socket> {
        Ok(Socket { port: port_of(&fd)?, fd, family: self.family, seq: self.seq })
    }

    /// Number of the family.
    pub(super) fn family(&self) -> u16 {
        self.family
    }

    /// Sends one request and waits for its acknowledgement.
    ///
    /// # Errors
    ///
    /// What the kernel answered.
    pub(super) fn call(
        &mut self,
        command: u8,
        attribute: u16,
        value: &[u8],
        mut answer: impl FnMut(&Message<'_>),
    ) -> io::Result<()> {
        self.seq += 1;
        let request = request(self.family, self.seq, command, attribute, value);
        rustix::net::send(&self.fd, &request, SendFlags::empty())?;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let (n, _) = rustix::net::recv(&self.fd, &mut buffer[..], RecvFlags::empty())?;
            for message in Messages::new(&buffer[..n]) {
                if message.kind != NLMSG_ERROR {
                    answer(&message);
                    continue;
                }
                let code = message.payload.get(..4).and_then(|b| b.try_into().ok()).map(i32::from_ne_bytes);
                return match code {
                    Some(0) => Ok(()),
                    Some(e) => Err(io::Error::from_raw_os_error(-e)),
                    None => Err(io::Error::other("the kernel's answer was cut short")),
                };
            }
        }
    }

    /// Lets the kernel run `program` on every message before it is queued.
    ///
    /// # Errors
    ///
    /// What the kernel says of the program.
    pub(super) fn attach_filter(&self, program: &[Instruction]) -> io::Result<()> {
        let mut code: Vec<libc::sock_filter> =
            program.iter().map(|&(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k }).collect();
        let len = libc::c_ushort::try_from(code.len()).map_err(io::Error::other)?;
        let filter = libc::sock_fprog { len, filter: code.as_mut_ptr() };
        // SAFETY: filter points at `len` instructions that outlive the call,
        // and the size given is that of the struct.
        let done = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                (&raw const filter).cast(),
                size_of::<libc::sock_fprog>() as libc::socklen_t,
            )
        };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Takes one datagram without waiting; `None` when there is none.
    ///
    /// # Errors
    ///
    /// ENOBUFS when the kernel had to drop messages since the last call.
    pub(super) fn receive<'b>(&self, buffer: &'b mut [MaybeUninit<u8>]) -> io::Result<Option<&'b [u8]>> {
        match rustix::net::recv(&self.fd, buffer, RecvFlags::DONTWAIT) {
            Ok(((bytes, _), _)) => Ok(Some(bytes)),
            Err(rustix::io::Errno::AGAIN) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// How many messages the kernel has dropped because this socket's buffer
    /// was full; `None` where /proc does not say.
    pub(super) fn drops(&self) -> Option<u64> {
        drops_of(&std::fs::read_to_string("/proc/net/netlink").ok()?, self.port)
    }
}

fn port_of(fd: &OwnedFd) -> io::Result<u32> {
    Ok(SocketAddrNetlink::try_from(rustix::net::getsockname(fd)?)?.pid())
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The column Drops of a generic netlink socket in `/proc/net/netlink`.
fn drops_of(table: &str, port: u32) -> Option<u64> {
    let mut lines = table.lines();
    let column = lines.next()?.split_whitespace().position(|name| name == "Drops")?;
    lines.find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let ours = *fields.get(1)? == "16" && fields.get(2)?.parse() == Ok(port);
        if ours { fields.get(column)?.parse().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_request_reads_back() {
        let bytes = request(16, 7, 3, 2, b"TASKSTATS\0");
        let message = Messages::new(&bytes).next().unwrap();
        assert_eq!((message.kind, message.payload[0]), (16, 3));
        let all: Vec<_> = Attributes::new(&message.payload[GENL_HEADER..]).collect();
        assert_eq!(all, [(2, &b"TASKSTATS\0"[..])]);
    }

    #[test]
    fn drops_are_found_by_port() {
        let table = "\
sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode
00000000e6e0e3f1 0   42         00000000 0        0        0     2        9        1
00000000e6e0e3f2 16  42         00000000 0        0        0     2        3        2
";
        assert_eq!(drops_of(table, 42), Some(3));
        assert_eq!(drops_of(table, 43), None);
        assert_eq!(drops_of("", 42), None);
    }

    proptest! {
        #[test]
        fn reading_ends(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Messages::new(&bytes).count() <= 300);
            prop_assert!(Attributes::new(&bytes).count() <= 300);
        }
    }
}
