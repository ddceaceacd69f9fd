//! `inquest watch`: who is called for what, how often, and with which words.

mod support;

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use inquest_tests::children::apart;
use inquest_tests::skip::skip;
use support::{End, Job, Lab};

const TIMEOUT: Duration = Duration::from_secs(30);

/// A handler that writes down what it was told.
fn handler(lab: &Lab) -> (PathBuf, PathBuf) {
    let (program, out) = (lab.path().join("handler.py"), lab.path().join("told"));
    std::fs::write(
        &program,
        "#!/bin/sh\nread -r line\nprintf '%s|%s|%s|%s|%s\\n' \"$1\" \"$INQUEST_JOB\" \"$INQUEST_CLASS\" \
         \"$INQUEST_CAUSE\" \"$line\" >> \"$2\"\ntest \"$INQUEST_CLASS\" != crash\n",
    )
    .unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    (program, out)
}

/// Without what is told on standard input.
fn told(out: &PathBuf) -> Vec<String> {
    let text = std::fs::read_to_string(out).unwrap_or_default();
    let mut lines: Vec<String> =
        text.lines().map(|l| l.rsplit_once('|').map_or(l, |(l, _)| l).to_owned()).collect();
    lines.sort();
    lines
}

fn job(id: u32, end: End) -> Job {
    Job { run: Some("r1"), start: i64::from(id), name: "$(touch x)\n`evil`".into(), ..Job::new(id, end) }
}

#[test]
fn each_kind_is_told_once_over_all_lives() {
    let lab = Lab::with([job(1, End::Code(3))]);
    let (program, out) = handler(&lab);
    let state = lab.path().join("state");
    let watch = || {
        let words = ["watch", "--once", "--state", state.to_str().unwrap(), "-j", "1", "--"];
        let mut words = words.to_vec();
        words.extend([program.to_str().unwrap(), "a $(b) c", out.to_str().unwrap()]);
        lab.run(&words)
    };
    assert_eq!(watch(), (0, String::new(), String::new()), "what had happened before is not told");
    assert!(told(&out).is_empty());
    for job in [job(11, End::Oom(64)), job(12, End::Oom(64)), job(13, End::Code(0)), job(14, End::Code(5))] {
        lab.job(&job);
    }
    lab.collect();
    assert_eq!(watch().0, 0);
    let first = ["a $(b) c|11|oom|oom_cgroup", "a $(b) c|14|app_error|app_error"];
    assert_eq!(told(&out), first);
    let text = std::fs::read_to_string(&out).unwrap();
    let oom: serde_json::Value = serde_json::from_str(
        text.lines().find(|l| l.contains("|oom|")).unwrap().splitn(5, '|').nth(4).unwrap(),
    )
    .unwrap();
    assert_eq!((&oom["jobs"], &oom["members"], &oom["run_id"]), (&2.into(), &"11-12".into(), &"r1".into()));
    assert_eq!(oom["failure"]["class"], "oom");
    assert_eq!(oom["name"], "$(touch x)\n`evil`");

    assert_eq!(watch().0, 0);
    lab.job(&job(15, End::Oom(64)));
    lab.job(&job(16, End::Signal(11)));
    lab.collect();
    let (code, _, stderr) = watch();
    assert_eq!(code, 1);
    assert!(stderr.contains("the handler for 16 in r1 (") && stderr.contains("exit status: 1"), "{stderr}");
    assert_eq!(told(&out).len(), 3, "the same kind again is not told");
    assert_eq!(watch().0, 0, "one that failed is not called again");
}

#[test]
fn what_fails_while_it_watches_is_told_until_a_signal() {
    let lab = Lab::with([job(1, End::Code(3))]);
    let (program, out) = handler(&lab);
    let mut command = lab.command(&["watch", "-i", "1", "--class", "oom"]);
    command.arg("--").arg(&program).arg("x").arg(&out).stdin(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let deadline = Instant::now() + TIMEOUT;
    let mut id = 20;
    // What happens before the first look is not told: let things fail until one is.
    while told(&out).is_empty() {
        assert!(Instant::now() < deadline, "nothing was told");
        lab.job(&job(id, End::Oom(64)));
        lab.job(&job(id + 1, End::Code(9)));
        lab.collect();
        id += 2;
        std::thread::sleep(Duration::from_millis(500));
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let told = told(&out);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].ends_with("|oom|oom_cgroup"), "{told:?}");
}

/// Waits until so many failures were told.
fn until_told(out: &PathBuf, n: usize) -> Vec<String> {
    let deadline = Instant::now() + TIMEOUT;
    while told(out).len() < n {
        assert!(Instant::now() < deadline, "{:?}", told(out));
        std::thread::sleep(Duration::from_millis(50));
    }
    told(out)
}

/// What one run hides must not cost the failures of others, nor its own once it can be read again.
#[test]
fn a_run_that_cannot_be_read_hides_no_other() {
    let lab = Lab::with([job(1, End::Code(3))]);
    let (program, out) = handler(&lab);
    let state = lab.path().join("state");
    let watch = |words: &[&str]| {
        let mut command = lab.command(&["watch", "--state", state.to_str().unwrap()]);
        command.args(words).arg("--").arg(&program).arg("x").arg(&out);
        command
    };
    assert_eq!(support::finish(watch(&["--once"]), b"").0, 0);
    for (id, run) in [(11, "a"), (12, "b"), (13, "c")] {
        lab.job(&Job { run: Some(run), ..job(id, End::Oom(64)) });
    }
    lab.collect();
    let file = support::find(&lab.store(), "b").join("run.json");
    let good = std::fs::read(&file).unwrap();
    std::fs::write(&file, "{").unwrap();
    let mut command = watch(&["-i", "1"]);
    let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    assert_eq!(until_told(&out, 2), ["x|11|oom|oom_cgroup", "x|13|oom|oom_cgroup"]);
    // Some looks later it is not said again.
    std::thread::sleep(Duration::from_millis(2500));
    std::fs::write(lab.path().join("whole"), good).unwrap();
    std::fs::rename(lab.path().join("whole"), &file).unwrap();
    assert_eq!(until_told(&out, 3)[1], "x|12|oom|oom_cgroup");
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let mut stderr = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut stderr).unwrap();
    assert!(stderr.contains("the run b") && stderr.contains("run.json"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    // What was looked through and has not gone on is not looked at again.
    std::fs::write(&file, "{").unwrap();
    assert_eq!(support::finish(watch(&["--once"]), b""), (0, String::new(), String::new()));
    // From cron it is the exit code that says what cannot be read.
    std::fs::remove_file(&file).unwrap();
    lab.job(&Job { run: Some("b"), ..job(14, End::Code(0)) });
    lab.collect();
    std::fs::write(&file, "{").unwrap();
    let (code, _, stderr) = support::finish(watch(&["--once"]), b"");
    assert!(code == 3 && stderr.contains("the run b"), "{code} {stderr}");
    assert_eq!(told(&out).len(), 3, "{:?}", told(&out));
}

/// A node's clock that is years ahead makes nothing old that fails now.
#[test]
fn a_clock_that_is_ahead_silences_nothing() {
    let years = 20 * 365 * 86_400;
    let lab = Lab::with([Job { run: Some("ahead"), start: years, ..Job::new(1, End::Code(3)) }]);
    let (program, out) = handler(&lab);
    let state = lab.path().join("state");
    let watch = || {
        let mut command = lab.command(&["watch", "--once", "--state", state.to_str().unwrap(), "--"]);
        command.arg(&program).arg("x").arg(&out);
        support::finish(command, b"").0
    };
    assert_eq!(watch(), 0);
    assert!(told(&out).is_empty());
    // In this test, now is when the clock of this machine says.
    let now = (inquest_journal::Stamp::now().wall.0 - support::EPOCH) / 1_000_000;
    lab.job(&Job { run: Some("now"), start: now, ..Job::new(2, End::Code(4)) });
    lab.collect();
    assert_eq!(watch(), 0);
    assert_eq!(told(&out), ["x|2|app_error|app_error"]);
}

#[test]
fn wrong_input_to_watch() {
    let lab = Lab::with([job(1, End::Code(3))]);
    assert_eq!(lab.run(&["watch"]).0, 2);
    assert_eq!(lab.run(&["watch", "--once", "--", "true"]).0, 2, "--once needs --state");
    lab.refuses(&["watch", "--class", "nope", "--", "true"], 2, &["no class 'nope'", "oom, timeout"]);
    lab.refuses(&["watch", "--state", "/no/such/dir/x", "--", "true"], 2, &["/no/such/dir/x", "--state"]);
}

/// Answers one POST after the other; gives their bodies.
fn hook() -> (String, std::sync::mpsc::Receiver<String>) {
    use std::io::{BufRead, BufReader, Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let (give, take) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap() > 0 {}
            let value = |name: &str| {
                let lines = head.lines().filter_map(|l| l.split_once(": "));
                lines.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.to_owned()).next()
            };
            let length = value("content-length").map_or(0, |n| n.parse().unwrap());
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            reader.get_mut().write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
            assert!(head.starts_with("POST /hook "), "{head}");
            assert_eq!(value("content-type").as_deref(), Some("application/json"), "{head}");
            if give.send(String::from_utf8(body).unwrap()).is_err() {
                return;
            }
        }
    });
    (url, take)
}

/// The example of a command's help that begins so, with the address of a hook in it.
fn example(lab: &Lab, verb: &str, begin: &str, url: &str) -> String {
    const HOOK: &str = "https://chat.example/hook";
    let (_, help, _) = lab.run(&[verb, "--help"]);
    let from = help.find(begin).unwrap_or_else(|| panic!("{begin}: {help}"));
    let hook = from + help[from..].find(HOOK).unwrap_or_else(|| panic!("{HOOK}: {help}"));
    let end = hook + help[hook..].find('\n').unwrap();
    help[from..end].replace(HOOK, url)
}

/// What the help says of hooks of other services is what works.
#[test]
fn a_hook_is_told_by_the_lines_of_the_help() {
    for program in ["curl", "jq"] {
        if std::process::Command::new(program).arg("--version").output().is_err() {
            return skip(&format!("there is no {program} (ci/setup installs it)"));
        }
    }
    let lab = Lab::with([job(1, End::Code(3))]);
    let (url, told) = hook();
    let inquest = std::path::Path::new(env!("CARGO_BIN_EXE_inquest"));
    let path = format!("{}:{}", inquest.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let shell = |line: &str| {
        let mut command = apart("sh");
        command.args(["-c", line]).current_dir(lab.path()).env("PATH", &path);
        command.env("INQUEST_STORE", lab.store()).env("TZ", "UTC");
        support::finish(command, b"")
    };
    let once = |line: &str| line.replace("inquest watch", "inquest watch --once --state told-state");
    let direct = example(&lab, "watch", "inquest watch -- curl", &url);
    let through = example(&lab, "watch", "inquest watch -- sh -c", &url);
    assert_eq!(shell(&once(&direct)), (0, String::new(), String::new()));
    assert!(told.try_recv().is_err(), "what had happened before is not told");
    lab.job(&job(2, End::Oom(64)));
    lab.collect();
    assert_eq!(shell(&once(&direct)), (0, String::new(), String::new()));
    let body: serde_json::Value = serde_json::from_str(&told.recv_timeout(TIMEOUT).unwrap()).unwrap();
    assert_eq!((&body["failure"]["class"], &body["run_id"]), (&"oom".into(), &"r1".into()));
    // In the words of a chat, by a shell.
    lab.job(&Job { run: Some("r2"), ..job(3, End::Oom(64)) });
    lab.collect();
    assert_eq!(shell(&once(&through)), (0, String::new(), String::new()));
    let body: serde_json::Value = serde_json::from_str(&told.recv_timeout(TIMEOUT).unwrap()).unwrap();
    assert_eq!(body.as_object().unwrap().len(), 1, "{body}");
    assert!(body["text"].as_str().unwrap().contains("memory"), "{body}");
    // A hook that is not there is said.
    lab.job(&Job { run: Some("r3"), ..job(4, End::Oom(64)) });
    lab.collect();
    let (code, _, stderr) = shell(&once(&direct.replace(&url, "http://127.0.0.1:1/")));
    assert!(code == 1 && stderr.contains("the handler for 4 in r3"), "{code} {stderr}");

    // What is new on the whole site, and nothing when nothing is.
    lab.merge(&[]);
    let report = example(&lab, "report", "inquest report --new told --json", &url);
    let report = report.replace("--new told", "--days 3660 --new told");
    assert_eq!(shell(&report), (0, String::new(), String::new()));
    let body: serde_json::Value = serde_json::from_str(&told.recv_timeout(TIMEOUT).unwrap()).unwrap();
    assert!(body["text"].as_str().unwrap().contains("New kind of failure"), "{body}");
    shell(&report);
    assert!(told.try_recv().is_err(), "nothing is new, and nothing is said");
}
