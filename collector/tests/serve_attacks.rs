//! What somebody may try who wants to see what is not theirs: each attempt is
//! a line of a table, and none shows a word of it, in an answer or an error.

#[path = "support/attempts.rs"]
mod attempts;
#[path = "support/server.rs"]
mod server;
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use attempts::{Wanted, try_all};
use server::{Server, is_root, uid};
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
    lab.merge(&[]);
    lab
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
    let wanted = Wanted {
        me: ANN,
        owner: BOB,
        cluster: "lab",
        run: RUN,
        account: "secret-account",
        node: "secretnode",
        name: "bobs-secret-name",
    };
    try_all(&server, ann, &wanted, &SECRETS);
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

/// For each credential a program is started, whoever made it: so many within a minute, and no more.
#[test]
fn who_shows_many_credentials_has_to_wait() {
    let lab = lab();
    let (bin, started) = (lab.path().join("bin"), lab.path().join("started"));
    fs::create_dir(&bin).unwrap();
    fs::write(bin.join("unmunge"), format!("#!/bin/sh\necho x >>'{}'\nexit 1\n", started.display())).unwrap();
    fs::set_permissions(bin.join("unmunge"), fs::Permissions::from_mode(0o755)).unwrap();
    let server = Server::with(lab.path(), &lab.store(), "munge = true\nrequests = 10", |command| {
        command.env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
    });
    let shown = |_| server.tcp("/api/v1/me", &[("Authorization", "MUNGE AwQFAAC:")]).status;
    let answers: Vec<u16> = (0..40).map(shown).collect();
    let refused = answers.iter().filter(|status| **status == 429).count();
    assert!(refused > 0 && answers.iter().all(|s| [401, 429].contains(s)), "{answers:?}");
    let started = fs::read_to_string(started).unwrap().lines().count();
    assert_eq!(started, 40 - refused);
    // What everybody may have, they still may.
    assert_eq!(server.tcp("/metrics", &[]).status, 200);
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
