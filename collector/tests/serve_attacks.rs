//! What somebody may try who wants to see what is not theirs: each attempt is
//! a line of a table, and none shows a word of it, in an answer or an error.

#[path = "support/server.rs"]
mod server;
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use server::{Server, is_root, request, uid};
use support::{EPOCH, End, Job, Lab};

const ANN: &str = "inquest-test1";
const BOB: &str = "inquest-test2";
const RUN: &str = "bobs-secret-run";
const KEY: &str = "a secret of the proxy, 0123456789";

/// What only Bob and operators may see.
const SECRETS: [&str; 6] =
    ["bobs-secret-name", "secret-account", "secretnode", "777124", "chunk_failed", "verdict"];

fn lab() -> Lab {
    let lab = Lab::new();
    let now = jiff::Timestamp::now().as_microsecond() / 1_000_000;
    let start = now - EPOCH / 1_000_000 - 3000;
    let job = |id, who, name: &str, node, end| Job {
        name: name.into(),
        node,
        start,
        uid: uid(who),
        ..Job::new(id, end)
    };
    lab.job(&job(101, ANN, "fit", "n1", End::Code(0)));
    let his = job(777_124, BOB, "bobs-secret-name", "secretnode", End::Oom(64));
    lab.job(&Job { run: Some(RUN), account: Some("secret-account"), ..his });
    let journal = lab.journal();
    let once = ["collect", "--once", "--accounting", "off", "--journal", journal.to_str().unwrap()];
    let (code, _, stderr) = lab.run(&once);
    assert_eq!(code, 0, "{stderr}");
    lab
}

/// An attempt: what it is, the address, further headers.
type Attempt = (&'static str, String, Vec<(&'static str, String)>);

fn attempts() -> Vec<Attempt> {
    let run = format!("lab/{BOB}/{RUN}");
    let plain = |what, path: String| (what, path, Vec::new());
    let with =
        |what, name, value: &str| (what, format!("/api/v1/runs/{run}"), vec![(name, value.to_owned())]);
    vec![
        plain("the run of another", format!("/runs/{run}")),
        plain("a job of it", format!("/runs/{run}/jobs/1")),
        plain("the run by the API", format!("/api/v1/runs/{run}")),
        plain("its verdict", format!("/api/v1/runs/{run}/jobs/1")),
        plain("its events", format!("/api/v1/runs/{run}/events")),
        plain("its events from the middle", format!("/api/v1/runs/{run}/events?from=1")),
        plain("encoded slashes", format!("/runs/lab%2F{BOB}%2F{RUN}")),
        plain("up and down again", format!("/runs/lab/{ANN}/..%2F..%2F{BOB}%2Fruns%2F{RUN}")),
        plain("dots as they are", format!("/runs/lab/{ANN}/../{BOB}/{RUN}")),
        plain("twice encoded dots", format!("/runs/lab/{ANN}/%252e%252e%252f{BOB}/jobs/1")),
        plain("the file system by a cluster", "/runs/..%2F..%2F..%2Fetc/passwd/x".into()),
        plain("a file as static", "/static/..%2F..%2Findex.db".into()),
        plain("a file as static, plainly", "/static/../../../../etc/passwd".into()),
        plain("a NUL in a name", format!("/runs/lab/{BOB}%00/{RUN}")),
        plain("no UTF-8 in a name", format!("/runs/lab/{BOB}%ff/{RUN}")),
        plain("another case", format!("/runs/LAB/{}/{RUN}", BOB.to_uppercase())),
        plain("two slashes", format!("//runs/{run}")),
        plain("the whole address", format!("http://localhost/runs/{run}")),
        plain("jobs of a user", format!("/api/v1/jobs?user={BOB}")),
        plain("jobs of an account", "/api/v1/jobs?account=secret-account".into()),
        plain("jobs of a node", "/api/v1/jobs?node=secretnode".into()),
        plain("jobs of a name", "/api/v1/jobs?name=bobs-secret-name".into()),
        plain("counts of a user", format!("/api/v1/failures?by=name&user={BOB}")),
        plain("counts by node", "/api/v1/failures?by=node".into()),
        plain("counts by account", "/api/v1/failures?by=account".into()),
        plain("nodes beside their peers", "/api/v1/nodes".into()),
        plain("runs of a user", format!("/api/v1/runs?user={BOB}&status=failed")),
        plain(
            "a page before the first",
            "/api/v1/jobs?before=9223372036854775807.9223372036854775807".into(),
        ),
        plain("SQL in a name", format!("/api/v1/jobs?user={BOB}%27%20OR%20%271%27%3D%271")),
        plain("SQL in a class", "/api/v1/jobs?class=oom)%20OR%20(1%3D1".into()),
        plain("SQL in a cursor", "/api/v1/jobs?before=1.1%20OR%201%3D1".into()),
        plain("a parameter twice", format!("/api/v1/jobs?user={ANN}&user={BOB}")),
        plain("a parameter of the server's own", "/api/v1/jobs?visible=all&operator=true".into()),
        plain("the collector's health", "/health".into()),
        plain("the collector's health by the API", "/api/v1/health".into()),
        plain("the metrics", "/metrics".into()),
        plain("the search of a fingerprint", "/fingerprints/1-0000000000000000".into()),
        with("a header of a proxy", "X-Remote-User", BOB),
        with("a header of a proxy for root", "X-Remote-User", "root"),
        with("another proxy's header", "X-Forwarded-User", "root"),
        with("a guessed secret", "X-Inquest-Secret", "guess"),
        with("a password", "Authorization", "Basic cm9vdDpyb290"),
        with("an invented credential", "Authorization", "MUNGE AwQFAAC1jz8:"),
        with("a cookie", "Cookie", "user=root; session=1"),
        with("another method by header", "X-HTTP-Method-Override", "DELETE"),
        with("another address by header", "X-Original-URL", "/health"),
        with("a host of somebody else", "Host", "evil.example"),
    ]
}

#[test]
fn nothing_that_is_tried_shows_what_is_not_theirs() {
    if !is_root() {
        return;
    }
    let lab = lab();
    let secret = lab.path().join("secret");
    fs::write(&secret, KEY).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let settings = format!(
        "proxy_header = \"X-Remote-User\"\nproxy_user = \"daemon\"\nproxy_secret = {secret:?}\nmunge = true\nrequests = 100000"
    );
    let server = Server::start(lab.path(), &lab.store(), &settings);
    // What they would see if one of them worked.
    let all = server.get(0, &format!("/api/v1/runs/lab/{BOB}/{RUN}/events")).body;
    assert!(SECRETS.iter().all(|s| all.contains(s)), "{all}");
    let ann = uid(ANN);
    let nothing = server.get(ann, "/runs/lab/nobody/nothing");
    let attempts = attempts();
    assert!(attempts.len() >= 30);
    for (what, path, headers) in attempts {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        for (answer, how) in
            [(server.ask(ann, &path, &headers), "socket"), (server.tcp(&path, &headers), "TCP")]
        {
            assert!((200..500).contains(&answer.status), "{what} by {how}: {answer:?}");
            for secret in SECRETS {
                assert!(!answer.body.contains(secret), "{what} by {how} shows {secret}: {}", answer.body);
            }
            assert!(
                !answer.body.contains("root:") && !answer.body.contains("SQLite"),
                "{what}: {}",
                answer.body
            );
        }
        // Not theirs and not there are the same, word for word.
        if path == format!("/runs/lab/{BOB}/{RUN}") {
            assert_eq!(server.get(ann, &path).body, nothing.body);
        }
    }
    // Raw bytes that are no polite request.
    let huge = request("/", &[("X-Big", &"x".repeat(100_000))]);
    let many: Vec<(&str, &str)> = vec![("X-Many", "1"); 200];
    for (what, bytes) in [
        ("no HTTP", b"hello\r\n\r\n".to_vec()),
        ("a header too long", huge),
        ("too many headers", request("/", &many)),
        ("two requests as one", b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\nGET /health HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        ("a body", b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello".to_vec()),
        ("DELETE", format!("DELETE /runs/lab/{BOB}/{RUN} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").into_bytes()),
        ("POST", b"POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec()),
        ("two hosts", b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n".to_vec()),
        ("an address too long", request(&format!("/?user={}", "x".repeat(9000)), &[])),
        ("a header in the address", b"GET /?a=b%0d%0aX-Remote-User:%20root HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".to_vec()),
    ] {
        let answer = server.send(ann, &bytes);
        assert!(answer.status == 0 || (400..500).contains(&answer.status), "{what}: {answer:?}");
        assert!(SECRETS.iter().all(|s| !answer.body.contains(s)), "{what}: {answer:?}");
    }
    // It has survived all of it, and still knows who is who.
    assert_eq!(server.get(uid(BOB), &format!("/runs/lab/{BOB}/{RUN}")).status, 200);
    assert_eq!(server.get(ann, &format!("/runs/lab/{BOB}/{RUN}")).status, 404);
}

#[test]
fn the_proxy_speaks_for_people_and_nobody_else_does() {
    if !is_root() {
        return;
    }
    let lab = lab();
    let secret = lab.path().join("secret");
    fs::write(&secret, KEY).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let settings =
        format!("proxy_header = \"X-Remote-User\"\nproxy_user = \"daemon\"\nproxy_secret = {secret:?}");
    let server = Server::start(lab.path(), &lab.store(), &settings);
    let me = |answer: server::Answer| answer.json()["user"].as_str().map(str::to_owned);
    let (path, said) = ("/api/v1/me", ("X-Remote-User", ANN));
    assert_eq!(me(server.ask(uid("daemon"), path, &[said])), Some(ANN.into()));
    assert_eq!(me(server.tcp(path, &[said, ("X-Inquest-Secret", KEY)])), Some(ANN.into()));
    assert_eq!(me(server.ask(uid(BOB), path, &[said])), Some(BOB.into()));
    assert_eq!(server.tcp(path, &[said]).status, 401);
    assert_eq!(server.ask(uid("daemon"), path, &[]).status, 401);
    assert_eq!(server.ask(uid("daemon"), path, &[said, ("X-Remote-User", BOB)]).status, 401);
    for nobody in ["root", "no-such-account", "../x"] {
        assert_eq!(server.ask(uid("daemon"), path, &[("X-Remote-User", nobody)]).status, 401, "{nobody}");
    }
}

#[test]
fn a_munge_credential_is_good_once_and_for_one_request() {
    if !is_root() {
        return;
    }
    let lab = lab();
    let munged = Munged::start(&lab);
    let server = Server::with(lab.path(), &lab.store(), "munge = true", |command| {
        command.env("PATH", format!("{}:/usr/bin:/bin", lab.path().join("bin").display()));
    });
    let path = "/api/v1/me";
    let good = format!("MUNGE {}", munged.credential(ANN, &format!("inquest GET {path}")));
    let answer = server.tcp(path, &[("Authorization", &good)]);
    assert_eq!(answer.json()["user"], ANN, "{answer:?}");
    assert_eq!(server.tcp(path, &[("Authorization", &good)]).status, 401, "a replay");
    let other = format!("MUNGE {}", munged.credential(ANN, "inquest GET /api/v1/jobs"));
    assert_eq!(server.tcp(path, &[("Authorization", &other)]).status, 401, "made for another request");
    let foreign = format!("MUNGE {}", munged.credential(ANN, "something of Slurm"));
    assert_eq!(server.tcp(path, &[("Authorization", &foreign)]).status, 401, "made for another service");
    let changed =
        format!("MUNGE {}", munged.credential(ANN, &format!("inquest GET {path}")).replace('A', "B"));
    assert_eq!(server.tcp(path, &[("Authorization", &changed)]).status, 401, "changed");
}

/// A private munged, and an `unmunge` that asks it; ended by its process id.
struct Munged {
    child: std::process::Child,
    socket: std::path::PathBuf,
}

impl Drop for Munged {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Munged {
    fn start(lab: &Lab) -> Munged {
        let dir = lab.path().join("munge");
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(lab.path(), fs::Permissions::from_mode(0o711)).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        let (socket, key) = (dir.join("socket"), dir.join("key"));
        fs::write(&key, [7u8; 128]).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        let child = Command::new("munged")
            .args(["--foreground", "--force", "--key-file"])
            .arg(&key)
            .arg("--socket")
            .arg(&socket)
            .arg("--pid-file")
            .arg(dir.join("pid"))
            .arg("--log-file")
            .arg(dir.join("log"))
            .arg("--seed-file")
            .arg(dir.join("seed"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let bin = lab.path().join("bin");
        fs::create_dir(&bin).unwrap();
        let unmunge = bin.join("unmunge");
        fs::write(&unmunge, format!("#!/bin/sh\nexec /usr/bin/unmunge -S {} \"$@\"\n", socket.display()))
            .unwrap();
        fs::set_permissions(&unmunge, fs::Permissions::from_mode(0o755)).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while !socket.exists() {
            assert!(Instant::now() < deadline, "munged does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Munged { child, socket }
    }

    fn credential(&self, who: &str, payload: &str) -> String {
        use std::os::unix::process::CommandExt;
        let made = Command::new("munge")
            .arg("-S")
            .arg(&self.socket)
            .args(["-s", payload])
            .uid(uid(who))
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        String::from_utf8(made.stdout).unwrap().trim().to_owned()
    }
}
