//! `inquest events`, and the pages and completions made from the same
//! definitions as `--help`.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use inquest_tests::children::Ends;
use support::{End, Job, Lab, finish};

fn lab() -> Lab {
    Lab::with([
        Job { run: Some("r"), ..Job::new(1, End::Oom(64)) },
        Job { run: Some("r"), ..Job::new(2, End::Code(0)) },
    ])
}

#[test]
fn several_types_and_the_last_ones() {
    let lab = lab();
    let types = |arguments: &[&str]| -> Vec<String> {
        let (_, out, _) = lab.run(&[&["events", "r", "--json"], arguments].concat());
        let line = |l: &str| serde_json::from_str::<serde_json::Value>(l).unwrap()["event_type"].to_string();
        out.lines().map(line).collect()
    };
    assert_eq!(types(&["-t", "oom_kill,task_exited"]).len(), 3);
    assert_eq!(types(&["-t", "oom_kill", "-t", "chunk_failed"]).len(), 2);
    assert_eq!(types(&["--last", "1"]), ["\"run_failed\""]);
    assert_eq!(types(&["--last", "0"]).len(), 0);
    assert_eq!(lab.run(&["events", "2"]).0, 0);
    assert_eq!(lab.run(&["events", "r", "--last", "1", "-t", "oom_kill"]).0, 1);
}

#[test]
fn following_shows_what_comes_in_once() {
    let lab = lab();
    let arguments = ["events", "r", "-f", "--last", "2", "-t", "task_exited"];
    let mut child = Ends(lab.command(&arguments).stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let before = [lines.next().unwrap(), lines.next().unwrap()];
    assert!(before[0].contains("1.batch/0") && before[1].contains("2.batch/0"), "{before:?}");
    lab.job(&Job { run: Some("r"), ..Job::new(3, End::Code(7)) });
    lab.collect();
    let new = lines.next().unwrap();
    assert!(new.contains("3.batch/0") && new.contains("exit code 7"), "{new}");
    // Half a line is no line; a damaged one is passed over.
    let mut file = fs::OpenOptions::new().append(true).open(lab.events_of("r")).unwrap();
    file.write_all(b"{\"timestamp\":\"half").unwrap();
    let text = fs::read_to_string(lab.events_of("r")).unwrap();
    let again = text.lines().find(|l| l.contains("\"task_exited\"")).unwrap();
    file.write_all(format!("\n{again}\n").as_bytes()).unwrap();
    assert!(lines.next().unwrap().contains("1.batch/0"));
}

#[test]
fn following_begins_with_the_last_of_many() {
    let lab = lab();
    let text = fs::read_to_string(lab.events_of("r")).unwrap();
    let mut ends = text.lines().filter(|l| l.contains("\"task_exited\""));
    let (again, other) = (ends.next().unwrap(), ends.next().unwrap());
    let mut file = fs::OpenOptions::new().append(true).open(lab.events_of("r")).unwrap();
    // More than is read at once.
    file.write_all(format!("{again}\n").repeat((3 << 20) / again.len()).as_bytes()).unwrap();
    let arguments = ["events", "r", "-f", "--last", "2", "-t", "task_exited,oom_kill"];
    let mut child = Ends(lab.command(&arguments).stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.by_ref().take(2).all(|l| l.contains("1.batch/0")));
    file.write_all(format!("{other}\n").as_bytes()).unwrap();
    assert!(lines.next().unwrap().contains("2.batch/0"));
}

#[test]
fn following_goes_on_through_compression_and_back() {
    // Long ago by any clock: only what has rested is compressed.
    let job = |id| Job { run: Some("r"), start: -900 * 86_400, ..Job::new(id, End::Code(7)) };
    let lab = Lab::with([job(1), job(2)]);
    let events = lab.events_of("r");
    let pack = || {
        assert_eq!(lab.json(&["gc", "--json", "--compress-hours", "0"])["compressed"], 1);
        assert!(!events.exists());
    };
    pack();
    let arguments = ["events", "r", "-f", "-t", "task_exited"];
    let mut child = Ends(lab.command(&arguments).stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let before = [lines.next().unwrap(), lines.next().unwrap()];
    assert!(before[0].contains("1.batch/0") && before[1].contains("2.batch/0"), "{before:?}");
    for id in 3..6 {
        // What is compressed comes back when more is to be written, and goes again.
        lab.job(&job(id));
        lab.collect();
        assert!(events.exists());
        let new = lines.next().unwrap();
        assert!(new.contains(&format!("{id}.batch/0")), "{new}");
        pack();
    }
}

#[test]
fn wrong_input_to_events() {
    let lab = lab();
    lab.refuses(&["events", "999"], 3, &["no job 999"]);
    lab.refuses(&["events", "1", "-t", "oom"], 2, &["no event type 'oom'", "oom_kill", "chunk_failed"]);
    lab.refuses(&["events", "1.x"], 2, &["no step"]);
    lab.refuses(&["events", "r", "--store", "/no/such"], 3, &["/no/such"]);
    assert_eq!(lab.run(&["events", "r", "--last", "x"]).0, 2);
    let events = lab.events_of("r");
    fs::remove_file(&events).unwrap();
    lab.refuses(&["events", "r", "-f"], 3, &["events.jsonl"]);
}

#[test]
fn every_verb_has_examples_a_page_and_completions() {
    let lab = lab();
    let dir = lab.path().join("man");
    assert_eq!(lab.run(&["man", dir.to_str().unwrap()]).0, 0);
    let (_, help, _) = lab.run(&["--help"]);
    // Verbs stand two columns in, below the headings of their groups; options come after them.
    let verbs: Vec<&str> = help
        .lines()
        .skip_while(|l| !l.starts_with("Usage:"))
        .take_while(|l| *l != "Options:")
        .filter(|l| l.starts_with("  ") && !l.starts_with("   "))
        .filter_map(|l| l.split_whitespace().next())
        .collect();
    assert!(verbs.len() >= 24, "{verbs:?}");
    for shell in ["bash", "zsh", "fish"] {
        let (code, script, _) = lab.run(&["completions", shell]);
        assert!(code == 0 && verbs.iter().all(|v| script.contains(v)), "{shell}");
    }
    // As bash asks for them at the first word, and for the options of a verb.
    let ask = "source <(\"$0\" completions bash); COMP_WORDS=(inquest $1 \"$2\"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); \
               _inquest inquest \"$2\" \"${1:-inquest}\"; echo \"${COMPREPLY[*]}\"";
    for (before, typed, wanted) in [("", "w", "why wtf watch"), ("serve", "--li", "--listen")] {
        let mut bash = Command::new("bash");
        bash.args(["-c", ask, env!("CARGO_BIN_EXE_inquest"), before, typed]);
        assert_eq!(finish(bash, b""), (0, format!("{wanted}\n"), String::new()));
    }
    for verb in verbs {
        let (_, help, _) = lab.run(&[verb, "--help"]);
        assert!(help.contains("Examples:\n  inquest "), "inquest {verb} --help has no examples");
        assert!(help.lines().all(|l| l.chars().count() <= 80), "inquest {verb} --help is too wide");
        let page = fs::read_to_string(dir.join(format!("inquest-{verb}.1"))).unwrap();
        assert!(page.contains(".SH SYNOPSIS") && page.contains("Examples:"), "{verb}");
    }
    // Every page, the plugin's too, is set without a warning.
    let plugins = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/man/spank_inquest.8");
    let mut groff = Command::new("groff");
    groff.args(["-man", "-Tutf8", "-ww", "-z", plugins]);
    groff.args(fs::read_dir(&dir).unwrap().flatten().map(|e| e.path()));
    assert_eq!(finish(groff, b""), (0, String::new(), String::new()));
}
