//! The collector against a model: random writes, rotations, truncations,
//! copies, compressions, crashes and restarts of the collector, and the run
//! stores must hold every acknowledged event exactly once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use inquest::collect::{Collector, Options};
use inquest::ledger::Ledger;
use inquest::slurm::target::Target;
use inquest::store::{Line, Store};
use inquest_journal::{
    Body, Identity, JobId, JobStarted, Lines, Note, Severity, Source, StepEnded, StepId, StepStarted,
    TaskExited, TaskStarted, Writer,
};
use proptest::prelude::*;

/// What can happen to journals and collector.
#[derive(Clone, Debug)]
enum Action {
    /// A job's next event is written on its node.
    Event { job: u32 },
    /// The node's journal goes on in another file.
    Rotate { node: usize },
    /// A journal is copied under another name, as a restore or a second sync does.
    Copy { node: usize },
    /// The newest journal is compressed and the plain one removed.
    Compress { node: usize },
    /// A line ends in the middle.
    Tear { node: usize },
    /// Bytes that are no event are appended.
    Garbage { node: usize, bytes: Vec<u8> },
    /// The collector makes a pass.
    Pass,
    /// The collector is gone without a word, after it has written `extra`
    /// bytes to a run file that no checkpoint covers.
    Crash { extra: usize },
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let node = || 0usize..2;
    let action = prop_oneof![
        12 => (1u32..8).prop_map(|job| Action::Event { job }),
        1 => node().prop_map(|node| Action::Rotate { node }),
        1 => node().prop_map(|node| Action::Copy { node }),
        1 => node().prop_map(|node| Action::Compress { node }),
        1 => node().prop_map(|node| Action::Tear { node }),
        1 => (node(), proptest::collection::vec(any::<u8>(), 1..40))
            .prop_map(|(node, bytes)| Action::Garbage { node, bytes }),
        4 => Just(Action::Pass),
        2 => (0usize..300).prop_map(|extra| Action::Crash { extra }),
    ];
    proptest::collection::vec(action, 1..120)
}

/// The journals, and what was acknowledged in them.
struct World {
    journal: tempfile::TempDir,
    store: tempfile::TempDir,
    writers: HashMap<u32, (Writer, u32)>,
    acknowledged: BTreeSet<(String, u64)>,
    files: u32,
}

const NODES: [&str; 2] = ["n1", "n2"];
const EVENTS_OF_A_JOB: u32 = 5;

impl World {
    fn new() -> World {
        let journal = tempfile::tempdir().unwrap();
        fs::set_permissions(journal.path(), fs::Permissions::from_mode(0o750)).unwrap();
        for node in NODES {
            fs::create_dir(journal.path().join(node)).unwrap();
        }
        let store = tempfile::tempdir().unwrap();
        World { journal, store, writers: HashMap::new(), acknowledged: BTreeSet::new(), files: 0 }
    }

    fn collector(&self) -> Collector {
        let options = Options {
            journal: self.journal.path().into(),
            store: self.store.path().into(),
            quiet: Duration::from_secs(1),
        };
        Collector::open(options, None).unwrap()
    }

    /// The next event of a batch job; its task fails when its id is odd.
    fn event(&mut self, job: u32) {
        let (_, stage) = self.writer(job);
        let (uid, name) = (Some(4_294_967_294), Some("j".to_owned()));
        let body: Body = match *stage {
            0 => StepStarted { uid, name, ..StepStarted::default() }.into(),
            1 => JobStarted { uid, name, ..JobStarted::default() }.into(),
            2 => TaskStarted { pid: Some(job), ..TaskStarted::default() }.into(),
            3 => TaskExited { exit_code: Some((job % 2) as u8), ..TaskExited::default() }.into(),
            4 => StepEnded::default().into(),
            _ => return,
        };
        *stage += 1;
        self.write(job, &body);
    }

    /// One event more of a job that does not end.
    fn note(&mut self, job: u32) {
        self.write(job, &Note { text: Some("x".repeat(500)), ..Note::default() }.into());
    }

    fn writer(&mut self, job: u32) -> &mut (Writer, u32) {
        self.writers.entry(job).or_insert_with(|| {
            let identity = Identity::new("lab", NODES[job as usize % 2], "0badc0de", job, 1);
            (Writer::open(self.journal.path(), identity, Source::Plugin).unwrap().0, 0)
        })
    }

    fn write(&mut self, job: u32, body: &Body) {
        let (writer, _) = self.writer(job);
        let seq = writer.next_seq();
        assert!(writer.write(Severity::Info, Some(JobId(job)), Some(StepId::Batch), Some(0), body));
        let stream = writer.identity().stream().to_owned();
        self.acknowledged.insert((stream, seq));
    }

    fn whole_jobs(&mut self, jobs: u32) {
        for _ in 0..EVENTS_OF_A_JOB {
            for job in 1..=jobs {
                self.event(job);
            }
        }
    }

    fn newest(&self, node: usize) -> Option<PathBuf> {
        let dir = fs::read_dir(self.journal.path().join(NODES[node])).unwrap();
        let mut files: Vec<PathBuf> = dir.map(|e| e.unwrap().path()).collect();
        files.sort();
        files.into_iter().rfind(|f| f.extension().is_some_and(|e| e == "jsonl"))
    }

    fn name(&mut self, node: usize, tail: &str) -> PathBuf {
        self.files += 1;
        self.journal.path().join(NODES[node]).join(format!("0-{:04}.{tail}", self.files))
    }

    fn disturb(&mut self, action: &Action) {
        match action {
            Action::Rotate { node } => {
                if let Some(file) = self.newest(*node) {
                    fs::rename(file, self.name(*node, "jsonl")).unwrap();
                }
            }
            Action::Copy { node } => {
                if let Some(file) = self.newest(*node) {
                    fs::copy(file, self.name(*node, "jsonl")).unwrap();
                }
            }
            Action::Compress { node } => {
                if let Some(file) = self.newest(*node) {
                    let bytes = fs::read(&file).unwrap();
                    fs::write(self.name(*node, "jsonl.zst"), zstd::encode_all(&bytes[..], 1).unwrap())
                        .unwrap();
                    fs::remove_file(file).unwrap();
                }
            }
            Action::Tear { node } => self.append(*node, b"{\"v\":1,\"timestamp\":\"2026-11-2\n"),
            Action::Garbage { node, bytes } => {
                self.append(*node, bytes);
                self.append(*node, b"\n");
            }
            Action::Event { .. } | Action::Pass | Action::Crash { .. } => {}
        }
    }

    fn append(&self, node: usize, bytes: &[u8]) {
        if let Some(file) = self.newest(node) {
            fs::OpenOptions::new().append(true).open(file).unwrap().write_all(bytes).unwrap();
        }
    }

    /// Every run file with its content.
    fn stored(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut dirs = vec![self.store.path().to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    dirs.push(path);
                } else if path.ends_with("events.jsonl") {
                    let name = path.strip_prefix(self.store.path()).unwrap().display().to_string();
                    files.insert(name, fs::read(&path).unwrap());
                }
            }
        }
        files
    }

    fn verdict(&self, job: u32) -> Option<String> {
        let target = Target::Job { id: JobId(job), step: None };
        let found = Store::open(self.store.path()).unwrap().find(&target, None, None).unwrap();
        found.run.members[&found.members[0]].verdict.as_ref().map(|v| v.cause.clone())
    }
}

/// Identities of the node events in all run files; panics on a double one.
fn identities(files: &BTreeMap<String, Vec<u8>>) -> BTreeSet<(String, u64)> {
    let mut seen = BTreeSet::new();
    for (name, bytes) in files {
        assert!(bytes.ends_with(b"\n"), "{name} ends inside a line");
        for (_, line) in Lines::new(bytes) {
            let head: Line<'_> = serde_json::from_slice(line).unwrap();
            assert!(seen.insert((head.stream.to_string(), head.seq)), "{name} holds an event twice");
        }
    }
    seen.into_iter().filter(|(stream, _)| !stream.starts_with("collector-")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn nothing_lost_and_nothing_twice(actions in actions()) {
        let mut world = World::new();
        let mut collector = world.collector();
        for action in &actions {
            match action {
                Action::Event { job } => world.event(*job),
                Action::Pass => {
                    collector.pass(false).unwrap();
                }
                Action::Crash { extra } => {
                    drop(collector);
                    if let Some(name) = world.stored().keys().next() {
                        let path = world.store.path().join(name);
                        let leftover = b"{\"timestamp\":\"x\"}\n{\"half".repeat(20);
                        let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
                        file.write_all(&leftover[..*extra]).unwrap();
                    }
                    collector = world.collector();
                }
                other => world.disturb(other),
            }
        }
        collector.pass(true).unwrap();
        let stored = world.stored();
        prop_assert_eq!(&identities(&stored), &world.acknowledged);
        for (job, (_, stage)) in &world.writers {
            let right = if job % 2 == 1 { "app_error" } else { "ok" };
            let verdict = world.verdict(*job);
            prop_assert_eq!(verdict.as_deref(), (*stage == EVENTS_OF_A_JOB).then_some(right));
        }

        // A further collector finds nothing to do.
        drop(collector);
        let stats = world.collector().pass(true).unwrap();
        prop_assert_eq!(stats.events, 0);
        prop_assert_eq!(world.stored(), stored);
    }
}

#[test]
fn replaying_every_journal_changes_no_byte() {
    let mut world = World::new();
    world.whole_jobs(7);
    world.collector().pass(true).unwrap();
    let before = world.stored();
    for node in 0..2 {
        world.disturb(&Action::Copy { node });
        world.disturb(&Action::Rotate { node });
    }
    let stats = world.collector().pass(true).unwrap();
    assert_eq!((stats.events, stats.copies), (0, u64::from(7 * EVENTS_OF_A_JOB * 2)));
    assert_eq!(world.stored(), before);
}

#[test]
fn a_store_that_lost_its_ledger_is_made_again_byte_for_byte() {
    let mut world = World::new();
    world.whole_jobs(7);
    world.collector().pass(true).unwrap();
    let undisturbed = world.stored();
    for entry in fs::read_dir(world.store.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::remove_file(path).unwrap();
        }
    }
    world.collector().pass(true).unwrap();
    assert_eq!(world.stored(), undisturbed);
}

#[test]
fn a_gap_is_counted() {
    let mut world = World::new();
    world.whole_jobs(1);
    let file = world.newest(1).unwrap();
    let text = fs::read_to_string(&file).unwrap();
    // The third event of the stream never reaches the collector.
    let kept: Vec<&str> = text.lines().enumerate().filter(|(n, _)| *n != 2).map(|(_, l)| l).collect();
    fs::write(&file, kept.join("\n") + "\n").unwrap();
    world.collector().pass(true).unwrap();
    let gaps = Ledger::open(&world.store.path().join("ledger.db")).unwrap().gaps().unwrap();
    assert_eq!((gaps.len(), gaps[0].0.as_str(), gaps[0].2), (1, "n2", 1));
}

/// The ways in which spank_inquest(8) has sites copy the journals of their nodes.
const WAYS: [&[&str]; 2] = [&["-a"], &["-a", "--inplace"]];

#[test]
fn copies_that_rsync_makes_of_growing_journals_are_merged_once() {
    for way in WAYS {
        let mut world = World::new();
        world.whole_jobs(4);
        let there = tempfile::tempdir().unwrap();
        let paths = [&world.journal, &there].map(|dir| format!("{}/", dir.path().display()));
        let copy = |how: &[&str]| {
            let copied = Command::new("rsync").args(way).args(how).args(&paths).status();
            assert!(copied.expect("rsync, which ci/setup installs").success(), "{way:?}");
        };
        let store = world.store.path().to_owned();
        let open = || {
            let (journal, store) = (there.path().into(), store.clone());
            Collector::open(Options { journal, store, quiet: Duration::from_secs(1) }, None).unwrap()
        };
        // The writer goes on while a copy is made, and waits when it is far ahead.
        let (written, until) = (AtomicU32::new(0), AtomicU32::new(0));
        let moment = || std::thread::sleep(Duration::from_millis(1));
        std::thread::scope(|scope| {
            let copier = scope.spawn(|| {
                let mut collector = open();
                for _ in 0..6 {
                    let now = written.load(Relaxed);
                    until.store(now + 300, Relaxed);
                    while written.load(Relaxed) < now + 20 {
                        moment();
                    }
                    copy(&[]);
                    assert!(collector.pass(false).unwrap().events >= 20, "{way:?}");
                }
            });
            while !copier.is_finished() {
                let count = written.load(Relaxed);
                if count < until.load(Relaxed) {
                    world.note(8 + count % 2);
                    written.store(count + 1, Relaxed);
                }
                moment();
            }
        });
        copy(&[]);
        let mut collector = open();
        collector.pass(true).unwrap();
        assert_eq!(identities(&world.stored()), world.acknowledged, "{way:?}");

        // Files of the same name that are shorter than what was copied of them.
        for node in 0..2 {
            fs::remove_file(world.newest(node).unwrap()).unwrap();
            world.note(8 + node as u32);
        }
        copy(&[]);
        collector.pass(true).unwrap();
        let stored = world.stored();
        assert_eq!(identities(&stored), world.acknowledged, "{way:?}");

        // Once more, whether rsync thinks that it has to or not.
        copy(&["--ignore-times"]);
        assert_eq!(collector.pass(true).unwrap().events, 0, "{way:?}");
        assert_eq!(world.stored(), stored, "{way:?}");
    }
}
