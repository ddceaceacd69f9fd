//! `inquest watch`: who is called for what, how often, and with which words.

mod support;

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

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

#[test]
fn wrong_input_to_watch() {
    let lab = Lab::with([job(1, End::Code(3))]);
    assert_eq!(lab.run(&["watch"]).0, 2);
    assert_eq!(lab.run(&["watch", "--once", "--", "true"]).0, 2, "--once needs --state");
    lab.refuses(&["watch", "--class", "nope", "--", "true"], 2, &["no class 'nope'", "oom, timeout"]);
    lab.refuses(&["watch", "--state", "/no/such/dir/x", "--", "true"], 2, &["/no/such/dir/x", "--state"]);
}
