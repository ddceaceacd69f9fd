//! Two users and an operator on a real cluster, whose store a live collector writes from their
//! jobs: nobody sees what is not theirs, by file, command, socket, page, metric or error text.

#[path = "../../collector/tests/support/attempts.rs"]
mod attempts;
#[path = "../../collector/tests/support/server.rs"]
mod server;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use attempts::{Wanted, try_all};
use inquest_tests::children::Ends;
use inquest_tests::cluster::{Cluster, Config, USERS};
use serde_json::Value;
use server::{Answer, Server, uid};

const TIMEOUT: Duration = Duration::from_secs(60);
const ANN: &str = USERS[0];
const BOB: &str = USERS[1];
const RUN: &str = "bobs-secret-run";
const NAME: &str = "bobs-secret-name";
const ACCOUNT: &str = "secret-account";
/// A name and a line that would do something, wherever they are not escaped.
const HOSTILE: &str = "x';DROP TABLE job;--<script>alert(1)</script>\u{1b}[2J";

fn cluster_name(cluster: &Cluster) -> String {
    let conf = fs::read_to_string(cluster.slurm_conf()).unwrap();
    conf.lines().find_map(|l| l.strip_prefix("ClusterName=")).unwrap().to_owned()
}

/// What a command says in all, as this user.
fn said(cluster: &Cluster, user: &str, program: &str, arguments: &[&str]) -> String {
    all_of(cluster.command(Some(user), program).args(arguments))
}

/// The same of our own.
fn told_by_inquest(cluster: &Cluster, user: &str, arguments: &[&str]) -> String {
    all_of(&mut cluster.inquest(Some(user), arguments))
}

fn all_of(command: &mut Command) -> String {
    let output = command.output().unwrap();
    [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).concat()
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !done() {
        assert!(Instant::now() < deadline, "{what} does not come");
        thread::sleep(Duration::from_millis(100));
    }
}

fn collect(cluster: &Cluster) -> Ends {
    Ends(cluster.collect(&[]).stderr(Stdio::null()).spawn().unwrap())
}

/// Where the server of these settings is.
fn server_dir(cluster: &Cluster, settings: &str) -> PathBuf {
    cluster.dir().join(format!("serve-{}", settings.len()))
}

/// What Slurm has told the server of these settings last; the server has read it all, or is about to.
fn told(cluster: &Cluster, settings: &str) -> String {
    fs::read_to_string(server_dir(cluster, settings).join("bin/told")).unwrap_or_default()
}

fn serve(cluster: &Cluster, store: &Path, settings: &str) -> Server {
    let dir = server_dir(cluster, settings);
    fs::create_dir_all(dir.join("bin")).unwrap();
    let (bin, socket) = (dir.join("bin"), cluster.dir().join("munge/socket"));
    let told = bin.join("told").display().to_string();
    for (name, body) in [
        ("unmunge", format!("exec /usr/bin/unmunge -S {} \"$@\"", socket.display())),
        (
            "scontrol",
            format!("/usr/bin/scontrol \"$@\" > {told}.new && cat {told}.new && mv {told}.new {told}"),
        ),
    ] {
        fs::write(bin.join(name), format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
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
    let store = cluster.store();
    let collector = collect(&cluster);

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
    // Before it has asked Slurm, it shows no more than after.
    let private = |line: &str| {
        line.split_once('=').is_some_and(|(k, v)| (k.trim(), v.trim()) == ("PrivateData", "jobs"))
    };
    until("what PrivateData forbids", || told(&cluster, "# private").lines().any(private));
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
    assert!(told_by_inquest(cluster, ANN, &["runs"]).contains("job-"), "her own run is hers to see");
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
        let said = told_by_inquest(cluster, ANN, &arguments);
        for word in [NAME, ACCOUNT, "slurm_script"] {
            assert!(!said.contains(word), "inquest {arguments:?} shows {word}: {said}");
        }
    }
}

/// Names of jobs, each of which only some may see.
const PHYSICS: &str = "bobs-physics-name";
const CHEMISTRY: &str = "bobs-chemistry-name";
const OTHER: &str = "bobs-other-name";
const ANNS: &str = "anns-own-name";
/// A run of members in both accounts, and one that is chemistry's alone.
const MIXED: &str = "bobs-mixed-run";
const CLOSED: &str = "bobs-closed-run";
/// A group whose members are operators; its user is one of them.
const OPERATORS: &str = "slurm";

/// Who coordinates what, as slurmdbd has it: Ann the account above Bob's physics, but not
/// chemistry, in which both compute. One run of Bob's holds jobs of both accounts.
#[test]
fn a_coordinator_by_slurmdbd_sees_the_account_and_what_is_below_it() {
    // Numbers that stand for nothing else on a page.
    let private = vec!["PrivateData=jobs".to_owned(), "FirstJobId=731001".to_owned()];
    let config = Config { nodes: 2, accounting: true, extra_slurm_conf: private, ..Config::default() };
    let cluster = Cluster::start(config).unwrap();
    cluster.record("").unwrap();
    let manage = |arguments: &[&str]| {
        let mut command = cluster.command(None, "sacctmgr");
        let output = command.arg("-i").args(arguments).output().unwrap();
        assert!(output.status.success(), "sacctmgr {arguments:?}: {output:?}");
    };
    // slurmdbd has a PrivateData of its own.
    let conf = cluster.dir().join("etc/slurmdbd.conf");
    let text = fs::read_to_string(&conf).unwrap();
    fs::write(&conf, text + "PrivateData=jobs\n").unwrap();
    manage(&["reconfigure"]);
    manage(&["add", "account", "science"]);
    manage(&["add", "account", "physics", "parent=science"]);
    manage(&["add", "account", "chemistry"]);
    manage(&["add", "user", ANN, "account=chemistry"]);
    manage(&["add", "user", BOB, "account=physics,chemistry"]);
    let coordinator = ["coordinator", "account=science", &format!("names={ANN}")];
    manage(&[&["add"], &coordinator[..]].concat());

    let store = cluster.store();
    let collector = collect(&cluster);
    let node = cluster.nodes()[1].clone();
    let submit = |who: &str, name: &str, account: &str, run: Option<&str>, node: &str| {
        let mut options =
            vec![format!("--job-name={name}"), format!("--account={account}"), format!("--nodelist={node}")];
        options.extend(run.map(|run| format!("--inquest-run={run}")));
        let job = cluster.sbatch(who, &options, "#!/bin/sh\nexit 3\n").unwrap();
        cluster.wait_end(job, TIMEOUT).unwrap();
        job
    };
    // One after the other: their numbers in the run follow, and its name is that of the first.
    let chemistry = submit(BOB, CHEMISTRY, "chemistry", Some(MIXED), &node).to_string();
    let physics = submit(BOB, PHYSICS, "physics", Some(MIXED), &cluster.nodes()[0]).to_string();
    submit(BOB, OTHER, "chemistry", Some(CLOSED), &node);
    let anns = submit(ANN, ANNS, "chemistry", None, &cluster.nodes()[0]);

    let lab = cluster_name(&cluster);
    let settings = format!("coordinators = true\noperators = {OPERATORS:?}\n");
    let server = serve(&cluster, &store, &settings);
    let (ann, bob, operator) = (uid(ANN), uid(BOB), uid(OPERATORS));
    let (mixed, closed) = (format!("/runs/{lab}/{BOB}/{MIXED}"), format!("/runs/{lab}/{BOB}/{CLOSED}"));
    let annas = format!("/runs/{lab}/{ANN}/job-{anns}");
    for job in [
        format!("{mixed}/jobs/1"),
        format!("{mixed}/jobs/2"),
        format!("{closed}/jobs/1"),
        format!("{annas}/jobs/1"),
    ] {
        let ended = || {
            let job = server.get(operator, &format!("/api/v1{job}"));
            job.status == 200 && job.json()["verdict"].is_object()
        };
        until(&format!("the verdict of {job}"), ended);
    }
    let listed = ["/api/v1/jobs", "/api/v1/runs", "/", "/runs", "/failures"];
    let lists = |server: &Server, who: u32| {
        let answers = listed.map(|path| server.get(who, path));
        assert!(answers.iter().all(|a| a.status == 200), "{answers:?}");
        answers.map(|a| a.body).concat()
    };
    let sees = |server: &Server, who: u32, names: &[&str], not: &[&str]| {
        let all = lists(server, who);
        for name in names {
            assert!(all.contains(name), "{who} sees {name}: {all}");
        }
        for name in not {
            assert!(!all.contains(name), "{who} does not see {name}: {all}");
        }
    };
    let role = |server: &Server, who: u32| server.get(who, "/api/v1/me").json()["role"].clone();

    // Everybody's lists, by the API and as pages.
    until("what sacctmgr says", || role(&server, ann) == "coordinator");
    assert_eq!([ann, bob, operator].map(|who| role(&server, who)), ["coordinator", "user", "operator"]);
    sees(&server, operator, &[PHYSICS, CHEMISTRY, OTHER, ANNS, MIXED, CLOSED, &node], &[]);
    sees(&server, ann, &[PHYSICS, ANNS, MIXED], &[CHEMISTRY, OTHER, CLOSED, &node]);
    // Being in an account is not coordinating it.
    sees(&server, bob, &[PHYSICS, CHEMISTRY, OTHER, MIXED, CLOSED], &[ANNS, ANN]);
    assert_eq!(server.get(bob, &annas).status, 404);
    assert_eq!([ann, bob, operator].map(|who| server.get(who, "/health").status), [403, 403, 200]);

    // The run of both: the coordinator sees the members of one account, and not that there are more.
    for path in [mixed.clone(), format!("/api/v1{mixed}"), format!("/api/v1{mixed}/events")] {
        let hers = server.get(ann, &path);
        assert!(hers.status == 200 && hers.body.contains(&physics), "{path}: {hers:?}");
        for secret in [CHEMISTRY, "chemistry", &chemistry, &node] {
            assert!(!hers.body.contains(secret), "{path} shows {secret}: {}", hers.body);
        }
        assert!(server.get(operator, &path).body.contains(&chemistry), "{path}");
    }
    // Its figures are of all members, and its name is that of one.
    let keys = |run: &Value| run.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let runs = server.get(ann, "/api/v1/runs").json()["runs"].clone();
    let listed = runs.as_array().unwrap().iter().find(|r| r["run_id"] == MIXED).unwrap();
    assert_eq!(keys(listed), ["cluster", "run_id", "user"]);
    let run = &server.get(ann, &format!("/api/v1{mixed}")).json()["run"];
    assert_eq!(
        (keys(run), &run["members"]),
        (["cluster", "members", "run_id", "user"].map(String::from).to_vec(), &1.into())
    );
    for api in ["", "/api/v1"] {
        assert_eq!(server.get(ann, &format!("{api}{mixed}/jobs/2")).status, 200);
        // Not hers and not there differ in what was asked for alone.
        let same = |theirs: &str, nothing: &str| {
            let text = |name: &str| {
                let Answer { status, body, .. } = server.get(ann, &format!("{api}{name}"));
                (status, body.replace(name, "it"))
            };
            let (theirs, nothing) = (text(theirs), text(nothing));
            assert_eq!(theirs.0, 404, "{theirs:?}");
            assert_eq!(theirs, nothing);
        };
        same(&format!("{mixed}/jobs/1"), &format!("{mixed}/jobs/9"));
        same(&closed, &format!("/runs/{lab}/{BOB}/bobs-no-such-run"));
        same(&format!("{closed}/jobs/1"), &format!("/runs/{lab}/{BOB}/bobs-no-such-run/jobs/1"));
    }
    let wanted =
        |run, account, name| Wanted { me: ANN, owner: BOB, cluster: &lab, run, account, node: &node, name };
    // Errors and filters repeat what was asked for, so the words are those that only the store has.
    try_all(&server, ann, &wanted(CLOSED, "chemistry", "bobs-*"), &[CHEMISTRY, OTHER]);

    // The store's files know owners and operators only; what a coordinator sees of them is the
    // server's to say. Slurm itself tells them of the account's jobs.
    let ask = |who: &str, arguments: [&str; 2]| told_by_inquest(&cluster, who, &arguments);
    for (arguments, word) in [
        (["why", &chemistry], "exit code 3"),
        (["why", MIXED], "exit code 3"),
        (["run", MIXED], "exit code 3"),
        (["runs", "--user=inquest-test2"], MIXED),
        (["events", MIXED], "chunk_failed"),
    ] {
        let hers = ask(ANN, arguments);
        for secret in [PHYSICS, CHEMISTRY, "physics", "chemistry", word] {
            assert!(!hers.contains(secret), "inquest {arguments:?} shows {secret}: {hers}");
        }
        for who in [BOB, "root"] {
            let all = ask(who, arguments);
            assert!(all.contains(word), "{who}: inquest {arguments:?}: {all}");
        }
    }
    let of_slurm = ask(ANN, ["why", &physics]);
    assert!(of_slurm.contains("exit code 3") && of_slurm.contains("Slurm"), "{of_slurm}");
    drop(server);

    // Who coordinates nothing any more sees no more than anybody.
    manage(&[&["delete"], &coordinator[..]].concat());
    // Once somebody else is one here, Slurm has been asked.
    manage(&["add", "coordinator", "account=chemistry", &format!("names={BOB}")]);
    let server = serve(&cluster, &store, &format!("{settings}# later\n"));
    until("what sacctmgr says now", || role(&server, bob) == "coordinator");
    assert_eq!(role(&server, ann), "user");
    let hers = ask(ANN, ["why", &physics]);
    assert!(!hers.contains(PHYSICS) && !hers.contains("exit code 3"), "{hers}");
    sees(&server, ann, &[ANNS], &[PHYSICS, CHEMISTRY, OTHER, BOB, MIXED, CLOSED]);
    try_all(
        &server,
        ann,
        &wanted(MIXED, "physics", "bobs-*"),
        &[PHYSICS, CHEMISTRY, "\"verdict\"", "chunk_failed"],
    );
    drop((server, collector));
    cluster.stop().unwrap();
}
