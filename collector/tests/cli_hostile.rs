//! Whatever a job calls itself and writes, no command passes it to a terminal
//! as it is, and none takes it for anything but text.

mod support;

use std::fs;

use support::{End, Job, Lab};

#[test]
fn text_of_a_job_never_reaches_the_terminal_raw() {
    let evil = "x\u{1b}[2J\u{9b}2J\u{1b}]0;t\u{7}\n\u{202e}$(touch pwned)`id`';&|";
    let lab = Lab::new();
    let dir = lab.path().join(format!("d{evil}"));
    fs::create_dir(&dir).unwrap();
    let text = format!("ValueError: {evil}\n\u{1b}[31mKeyError: 'a'\u{1b}[0m\r\u{9b}31m\n");
    let log = lab.log(&format!("d{evil}/log_4700_1.err"), text);
    for (id, end) in [(21, End::Code(3)), (22, End::Code(3)), (23, End::Oom(64))] {
        lab.job(&Job {
            array: Some((20, id)),
            name: evil.into(),
            open: Some(log.clone()),
            work_dir: Some(evil.into()),
            ..Job::new(id, end)
        });
    }
    lab.job(&Job { name: evil.into(), ..Job::new(30, End::Code(1)) });
    lab.collect();
    let dir = dir.to_str().unwrap();
    for arguments in [
        &["timeline", "20", "--all"][..],
        &["logs", "20"],
        &["logs", "20", "-P"],
        &["grep", "Error", "20"],
        &["grep", "Error", "20", "-P"],
        &["errors", "20"],
        &["compare", "20", "30"],
        &["rerun", "20"],
        &["rerun", "20", "--script", evil],
        &["rerun", "20", "--csv"],
        &["scan", dir],
        &["scan", dir, "--csv"],
        &["events", "20"],
        &["why", "20"],
        &["why", "20", "--json"],
        &["events", "20", "--json"],
    ] {
        let (code, out, err) = lab.run(arguments);
        assert!(code <= 1, "{arguments:?}: {err}");
        for text in [out, err] {
            let bad = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
            assert!(!text.contains(bad), "{arguments:?}: {text:?}");
            assert!(!text.lines().any(|l| l.starts_with("\u{202e}") || l.starts_with("$(touch")), "{text}");
        }
    }
    assert!(!lab.path().join("pwned").exists());
}
