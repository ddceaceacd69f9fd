//! Everything that may happen to a journal, and nothing else is lost by it.
//!
//! Each kind of damage is done to the journals of three nodes; then every
//! event that is still whole must be in the store exactly once, what is not
//! must be counted, and a second collector must find nothing left to do.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use inquest::collect::health::{HEALTH, Health};
use inquest::collect::{Collector, Options};
use inquest::follow::{CHUNK, Chunks, find};
use inquest_journal::{
    Body, Header, Identity, JobId, JobStarted, Lines, Severity, Source, Stamp, StepEnded, StepId,
    StepStarted, TaskExited, TaskStarted, Timestamp, encode,
};

/// Node, stream and number.
type Id = (String, String, u64);

const NODES: [&str; 3] = ["n1", "n2", "n3"];
const DAYS: [&str; 2] = ["2026-11-20", "2026-11-21"];
/// Jobs of a node and day, and events of a job.
const JOBS: u32 = 5;
const EVENTS: usize = 5;

struct World {
    dir: tempfile::TempDir,
}

fn line(node: &str, stream: u32, seq: u64, job: u32, body: &Body) -> String {
    let identity = Identity::new("lab", node, "0badc0de", stream, 1);
    let at = Timestamp(1_795_219_200_000_000 + i64::from(stream) * 1_000_000 + seq.cast_signed() * 1000);
    let header = Header {
        stamp: Stamp { wall: at, mono_us: seq },
        severity: Severity::Info,
        source: Source::Plugin,
        cluster: identity.cluster(),
        node: identity.node(),
        boot: identity.boot(),
        stream: identity.stream(),
        seq,
        job_id: Some(JobId(job)),
        step: Some(StepId::Batch),
        task: Some(0),
    };
    let mut line = Vec::new();
    encode(&mut line, &header, body);
    String::from_utf8(line).unwrap()
}

/// The events of a batch job.
fn bodies() -> [Body; EVENTS] {
    let (uid, name) = (Some(4_294_967_294), Some("j\u{e9}\"}{\"v\":1".to_owned()));
    [
        StepStarted { uid, name: name.clone(), ..StepStarted::default() }.into(),
        JobStarted { uid, name, node_count: Some(1), ..JobStarted::default() }.into(),
        TaskStarted { pid: Some(7), ..TaskStarted::default() }.into(),
        TaskExited { exit_code: Some(0), ..TaskExited::default() }.into(),
        StepEnded::default().into(),
    ]
}

/// Events of a file one after the other, jobs interleaved as on a busy node.
fn text(node: usize, day: usize) -> String {
    let mut text = String::new();
    let first = 1 + (node * DAYS.len() + day) as u32 * JOBS;
    for (seq, body) in bodies().iter().enumerate() {
        for job in first..first + JOBS {
            text += &line(NODES[node], job, seq as u64, job, body);
        }
    }
    text
}

fn id(line: &str) -> Id {
    let value: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    let text = |name: &str| value[name].as_str().unwrap().to_owned();
    (text("node"), text("stream"), value["seq"].as_u64().unwrap())
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        for (n, node) in NODES.iter().enumerate() {
            fs::create_dir_all(dir.path().join("journal").join(node)).unwrap();
            for (d, day) in DAYS.iter().enumerate() {
                let path = dir.path().join("journal").join(node).join(format!("{day}.jsonl"));
                fs::write(path, text(n, d)).unwrap();
            }
        }
        World { dir }
    }

    fn journal(&self) -> PathBuf {
        self.dir.path().join("journal")
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    fn collector(&self) -> Collector {
        let options = Options { journal: self.journal(), store: self.store(), quiet: Duration::from_secs(1) };
        Collector::open(options, None).unwrap()
    }

    /// Every event of a node that is stored; panics on a double one and on a
    /// line that is not JSON.
    fn stored(&self) -> BTreeSet<Id> {
        let mut seen = BTreeSet::new();
        for path in files(&self.store()) {
            if path.ends_with("events.jsonl") {
                let bytes = fs::read(&path).unwrap();
                assert!(bytes.ends_with(b"\n"), "{} ends inside a line", path.display());
                for (_, line) in Lines::new(&bytes) {
                    let id = id(std::str::from_utf8(line).unwrap());
                    assert!(seen.insert(id.clone()), "{id:?} is there twice");
                }
            }
        }
        seen.into_iter().filter(|(_, stream, _)| !stream.starts_with("collector-")).collect()
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let (mut found, mut dirs) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { &mut dirs } else { &mut found }.push(path);
        }
    }
    found.sort();
    found
}

/// The journal that is damaged, and what is to be seen afterwards.
struct Case {
    journal: PathBuf,
    /// Lines of the damaged file, each with its newline.
    lines: Vec<String>,
    /// Whole events.
    whole: BTreeSet<Id>,
    bad: u64,
    newer: u64,
    copies: u64,
    foreign: u64,
    unreadable: u64,
    lost: u64,
}

impl Case {
    fn file(&self) -> PathBuf {
        self.journal.join("n2/2026-11-20.jsonl")
    }

    fn other(&self, name: &str) -> PathBuf {
        self.journal.join("n2").join(name)
    }

    /// Line `n` never was: it is lost, and its number shows that.
    fn lose(&mut self, n: usize) {
        self.lose_quietly(n);
        self.lost += 1;
    }

    /// Line `n` is not there, and nothing after it in its stream says so.
    fn lose_quietly(&mut self, n: usize) {
        assert!(self.whole.remove(&id(&self.lines[n])));
    }

    fn write(&self) {
        fs::write(self.file(), self.lines.concat()).unwrap();
    }

    fn write_bytes(&self, bytes: &[u8]) {
        fs::write(self.file(), bytes).unwrap();
    }

    /// Puts another line in the place of line `n`; it is expected in the store.
    fn put(&mut self, n: usize, line: String) {
        assert!(self.whole.remove(&id(&self.lines[n])));
        self.whole.insert(id(&line));
        self.lines[n] = line;
    }

    fn change(&mut self, n: usize, from: &str, to: &str) {
        assert!(self.lines[n].contains(from), "{}", self.lines[n]);
        self.put(n, self.lines[n].replacen(from, to, 1));
    }

    /// A further line at the end that is an event.
    fn add(&mut self, line: String) {
        self.whole.insert(id(&line));
        self.lines.push(line);
    }
}

/// In the middle of the file, of the middle of a job.
const MID: usize = 7;

type Damage = (&'static str, fn(&mut Case));

fn zstd(text: &[u8]) -> Vec<u8> {
    zstd::encode_all(text, 3).unwrap()
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

const DAMAGES: &[Damage] = &[
    ("nothing at all", |_| {}),
    ("a torn line", |c| {
        c.lose(MID);
        c.bad = 1;
        let half = c.lines[MID].floor_char_boundary(c.lines[MID].len() / 2);
        c.lines[MID].replace_range(half.., "\n");
        c.write();
    }),
    ("a torn line that the next writer did not end", |c| {
        c.lose(MID);
        c.bad = 1;
        c.lines[MID].truncate(100);
        c.write();
    }),
    ("a line torn inside its first field", |c| {
        c.lose(MID);
        c.bad = 1;
        c.lines[MID].truncate(6);
        c.write();
    }),
    ("a file that ends inside a line", |c| {
        c.lose_quietly(24);
        let keep = c.lines.concat().len() - 40;
        c.write_bytes(&c.lines.concat().as_bytes()[..keep]);
    }),
    ("a file cut to a third", |c| {
        let keep: usize = c.lines[..8].iter().map(String::len).sum();
        (8..25).for_each(|n| c.lose_quietly(n));
        c.write_bytes(&c.lines.concat().as_bytes()[..keep]);
    }),
    ("a block of zeros between lines", |c| {
        c.bad = 1;
        c.lines[MID].insert_str(0, &"\0".repeat(512));
        c.write();
    }),
    ("a block of zeros at the end", |c| {
        let mut bytes = c.lines.concat().into_bytes();
        bytes.extend_from_slice(&[0; 4096]);
        c.write_bytes(&bytes);
    }),
    ("zeros in place of a line and its newline", |c| {
        c.lose(MID);
        c.bad = 1;
        c.lines[MID] = "\0".repeat(c.lines[MID].len());
        c.write();
    }),
    ("zeros inside a line", |c| {
        c.lose(MID);
        c.bad = 1;
        let at = c.lines[MID].find("\"uid\"").unwrap();
        c.lines[MID].replace_range(at..at + 5, "\0\0\0\0\0");
        c.write();
    }),
    ("one flipped bit in a brace", |c| {
        c.lose(MID);
        c.bad = 1;
        c.lines[MID] = c.lines[MID].replacen('{', "[", 1);
        c.write();
    }),
    ("a copy beside it", |c| {
        c.copies = 25;
        fs::copy(c.file(), c.other("restored.jsonl")).unwrap();
    }),
    ("the same file under two names", |c| {
        c.copies = 25;
        fs::hard_link(c.file(), c.other("again.jsonl")).unwrap();
    }),
    ("a copy in the directory of a node that is read earlier", |c| {
        (c.copies, c.foreign) = (25, 25);
        fs::copy(c.file(), c.journal.join("n1/of-n2.jsonl")).unwrap();
    }),
    ("a file twice in one", |c| {
        c.copies = 25;
        let twice = c.lines.concat().repeat(2);
        c.write_bytes(twice.as_bytes());
    }),
    ("lines in reverse", |c| {
        c.lines.reverse();
        c.write();
    }),
    ("a newer schema version", |c| {
        c.newer = 1;
        c.change(MID, "{\"v\":1,", "{\"v\":2,");
        c.change(MID, "\"mono_us\"", "\"warp\":{\"factor\":9},\"mono_us\"");
        c.write();
    }),
    ("an unknown type", |c| {
        c.change(12, "task_started", "gpu_fell_off");
        c.write();
    }),
    ("a known type with fields of other types", |c| {
        c.change(12, "\"pid\":7", "\"pid\":{\"a\":[1.5e3,null,\"x\"]}");
        c.write();
    }),
    ("blanks and another order of fields", |c| {
        let value: serde_json::Value = serde_json::from_str(&c.lines[MID]).unwrap();
        c.put(MID, format!("  {value} \t\n"));
        c.write();
    }),
    ("a line of another writer with what no reader takes", |c| {
        c.lose(MID);
        c.bad = 1;
        c.lines[MID] = c.lines[MID].replacen("{\"v\":1", "{ \"new_field\":1e999,\"v\":1", 1);
        c.write();
    }),
    ("a line of a newer writer with half a character", |c| {
        c.lose(MID);
        c.bad = 1;
        c.lines[MID] = c.lines[MID].replacen("{\"v\":1", "{\"half\":\"\\ud800\",\"v\":2", 1);
        c.write();
    }),
    ("10 MB that are no event", |c| {
        c.bad = 1;
        c.lines.insert(MID, "x".repeat(10 << 20) + "\n");
        c.write();
    }),
    ("10 MB of zeros before an event", |c| {
        c.lose(MID);
        c.bad = 1;
        c.lines[MID].insert_str(0, &"\0".repeat(10 << 20));
        c.write();
    }),
    ("an event longer than any writer makes it", |c| {
        c.change(12, "\"pid\":7", &format!("\"pid\":7,\"stdout\":\"{}\"", "p".repeat(1 << 20)));
        c.write();
    }),
    ("bytes that are not UTF-8", |c| {
        c.lose(MID);
        c.bad = 1;
        let mut bytes = c.lines.concat().into_bytes();
        let at: usize = c.lines[..MID].iter().map(String::len).sum();
        let name = bytes[at..].windows(2).position(|w| w == [0xc3, 0xa9]).unwrap();
        bytes[at + name + 1] = b'x';
        c.write_bytes(&bytes);
    }),
    ("the name of another node in a line", |c| {
        c.foreign = 1;
        c.change(MID, "\"node\":\"n2\"", "\"node\":\"n9\"");
        // It cannot be told from a second node that claims the stream, so its
        // number is missing in the one and the numbers before it in the other.
        c.lost = 2;
        c.write();
    }),
    ("two nodes that claim one stream", |c| {
        let text = c.lines.concat().replace("\"node\":\"n2\"", "\"node\":\"clone\"");
        c.whole.extend(text.lines().map(id));
        c.foreign = 25;
        fs::write(c.other("clone.jsonl"), text).unwrap();
    }),
    ("a node whose name is the beginning of another's claims its stream", |c| {
        let text = c.lines.concat().replace("\"node\":\"n2\"", "\"node\":\"n\"");
        c.whole.extend(text.lines().map(id));
        c.foreign = 25;
        fs::write(c.other("clone.jsonl"), text).unwrap();
    }),
    ("a clock ten years ahead", |c| {
        c.change(MID, "2026-11-21T", "2036-11-21T");
        c.write();
    }),
    ("a clock ten years behind", |c| {
        c.change(MID, "2026-11-21T", "2016-11-21T");
        c.write();
    }),
    ("clocks at the ends of time", |c| {
        c.change(5, "2026-11-21T", "0001-01-01T");
        c.change(6, "2026-11-21T", "9999-12-31T");
        c.write();
    }),
    ("a time that is none", |c| {
        c.lose(MID);
        c.bad = 1;
        c.lines[MID] = c.lines[MID].replacen("2026-11-21T", "2026-13-41T", 1);
        c.write();
    }),
    ("a number at the end of numbers", |c| {
        c.bad = 1;
        let line = c.lines[24].replacen("\"seq\":4", &format!("\"seq\":{}", u64::MAX), 1);
        c.lines.push(line);
        c.write();
    }),
    ("a number far ahead", |c| {
        c.lost = 1_000_000 - 5;
        let line = c.lines[24].replacen("\"seq\":4", "\"seq\":1000000", 1);
        c.add(line);
        c.write();
    }),
    ("a number below zero and one with a point", |c| {
        c.bad = 2;
        for seq in ["-1", "1.5"] {
            c.lines.push(c.lines[24].replacen("\"seq\":4", &format!("\"seq\":{seq}"), 1));
        }
        c.write();
    }),
    ("a field of the head twice", |c| {
        c.lose(MID);
        c.bad = 1;
        c.lines[MID] = c.lines[MID].replacen("\"uid\":", "\"seq\":9,\"uid\":", 1);
        c.write();
    }),
    ("fields of the store's envelope", |c| {
        c.change(12, "\"pid\":7", "\"pid\":7,\"run_id\":\"../../x\",\"utc\":1,\"chunk_id\":[]");
        c.write();
    }),
    ("an empty file", |c| fs::write(c.other("2026-11-22.jsonl"), "").unwrap()),
    ("an empty archive", |c| {
        c.bad = 2;
        fs::write(c.other("2026-11-22.jsonl.zst"), "").unwrap();
        fs::write(c.other("2026-11-22.jsonl.gz"), "").unwrap();
    }),
    ("a directory with a journal's name", |c| {
        c.unreadable = 1;
        fs::create_dir(c.other("x.jsonl")).unwrap();
    }),
    ("a FIFO", |c| {
        c.unreadable = 1;
        let made = std::process::Command::new("mkfifo").arg(c.other("x.jsonl")).status().unwrap();
        assert!(made.success());
    }),
    ("a socket", |c| {
        c.unreadable = 1;
        std::os::unix::net::UnixListener::bind(c.other("x.jsonl")).unwrap();
    }),
    ("a symbolic link to a file", |c| {
        c.unreadable = 1;
        symlink("/etc/passwd", c.other("x.jsonl")).unwrap();
    }),
    ("a symbolic link to nowhere", |c| {
        c.unreadable = 1;
        symlink("/nowhere", c.other("x.jsonl")).unwrap();
    }),
    ("a symbolic link to a node", |c| {
        c.unreadable = 1;
        symlink("n2", c.journal.join("n4")).unwrap();
    }),
    ("a file that may not be read", |c| {
        fs::set_permissions(c.file(), fs::Permissions::from_mode(0o0)).unwrap();
        // Root may read it all the same.
        if fs::File::open(c.file()).is_err() {
            c.unreadable = 1;
            (0..25).for_each(|n| c.lose_quietly(n));
        }
    }),
    ("a name that is not text", |c| {
        c.unreadable = 1;
        fs::write(c.journal.join("n2").join(OsStr::from_bytes(b"\xff.jsonl")), "").unwrap();
    }),
    ("an archive by gzip", |c| {
        fs::write(c.other("2026-11-20.jsonl.gz"), gzip(c.lines.concat().as_bytes())).unwrap();
        fs::remove_file(c.file()).unwrap();
    }),
    ("an archive by zstd, and the plain file still there", |c| {
        c.copies = 25;
        fs::write(c.other("2026-11-20.jsonl.zst"), zstd(c.lines.concat().as_bytes())).unwrap();
    }),
    ("an archive by gzip that ends early", |c| {
        c.bad = 1;
        let packed = gzip(c.lines.concat().as_bytes());
        fs::write(c.other("copy.jsonl.gz"), &packed[..packed.len() - 9]).unwrap();
        // What is before the end is there already.
        c.copies = u64::MAX;
    }),
    ("an archive by zstd that is damaged in the middle", |c| {
        c.bad = 1;
        let mut packed = zstd(c.lines.concat().as_bytes());
        let half = packed.len() / 2;
        packed[half..half + 20].fill(0xff);
        fs::write(c.other("copy.jsonl.zst"), packed).unwrap();
        c.copies = u64::MAX;
    }),
    ("text with an archive's name", |c| {
        c.bad = 2;
        fs::write(c.other("copy.jsonl.zst"), c.lines.concat()).unwrap();
        fs::write(c.other("copy.jsonl.gz"), c.lines.concat()).unwrap();
    }),
    ("lines that end as on Windows", |c| {
        c.lines.iter_mut().for_each(|l| l.insert(l.len() - 1, '\r'));
        c.write();
    }),
    ("a byte order mark", |c| {
        c.bad = 1;
        c.lines[0].insert(0, '\u{feff}');
        c.write();
    }),
    ("blank lines", |c| {
        c.lines.iter_mut().for_each(|l| l.push_str("\n  \n"));
        c.write();
    }),
    ("no newline at the end", |c| {
        c.lose_quietly(24);
        let text = c.lines.concat();
        c.write_bytes(text.trim_end().as_bytes());
    }),
    ("the journal of another cluster", |c| {
        let text = c.lines.concat().replace("\"cluster\":\"lab\"", "\"cluster\":\"other\"");
        let text = text
            .replace("\"node\":\"n2\"", "\"node\":\"o2\"")
            .replace("\"stream\":\"n2-", "\"stream\":\"o2-");
        c.whole.extend(text.lines().map(id));
        fs::create_dir(c.journal.join("o2")).unwrap();
        fs::write(c.journal.join("o2/2026-11-20.jsonl"), text).unwrap();
    }),
    ("a cluster with a hostile name", |c| {
        c.change(MID, "\"cluster\":\"lab\"", "\"cluster\":\"../../../tmp\"");
        c.write();
    }),
    ("jobs 0 and 4294967295", |c| {
        for (stream, job) in [(901, 0), (902, u32::MAX)] {
            for (seq, body) in bodies().iter().enumerate() {
                c.add(line("n2", stream, seq as u64, job, body));
            }
        }
        c.write();
    }),
    ("jobs that are no numbers", |c| {
        c.bad = 3;
        for job in ["\"banana\"", "7", "\"4294967296\""] {
            let line = line("n2", 903, 0, 11, &bodies()[0]);
            c.lines.push(line.replacen("\"job_id\":\"11\"", &format!("\"job_id\":{job}"), 1));
        }
        c.write();
    }),
    ("JSON that is no event", |c| {
        c.bad = 5;
        for text in ["[1,2]", "7", "\"text\"", "{}", &"[".repeat(100_000)] {
            c.lines.push(format!("{text}\n"));
        }
        c.write();
    }),
];

fn case(world: &World) -> Case {
    let lines: Vec<String> = text(1, 0).split_inclusive('\n').map(str::to_owned).collect();
    let all = (0..3).flat_map(|n| (0..2).map(move |d| text(n, d)));
    let whole = all.flat_map(|t| t.lines().map(id).collect::<Vec<_>>()).collect();
    Case {
        journal: world.journal(),
        lines,
        whole,
        bad: 0,
        newer: 0,
        copies: 0,
        foreign: 0,
        unreadable: 0,
        lost: 0,
    }
}

#[test]
fn no_damage_costs_its_neighbours() {
    assert!(DAMAGES.len() >= 25);
    for (name, damage) in DAMAGES {
        let world = World::new();
        let mut case = case(&world);
        damage(&mut case);
        let stats = world.collector().pass(true).unwrap_or_else(|e| panic!("{name}: {e}"));
        let stored = world.stored();
        let missing: Vec<_> = case.whole.difference(&stored).collect();
        let invented: Vec<_> = stored.difference(&case.whole).collect();
        assert!(
            missing.is_empty() && invented.is_empty(),
            "{name}: missing {missing:?}, invented {invented:?}"
        );

        let health: Health = serde_json::from_slice(&fs::read(world.store().join(HEALTH)).unwrap()).unwrap();
        let met = health.totals;
        let copies = if case.copies == u64::MAX { met.copies } else { case.copies };
        let expected = (case.bad, case.newer, copies, case.foreign, case.unreadable, case.lost);
        let found =
            (met.bad, met.newer, met.copies, met.foreign_node, health.unreadable.len() as u64, health.lost);
        assert_eq!(found, expected, "{name}: bad, newer, copies, foreign, unreadable, lost");
        assert_eq!(
            (stats.bad, stats.copies, stats.unreadable),
            (met.bad, met.copies, case.unreadable),
            "{name}"
        );

        explained(name, &world, &case, copies);

        let again = world.collector().pass(true).unwrap();
        assert_eq!((again.events, again.bad, again.copies), (0, 0, 0), "{name}: a second look");
        assert_eq!(world.stored(), stored, "{name}: a second look");
    }
}

/// `inquest check` says in words what was counted, and nothing else.
fn explained(name: &str, world: &World, case: &Case, copies: u64) {
    use inquest::check::{Level, Options, Role, check};
    let config = Ok(inquest::config::Config::default());
    let options =
        Options { node: "here".into(), config, journal: Some(world.journal()), store: Some(world.store()) };
    let found = check(Role::Collector, &options, std::time::SystemTime::now());
    let said: Vec<_> = found.iter().filter(|f| f.subject == "health").collect();
    let one = |n: u64, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
    for (n, words) in [
        (case.bad, one(case.bad, "line is no event", "lines are no events")),
        (case.newer, one(case.newer, "line is of a newer schema", "lines are of a newer schema")),
        (copies, one(copies, "line was merged before", "lines were merged before")),
        (case.foreign, one(case.foreign, "line lies", "lines lie") + " in the directory of another node"),
        (case.unreadable, "cannot be read".to_owned()),
        (case.lost, one(case.lost, "event was numbered but", "events were numbered but") + " never came"),
    ] {
        let told = said.iter().filter(|f| f.what.contains(&words)).count() as u64;
        let expected = if words == "cannot be read" { n.min(5) } else { n.min(1) };
        assert_eq!(told, expected, "{name}: {words}: {said:#?}");
    }
    let harmless = case.bad + case.newer + case.foreign + case.unreadable + case.lost == 0;
    assert_eq!(said.iter().all(|f| f.level == Level::Ok), harmless, "{name}: {said:#?}");
    assert!(said.iter().all(|f| f.level == Level::Ok || f.mend.is_some()), "{name}");
}

#[test]
fn what_was_missing_is_merged_when_it_comes() {
    for (name, damage) in DAMAGES {
        let world = World::new();
        damage(&mut case(&world));
        world.collector().pass(true).unwrap();
        // Somebody restores the journal from the node.
        fs::write(world.journal().join("n2/restored.jsonl"), text(1, 0)).unwrap();
        world.collector().pass(true).unwrap();
        let whole: BTreeSet<Id> = text(1, 0).lines().map(id).collect();
        let stored = world.stored();
        // The names of nodes and clusters that are still wrong in the damaged
        // file have taken their numbers; all else is there now.
        let missing =
            whole.difference(&stored).filter(|id| !stored.iter().any(|s| (&s.1, s.2) == (&id.1, id.2)));
        assert_eq!(missing.count(), 0, "{name}");
    }
}

#[test]
fn a_file_that_shrinks_while_it_is_read_is_read_again() {
    let world = World::new();
    let path = world.journal().join("n2/2026-11-20.jsonl");
    let long = text(1, 0) + &"x".repeat(CHUNK) + "\n" + &text(1, 1);
    fs::write(&path, &long).unwrap();
    let (found, _) = find(&world.journal()).unwrap();
    let journal = found.iter().find(|j| j.name.starts_with("n2/2026-11-20")).unwrap();
    let mut chunks = Chunks::open(&world.journal(), journal, None, Vec::new()).unwrap();
    let first = chunks.piece().unwrap().unwrap().len();
    assert!(first <= CHUNK);
    chunks.consume(text(1, 0).len());
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(10).unwrap();
    assert!(chunks.piece().is_ok(), "what is gone is the end of the file, not of the process");
    let at = chunks.position().clone();
    fs::write(&path, text(1, 0)).unwrap();
    let (found, _) = find(&world.journal()).unwrap();
    let journal = found.iter().find(|j| j.name.starts_with("n2/2026-11-20")).unwrap();
    let mut chunks = Chunks::open(&world.journal(), journal, Some(&at), Vec::new()).unwrap();
    assert!(chunks.piece().unwrap().is_none(), "the lines are known");
    assert_eq!(chunks.position().bytes as usize, text(1, 0).len());
}
