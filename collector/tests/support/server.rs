//! A built server on a store, and people who ask it over its socket, each with
//! a uid that the kernel vouches for.

#![allow(dead_code)] // Each test uses its own part.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use inquest_tests::children::apart;
use inquest_tests::skip::skip;

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// A running server; ended by its process id when it is dropped.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) socket: PathBuf,
    pub(crate) tcp: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts one with further lines in `[serve]`, and waits until it answers.
    pub(crate) fn start(dir: &Path, store: &Path, settings: &str) -> Server {
        Server::with(dir, store, settings, |_| {})
    }

    pub(crate) fn with(dir: &Path, store: &Path, settings: &str, more: impl FnOnce(&mut Command)) -> Server {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o711)).unwrap();
        let (socket, config) = (dir.join("serve.sock"), dir.join("serve.toml"));
        let text = format!(
            "store = {:?}\n[serve]\nsocket = {:?}\nlisten = \"127.0.0.1:0\"\n{settings}\n",
            store.display(),
            socket.display()
        );
        fs::write(&config, text).unwrap();
        let built = option_env!("CARGO_BIN_EXE_inquest");
        let mut command = apart(built.map_or_else(inquest_tests::artefacts::inquest, PathBuf::from));
        command.arg("serve").arg("--config").arg(&config).env("TZ", "UTC");
        more(&mut command);
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        stderr.read_line(&mut said).unwrap();
        let tcp = said.split("http://").nth(1).and_then(|t| t.split('/').next()?.parse().ok());
        let tcp = tcp.unwrap_or_else(|| panic!("no server: {said}"));
        // What it says later must not fill the pipe.
        std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
        Server { child, socket, tcp }
    }

    /// A GET over the socket as this user.
    pub(crate) fn get(&self, uid: u32, path: &str) -> Answer {
        self.ask(uid, path, &[])
    }

    /// The same with further headers.
    pub(crate) fn ask(&self, uid: u32, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(uid, &request(path, headers))
    }

    /// These very bytes.
    pub(crate) fn send(&self, uid: u32, request: &[u8]) -> Answer {
        let (socket, request) = (self.socket.clone(), request.to_vec());
        std::thread::spawn(move || {
            become_user(uid);
            let stream = UnixStream::connect(socket).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            talk(stream, &request)
        })
        .join()
        .unwrap()
    }

    /// So many connections of this user that say nothing.
    pub(crate) fn hold(&self, uid: u32, count: usize) -> Vec<UnixStream> {
        let socket = self.socket.clone();
        let connect = move || {
            become_user(uid);
            let connect = |_| UnixStream::connect(&socket).unwrap();
            (0..count).map(connect).collect()
        };
        std::thread::spawn(connect).join().unwrap()
    }

    /// A GET over TCP, where nobody vouches for anybody.
    pub(crate) fn tcp(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let stream = TcpStream::connect(self.tcp).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        talk(stream, &request(path, headers))
    }
}

pub(crate) fn request(path: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut text = format!("GET {path} HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        text.push_str("Host: localhost\r\n");
    }
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    (text + "\r\n").into_bytes()
}

/// Makes this thread, and no other, one of that user: what the kernel says of
/// a socket is what the thread was that connected.
fn become_user(uid: u32) {
    if uid != rustix::process::geteuid().as_raw() {
        // SAFETY: the raw system call changes the credentials of the calling
        // thread only, which ends after it has asked.
        let done = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) };
        assert_eq!(done, 0, "cannot become uid {uid}");
    }
}

fn talk(mut stream: impl Read + Write, request: &[u8]) -> Answer {
    let _ = stream.write_all(request); // It may have been refused before it was whole.
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes); // A reset ends an answer, too.
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let mut lines = head.lines();
    let status = lines.next().and_then(|l| l.split(' ').nth(1)?.parse().ok()).unwrap_or(0);
    let headers =
        lines.filter_map(|l| l.split_once(": ")).map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned()));
    Answer { status, headers: headers.collect(), body: body.to_owned() }
}

/// Uid of an account that ci/setup makes.
pub(crate) fn uid(name: &str) -> u32 {
    let user = uzers::get_user_by_name(name);
    user.unwrap_or_else(|| panic!("there is no account {name}; ci/setup makes it")).uid()
}

pub(crate) fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip("only root can ask as somebody else");
    }
    root
}
