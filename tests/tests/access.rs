//! Two users and an operator on a real cluster, whose store a live collector writes from their
//! jobs: nobody sees what is not theirs, by file, command, socket, page, metric or error text.

#[path = "../../collector/tests/support/attempts.rs"]
mod attempts;
#[path = "../../collector/tests/support/server.rs"]
mod server;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use attempts::{Wanted, try_all};
use inquest_tests::artefacts;
use inquest_tests::cluster::{Cluster, Config, USERS};
use server::{Server, uid};

const TIMEOUT: Duration = Duration::from_secs(60);
const ANN: &str = USERS[0];
const BOB: &str = USERS[1];
const RUN: &str = "bobs-secret-run";
const NAME: &str = "bobs-secret-name";
const ACCOUNT: &str = "secret-account";
/// A name and a line that would do something, wherever they are not escaped.
const HOSTILE: &str = "x';DROP TABLE job;--<script>alert(1)</script>\u{1b}[2J";

/// A process that ends with its test.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn cluster_name(cluster: &Cluster) -> String {
    let conf = fs::read_to_string(cluster.slurm_conf()).unwrap();
    conf.lines().find_map(|l| l.strip_prefix("ClusterName=")).unwrap().to_owned()
}

/// What a command says in all, as this user.
fn said(cluster: &Cluster, user: &str, program: &str, arguments: &[&str]) -> String {
    let mut command = cluster.command(Some(user), program);
    let output = command.args(arguments).stdin(Stdio::null()).output().unwrap();
    [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).concat()
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !done() {
        assert!(Instant::now() < deadline, "{what} does not come");
        thread::sleep(Duration::from_millis(100));
    }
}

fn serve(cluster: &Cluster, store: &Path, settings: &str) -> Server {
    let dir = cluster.dir().join(format!("serve-{}", settings.len()));
    fs::create_dir_all(dir.join("bin")).unwrap();
    let (bin, socket) = (dir.join("bin"), cluster.dir().join("munge/socket"));
    let unmunge = bin.join("unmunge");
    let script = format!("#!/bin/sh\nexec /usr/bin/unmunge -S {} \"$@\"\n", socket.display());
    fs::write(&unmunge, script).unwrap();
    fs::set_permissions(&unmunge, fs::Permissions::from_mode(0o755)).unwrap();
    let settings = format!("requests = 100000\nmunge = true\n{settings}");
    Server::with(&dir, store, &settings, |command| {
        command.env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
        command.env("SLURM_CONF", cluster.slurm_conf());
    })
}

fn credential(cluster: &Cluster, who: &str, payload: &str) -> String {
    let socket = cluster.dir().join("munge/socket");
    let made = said(cluster, who, "munge", &["-S", socket.to_str().unwrap(), "-s", payload]);
    format!("MUNGE {}", made.trim())
}

#[test]
fn nobody_sees_what_is_not_theirs() {
    let cluster = Cluster::start(Config { nodes: 2, ..Config::default() }).unwrap();
    cluster.record("").unwrap();
    let store = cluster.dir().join("store");
    let mut collect = Command::new(artefacts::inquest());
    collect.args(["collect", "--journal"]).arg(cluster.journal_dir()).arg("--store").arg(&store);
    collect.env("SLURM_CONF", cluster.slurm_conf()).stdin(Stdio::null()).stderr(Stdio::null());
    let collector = Ends(collect.spawn().unwrap());

    let node = cluster.nodes()[1].clone();
    let options = [
        format!("--job-name={NAME}"),
        format!("--account={ACCOUNT}"),
        format!("--inquest-run={RUN}"),
        format!("--nodelist={node}"),
    ];
    let hostile = format!("#!/bin/bash\nprintf '%s\\n' \"{HOSTILE}\" >&2\nexit 3\n");
    let theirs = cluster.sbatch(BOB, &options, &hostile).unwrap();
    let here = [format!("--job-name={HOSTILE}"), format!("--nodelist={}", cluster.nodes()[0])];
    let mine = cluster.sbatch(ANN, &here, &hostile).unwrap();
    for job in [theirs, mine] {
        cluster.wait_end(job, TIMEOUT).unwrap();
    }

    // As Slurm has it by default, everybody sees all jobs.
    let lab = cluster_name(&cluster);
    let server = serve(&cluster, &store, "");
    let (ann, bob, id) = (uid(ANN), uid(BOB), theirs.to_string());
    let run = format!("/api/v1/runs/{lab}/{BOB}/{RUN}");
    let ended = |who: u32| {
        let job = server.get(who, &format!("{run}/jobs/1"));
        job.status == 200 && job.json()["verdict"].is_object()
    };
    until("the verdict", || ended(0));
    until("what PrivateData allows", || ended(ann));
    assert_eq!(server.get(ann, "/health").status, 403);
    drop(server);

    // With PrivateData=jobs nobody does but owners and operators.
    let mut conf = fs::read_to_string(cluster.slurm_conf()).unwrap();
    conf.push_str("PrivateData=jobs\n");
    fs::write(cluster.slurm_conf(), conf).unwrap();
    cluster.scontrol(&["reconfigure"]).unwrap();
    let server = serve(&cluster, &store, "# private");
    thread::sleep(Duration::from_secs(1)); // It has asked Slurm by then, and was told the same as before it had.
    let all = server.get(0, &format!("{run}/events")).body;
    let secrets = [NAME, ACCOUNT, node.as_str(), RUN];
    for secret in secrets {
        assert!(all.contains(secret), "an operator sees {secret}: {all}");
    }
    assert_eq!(server.get(bob, &run).status, 200);
    let wanted =
        Wanted { me: ANN, owner: BOB, cluster: &lab, run: RUN, account: ACCOUNT, node: &node, name: NAME };
    // Errors repeat what was asked for, so the words are those that only the store has.
    let words = ["chunk_failed", "\"verdict\"", "slurm_script", "exit code 3 on"];
    try_all(&server, ann, &wanted, &words);

    // Names and lines that a job made harmful are text, everywhere.
    for page in ["/", "/failures", "/runs"] {
        let body = server.get(0, page).body;
        assert!(!body.contains("<script>alert") && !body.contains('\u{1b}'), "{page}: {body}");
    }
    let page = server.get(ann, &format!("/runs/{lab}/{ANN}/job-{mine}/jobs/1"));
    assert!(page.status == 200 && !page.body.contains("<script>alert"), "{page:?}");

    // A credential is for one request of one person, once.
    let good = credential(&cluster, BOB, &format!("inquest GET {run}"));
    let header = [("Authorization", good.as_str())];
    assert_eq!(server.tcp(&run, &header).status, 200);
    assert_eq!(server.tcp(&run, &header).status, 401, "a replay");
    let foreign = credential(&cluster, BOB, "inquest GET /api/v1/jobs");
    assert_eq!(server.tcp(&run, &[("Authorization", &foreign)]).status, 401, "made for another request");
    let hers = credential(&cluster, ANN, &format!("inquest GET {run}"));
    assert_eq!(server.tcp(&run, &[("Authorization", &hers)]).status, 404, "hers, but not her run");

    by_file_and_command(&cluster, &store, &lab, &id);
    drop((server, collector));
    cluster.stop().unwrap();
}

/// The store itself, with plain tools and with our own commands.
fn by_file_and_command(cluster: &Cluster, store: &Path, lab: &str, id: &str) {
    let own = store.join(lab).join(ANN);
    let seen = said(cluster, ANN, "find", &[own.to_str().unwrap(), "-name", "run.json"]);
    assert!(seen.contains("run.json"), "her own runs are hers to read: {seen}");
    let theirs = store.join(lab).join(BOB);
    let events = theirs.join(format!("runs/{RUN}/events.jsonl"));
    let (text, index) = (events.to_str().unwrap(), store.join("index.db"));
    assert!(events.exists());
    for (program, arguments) in [
        ("cat", vec![text]),
        ("find", vec![store.to_str().unwrap()]),
        ("ls", vec!["-R", theirs.to_str().unwrap()]),
        ("cat", vec![index.to_str().unwrap()]),
        ("cp", vec![text, "/dev/stdout"]),
    ] {
        let said = said(cluster, ANN, program, &arguments);
        for word in ["chunk_failed", ACCOUNT, NAME] {
            assert!(!said.contains(word), "{program} {arguments:?} shows {word}: {said}");
        }
    }
    let inquest = artefacts::inquest();
    let (inquest, store) = (inquest.to_str().unwrap(), store.to_str().unwrap());
    for arguments in [
        vec!["why", id],
        vec!["why", RUN],
        vec!["run", RUN],
        vec!["runs", "-u", BOB],
        vec!["events", RUN],
        vec!["timeline", id],
        vec!["grep", "DROP", RUN],
        vec!["top"],
        vec!["index"],
    ] {
        let said = said(cluster, ANN, inquest, &[arguments.clone(), vec!["--store", store]].concat());
        for word in [NAME, ACCOUNT, "slurm_script"] {
            assert!(!said.contains(word), "inquest {arguments:?} shows {word}: {said}");
        }
    }
}
