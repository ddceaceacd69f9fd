//! `inquest logs` and `inquest grep`: which files, and what is in them.

mod support;

use std::fs;

use inquest_tests::skip::skip;
use support::{End, Job, Lab};

/// An array of three, of which 0 ended well, 1 has its log and 2 lost it.
fn array() -> Lab {
    let lab = Lab::new();
    let dir = lab.path().to_str().unwrap().to_owned();
    for (index, code) in [(0, 0), (1, 3), (2, 3)] {
        lab.job(&Job {
            array: Some((20, index)),
            stdout: Some("log-%A_%a-%x-%N.out".into()),
            work_dir: Some(dir.clone()),
            ..Job::new(20 + index, End::Code(code))
        });
    }
    lab.collect();
    lab.log("log-20_0-fit-n1.out", "all is well\n");
    lab.log("log-20_1-fit-n1.out", "one\ntwo\nValueError: x=\x1b[31m7\x1b[0m\nfour\nfive\nno newline");
    lab
}

#[test]
fn patterns_are_filled_in_and_missing_files_said() {
    let lab = array();
    let (code, out, err) = lab.run(&["logs", "20", "-o", "JOB,STREAM,SIZE,LINES,PATH,NOTE", "-P"]);
    assert_eq!((code, err.as_str()), (1, ""));
    let rows: Vec<&str> = out.lines().collect();
    assert_eq!(rows.len(), 3, "{out}");
    assert!(rows[1].starts_with("20_1|out|53 B|6|") && rows[1].contains("log-20_1-fit-n1.out|"), "{out}");
    assert!(rows[2].starts_with("20_2|out|-|-|") && rows[2].contains("|is missing"), "{out}");
    let json = lab.json(&["logs", "20", "--all", "--json"]);
    assert_eq!((&json["schema"], json["logs"].as_array().unwrap().len()), (&1.into(), 3));
    assert_eq!((&json["logs"][0]["lines"], &json["logs"][0]["known"]), (&1.into(), &"job".into()));
    assert!(json["logs"][2]["error"].as_str().unwrap().contains("missing"));
}

#[test]
fn a_path_that_a_task_had_open_is_better_than_a_pattern() {
    let lab = Lab::new();
    let open = lab.log("100%j.out", "x\n");
    lab.job(&Job { open: Some(open.clone()), stdout: Some("/no/where".into()), ..Job::new(7, End::Code(1)) });
    lab.collect();
    let json = lab.json(&["logs", "7", "--json"]);
    assert_eq!(json["logs"].as_array().unwrap().len(), 1, "{json}");
    assert_eq!((&json["logs"][0]["path"], &json["logs"][0]["stream"]), (&open.into(), &"both".into()));
}

#[test]
fn slurms_default_is_named_as_a_guess() {
    let lab = Lab::with([Job { work_dir: Some("/no/such".into()), ..Job::new(7, End::Code(1)) }]);
    let json = lab.json(&["logs", "7", "--json"]);
    assert_eq!(json["logs"][0]["path"], "/no/such/slurm-7.out");
    assert_eq!(json["logs"][0]["known"], "default");
}

#[test]
fn one_step_only() {
    let lab = array();
    assert_eq!(lab.json(&["logs", "20_1.batch", "--json"])["logs"].as_array().unwrap().len(), 1);
    let (code, out, err) = lab.run(&["logs", "20_1.7", "-n"]);
    assert!(code == 1 && out.is_empty() && err.contains("no path of a log was recorded"), "{err}");
}

#[test]
fn what_is_no_file_is_never_waited_for() {
    let lab = Lab::new();
    let fifo = lab.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    for (id, path) in [(1, fifo.as_path()), (2, lab.path())] {
        lab.job(&Job {
            run: Some("odd"),
            stdout: Some(path.to_str().unwrap().into()),
            ..Job::new(id, End::Code(1))
        });
    }
    lab.collect();
    let (_, out, _) = lab.run(&["logs", "odd", "-n", "-P", "-o", "NOTE"]);
    assert_eq!(out, "is a named pipe, not a file\nis a directory, not a file\n");
}

/// Of a job's logs root reads what is the job's user's, and not what a link in place of one leads to.
#[test]
fn a_link_to_anothers_file_is_not_read() {
    if !rustix::process::geteuid().is_root() {
        return skip("without root, no file is another's");
    }
    let lab = Lab::new();
    let (file, link) = (lab.log("file", "ValueError: hush\n"), lab.path().join("log"));
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let stdout = Some(link.to_str().unwrap().to_owned());
    lab.job(&Job { stdout, ..Job::new(7, End::Code(3)) });
    lab.collect();
    assert_eq!(lab.run(&["grep", "hush", "7"]).0, 0);
    assert!(lab.run(&["why", "7"]).1.contains("ValueError: hush"));
    std::os::unix::fs::chown(&file, Some(0), Some(0)).unwrap();
    for arguments in [&["grep", "ValueError", "7"][..], &["why", "7"], &["logs", "7"], &["errors", "7"]] {
        let (code, out, err) = lab.run(arguments);
        let said = (out + &err).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(!said.contains("hush"), "{said}");
        let how = "belongs to root, not to uid 4294967294, whose job it is, so it is not read with your rights; sudo -u";
        assert!(said.contains(how), "{arguments:?}: {said}");
        assert_eq!(code, if arguments[0] == "grep" { 4 } else { 1 }, "{said}");
    }
}

#[test]
fn nobody_reads_what_is_said_beside() {
    let lab = array();
    let mut command = lab.command(&["grep", "Error", "20"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let out = command.stderr(writer).output().unwrap();
    assert_eq!(out.status.code(), Some(0), "{out:?}");
}

#[test]
fn wrong_input_to_logs() {
    let lab = array();
    let file = lab.log("file", "x");
    lab.refuses(&["logs", "999"], 3, &["no job 999", "inquest runs"]);
    lab.refuses(&["logs", "20_[1-"], 2, &["bracket is not closed"]);
    lab.refuses(&["logs", "20", "-o", "nope"], 2, &["no column 'nope'", "PATH"]);
    lab.refuses(&["logs", "20", "--store", &file], 3, &["it is a file", "--store"]);
    lab.refuses(&["logs", "20", "--store", "/no/such"], 3, &["/no/such", "INQUEST_STORE"]);
    let events = lab.events_of("array-20");
    fs::remove_file(&events).unwrap();
    fs::create_dir(&events).unwrap();
    lab.refuses(&["logs", "20"], 3, &["events.jsonl", "it is a directory"]);
}

#[test]
fn grep_shows_matches_with_their_lines_around() {
    let lab = array();
    let (code, out, err) = lab.run(&["grep", "Error", "20", "-C", "1"]);
    let path = lab.path().join("log-20_1-fit-n1.out");
    let wanted = format!("20_1  {}\n     2- two\n     3: ValueError: x=7\n     4- four\n", path.display());
    assert_eq!((code, out), (0, wanted));
    assert!(err.lines().count() == 1 && err.contains("20_2") && err.contains("is missing"), "{err}");
    let (code, out, _) =
        lab.run(&["grep", "VALUEERROR", "20_1", "-i", "-P", "-o", "JOB,LINE,MATCH", "-C", "0"]);
    assert_eq!((code, out.as_str()), (0, "JOB|LINE|MATCH\n20_1|3|yes\n"));
    let json = lab.json(&["grep", "^(one|five)$", "20_1", "--json", "-C0"]);
    assert_eq!((&json["matches"], &json["lines"][1]["line_number"]), (&2.into(), &5.into()));
}

#[test]
fn grep_ends_as_grep_does_and_stops_in_time() {
    let lab = array();
    assert_eq!(lab.run(&["grep", "nothing like it", "20_1"]).0, 1);
    assert_eq!(lab.run(&["grep", "all is well", "20"]).0, 1); // Of a job that did not fail.
    assert_eq!(lab.run(&["grep", "all is well", "20", "--all"]).0, 0);
    let (code, out, err) = lab.run(&["grep", "e", "20_1", "-m", "2", "-C", "0", "-n"]);
    assert_eq!((code, out.as_str()), (0, "     1: one\n     3: ValueError: x=7\n"));
    assert!(err.contains("-m 0"), "{err}");
}

#[test]
fn grep_is_bounded_and_safe_on_any_bytes() {
    let lab = Lab::new();
    let mut bytes: Vec<u8> =
        (0u32..200_000).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    bytes.extend(b"\nneedle\x00\xff\x1b[2J\n");
    let log = lab.log("binary", &bytes);
    lab.job(&Job { open: Some(log), ..Job::new(7, End::Code(1)) });
    lab.collect();
    let (code, out, _) = lab.run(&["grep", "needle", "7", "-C", "2"]);
    assert_eq!(code, 0);
    assert!(out.contains(": needle\u{fffd}\n"), "{out:?}");
    assert!(!out.bytes().any(|b| b.is_ascii_control() && b != b'\n'), "{out:?}");
}

#[test]
fn wrong_input_to_grep() {
    let lab = array();
    lab.refuses(&["grep", "x", "999"], 3, &["no job 999"]);
    lab.refuses(&["grep", "(", "20"], 2, &["'('", "no regular expression", "unclosed group", "-F"]);
    lab.refuses(&["grep", "x", "20.q"], 2, &["'20.q'", "no step"]);
    lab.refuses(&["grep", "x", "20", "-o", "nope", "-P"], 2, &["no column 'nope'"]);
    lab.refuses(&["grep", "x", "20", "--store", "/no/such"], 3, &["/no/such"]);
    lab.refuses(&["grep", "x", "20_2"], 3, &["20_2", "log-20_2-fit-n1.out", "is missing"]);
}
