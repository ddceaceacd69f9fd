//! The server, asked by people over its socket: everybody sees what is theirs,
//! in the form that is promised, and it ends when it is told.

#[path = "support/server.rs"]
mod server;
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use inquest_journal::{JobId, JobStarted, StepId};
use inquest_tests::children::apart;
use server::{Answer, Server, is_root, uid};
use support::{EPOCH, End, Job, Lab};

const ANN: &str = "inquest-test1";
const BOB: &str = "inquest-test2";

/// What is in the store of nobody but Bob: none of it may reach Ann.
const SECRETS: [&str; 6] = ["bobs-secret", "secret-account", "secretnode", "777123", "job-777124", BOB];

fn job(id: u32, who: &str, name: &str, node: &'static str, end: End) -> Job {
    // Within the last hour of the real clock, which is the server's.
    let now = jiff::Timestamp::now().as_microsecond() / 1_000_000;
    let start = now - EPOCH / 1_000_000 - 3000 + i64::from(id % 100);
    Job { name: name.into(), node, start, uid: uid(who), ..Job::new(id, end) }
}

/// Two people's jobs, collected and indexed.
fn lab() -> Lab {
    let lab = Lab::new();
    lab.job(&job(101, ANN, "fit", "n1", End::Oom(64)));
    lab.job(&job(102, ANN, "fit", "n1", End::Code(0)));
    lab.job(&job(103, ANN, "<script>alert(1)</script>\"'&\u{202e}\u{1b}[2J", "n2", End::Signal(11)));
    let secret = "bobs-secret";
    lab.job(&Job {
        account: Some("secret-account"),
        ..job(777_123, BOB, secret, "secretnode", End::Code(3))
    });
    lab.job(&Job { run: Some("bobs-secret-run"), ..job(777_124, BOB, secret, "secretnode", End::Oom(64)) });
    lab.merge(&[]);
    lab
}

fn serve(lab: &Lab, settings: &str) -> Server {
    Server::start(lab.path(), &lab.store(), settings)
}

const PAGES: [&str; 9] = [
    "/",
    "/?since=1d&cluster=lab&partition=batch&class=oom",
    "/failures",
    "/failures/newest?since=1d",
    "/runs",
    "/nodes",
    "/api/v1/runs",
    "/api/v1/jobs",
    "/api/v1/failures?by=user",
];

#[test]
fn everybody_sees_their_own_and_operators_see_all() {
    if !is_root() {
        return;
    }
    let lab = lab();
    let server = serve(&lab, "");
    let (ann, bob) = (uid(ANN), uid(BOB));
    for path in PAGES {
        let (hers, his, all) = (server.get(ann, path), server.get(bob, path), server.get(0, path));
        for answer in [&hers, &his, &all] {
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
        }
        for secret in SECRETS {
            assert!(!hers.body.contains(secret), "{path} shows {secret} to {ANN}: {}", hers.body);
        }
        assert!(!his.body.contains(ANN) && !his.body.contains("job-101"), "{path}: {}", his.body);
    }
    let names = |who: u32| -> Vec<String> {
        let answer = server.get(who, "/api/v1/failures?by=user&since=1d").json();
        let groups = answer["groups"].as_array().unwrap();
        let mut names: Vec<String> = groups.iter().map(|g| g["key"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(
        (names(ann), names(bob), names(0)),
        (vec![ANN.to_owned()], vec![BOB.to_owned()], vec![ANN.into(), BOB.into()])
    );
    assert_eq!(server.get(ann, "/api/v1/me").json()["role"], "user");
    assert_eq!(server.get(0, "/api/v1/me").json()["role"], "operator");
    let run = format!("/runs/lab/{BOB}/bobs-secret-run");
    for (who, status) in [(ann, 404), (bob, 200), (0, 200)] {
        for path in
            [run.clone(), format!("{run}/jobs/1"), format!("/api/v1{run}"), format!("/api/v1{run}/events")]
        {
            assert_eq!(server.get(who, &path).status, status, "{path} for {who}");
        }
        let status = if status == 200 && who == 0 { 200 } else { 403 };
        assert_eq!(server.get(who, "/api/v1/health").status, status);
        assert_eq!(server.get(who, "/health").status, status);
    }
}

#[test]
fn members_of_the_group_are_operators() {
    if !is_root() {
        return;
    }
    let lab = lab();
    let server = serve(&lab, &format!("operators = \"{BOB}\""));
    assert_eq!(server.get(uid(BOB), "/api/v1/me").json()["role"], "operator");
    assert!(server.get(uid(BOB), "/runs").body.contains(ANN));
    assert_eq!(server.get(uid(ANN), "/api/v1/me").json()["role"], "user");
}

#[test]
fn a_coordinator_sees_the_jobs_of_the_account_and_no_more() {
    if !is_root() {
        return;
    }
    let lab = lab();
    let path = fake(&lab, "sacctmgr", &format!("secret-account|{ANN}"));
    let server = Server::with(lab.path(), &lab.store(), "coordinators = true", |command| {
        command.env("PATH", path);
    });
    let ann = uid(ANN);
    until("what sacctmgr says", || server.get(ann, "/api/v1/me").json()["role"] == "coordinator");
    let jobs = server.get(ann, "/api/v1/jobs").body;
    assert!(jobs.contains("777123") && !jobs.contains("777124"), "{jobs}");
    let runs = server.get(ann, "/api/v1/runs").body;
    assert!(runs.contains("777123") && !runs.contains("bobs-secret-run"), "{runs}");
    assert_eq!(server.get(ann, &format!("/runs/lab/{BOB}/job-777123")).status, 200);
    assert_eq!(server.get(ann, &format!("/runs/lab/{BOB}/job-777123/jobs/1")).status, 200);
    assert_eq!(server.get(ann, &format!("/runs/lab/{BOB}/bobs-secret-run")).status, 404);
}

/// A run of more members than one answer has.
#[test]
fn a_coordinator_is_told_of_all_members_of_a_large_run() {
    if !is_root() {
        return;
    }
    const JOBS: u32 = 10_020;
    let lab = Lab::new();
    let (bob, account) = (uid(BOB), Some("secret-account"));
    for n in 0..JOBS - 1 {
        let begun = JobStarted {
            uid: Some(bob),
            account: account.map(str::to_owned),
            array_job_id: Some(JobId(500)),
            array_task_id: Some(n),
            restart: Some(0),
            ..JobStarted::default()
        };
        lab.event(("n1", "0badc0de", 500 + n), 0, Some((500 + n, StepId::Batch)), begun);
    }
    let last = Job::new(500 + JOBS - 1, End::Code(3));
    lab.job(&Job { uid: bob, account, array: Some((500, JOBS - 1)), ..last });
    lab.merge(&[]);
    let path = fake(&lab, "sacctmgr", &format!("secret-account|{ANN}"));
    let server = Server::with(lab.path(), &lab.store(), "coordinators = true", |command| {
        command.env("PATH", path);
    });
    let ann = uid(ANN);
    until("what sacctmgr says", || server.get(ann, "/api/v1/me").json()["role"] == "coordinator");
    let run = format!("/runs/lab/{BOB}/array-500");
    let told = server.get(ann, &format!("/api/v1{run}?limit=1")).json();
    assert_eq!(told["run"]["members"], JOBS, "{told}");
    let page = server.get(ann, &run).body;
    assert!(page.contains("1 of 1 job failed"), "{page}");
    assert_eq!(server.get(ann, &format!("{run}/jobs/{}", JOBS - 1)).status, 200);
}

fn until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "{what} does not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A command of Slurm that says `text`, first in the path.
fn fake(lab: &Lab, program: &str, text: &str) -> String {
    script(lab, program, &format!("cat <<'E'\n{text}\nE"))
}

/// A command that does this, first in the path.
fn script(lab: &Lab, program: &str, body: &str) -> String {
    let bin = lab.path().join(format!("bin-{program}"));
    fs::create_dir_all(&bin).unwrap();
    let file = bin.join(program);
    fs::write(&file, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:/usr/bin:/bin", bin.display())
}

/// A question that sacctmgr never answers, and more people than the server has threads.
#[test]
fn nobody_waits_for_slurm() {
    if !is_root() {
        return;
    }
    let lab = lab();
    // It ends with the directory of this test.
    let hang = lab.path().join("hang");
    fs::write(&hang, "").unwrap();
    let body = format!("while test -e '{}'; do sleep 0.2; done", hang.display());
    let path = script(&lab, "sacctmgr", &body);
    let server = Server::with(lab.path(), &lab.store(), "coordinators = true", |command| {
        command.env("PATH", path);
    });
    let role = |who: u32| server.get(who, "/api/v1/me").json()["role"].clone();
    std::thread::scope(|scope| {
        let people: Vec<_> = (0..12).map(|_| scope.spawn(|| role(uid(ANN)))).collect();
        let operator = scope.spawn(|| role(0));
        assert_eq!(operator.join().unwrap(), "operator");
        for person in people {
            assert_eq!(person.join().unwrap(), "user");
        }
    });
    fs::remove_file(hang).unwrap();
}

/// A uid of which this machine knows no account, as in a container or where the directory service is away.
#[test]
fn who_has_no_account_here_sees_their_own() {
    const NOBODY: u32 = 4_123_456;
    if !is_root() {
        return;
    }
    let lab = lab();
    lab.job(&Job { uid: NOBODY, ..job(105, ANN, "theirs", "n1", End::Oom(64)) });
    lab.merge(&[]);
    let server = serve(&lab, "jobs = \"own\"");
    let me = server.get(NOBODY, "/api/v1/me").json();
    assert_eq!((&me["user"], &me["role"]), (&"uid-4123456".into(), &"user".into()));
    let jobs = server.get(NOBODY, "/api/v1/jobs").body;
    assert!(jobs.contains("\"theirs\"") && !jobs.contains(ANN), "{jobs}");
    assert_eq!(server.get(NOBODY, "/runs/lab/uid-4123456/job-105").status, 200);
    assert_eq!(server.get(NOBODY, &format!("/runs/lab/{ANN}/job-101")).status, 404);
    assert_eq!(server.get(uid(ANN), "/runs/lab/uid-4123456/job-105").status, 404);
}

/// With PrivateData as Slurm has it, and as the configuration says instead.
#[test]
fn whose_jobs_are_seen_follows_private_data() {
    if !is_root() {
        return;
    }
    for (private, cluster, jobs, public) in [
        ("none", "lab", "slurm", true),
        ("accounts,usage", "lab", "slurm", true),
        ("accounts,jobs", "lab", "slurm", false),
        ("none", "another", "slurm", false),
        ("none", "lab", "own", false),
        ("jobs", "lab", "all", true),
    ] {
        let lab = lab();
        // What a file system has for itself is no cluster.
        fs::create_dir(lab.store().join("lost+found")).unwrap();
        let path = fake(&lab, "scontrol", &format!("ClusterName = {cluster}\nPrivateData = {private}"));
        let server = Server::with(lab.path(), &lab.store(), &format!("jobs = {jobs:?}"), |command| {
            command.env("PATH", path);
        });
        let seen = || server.get(uid(ANN), "/api/v1/jobs").body.contains("777123");
        let deadline = Instant::now() + Duration::from_secs(if public { 60 } else { 1 });
        while !seen() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(seen(), public, "{private} of {cluster}, jobs = {jobs}");
        let status = |path: &str| server.get(uid(ANN), path).status;
        let expected = if public { 200 } else { 404 };
        assert_eq!(status(&format!("/runs/lab/{BOB}/job-777123")), expected);
        assert_eq!(status(&format!("/api/v1/runs/lab/{BOB}/job-777123/jobs/1")), expected);
        // What the collector met is no job.
        assert_eq!(status("/health"), 403);
        assert_eq!(server.get(uid(ANN), "/api/v1/me").json()["role"], "user");
    }
}

#[test]
fn the_description_of_the_api_is_what_it_does() {
    let lab = lab();
    let server = serve(&lab, "");
    let me = rustix::process::geteuid().as_raw();
    let described = server.get(me, "/api/v1/openapi.json").json();
    let mut seen = 0;
    for (path, what) in described["paths"].as_object().unwrap() {
        let get = &what["get"];
        let path = path
            .replace("{cluster}", "lab")
            .replace("{user}", ANN)
            .replace("{run}", "job-101")
            .replace("{chunk}", "1");
        let answer = server.get(me, &path);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{path}");
        let value = answer.json();
        let schema = &get["responses"]["200"]["content"]["application/json"]["schema"];
        for key in schema["required"].as_array().unwrap() {
            assert!(value.get(key.as_str().unwrap()).is_some(), "{path} has no {key}: {value}");
        }
        let keys = value.as_object().unwrap().keys().filter(|k| *k != "schema");
        for key in keys.filter(|_| !path.ends_with("openapi.json")) {
            assert!(schema["properties"].get(key).is_some(), "{path}: {key} is not described");
        }
        for parameter in get["parameters"].as_array().unwrap().iter().filter(|p| p["in"] == "query") {
            let name = parameter["name"].as_str().unwrap();
            let example = match (name, &parameter["schema"]["enum"]) {
                (_, serde_json::Value::Array(words)) => words[0].as_str().unwrap().to_owned(),
                ("since" | "until", _) => {
                    if name == "since" {
                        "2d".into()
                    } else {
                        "now".into()
                    }
                }
                ("class", _) => "oom,crash".into(),
                ("limit", _) => "3".into(),
                ("from", _) => "0".into(),
                ("before", _) => "1.2".into(),
                _ => "x".into(),
            };
            let answer = server.get(me, &format!("{path}?{name}={example}"));
            assert_eq!(answer.status, 200, "{path}?{name}={example}: {answer:?}");
            seen += 1;
        }
        let bad = server.get(me, &format!("{path}?nonsense=1"));
        assert!(matches!(bad.status, 400 | 200), "{path}: {bad:?}");
    }
    assert!(seen > 40, "{seen} parameters were tried");
}

#[test]
fn pages_carry_no_script_and_nothing_from_elsewhere() {
    let lab = lab();
    let server = serve(&lab, "");
    let me = rustix::process::geteuid().as_raw();
    let run = format!("/runs/lab/{ANN}/job-103");
    let failed = server.get(me, "/api/v1/jobs?status=failed").json();
    let fingerprint = failed["jobs"][0]["fingerprint"].as_str().unwrap().to_owned();
    let more = [
        run.clone(),
        format!("{run}/jobs/1"),
        format!("/fingerprints/{fingerprint}"),
        "/health".into(),
        "/no/such".into(),
    ];
    for path in PAGES.iter().filter(|p| !p.contains("/api/")).map(|p| (*p).to_owned()).chain(more) {
        let answer = server.get(me, &path);
        assert!(matches!(answer.status, 200 | 404), "{path}: {answer:?}");
        let body = &answer.body;
        for bad in [
            "<script>",
            "javascript:",
            " style=",
            " onclick",
            " onerror",
            "http://",
            "https://",
            "\u{1b}",
            "\u{202e}",
        ] {
            assert!(!body.contains(bad), "{path} has {bad:?}: {body}");
        }
        assert!(answer.header("content-security-policy").unwrap().contains("script-src 'self'"), "{path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    for (path, kind) in [
        ("/static/inquest.css", "text/css; charset=utf-8"),
        ("/static/inquest.js", "text/javascript; charset=utf-8"),
        ("/static/icon.svg", "image/svg+xml"),
    ] {
        assert_eq!(server.tcp(path, &[]).header("content-type"), Some(kind));
    }
}

#[test]
fn lists_are_given_in_pages() {
    let lab = lab();
    let server = serve(&lab, "");
    let me = rustix::process::geteuid().as_raw();
    let mut seen = Vec::new();
    let mut path = "/api/v1/jobs?limit=2".to_owned();
    for _ in 0..5 {
        let page = server.get(me, &path).json();
        seen.extend(
            page["jobs"].as_array().unwrap().iter().map(|j| j["job_id"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/api/v1/jobs?limit=2&before={next}");
    }
    seen.sort();
    assert_eq!(seen, ["101", "102", "103", "777123", "777124"]);
    let (mut events, mut from) = (0, 0);
    loop {
        let page =
            server.get(me, &format!("/api/v1/runs/lab/{ANN}/job-101/events?limit=3&from={from}")).json();
        events += page["events"].as_array().unwrap().len();
        match page["next"].as_u64() {
            Some(next) => from = next,
            None => break,
        }
    }
    let stored = fs::read_to_string(lab.events_of("job-101")).unwrap().lines().count();
    assert_eq!(events, stored);
    let middle = server.get(me, &format!("/api/v1/runs/lab/{ANN}/job-101/events?from=7"));
    assert_eq!(middle.status, 400);
}

#[test]
fn metrics_are_open_and_name_nobody() {
    let lab = lab();
    let server = serve(&lab, "");
    let answer = server.tcp("/metrics", &[]);
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    let body = &answer.body;
    assert!(body.ends_with("# EOF\n") && body.contains("inquest_index_up 1\n"), "{body}");
    assert!(
        body.contains("inquest_jobs_total{cluster=\"lab\",partition=\"batch\",class=\"oom\"} 0\n"),
        "{body}"
    );
    for secret in SECRETS.iter().chain(&[ANN, "job-101", "n1"]) {
        assert!(!body.contains(secret), "{secret} is in the metrics: {body}");
    }
    // What is merged from now on is counted.
    lab.job(&job(104, ANN, "fit", "n1", End::Oom(64)));
    lab.merge(&[]);
    let deadline = Instant::now() + Duration::from_secs(60);
    let one = "inquest_jobs_total{cluster=\"lab\",partition=\"batch\",class=\"oom\"} 1\n";
    loop {
        let body = server.tcp("/metrics", &[]).body;
        if body.contains(one) {
            break;
        }
        assert!(Instant::now() < deadline, "{body}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn over_tcp_nobody_is_anybody() {
    let lab = lab();
    let server = serve(&lab, "");
    for path in PAGES {
        let answer = server.tcp(path, &[("X-Remote-User", "root")]);
        assert_eq!(answer.status, 401, "{path}");
        assert!(!answer.body.contains(ANN), "{path}: {}", answer.body);
    }
}

#[test]
fn so_many_requests_and_no_more() {
    let lab = lab();
    let server = serve(&lab, "requests = 10");
    let me = rustix::process::geteuid().as_raw();
    let answers: Vec<Answer> = (0..30).map(|_| server.get(me, "/api/v1/me")).collect();
    let refused = answers.iter().filter(|a| a.status == 429).count();
    assert!((1..=20).contains(&refused), "{refused}");
    let last = answers.iter().find(|a| a.status == 429).unwrap();
    assert!(last.header("retry-after").unwrap().parse::<u64>().unwrap() <= 7);
}

/// One person's connections leave room for others, who need not wait for the bound of all.
#[test]
fn so_many_connections_of_one_person() {
    if !is_root() {
        return;
    }
    let lab = lab();
    let server = serve(&lab, "");
    let (ann, bob) = (uid(ANN), uid(BOB));
    let held = server.hold(ann, 40);
    let first = |stream: &std::os::unix::net::UnixStream| {
        use std::io::Read;
        let mut text = String::new();
        let _ = { stream }.read_to_string(&mut text);
        text
    };
    // The bound is the same for all of them, so the last one is beyond it.
    let said = first(held.last().unwrap());
    assert!(said.starts_with("HTTP/1.1 503 ") && said.contains("too many connections"), "{said:?}");
    assert_eq!(server.get(bob, "/api/v1/me").status, 200);
    drop(held);
    until("room after they have gone", || server.get(ann, "/api/v1/me").status == 200);
}

#[test]
fn it_ends_when_it_is_told_and_takes_its_socket_away() {
    let lab = lab();
    let mut server = serve(&lab, "");
    let socket = server.socket.clone();
    // Another one does not take the place of one that answers.
    let config = lab.path().join("serve.toml");
    let second =
        apart(env!("CARGO_BIN_EXE_inquest")).args(["serve", "--config"]).arg(&config).output().unwrap();
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success() && said.contains("another server answers there"), "{said}");
    let pid = rustix::process::Pid::from_raw(i32::try_from(server.child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(server.child.wait().unwrap().success());
    assert!(!socket.exists());
    // What a server that was killed has left is in nobody's way.
    let mut server = serve(&lab, "");
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    assert!(socket.exists());
    let server = serve(&lab, "");
    assert_eq!(server.get(rustix::process::geteuid().as_raw(), "/api/v1/me").status, 200);
}

#[test]
fn what_makes_no_sense_is_said_before_it_serves() {
    let lab = lab();
    for (settings, said) in [
        ("proxy_header = \"X-Remote-User\"", "believed of nobody"),
        ("proxy_header = \"X Y\"\nproxy_user = \"root\"", "is no name of a header"),
        ("proxy_user = \"no-such-account\"", "no account no-such-account"),
        ("proxy_secret = \"/no/such/file\"", "/no/such/file"),
        ("listen = \"0.0.0.0:9\"", "not a loopback address"),
        ("socket = \"/no/such/dir/x.sock\"", "/no/such/dir/x.sock"),
    ] {
        let config = lab.path().join("bad.toml");
        let socket = if settings.contains("socket") {
            String::new()
        } else {
            format!("socket = {:?}\n", lab.path().join("bad.sock"))
        };
        fs::write(&config, format!("store = {:?}\n[serve]\n{socket}{settings}\n", lab.store())).unwrap();
        let (code, _, stderr) = lab.run(&["serve", "--config", config.to_str().unwrap()]);
        assert!(
            code != 0 && stderr.contains(said) && stderr.lines().count() == 1,
            "{settings}: {code} {stderr}"
        );
    }
}

/// Copies of a job, so many that not all of them are looked at for one page.
fn crowd(lab: &Lab, job: u32, copies: u32) {
    let db = rusqlite::Connection::open(lab.store().join("index.db")).unwrap();
    let columns = "cluster, user, job_id, array_job_id, array_task_id, name, account, partition, started, last, ended, \
                   class, cause, label, confidence, fingerprint, message, exit_code, signal, node, nodes, node_count, \
                   node_us, peak, limit_bytes";
    let sql = format!(
        "WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {copies}) \
         INSERT INTO job (run, chunk, attempt, {columns}) SELECT run, chunk + i, attempt, {columns} \
         FROM job, n WHERE job_id = {job}"
    );
    assert_eq!(db.execute(&sql, []).unwrap(), copies as usize);
    db.execute(
        "UPDATE run SET members = members + ?1 WHERE id = (SELECT run FROM job WHERE job_id = ?2)",
        [copies, job],
    )
    .unwrap();
}

#[test]
fn a_list_that_was_cut_says_so_and_links_on() {
    let lab = lab();
    let server = serve(&lab, "");
    let me = rustix::process::geteuid().as_raw();
    let question = format!("user={ANN}&class=oom");
    const CUT: &str = "There are more jobs than are read for one page";
    for page in ["/", "/nodes"] {
        let body = server.get(me, &format!("{page}?{question}")).body;
        assert!(!body.contains(CUT), "{page}: {body}");
    }
    crowd(&lab, 101, 20_100);
    let overview = server.get(me, &format!("/?{question}")).body;
    assert!(overview.contains(CUT), "{overview}");
    // The list that the note links to has all of them, page by page.
    let all = format!("/failures?class=oom&user={ANN}").replace('&', "&amp;");
    assert!(overview.contains(&format!("<a href=\"{all}\">")), "{overview}");
    let (mut pages, mut jobs, mut next) = (0, 0, format!("/failures?limit=1000&class=oom&user={ANN}"));
    loop {
        let page = server.get(me, &next);
        assert_eq!(page.status, 200, "{next}");
        pages += 1;
        jobs += page.body.matches("<tr data-key=").count();
        let Some((link, _)) = page.body.split_once("\" rel=\"next\"") else { break };
        next = link.rsplit_once("href=\"").unwrap().1.replace("&amp;", "&") + "&limit=1000";
    }
    assert_eq!((pages, jobs), (21, 20_101));
    // The API says it, too, and not of what the sums tell.
    let by = |group: &str| {
        server.get(me, &format!("/api/v1/failures?by={group}&user={ANN}")).json()["cut"].clone()
    };
    assert_eq!((by("node"), by("class")), (true.into(), false.into()));
    assert_eq!(server.get(me, &format!("/api/v1/nodes?user={ANN}")).json()["cut"], true);
}

#[test]
fn a_run_of_many_jobs_is_shown_in_pages() {
    let lab = lab();
    let server = serve(&lab, "");
    let me = rustix::process::geteuid().as_raw();
    let run = format!("/runs/lab/{ANN}/job-101");
    let short = server.get(me, &run).body;
    assert!(!short.contains("rel=\"next\"") && !short.contains("Next jobs"), "{short}");
    crowd(&lab, 101, 450);
    let mut next = run.clone();
    let mut seen = Vec::new();
    loop {
        let page = server.get(me, &next).body;
        let (_, words) = page.split_once("<small>jobs ").unwrap();
        seen.push(words.split_once('<').unwrap().0.to_owned());
        assert!(page.contains("200 of 451 jobs") || page.contains("51 of 451 jobs"), "{page}");
        let Some((link, _)) = page.split_once("#jobs\" rel=\"next\"") else { break };
        next = link.rsplit_once("href=\"").unwrap().1.to_owned();
    }
    assert_eq!(seen, ["1 to 200", "201 to 400", "401 to 451"]);
    let (mut jobs, mut from) = (Vec::new(), 0);
    loop {
        let page = server.get(me, &format!("/api/v1{run}?limit=100&from={from}")).json();
        jobs.extend(page["jobs"].as_array().unwrap().iter().map(|j| j["chunk_id"].as_u64().unwrap()));
        match page["next"].as_u64() {
            Some(next) => from = next,
            None => break,
        }
    }
    assert_eq!(jobs, (1..=451).collect::<Vec<u64>>());
    assert_eq!(server.get(me, &format!("{run}?from=x")).status, 400);
}

#[test]
fn an_index_of_another_version_is_said_and_made_anew() {
    let lab = lab();
    let set = |version: u32| {
        let db = rusqlite::Connection::open(lab.store().join("index.db")).unwrap();
        db.pragma_update(None, "user_version", version).unwrap();
        db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    };
    let me = rustix::process::geteuid().as_raw();
    set(2);
    let server = serve(&lab, "");
    for (path, status) in [("/", 503), ("/api/v1/jobs", 503), ("/metrics", 200)] {
        let answer = server.get(me, path);
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        assert!(status == 200 || answer.body.contains("inquest index rebuild"), "{path}: {answer:?}");
    }
    // The collector of this version makes it anew, and the server that runs meets it.
    lab.merge(&[]);
    let began = std::time::Instant::now();
    while server.get(me, "/").status != 200 {
        assert!(began.elapsed().as_secs() < 60, "{:?}", server.get(me, "/"));
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    assert_eq!(server.get(me, "/api/v1/jobs").json()["jobs"].as_array().unwrap().len(), 5);
}

/// A rule that makes a death by SIGUSR1 one that is no node's fault.
fn collect_by_rule(lab: &Lab) {
    let rules = lab.log(
        "rules.toml",
        "[[rule]]\nname = \"stopped\"\npriority = 1\nclass = \"cancelled\"\n[rule.match]\nsignal = [\"SIGUSR1\"]\n",
    );
    lab.merge(&["--rules", &rules]);
}

#[test]
fn failed_means_the_same_wherever_a_page_says_it() {
    let lab = Lab::new();
    // Node n1 fails at what can be its fault eleven times, three jobs are cancelled there.
    for n in 0..80 {
        let (node, end) = match n {
            0..11 => ("n1", End::Signal(11)),
            11..14 => ("n1", End::Signal(10)),
            14..20 => ("n1", End::Code(0)),
            _ => ("n2", End::Code(0)),
        };
        lab.job(&job(100 + n, ANN, "fit", node, end));
    }
    // A job whose second attempt ends well.
    let first = Job { secs: 5, ..job(99, ANN, "twice", "n2", End::Signal(15)) };
    lab.job(&first);
    lab.job(&Job { restart: 1, start: first.start + 100, end: End::Code(0), ..first });
    collect_by_rule(&lab);
    let server = serve(&lab, "");
    let me = rustix::process::geteuid().as_raw();
    let words = |path: &str| {
        let body = server.get(me, path).body;
        let mut text = String::new();
        let mut inside = false;
        for c in body.chars() {
            match c {
                '<' => inside = true,
                '>' => (inside, text) = (false, text + " "),
                _ if !inside => text.push(c),
                _ => {}
            }
        }
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let overview = words("/");
    for said in [
        "15 jobs failed",
        "18.3 % of 82 that ended",
        "n1 (14 of 20 jobs failed there, 11 of them in a way that can be a node's fault)",
        "n1 14 70.0 %",
        "Counted are attempts of jobs",
    ] {
        assert!(overview.contains(said), "{said}: {overview}");
    }
    let nodes = words("/nodes");
    assert!(nodes.contains("n1 suspect 20 14 11 55.0 %"), "{nodes}");
    let by_node = server.get(me, "/api/v1/failures?by=node").json()["groups"][0].clone();
    let standing = server.get(me, "/api/v1/nodes").json()["nodes"][0].clone();
    assert_eq!((&by_node["key"], &standing["node"]), (&"n1".into(), &"n1".into()));
    assert_eq!(
        (&by_node["failed"], &standing["failed"], &standing["counted"]),
        (&14.into(), &14.into(), &11.into())
    );
    // Of a run, a job is counted once, by its last attempt; the list under it has attempts, and says so.
    let run = words(&format!("/runs/lab/{ANN}/job-99"));
    assert!(run.contains("0 of 1 job failed"), "{run}");
    assert!(run.contains("A row is an attempt") && run.contains("put back into the queue"), "{run}");
    let (code, report, _) = lab.run(&["report"]);
    assert_eq!(code, 0);
    for said in [
        "15 of 82 jobs failed (18.3 %)",
        "Node n1 is suspect: 14 of 20 jobs failed there, 11 of them in a way that can be a node's fault",
        "Counted are attempts of jobs",
    ] {
        assert!(report.split_whitespace().collect::<Vec<_>>().join(" ").contains(said), "{said}: {report}");
    }
}

#[test]
fn the_status_of_a_run_is_that_of_the_members_that_are_seen() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    let of = |id: u32, run: &'static str, account: &'static str, end: End| {
        lab.job(&Job { run: Some(run), account: Some(account), ..job(id, BOB, "fit", "n1", end) });
    };
    of(701, "hers-is-well", "hers", End::Code(0));
    of(702, "hers-is-well", "other", End::Code(3));
    of(703, "hers-is-well", "other", End::Open);
    of(704, "hers-failed", "hers", End::Code(3));
    of(705, "hers-failed", "other", End::Code(0));
    of(706, "hers-runs", "hers", End::Open);
    of(707, "others-alone", "other", End::Code(3));
    lab.job(&job(708, ANN, "fit", "n1", End::Code(3)));
    lab.job(&job(709, ANN, "fit", "n1", End::Code(0)));
    lab.merge(&[]);
    let path = fake(&lab, "sacctmgr", &format!("hers|{ANN}"));
    let server = Server::with(lab.path(), &lab.store(), "coordinators = true", |command| {
        command.env("PATH", path);
    });
    until("what sacctmgr says", || server.get(uid(ANN), "/api/v1/me").json()["role"] == "coordinator");
    let listed = |who: &str, status: &str| -> Vec<String> {
        let said = server.get(uid(who), &format!("/api/v1/runs?status={status}")).json();
        let runs = said["runs"].as_array().unwrap();
        let mut runs: Vec<String> = runs.iter().map(|r| r["run_id"].as_str().unwrap().to_owned()).collect();
        runs.sort();
        let page = server.get(uid(who), &format!("/runs?status={status}")).body;
        let shown = |run: &&String| page.contains(&format!("/{run}\""));
        assert_eq!(runs.iter().filter(shown).count(), runs.len(), "{runs:?}: {page}");
        assert_eq!(page.matches("<td class=\"name\"><a href=").count(), runs.len(), "{page}");
        runs
    };
    assert_eq!(listed(ANN, "any"), ["hers-failed", "hers-is-well", "hers-runs", "job-708", "job-709"]);
    assert_eq!(listed(ANN, "failed"), ["hers-failed", "job-708"]);
    assert_eq!(listed(ANN, "running"), ["hers-runs"]);
    assert_eq!(listed(BOB, "failed"), ["hers-failed", "hers-is-well", "others-alone"]);
    assert_eq!(listed(BOB, "running"), ["hers-is-well", "hers-runs"]);
    // Page by page, it is the same.
    let (mut seen, mut next) = (Vec::new(), "/api/v1/runs?status=failed&limit=1".to_owned());
    loop {
        let page = server.get(uid(ANN), &next).json();
        seen.extend(
            page["runs"].as_array().unwrap().iter().map(|r| r["run_id"].as_str().unwrap().to_owned()),
        );
        let Some(before) = page["next"].as_str() else { break };
        next = format!("/api/v1/runs?status=failed&limit=1&before={before}");
    }
    seen.sort();
    assert_eq!(seen, ["hers-failed", "job-708"]);
}
