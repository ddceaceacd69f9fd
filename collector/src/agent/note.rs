/*!
`inquest note`: what a job says itself.

The job sends one datagram to the agent's socket. Who it is, the kernel says
(SCM_CREDENTIALS); which job and step it is, its cgroup says. Nothing
of that is believed from the datagram.
*/

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use inquest_journal::{Note, Severity};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, sockopt,
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
    let text = String::from_utf8_lossy(line);
    let plain = || note_of(Wire { kind: None, text: text.clone().into_owned(), percent: None });
    let (note, severity) = serde_json::from_str(&text).ok().and_then(note_of).or_else(plain)?;
    Some((Note { file_end: Some(file_end), ..note }, severity))
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
    fd: OwnedFd,
    path: PathBuf,
    buffer: Vec<u8>,
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
        rustix::net::bind(&fd, &rustix::net::SocketAddrUnix::new(path)?)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
        Ok(Socket { fd, path: path.to_owned(), buffer: vec![0; DATAGRAM_MAX] })
    }

    /// Takes one datagram without waiting; `None` when there is none. One
    /// without credentials or with more than it may hold comes back empty.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub(super) fn receive(&mut self) -> io::Result<Option<Received<'_>>> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1), ScmRights(8))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [io::IoSliceMut::new(&mut self.buffer)];
        // Descriptors that somebody sends along are closed with `control`.
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let got = match rustix::net::recvmsg(&self.fd, &mut parts, &mut control, flags) {
            Ok(got) => got,
            Err(rustix::io::Errno::AGAIN) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let sender = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmCredentials(c) => Some((c.pid.as_raw_nonzero().get(), c.uid.as_raw())),
            _ => None,
        });
        let (pid, uid) = sender.unwrap_or((0, u32::MAX));
        let whole = !got.flags.contains(rustix::net::ReturnFlags::TRUNC);
        let bytes = if whole { &self.buffer[..got.bytes] } else { &[] };
        let from = got.address.and_then(|a| rustix::net::SocketAddrUnix::try_from(a).ok());
        Ok(Some(Received { pid: pid.cast_unsigned(), uid, bytes, from }))
    }

    /// Tells a sender what became of its note, if it waits for that.
    pub(super) fn answer(&self, to: &rustix::net::SocketAddrUnix, words: &str) {
        let _ = rustix::net::sendto(&self.fd, words.as_bytes(), rustix::net::SendFlags::DONTWAIT, to);
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
