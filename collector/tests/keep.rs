//! Compressed and removed runs: read as before, opened again when something
//! comes late, gone when they are to go, and never half of it.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use inquest_tests::children::apart;
use support::{End, Job, Lab, find};

const DAY: i64 = 86_400;

/// Jobs that ended so many days before the lab's epoch, which is in the past
/// of every test by much less.
fn job(id: u32, days: i64, end: End) -> Job {
    Job { start: -days * DAY, ..Job::new(id, end) }
}

fn lab() -> Lab {
    let lab = Lab::new();
    for id in 1..=6 {
        lab.job(&Job {
            array: Some((1, id)),
            name: format!("fit{id}"),
            ..job(id, 900, [End::Code(0), End::Code(3), End::Oom(64)][id as usize % 3])
        });
    }
    lab.job(&job(20, 800, End::Signal(11)));
    lab.job(&job(30, 700, End::Open));
    lab.collect();
    lab
}

fn gc(lab: &Lab, more: &[&str]) -> serde_json::Value {
    lab.json(&[&["gc", "--json"], more].concat())
}

/// The events of every run as plain lines.
fn events(store: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for dir in runs(store) {
        let file = inquest::store::EventsFile::open(&dir).unwrap();
        let text = file.read(0, file.len() as usize).unwrap();
        found.insert(dir.strip_prefix(store).unwrap().to_owned(), text);
    }
    found
}

fn runs(store: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![store.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap().flatten().filter(|e| e.path().is_dir()) {
            if entry.path().parent().unwrap().ends_with("runs") { &mut found } else { &mut dirs }
                .push(entry.path());
        }
    }
    found.sort();
    found
}

#[test]
fn every_command_reads_compressed_runs_as_before() {
    let lab = lab();
    let questions: Vec<Vec<&str>> = [
        "why 1_2",
        "why array-1",
        "why 20 --json",
        "events array-1",
        "events 20 --json",
        "events 1_3 --last 3",
        "timeline array-1 --all",
        "errors array-1",
        "run array-1",
        "runs",
        "logs 20",
        "rerun array-1",
        "why 30",
        "compare array-1 job-20",
    ]
    .map(|q| q.split(' ').collect())
    .into();
    let answers: Vec<_> = questions.iter().map(|q| lab.run(q)).collect();
    let before = events(&lab.store());
    let done = gc(&lab, &["--compress-hours", "0"]);
    assert_eq!((&done["compressed"], &done["removed"]), (&2.into(), &0.into()), "the open run stays: {done}");
    for run in ["array-1", "job-20"] {
        let dir = find(&lab.store(), run);
        assert!(dir.join("events.jsonl.zst").exists() && !dir.join("events.jsonl").exists(), "{run}");
    }
    assert_eq!(events(&lab.store()), before);
    for index in [true, false] {
        for (question, answer) in questions.iter().zip(&answers) {
            assert_eq!(&lab.run(question), answer, "{question:?}, index: {index}");
        }
        for name in ["index.db", "index.db-wal", "index.db-shm"] {
            let _ = fs::remove_file(lab.store().join(name));
        }
    }
    assert_eq!(gc(&lab, &["--compress-hours", "0"])["compressed"], 0, "once is enough");
}

/// A store in which the same came, with nothing compressed in between.
fn undisturbed(late: &Job) -> BTreeMap<PathBuf, Vec<u8>> {
    let lab = lab();
    lab.job(late);
    lab.collect();
    events(&lab.store())
}

#[test]
fn a_late_event_opens_a_compressed_run_again_whatever_a_crash_left() {
    let late = Job { array: Some((1, 7)), name: "fit7".into(), ..job(7, 899, End::Code(0)) };
    let right = undisturbed(&late);
    type Crash = fn(&Path);
    let crashes: [(&str, Crash); 6] = [
        ("none", |_| ()),
        ("the plain file not yet taken away", |dir| {
            let plain = inquest::store::EventsFile::open(dir).unwrap();
            fs::write(dir.join("events.jsonl"), plain.read(0, plain.len() as usize).unwrap()).unwrap();
        }),
        ("half of the compressed file", |dir| {
            fs::write(dir.join("events.jsonl.zst.new"), b"half").unwrap();
        }),
        ("half of the plain file", |dir| fs::write(dir.join("events.jsonl.new"), b"{\"half").unwrap()),
        ("the compressed file not yet taken away, and more lines", |dir| {
            let plain = inquest::store::EventsFile::open(dir).unwrap();
            let mut text = plain.read(0, plain.len() as usize).unwrap();
            text.extend_from_slice(b"{\"not\":\"committed\"}\n");
            fs::write(dir.join("events.jsonl"), text).unwrap();
        }),
        ("nothing but names", |dir| {
            fs::write(dir.join("events.jsonl.zst.new"), b"").unwrap();
            fs::write(dir.join("events.jsonl.new"), b"").unwrap();
        }),
    ];
    for (name, crash) in crashes {
        let lab = lab();
        gc(&lab, &["--compress-hours", "0"]);
        let dir = find(&lab.store(), "array-1");
        crash(&dir);
        lab.job(&late);
        lab.collect();
        assert_eq!(events(&lab.store()), right, "after a crash that left {name}");
        assert!(!dir.join("events.jsonl.zst").exists() && dir.join("events.jsonl").exists(), "{name}");
        // And it is closed again.
        gc(&lab, &["--compress-hours", "0"]);
        assert_eq!(events(&lab.store()), right, "compressed again, after a crash that left {name}");
        assert!(dir.join("events.jsonl.zst").exists() && !dir.join("events.jsonl").exists(), "{name}");
    }
}

#[test]
fn damaged_compressed_events_are_said_and_never_appended_to() {
    let lab = lab();
    gc(&lab, &["--compress-hours", "0"]);
    let path = find(&lab.store(), "job-20").join("events.jsonl.zst");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
    let (code, _, stderr) = lab.run(&["why", "20"]);
    assert_eq!((code, stderr.contains("events.jsonl.zst")), (3, true), "{stderr}");
    assert_eq!(lab.run(&["why", "1_2"]).0, 1, "the others can still be asked about");
}

#[test]
fn a_run_that_is_being_removed_is_in_no_index() {
    let lab = lab();
    lab.merge(&[]);
    let run = runs(&lab.store()).into_iter().find(|run| run.ends_with("array-1")).unwrap();
    // As it is called for a moment, or for as long as a crash left it.
    fs::rename(&run, run.with_file_name(".removed-array-1")).unwrap();
    assert_eq!(lab.run(&["index", "rebuild"]).0, 0);
    let index = lab.json(&["index", "--json"]);
    assert_eq!((&index["runs"], &index["jobs"]), (&2.into(), &2.into()));
}

#[test]
fn what_is_removed_is_gone_everywhere_and_stays_gone() {
    let lab = lab();
    lab.merge(&[]);
    let said = lab.json(&["gc", "--dry-run", "--json", "--days", "10"]);
    let acts: Vec<_> =
        said["acts"].as_array().unwrap().iter().map(|a| (a["act"].clone(), a["run_id"].clone())).collect();
    assert_eq!(acts, [("remove".into(), "array-1".into()), ("remove".into(), "job-20".into())]);
    assert_eq!(runs(&lab.store()).len(), 3, "a dry run removes nothing");

    let done = gc(&lab, &["--days", "10"]);
    assert_eq!(done["removed"], 2, "{done}");
    let left = runs(&lab.store());
    assert!(left.len() == 1 && left[0].ends_with("job-30"), "the open one is left: {left:?}");
    let registry = fs::read_to_string(left[0].with_file_name("_registry.jsonl")).unwrap();
    assert!(registry.lines().count() == 1 && registry.contains("job-30"), "{registry}");
    assert_eq!(lab.run(&["why", "20"]).0, 3);
    let index = lab.json(&["index", "--json"]);
    assert_eq!((&index["runs"], &index["jobs"]), (&1.into(), &1.into()));

    // Journals that are still there bring nothing back; what is new comes.
    let said = lab.merge(&[]);
    assert!(said.contains("0 events merged"), "{said}");
    lab.job(&job(21, 0, End::Code(1)));
    lab.merge(&[]);
    assert_eq!(lab.run(&["why", "21"]).0, 1);
    assert_eq!(runs(&lab.store()).len(), 2);
    let registry = fs::read_to_string(left[0].with_file_name("_registry.jsonl")).unwrap();
    assert!(
        registry.starts_with(registry.lines().next().unwrap()) && registry.contains("job-21"),
        "{registry}"
    );
}

#[test]
fn a_crash_while_a_registry_is_written_anew_leaves_one_or_the_other() {
    for committed in [false, true] {
        let lab = lab();
        let registry = find(&lab.store(), "runs").join("_registry.jsonl");
        let old = fs::read_to_string(&registry).unwrap();
        let new = old.lines().last().unwrap().to_owned() + "\n";
        fs::write(registry.with_file_name("_registry.jsonl.new"), &new).unwrap();
        if committed {
            let db = rusqlite::Connection::open(lab.store().join("ledger.db")).unwrap();
            let sql = "UPDATE output SET length = ?1 WHERE path LIKE '%_registry.jsonl'";
            assert_eq!(db.execute(sql, [new.len() as i64]).unwrap(), 1);
        }
        lab.collect();
        assert_eq!(fs::read_to_string(&registry).unwrap(), if committed { new } else { old });
        assert!(!registry.with_file_name("_registry.jsonl.new").exists());
    }
}

#[test]
fn users_have_limits_of_their_own_and_nonsense_is_refused() {
    let lab = lab();
    let user = lab.json(&["runs", "--json"])["runs"][0]["user"].as_str().unwrap().to_owned();
    let config = lab.path().join("c.toml");
    let with = |users: &str| {
        fs::write(&config, format!("[keep]\ndays = 10\nusers = [\"{users}\"]\n")).unwrap();
        lab.run(&[
            "gc",
            "--dry-run",
            "-n",
            "-P",
            "-o",
            "ACT,RUN,REASON",
            "--config",
            config.to_str().unwrap(),
        ])
    };
    let (code, said, _) = with(&format!("{user} days=100000"));
    assert_eq!(code, 0);
    assert_eq!(said, "compress|array-1|closed\ncompress|job-20|closed\n");
    let (_, said, _) = with(&format!("{user} days=100000 bytes=1"));
    assert_eq!(said, "remove|array-1|its user has too much\nremove|job-20|its user has too much\n");
    let (_, said, _) = with("somebody days=1000");
    assert_eq!(said, "remove|array-1|too old\nremove|job-20|too old\n");
    for nonsense in ["ann", "ann days=x", "ann hours=3", "ann days"] {
        let (code, _, stderr) = with(nonsense);
        assert_eq!((code, stderr.contains("ann days=900")), (2, true), "{nonsense}: {stderr}");
    }
}

#[test]
fn a_store_in_use_is_left_alone() {
    let lab = lab();
    let options = inquest::collect::Options {
        journal: lab.journal(),
        store: lab.store(),
        quiet: std::time::Duration::from_secs(1),
    };
    let _collector = inquest::collect::Collector::open(options, None).unwrap();
    let (code, _, stderr) = lab.run(&["gc"]);
    assert_eq!((code, stderr.contains("in use by another collector")), (3, true), "{stderr}");
    assert_eq!(lab.run(&["gc", "--dry-run"]).0, 0);
}

/// The real command, killed at random while it compresses, between collectors
/// that merge more into the same runs: every run comes out byte for byte as
/// without any of that. `INQUEST_KILLS` makes it longer.
#[test]
fn killed_while_it_compresses_nothing_is_lost_and_nothing_twice() {
    use inquest_tests::generate::{Plan, generate};
    use inquest_tests::random::Random;
    let seed = std::env::var("INQUEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(41);
    let kills: u32 = std::env::var("INQUEST_KILLS").ok().and_then(|s| s.parse().ok()).unwrap_or(60);
    println!("INQUEST_SEED={seed}");
    let mut random = Random::new(seed);
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let whole = dir.path().join("whole");
    generate(&Plan { nodes: 12, jobs: 400, days: 2, runs: None, seed: 11 }, &whole).unwrap();
    let journal = dir.path().join("journal");
    let command = |store: &str, words: &[&str]| {
        let mut command = apart(env!("CARGO_BIN_EXE_inquest"));
        command.args(words).arg("--store").arg(dir.path().join(store)).env("TZ", "UTC");
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
        command
    };
    let collect = |store: &str| {
        let path = journal.to_str().unwrap();
        let words = ["collect", "--once", "--accounting", "off", "--index", "false", "--journal", path];
        let output = command(store, &words).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "seed {seed}: {said}");
    };
    // The generator's days are not over yet: everything is younger than now.
    let config = dir.path().join("c.toml");
    fs::write(&config, "[collect]\nindex = false\n[keep]\ncompress_hours = 0\n").unwrap();
    let steps = 10;
    let (mut landed, mut packed) = (0, 0);
    for step in 1..=steps {
        for node in fs::read_dir(&whole).unwrap().flatten() {
            let to = journal.join(node.file_name());
            fs::create_dir_all(&to).unwrap();
            for file in fs::read_dir(node.path()).unwrap().flatten() {
                let text = fs::read_to_string(file.path())
                    .unwrap()
                    .replace("\"timestamp\":\"2026-", "\"timestamp\":\"2025-");
                let lines: Vec<&str> = text.split_inclusive('\n').collect();
                fs::write(to.join(file.file_name()), lines[..lines.len() * step / steps].concat()).unwrap();
            }
        }
        collect("right");
        collect("tried");
        for _ in 0..kills / steps as u32 {
            let words = ["gc", "--config", config.to_str().unwrap()];
            let mut child = command("tried", &words).spawn().unwrap();
            std::thread::sleep(std::time::Duration::from_micros(random.spread(1000, 200_000)));
            landed += u32::from(child.try_wait().unwrap().is_none());
            let _ = child.kill();
            child.wait().unwrap();
        }
        packed +=
            runs(&dir.path().join("tried")).iter().filter(|d| d.join("events.jsonl.zst").exists()).count();
    }
    assert!(
        landed > 0 && packed > 0,
        "seed {seed}: {landed} kills met a living process, {packed} runs were compressed"
    );
    // One last look: what a kill left is put right before anything is read.
    collect("tried");
    let (right, tried) = (events(&dir.path().join("right")), events(&dir.path().join("tried")));
    assert_eq!(right.keys().collect::<Vec<_>>(), tried.keys().collect::<Vec<_>>(), "seed {seed}");
    for (run, text) in &right {
        assert!(tried[run] == *text, "seed {seed}: {} differs", run.display());
    }
    println!("{landed} of {kills} kills met a living process, {packed} compressed runs were seen");
}

#[test]
fn a_file_that_somebody_removed_is_named_with_what_to_do() {
    use inquest::collect::{Collector, Options};
    let lab = Lab::new();
    lab.job(&job(1, 0, End::Open));
    lab.job(&job(2, 0, End::Open));
    let open = || {
        let quiet = std::time::Duration::from_secs(1);
        Collector::open(Options { journal: lab.journal(), store: lab.store(), quiet }, None)
    };
    let mut collector = open().unwrap();
    collector.pass(false).unwrap();
    let dir = find(&lab.store(), "job-1");
    fs::remove_file(dir.join("events.jsonl")).unwrap();
    // A further event of each job: the one cannot be written, the other is.
    for id in [1, 2] {
        lab.event(("n1", "0badc0de", 900 + id), 5, Some((id, inquest_journal::StepId::Batch)), note());
    }
    let notes = |run: &str| fs::read_to_string(lab.events_of(run)).unwrap().matches("\"note\"").count();
    let said = |collector: &Collector| collector.health().unwrap().aside;
    collector.pass(false).unwrap();
    let named = said(&collector);
    assert!(named.len() == 1 && named[0].0.ends_with("/job-1"), "{named:?}");
    assert!(named[0].1.contains("job-1/events.jsonl"), "{named:?}");
    assert_eq!(notes("job-2"), 1);
    drop(collector);
    // It does not go on as if nothing had been there, until somebody says so.
    let collector = open().unwrap();
    let named = said(&collector);
    assert!(named.len() == 1 && named[0].1.contains("move the run's directory away"), "{named:?}");
    assert!(!dir.join("events.jsonl").exists());
    drop(collector);
    fs::remove_dir_all(&dir).unwrap();
    let mut collector = open().unwrap();
    collector.pass(true).unwrap();
    drop(collector);
    assert_eq!((notes("job-1"), notes("job-2")), (1, 1));
}

fn note() -> inquest_journal::Note {
    inquest_journal::Note { text: Some("half".into()), ..inquest_journal::Note::default() }
}

/// Somebody did what messages advise, and moved a run out of the store.
#[test]
fn a_run_that_was_moved_away_is_listed_no_more() {
    let lab = Lab::with([
        Job { cluster: "old", node: "n2", start: -900, ..Job::new(6, End::Code(3)) },
        Job::new(6, End::Code(3)),
        Job::new(7, End::Open),
    ]);
    let moved = |cluster: &str| {
        let from = find(&lab.store().join(cluster), "job-6");
        fs::rename(from, lab.path().join(format!("away-{cluster}"))).unwrap();
    };
    moved("lab");
    let (code, said, stderr) = lab.run(&["why", "6", "--json"]);
    assert!(code == 1 && said.contains("\"old\""), "the other one of that number: {code}: {stderr}");
    moved("old");
    let gone = |when: &str| {
        lab.refuses(&["errors", "6"], 3, &["no job 6"]);
        let (code, _, stderr) = lab.run(&["why", "6"]);
        assert!(code == 3 && stderr.contains("no job 6"), "{when}: {code}: {stderr}");
    };
    gone("before a collector knows");
    // Also where nothing else is to be tidied.
    lab.collect();
    gone("after");
    let (code, said, _) = lab.run(&["runs", "-n"]);
    assert!(code == 0 && said.contains("job-7") && !said.contains("job-6"), "{said}");
    let (code, said, stderr) = lab.run(&["export", "members"]);
    assert!(code == 0 && said.lines().count() == 1, "{code}: {said}: {stderr}");

    // The collector goes on with the same registry.
    lab.job(&Job { start: 60, ..Job::new(8, End::Code(0)) });
    lab.collect();
    lab.collect();
    let (_, said, _) = lab.run(&["runs", "-n"]);
    assert_eq!(said.lines().count(), 2, "{said}");
}
