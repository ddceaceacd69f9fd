//! The basic commands as a person meets them: text, JSON, exit codes, and what
//! they say to wrong input.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use inquest::collect::{Collector, Options};
use inquest_journal::{
    Body, Identity, JobId, JobStarted, Severity, Source, StepEnded, StepId, StepStarted, TaskExited,
    TaskStarted, Writer,
};
use inquest_tests::children::apart;

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    /// A store with job 7, which ended well, and the array 20 of two, of which
    /// the second failed. Its name is hostile.
    fn new() -> Place {
        let place = Place { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(place.journal()).unwrap();
        fs::set_permissions(place.journal(), fs::Permissions::from_mode(0o750)).unwrap();
        place.job(7, None, 0, "good");
        place.job(20, Some(0), 0, "evil\u{1b}[2J\nname");
        place.job(21, Some(1), 3, "evil\u{1b}[2J\nname");
        place.collect();
        place
    }

    fn journal(&self) -> std::path::PathBuf {
        self.dir.path().join("journal")
    }

    fn store(&self) -> std::path::PathBuf {
        self.dir.path().join("store")
    }

    fn collect(&self) {
        let options = Options { journal: self.journal(), store: self.store(), quiet: Duration::from_secs(1) };
        Collector::open(options, None).unwrap().pass(true).unwrap();
    }

    fn job(&self, id: u32, array: Option<u32>, code: u8, name: &str) {
        let identity = Identity::new("lab", "n1", "0badc0de", id, 1);
        let (mut writer, failed) = Writer::open(&self.journal(), identity, Source::Plugin).unwrap();
        assert!(failed.is_none());
        let (uid, name) = (Some(4_294_967_294), Some(name.to_owned()));
        let (array_job_id, array_task_id) = (array.map(|_| JobId(20)), array);
        let bodies: [Body; 5] = [
            JobStarted { uid, name: name.clone(), array_job_id, array_task_id, ..JobStarted::default() }
                .into(),
            StepStarted { uid, name, array_job_id, array_task_id, ..StepStarted::default() }.into(),
            TaskStarted { pid: Some(id), ..TaskStarted::default() }.into(),
            TaskExited { exit_code: Some(code), ..TaskExited::default() }.into(),
            StepEnded::default().into(),
        ];
        for body in &bodies {
            assert!(writer.write(Severity::Info, Some(JobId(id)), Some(StepId::Batch), Some(0), body));
        }
    }

    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        inquest(&self.store(), arguments)
    }
}

fn inquest(store: &Path, arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = apart(env!("CARGO_BIN_EXE_inquest"))
        .args(arguments)
        .env("INQUEST_STORE", store)
        .env_remove("NO_COLOR")
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[test]
fn exit_codes_say_whether_something_failed() {
    let place = Place::new();
    for (arguments, code) in [
        (&["why", "7"][..], 0),
        (&["why", "20_0"], 0),
        (&["why", "20_1"], 1),
        (&["why", "20"], 1),
        (&["wtf", "21"], 1),
        (&["runs"], 1),
        (&["run", "array-20"], 1),
        (&["run", "7"], 0),
        (&["events", "7"], 0),
        (&["events", "21"], 1),
        (&["--help"], 0),
    ] {
        let (got, _, stderr) = place.run(arguments);
        assert_eq!((got, stderr.as_str()), (code, ""), "{arguments:?}");
    }
}

#[test]
fn wrong_input_gets_one_line_with_reason_and_next_step() {
    let place = Place::new();
    let file = place.dir.path().join("file");
    fs::write(&file, "x").unwrap();
    let file = file.to_str().unwrap();
    for (arguments, code, parts) in [
        (&["why", "999"][..], 3, &["no job 999", "inquest runs"][..]),
        (&["why", "20_7"], 3, &["no array task 20_[7]"]),
        (&["run", "nope"], 3, &["no run nope"]),
        (&["events", "7.x"], 2, &["'7.x'", "no step", "123.batch"]),
        (&["why", "99999999999"], 2, &["too large"]),
        (&["why", "../../etc"], 2, &["no job or run id"]),
        (&["why", "\u{1b}[31m"], 2, &["no job or run id"]),
        (&["runs", "-o", "nope"], 2, &["no column 'nope'", "RUN,NAME"]),
        (&["runs", "--store", "/no/such/store"], 3, &["/no/such/store", "--store"]),
        (&["runs", "--store", file], 3, &["it is a file"]),
        (&["collect", "--once", "--journal", "/no/such/journal"], 3, &["/no/such/journal"]),
        (&["collect", "--once", "--store", file], 3, &["cannot make the store"]),
    ] {
        let (got, stdout, stderr) = place.run(arguments);
        assert_eq!((got, stdout.as_str()), (code, ""), "{arguments:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
        assert!(stderr.starts_with("inquest: ") && !stderr.contains('\u{1b}'), "{stderr:?}");
        for part in parts {
            assert!(stderr.contains(part), "{arguments:?}: {part} is not in: {stderr}");
        }
    }
}

#[test]
fn a_damaged_line_costs_only_itself() {
    let place = Place::new();
    let events = glob(&place.store(), "job-7").join("events.jsonl");
    let text = fs::read_to_string(&events).unwrap();
    fs::write(&events, text.replacen("{\"timestamp\"", "\"timestamp\"", 1)).unwrap();
    let (code, stdout, stderr) = place.run(&["events", "job-7"]);
    assert_eq!((code, stdout.lines().count()), (0, text.lines().count() - 1));
    assert!(stderr.contains("1 line is") && stderr.contains("damaged"), "{stderr}");
    assert_eq!(place.run(&["why", "7"]).0, 0);
}

#[test]
fn a_directory_in_place_of_a_file_is_named() {
    let place = Place::new();
    let run = glob(&place.store(), "job-7").join("run.json");
    fs::remove_file(&run).unwrap();
    fs::create_dir(&run).unwrap();
    let (code, _, stderr) = place.run(&["why", "7"]);
    assert_eq!((code, stderr.lines().count()), (3, 1));
    assert!(stderr.contains("run.json") && stderr.contains("it is a directory"), "{stderr}");
}

#[test]
fn text_of_a_job_never_reaches_the_terminal_raw() {
    let place = Place::new();
    for arguments in [&["why", "20"][..], &["run", "array-20"], &["runs"], &["events", "20"]] {
        let (_, stdout, _) = place.run(arguments);
        assert!(!stdout.contains('\u{1b}'), "{arguments:?}: {stdout:?}");
        assert!(!stdout.lines().any(|l| l.starts_with("name")), "{arguments:?}: {stdout:?}");
    }
}

#[test]
fn json_has_a_schema_and_says_the_same() {
    let place = Place::new();
    let json =
        |arguments: &[&str]| -> serde_json::Value { serde_json::from_str(&place.run(arguments).1).unwrap() };
    let runs = json(&["runs", "--json"]);
    assert_eq!(runs["schema"], 1);
    assert_eq!(runs["runs"][1]["run_id"], "array-20");
    assert_eq!(runs["runs"][1]["n_failed"], 1);
    let run = json(&["run", "array-20", "--json"]);
    assert_eq!(run["run"]["members"]["1"]["verdict"]["cause"], "app_error");
    let why = json(&["why", "20_1", "--json"]);
    assert_eq!(why["jobs"][0]["verdict"]["first_failure"]["exit_code"], 3);
    assert_eq!(why["jobs"][0]["story"]["attempts"][0]["steps"]["batch"]["tasks"]["0"]["pid"], 21);
    let (_, lines, _) = place.run(&["events", "20_1", "--json", "-t", "task_exited"]);
    let event: serde_json::Value = serde_json::from_str(&lines).unwrap();
    assert_eq!(
        (&event["job_id"], &event["chunk_id"], &event["run_id"]),
        (&"21".into(), &1.into(), &"array-20".into())
    );
}

#[test]
fn half_a_line_in_a_journal_waits_for_its_other_half() {
    let place = Place::new();
    let day = glob(&place.journal(), "n1").read_dir().unwrap().next().unwrap().unwrap().path();
    let whole = fs::read_to_string(&day).unwrap().lines().next().unwrap().replace("\"seq\":0", "\"seq\":77");
    let (first, second) = whole.split_at(60);
    append(&day, first);
    place.collect();
    let before = place.run(&["events", "7"]).1.lines().count();
    append(&day, &format!("{second}\n"));
    place.collect();
    assert_eq!(place.run(&["events", "7"]).1.lines().count(), before + 1);
}

fn append(file: &Path, text: &str) {
    use std::io::Write;
    fs::OpenOptions::new().append(true).open(file).unwrap().write_all(text.as_bytes()).unwrap();
}

/// The directory of this name somewhere below.
fn glob(root: &Path, name: &str) -> std::path::PathBuf {
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap().flatten().filter(|e| e.path().is_dir()) {
            if entry.file_name() == name {
                return entry.path();
            }
            dirs.push(entry.path());
        }
    }
    panic!("no {name} below {}", root.display());
}
