/*!
`inquest note`: what a job says itself.

The job sends one datagram to the agent's socket. Who it is, the kernel says
(SCM_CREDENTIALS); which job and step it is, its cgroup says. Nothing
of that is believed from the datagram.
*/

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use inquest_journal::{Note, Severity};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SocketFlags,
    SocketType, sockopt,
};
use serde::{Deserialize, Serialize};

/// Where the agent listens.
pub const SOCKET: &str = "/run/inquest/note.sock";
/// Bytes of text that are kept of a note.
pub const TEXT_MAX: usize = 1024;
/// Room for that text with every byte of it escaped.
const DATAGRAM_MAX: usize = 8192;

/// Kinds of notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A part of the work begins.
    Stage,
    /// Worth knowing.
    Message,
    /// Something went wrong.
    Error,
    /// How far the work is.
    Progress,
}

/// What is sent.
#[derive(Debug, Serialize, Deserialize)]
struct Wire {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kind: Option<Kind>,
    #[serde(default)]
    text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    percent: Option<f64>,
}

/// Reads a datagram: the event's body and its severity, or nothing.
pub(super) fn parse(datagram: &[u8], pid: u32) -> Option<(Note, Severity)> {
    let text = String::from_utf8_lossy(datagram);
    let (note, severity) = note_of(serde_json::from_str(&text).ok()?)?;
    Some((Note { pid: Some(pid), ..note }, severity))
}

/// Reads a line of a file of notes, which ends at `file_end`. What is no JSON is a message as it stands: in
/// a shell that is what one writes first.
pub(super) fn parse_line(line: &[u8], file_end: u64) -> Option<(Note, Severity)> {
    #[cfg(test)]
    PARSED.set(PARSED.get() + 1);
    let text = String::from_utf8_lossy(line);
    let plain = || note_of(Wire { kind: None, text: text.clone().into_owned(), percent: None });
    let (note, severity) = serde_json::from_str(&text).ok().and_then(note_of).or_else(plain)?;
    Some((Note { file_end: Some(file_end), ..note }, severity))
}

#[cfg(test)]
thread_local! {
    /// Lines that were parsed.
    pub(super) static PARSED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

fn note_of(wire: Wire) -> Option<(Note, Severity)> {
    let kind = wire.kind.unwrap_or(if wire.percent.is_some() { Kind::Progress } else { Kind::Message });
    let percent = wire.percent.filter(|p| p.is_finite()).map(|p| p.clamp(0.0, 100.0));
    let word = match kind {
        Kind::Stage => "stage",
        Kind::Message => "message",
        Kind::Error => "error",
        Kind::Progress => "progress",
    };
    let severity = if kind == Kind::Error { Severity::Error } else { Severity::Info };
    let text = Some(cut(&wire.text).to_owned()).filter(|t| !t.is_empty());
    if text.is_none() && percent.is_none() {
        return None;
    }
    Some((Note { kind: Some(word.into()), text, percent, ..Note::default() }, severity))
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_MAX)]
}

/// A datagram and who sent it.
#[derive(Debug)]
pub(super) struct Received<'b> {
    pub(super) pid: u32,
    pub(super) uid: u32,
    pub(super) bytes: &'b [u8],
    /// Whom to answer.
    pub(super) from: Option<rustix::net::SocketAddrUnix>,
}

/// The agent's end.
#[derive(Debug)]
pub(super) struct Socket {
    fd: Arc<OwnedFd>,
    path: PathBuf,
    buffer: Vec<u8>,
    /// Takes a datagram out of the queue that came with descriptors.
    discarding: Option<JoinHandle<()>>,
}

impl Socket {
    /// Listens at `path`; everybody may send. A socket that an earlier life
    /// left there is replaced, anything else is not.
    ///
    /// # Errors
    ///
    /// When the path is taken or cannot be made.
    pub(super) fn bind(path: &Path) -> io::Result<Socket> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        match std::fs::symlink_metadata(path) {
            Ok(meta) if meta.file_type().is_socket() => std::fs::remove_file(path)?,
            Ok(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "something that is no socket is there",
                ));
            }
            Err(_) => {}
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        sockopt::set_socket_passcred(&fd, true)?;
        pass_descriptors(&fd, false);
        rustix::net::bind(&fd, &rustix::net::SocketAddrUnix::new(path)?)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
        Ok(Socket {
            fd: Arc::new(fd),
            path: path.to_owned(),
            buffer: vec![0; DATAGRAM_MAX],
            discarding: None,
        })
    }

    /// A datagram is being discarded; until that is done, nothing is received.
    pub(super) fn is_discarding(&self) -> bool {
        self.discarding.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Takes one datagram without waiting; `None` when there is none, or one
    /// that has to be discarded first. One without credentials or with more
    /// than it may hold comes back empty.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub(super) fn receive(&mut self) -> io::Result<Option<Received<'_>>> {
        if self.is_discarding() {
            return Ok(None);
        }
        // Whoever takes a datagram lets go of the descriptors in it, and the last to let go of a TCP socket
        // that lingers, or of a file on a server that hangs, waits for as long as the sender likes. So it is
        // looked at first, which takes nothing, and a thread takes it if there are any: only notes wait.
        let mut space = [MaybeUninit::uninit(); CONTROL];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let peek = RecvFlags::DONTWAIT | RecvFlags::PEEK;
        match rustix::net::recvmsg(&*self.fd, &mut [], &mut control, peek) {
            Ok(got) if got.flags.contains(ReturnFlags::CTRUNC) => {
                let fd = Arc::clone(&self.fd);
                let thread = std::thread::Builder::new().name("discard".into());
                // Without a thread, the next wake tries again.
                self.discarding = thread.spawn(move || discard(&fd)).ok();
                return Ok(None);
            }
            Ok(_) => {}
            Err(rustix::io::Errno::AGAIN) => return Ok(None),
            Err(e) => return Err(e.into()),
        }
        let mut space = [MaybeUninit::uninit(); CONTROL];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [io::IoSliceMut::new(&mut self.buffer)];
        let got = match rustix::net::recvmsg(&*self.fd, &mut parts, &mut control, RecvFlags::DONTWAIT) {
            Ok(got) => got,
            Err(rustix::io::Errno::AGAIN) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let sender = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmCredentials(c) => Some((c.pid.as_raw_nonzero().get(), c.uid.as_raw())),
            _ => None,
        });
        let (pid, uid) = sender.unwrap_or((0, u32::MAX));
        let whole = !got.flags.contains(ReturnFlags::TRUNC);
        let bytes = if whole { &self.buffer[..got.bytes] } else { &[] };
        // A path that fills `sockaddr_un` is a byte longer in what the kernel gives back, and too long to be read.
        let from = got.address.filter(|a| a.addr_len() as usize <= size_of::<libc::sockaddr_un>());
        let from = from.and_then(|a| rustix::net::SocketAddrUnix::try_from(a).ok());
        Ok(Some(Received { pid: pid.cast_unsigned(), uid, bytes, from }))
    }

    /// Tells a sender what became of its note, if it waits for that.
    pub(super) fn answer(&self, to: &rustix::net::SocketAddrUnix, words: &str) {
        let _ = rustix::net::sendto(&*self.fd, words.as_bytes(), rustix::net::SendFlags::DONTWAIT, to);
    }
}

/// Room for the sender's credentials and for nothing else: the kernel opens no descriptor that does not fit.
const CONTROL: usize = rustix::cmsg_space!(ScmCredentials(1));

/// Takes one datagram out of the queue, however long that takes.
fn discard(fd: &OwnedFd) {
    let mut control = RecvAncillaryBuffer::new(&mut []);
    let _ = rustix::net::recvmsg(fd, &mut [], &mut control, RecvFlags::DONTWAIT);
}

/// Says whether descriptors may be sent to the socket; whether the kernel listens, as it does from 6.16 on.
fn pass_descriptors(fd: &OwnedFd, pass: bool) -> bool {
    /// libc does not have it yet.
    const SO_PASSRIGHTS: libc::c_int = 83;
    let pass = libc::c_int::from(pass);
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the value is an int, and its size is what is said.
    unsafe {
        libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, SO_PASSRIGHTS, (&raw const pass).cast(), size) == 0
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The agent's answer to a note that is in the journal.
pub(super) const WRITTEN: &str = "written";

/// Why a note did not get into the journal.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Nobody listens.
    #[error("no node agent listens at {path}: {source}; ask the admins to run `inquest agent` on this node")]
    NoAgent {
        /// Its socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The agent did not take it.
    #[error("the node agent did not take the note: {0}")]
    Refused(String),
    /// The agent has said nothing.
    #[error("the note was sent, but the node agent has not answered within a second")]
    Silent,
}

/// Sends a note to the agent at `path` and waits up to a second for its
/// answer. Waiting keeps this process there to be looked up.
///
/// # Errors
///
/// See [`SendError`].
pub fn send(path: &Path, kind: Option<Kind>, percent: Option<f64>, text: &str) -> Result<(), SendError> {
    let no_agent = |source| SendError::NoAgent { path: path.to_owned(), source };
    let wire = Wire { kind, text: cut(text).to_owned(), percent };
    let bytes = serde_json::to_vec(&wire).map_err(|e| SendError::Refused(e.to_string()))?;
    let socket = autobound().map_err(no_agent)?;
    let wait = Some(Duration::from_secs(1));
    socket.set_write_timeout(wait).and_then(|()| socket.set_read_timeout(wait)).map_err(no_agent)?;
    socket.send_to(&bytes, path).map_err(no_agent)?;
    let mut answer = [0; 200];
    match socket.recv(&mut answer) {
        Ok(n) if &answer[..n] == WRITTEN.as_bytes() => Ok(()),
        Ok(n) => Err(SendError::Refused(String::from_utf8_lossy(&answer[..n]).into_owned())),
        Err(_) => Err(SendError::Silent),
    }
}

/// A socket by an unused name that the kernel chooses: an address to answer to.
fn autobound() -> io::Result<UnixDatagram> {
    let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&fd, &rustix::net::SocketAddrUnix::new_unnamed())?;
    Ok(UnixDatagram::from(fd))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn notes_are_read() {
        let (note, severity) = parse(br#"{"kind":"stage","text":"solving"}"#, 42).unwrap();
        assert_eq!((note.kind.as_deref(), note.text.as_deref()), (Some("stage"), Some("solving")));
        assert_eq!((note.pid, severity), (Some(42), Severity::Info));
        let (note, _) = parse(br#"{"percent":120}"#, 42).unwrap();
        assert_eq!((note.kind.as_deref(), note.percent), (Some("progress"), Some(100.0)));
        assert_eq!(parse(br#"{"kind":"error","text":"x"}"#, 1).unwrap().1, Severity::Error);
        for plain in ["epoch 4 \u{1b}[31m", "{\"text\":7}", "[]"] {
            assert_eq!(parse_line(plain.as_bytes(), 1).unwrap().0.text.as_deref(), Some(plain));
        }
        for bad in [&b""[..], b"{}", b"{\"text\":7}", b"[]", b"{\"kind\":\"root\",\"text\":\"x\"}"] {
            assert!(parse(bad, 1).is_none());
        }
    }

    #[test]
    fn what_the_datagram_claims_beyond_the_words_is_nothing() {
        let (note, _) = parse(br#"{"text":"x","pid":1,"job_id":"5","uid":0}"#, 42).unwrap();
        assert_eq!(
            note,
            Note { kind: Some("message".into()), text: Some("x".into()), pid: Some(42), ..Note::default() }
        );
        let (note, _) = parse_line(br#"{"text":"x","pid":1,"file_end":9,"job_id":"5"}"#, 60).unwrap();
        assert_eq!(
            note,
            Note {
                kind: Some("message".into()),
                text: Some("x".into()),
                file_end: Some(60),
                ..Note::default()
            }
        );
    }

    #[test]
    fn a_note_goes_over_the_socket_with_its_senders_identity() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/note.sock");
        let mut socket = Socket::bind(&path).unwrap();
        assert!(socket.receive().unwrap().is_none());
        let to = path.clone();
        let sender = std::thread::spawn(move || send(&to, Some(Kind::Message), None, "hello"));
        let from = loop {
            if let Some(got) = socket.receive().unwrap() {
                assert_eq!(got.pid, std::process::id());
                assert_eq!(parse(got.bytes, 1).unwrap().0.text.as_deref(), Some("hello"));
                break got.from.unwrap();
            }
            std::thread::yield_now();
        };
        socket.answer(&from, WRITTEN);
        sender.join().unwrap().unwrap();
        drop(socket);
        assert!(matches!(send(&path, None, None, "x"), Err(SendError::NoAgent { .. })));
    }

    /// What a sender may put into `sockaddr_un`: a path that fills it, without an end.
    #[test]
    fn a_sender_with_the_longest_path_is_not_answered() {
        let dir = tempfile::tempdir().unwrap();
        let mut socket = Socket::bind(&dir.path().join("note.sock")).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        // SAFETY: all zeros are a valid sockaddr_un.
        let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
        address.sun_family = libc::AF_UNIX as libc::sa_family_t;
        let long = format!("{}/", dir.path().display());
        let long = format!("{long}{}", "x".repeat(address.sun_path.len() - long.len()));
        for (to, from) in address.sun_path.iter_mut().zip(long.bytes()) {
            *to = from.cast_signed();
        }
        let size = size_of::<libc::sockaddr_un>() as libc::socklen_t;
        // SAFETY: the address is a sockaddr_un of that size.
        let bound = unsafe { libc::bind(sender.as_raw_fd(), (&raw const address).cast(), size) };
        assert_eq!(bound, 0, "{}", io::Error::last_os_error());
        sender.send_to(b"{}", &socket.path).unwrap();
        let got = socket.receive().unwrap().unwrap();
        assert_eq!((got.bytes, got.from.is_none()), (&b"{}"[..], true));
    }

    /// Sends a note and descriptors with it.
    fn send_with(to: &Socket, fds: &[BorrowedFd<'_>]) -> rustix::io::Result<usize> {
        let address = rustix::net::SocketAddrUnix::new(&to.path).unwrap();
        let from =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
                .unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(32))];
        let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
        assert!(control.push(rustix::net::SendAncillaryMessage::ScmRights(fds)));
        let parts = [io::IoSlice::new(b"{}")];
        let none = rustix::net::SendFlags::empty();
        rustix::net::sendmsg_addr(&from, &address, &parts, &mut control, none)
    }

    #[test]
    fn descriptors_are_refused_where_the_kernel_can() {
        let dir = tempfile::tempdir().unwrap();
        let mut socket = Socket::bind(&dir.path().join("note.sock")).unwrap();
        let sent = send_with(&socket, &[socket.fd.as_fd()]);
        let refused = pass_descriptors(&socket.fd, false);
        assert_eq!(sent, if refused { Err(rustix::io::Errno::PERM) } else { Ok(2) });
        await_last(&mut socket);
    }

    /// Waits for the note "last", which stands behind all others.
    fn await_last(socket: &mut Socket) {
        UnixDatagram::unbound().unwrap().send_to(b"last", &socket.path).unwrap();
        loop {
            match socket.receive().unwrap() {
                Some(got) if got.bytes == b"last" => return,
                _ => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    #[test]
    fn descriptors_sent_along_do_not_stay() {
        let dir = tempfile::tempdir().unwrap();
        let mut socket = Socket::bind(&dir.path().join("note.sock")).unwrap();
        pass_descriptors(&socket.fd, true);
        let path = dir.path().join("sent");
        let file = std::fs::File::create(&path).unwrap();
        for _ in 0..100 {
            send_with(&socket, &[file.as_fd(); 8]).unwrap();
            await_last(&mut socket);
        }
        let open = std::fs::read_dir("/proc/self/fd").unwrap().map(|fd| fd.unwrap().path());
        assert_eq!(open.filter(|fd| std::fs::read_link(fd).is_ok_and(|to| to == path)).count(), 1);
    }

    #[test]
    fn nobody_waits_for_a_descriptor_that_does_not_let_go() {
        const LINGER: Duration = Duration::from_secs(60);
        let dir = tempfile::tempdir().unwrap();
        let mut socket = Socket::bind(&dir.path().join("note.sock")).unwrap();
        // The last close of a TCP connection waits here until what was written has arrived.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (peer, _) = listener.accept().unwrap();
        sockopt::set_socket_linger(&client, Some(LINGER)).unwrap();
        client.set_nonblocking(true).unwrap();
        while std::io::Write::write(&mut &client, &[0; 65536]).is_ok() {}
        pass_descriptors(&socket.fd, true);
        send_with(&socket, &[client.as_fd(); 12]).unwrap();
        drop(client);
        let start = std::time::Instant::now();
        for _ in 0..10 {
            assert!(socket.receive().unwrap().is_none_or(|got| got.bytes == b"{}"));
        }
        assert!(start.elapsed() < LINGER / 2, "waited {:?}", start.elapsed());
        drop(peer);
        await_last(&mut socket);
    }

    proptest! {
        #[test]
        fn any_datagram_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in any::<String>()) {
            let _ = (parse(&bytes, 1), parse_line(&bytes, 1));
            let wire = serde_json::to_vec(&Wire { kind: None, text: text.repeat(200), percent: None }).unwrap();
            if let Some((note, _)) = parse(&wire, 1) {
                prop_assert!(note.text.unwrap().len() <= TEXT_MAX);
            }
        }
    }
}
