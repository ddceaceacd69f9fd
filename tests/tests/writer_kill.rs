//! Writers of one journal, killed with SIGKILL at random moments while others go on writing.
//!
//! What `write(2)` acknowledged, as told by the victim itself over a channel that does not pass
//! through the journal, is read back once; nothing is invented; a line that cannot be read is one
//! that a kill has torn, and is counted; no number is missing without being told.
//!
//! `INQUEST_KILLS=1000` makes so many kills in each test; without it there are a few hundred.
//! `INQUEST_SEED` repeats a run, as far as the machine allows.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use inquest_journal::{Head, Lines};
use inquest_tests::children::collect_once;
use inquest_tests::host::Host;
use inquest_tests::random::Random;
use inquest_tests::stores::{files, identities};
use serde_json::Value;

/// Writers that are at work at once.
const AT_ONCE: usize = 4;
/// Kills after which the journal is read and made anew, so that it stays small.
const ROUND: u64 = 50;

struct Kills {
    random: Random,
    seed: u64,
    wanted: u64,
}

impl Kills {
    fn new() -> Kills {
        let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse().ok());
        let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let seed = number("INQUEST_SEED").unwrap_or(clock.subsec_nanos().into());
        println!("INQUEST_SEED={seed}");
        Kills { random: Random::new(seed), seed, wanted: number("INQUEST_KILLS").unwrap_or(300) }
    }

    /// Keep writers at work and kill one after the other, until `count` are dead. `dead` is asked
    /// about each, and about those that were still at work in the end.
    fn round<W>(
        &mut self,
        count: u64,
        longest: Duration,
        mut start: impl FnMut(u64) -> (Child, W),
        mut dead: impl FnMut(Child, W),
    ) {
        let mut at_work: Vec<(Instant, Child, W)> = Vec::new();
        for n in 0..count + AT_ONCE as u64 - 1 {
            if n < count {
                let (child, writer) = start(self.random.any());
                // As many kills among the first instructions as later.
                let life = self.random.spread(50, longest.as_micros() as u64);
                at_work.push((Instant::now() + Duration::from_micros(life), child, writer));
            }
            if at_work.len() < AT_ONCE && n < count {
                continue;
            }
            let Some(next) = (0..at_work.len()).min_by_key(|&at| at_work[at].0) else { break };
            let (due, mut child, writer) = at_work.swap_remove(next);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            child.kill().unwrap();
            child.wait().unwrap();
            dead(child, writer);
        }
        assert!(at_work.is_empty());
    }
}

/// What is in a journal directory, by stream, and how many lines are no events.
struct Journal {
    streams: BTreeMap<String, BTreeSet<u64>>,
    torn: u64,
}

impl Journal {
    /// The journal as the collector reads it, checked against the lines as they are.
    fn read(dir: &Path, seed: u64) -> Journal {
        let store = dir.with_file_name("store");
        let output = collect_once(dir, &store).output().unwrap();
        assert!(output.status.success(), "seed {seed}: {}", String::from_utf8_lossy(&output.stderr));
        let found = files(&store);
        let health: Value = serde_json::from_slice(&found[Path::new("health.json")]).unwrap();
        let mut streams = BTreeMap::<String, BTreeSet<u64>>::new();
        for (stream, seq) in identities(&found) {
            streams.entry(stream).or_default().insert(seq);
        }

        let mut torn = 0;
        for bytes in files(dir).values() {
            for (at, line) in Lines::new(bytes) {
                if let Err(e) = Head::parse(line) {
                    // The beginning of a line of ours, and what the next writer put behind it.
                    assert!(is_torn(line), "seed {seed}: byte {at} begins no line of ours: {e}");
                    torn += 1;
                }
            }
        }
        assert_eq!(health["totals"]["bad"], torn, "seed {seed}: every torn line is counted: {health}");
        assert_eq!(health["totals"]["copies"], 0, "seed {seed}: {health}");
        assert_eq!(health["lost"], 0, "seed {seed}: a gap, though the disk was never full: {health}");
        fs::remove_dir_all(&store).unwrap();
        Journal { streams, torn }
    }

    /// Takes a writer's events out: all that it said are there are there, in unbroken order, and at
    /// most `unsaid` more, which it had written and not come to say.
    fn take(&mut self, stream: &str, said: u64, unsaid: u64, seed: u64) -> u64 {
        let numbers = self.streams.remove(stream).unwrap_or_default();
        let count = numbers.len() as u64;
        assert!(numbers.into_iter().eq(0..count), "seed {seed}: {stream} has a gap below {count}");
        assert!(
            (said..=said + unsaid).contains(&count),
            "seed {seed}: {stream} was acknowledged {said} events, {count} are there"
        );
        count
    }
}

/// It begins as our lines do, or with less of that before its end or the next writer's line.
fn is_torn(line: &[u8]) -> bool {
    const BEGIN: &[u8] = b"{\"v\":1,";
    let follows = |n: usize| line.len() == n || line[n..].starts_with(BEGIN);
    line.starts_with(BEGIN) || (1..BEGIN.len()).any(|n| line.starts_with(&BEGIN[..n]) && follows(n))
}

#[test]
fn a_line_may_be_torn_anywhere() {
    for torn in ["{\"v\":1,\"time{\"v\":1,\"x\":2}", "{", "{{\"v\":1,\"x\":2}", "{\"v\":{\"v\":1,\"x\":2}"] {
        assert!(is_torn(torn.as_bytes()), "{torn}");
    }
    for other in ["x{\"v\":1,\"x\":2}", "{\"x\":2}", "{{{\"v\":1,\"x\":2}"] {
        assert!(!is_torn(other.as_bytes()), "{other}");
    }
}

#[test]
fn what_a_killed_writer_was_acknowledged_is_read_back() {
    let mut kills = Kills::new();
    let seed = kills.seed;
    let (mut done, mut events, mut torn, mut mute) = (0, 0, 0, 0);
    while done < kills.wanted {
        // On a disk, where a write has more than one page to cross.
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let journal = dir.path().join("journal");
        fs::create_dir(&journal).unwrap();
        let count = ROUND.min(kills.wanted - done);
        let mut victims = Vec::new();
        kills.round(
            count,
            Duration::from_millis(12),
            |seed| {
                let mut writer = Command::new(env!("CARGO_BIN_EXE_inquest-writer"));
                writer.arg(&journal).args(["n1", &(seed % 5 + 1).to_string(), &seed.to_string()]);
                let mut child = writer.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
                let told = child.stdout.take().unwrap();
                (child, told)
            },
            |_, mut told| {
                let mut bytes = Vec::new();
                told.read_to_end(&mut bytes).unwrap();
                victims.push(bytes);
            },
        );
        let mut found = Journal::read(&journal, seed);
        for told in victims {
            // Killed before its first word: its file is open at most.
            let Some(end) = told.iter().position(|&b| b == b'\n') else {
                mute += 1;
                continue;
            };
            let stream = String::from_utf8(told[..end].to_vec()).unwrap();
            let numbers = told[end + 1..].chunks_exact(8).map(|n| u64::from_le_bytes(n.try_into().unwrap()));
            let said = numbers.clone().count() as u64;
            assert!(numbers.eq(0..said), "seed {seed}: {stream} said numbers out of order");
            events += found.take(&stream, said, 1, seed);
        }
        assert!(found.streams.is_empty(), "seed {seed}: nobody's: {:?}", found.streams.keys());
        torn += found.torn;
        done += count;
    }
    println!(
        "{done} kills, {events} events read back, {torn} torn lines, {mute} died before their first event"
    );
    assert!(torn <= done, "seed {seed}: a kill can tear one line, not {torn} of {done}");
    assert!(mute < done / 2, "seed {seed}: {mute} of {done} never wrote anything; the kills come too early");
}

/// A step of many tasks: two events a round, and one of a task whose start was not seen.
const TASKS: &str = "load\ninit\nrepeat 4000\nfork 0 0 true\nreap 0\ntask_exit 1 99 2304\nagain\nexit";

#[test]
fn what_a_killed_slurmstepd_has_recorded_is_read_back() {
    let mut kills = Kills::new();
    // A host lives longer, and starts a process for every task.
    kills.wanted = kills.wanted.div_ceil(2);
    let seed = kills.seed;
    let (mut done, mut events, mut torn, mut mute) = (0, 0, 0, 0);
    while done < kills.wanted {
        let host = Host::new().step(0).script(TASKS);
        let journal = host.dir.path().join("journal");
        let count = ROUND.min(kills.wanted - done);
        let mut victims = Vec::new();
        let mut reports = 0;
        kills.round(
            count,
            Duration::from_millis(120),
            |_| {
                let report = host.dir.path().join(format!("report-{reports}"));
                reports += 1;
                (host.start(&report), report)
            },
            |child, report| victims.push((child.id(), report)),
        );
        let mut found = Journal::read(&journal, seed);
        for (pid, report) in victims {
            let report = fs::read_to_string(&report).unwrap_or_default();
            // A torn last line is a hook that was not reported.
            let whole = report.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let said =
                |hook: &str| whole.lines().filter(|l| *l == format!("rc slurm_spank_{hook} 0")).count();
            let (forks, exits) = (said("task_post_fork") as u64, said("task_exit") as u64);
            // The first fork says that the job and the step have started, too.
            let acknowledged = forks + exits + if forks > 0 { 2 } else { 0 };
            let middle = format!("-{pid}-");
            let stream = found.streams.keys().find(|s| s.contains(&middle)).cloned();
            let Some(stream) = stream else {
                assert_eq!(
                    acknowledged, 0,
                    "seed {seed}: pid {pid} wrote {acknowledged} events, none is there"
                );
                mute += 1;
                continue;
            };
            events += found.take(&stream, acknowledged, 3, seed);
        }
        assert!(found.streams.is_empty(), "seed {seed}: nobody's: {:?}", found.streams.keys());
        torn += found.torn;
        done += count;
    }
    println!(
        "{done} kills, {events} events read back, {torn} torn lines, {mute} died before their first event"
    );
    assert!(torn <= done, "seed {seed}: a kill can tear one line, not {torn} of {done}");
    assert!(
        mute < done / 10 * 9,
        "seed {seed}: {mute} of {done} never wrote anything; the kills come too early"
    );
}
