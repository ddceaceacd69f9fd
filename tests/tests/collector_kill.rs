//! The real collector, killed and cut from power wherever that can happen.
//!
//! The journals do not change in between, so the run stores must come out byte
//! for byte as those of a collector that nobody disturbed.
//!
//! `INQUEST_KILLS=10000` makes so many random kills, over one site after the
//! other; without it there are a few hundred, in at most a minute.
//! `INQUEST_SEED` repeats a run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use inquest_tests::children::collect_once;
use inquest_tests::generate::{Plan, generate};
use inquest_tests::random::Random;
use inquest_tests::stores::{files, identities, walk};
use inquest_tests::trace::{Next, Traced};

struct Bench {
    dir: tempfile::TempDir,
    checkpoint_kib: u32,
    /// What an undisturbed collector makes of the journals.
    right: BTreeMap<PathBuf, Vec<u8>>,
    seed: u64,
}

/// The number that a run of these tests can be repeated by.
fn seed() -> u64 {
    let given = std::env::var("INQUEST_SEED").ok().and_then(|s| s.parse().ok());
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed = given.unwrap_or(clock.subsec_nanos().into());
    println!("INQUEST_SEED={seed}");
    seed
}

impl Bench {
    fn new(nodes: u32, jobs: u32, checkpoint_kib: u32) -> Bench {
        Bench::of(&Plan { nodes, jobs, days: 2, runs: None, seed: 11 }, checkpoint_kib, seed())
    }

    /// The journals of `plan`; `seed` is what a failure names.
    fn of(plan: &Plan, checkpoint_kib: u32, seed: u64) -> Bench {
        // Neither a kill nor our own loss of power asks the disk anything, so
        // memory will do, and there is time for more of them.
        let memory = Path::new("/dev/shm");
        let dir = tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir()).unwrap();
        let made = generate(plan, &dir.path().join("journal")).unwrap();
        println!("{} events in {} bytes of {} journals", made.events, made.bytes, made.files);
        let mut bench = Bench { dir, checkpoint_kib, right: BTreeMap::new(), seed };
        bench.finish("right");
        bench.right = files(&bench.store("right"));
        let journals = identities(&files(&bench.dir.path().join("journal")));
        assert_eq!(journals.len() as u64, made.events);
        assert_eq!(identities(&bench.right), journals, "the undisturbed merge is whole");
        bench
    }

    fn store(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, name: &str) -> Command {
        let mut command = collect_once(&self.dir.path().join("journal"), &self.store(name));
        command.args(["--index", "false", "--checkpoint", &self.checkpoint_kib.to_string()]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null());
        command
    }

    fn finish(&self, name: &str) {
        let output = self.command(name).stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "seed {}: the collector cannot go on: {said}", self.seed);
    }

    /// The store is right; then it is removed.
    fn check(&self, name: &str, what: &str) {
        let found = files(&self.store(name));
        if found != self.right {
            let paths: BTreeSet<&PathBuf> = found.keys().chain(self.right.keys()).collect();
            let bad: Vec<_> = paths.into_iter().filter(|p| found.get(*p) != self.right.get(*p)).collect();
            let kept = std::env::temp_dir().join(format!("inquest-kill-{}", self.seed));
            let _ = fs::rename(self.dir.path(), &kept);
            panic!("seed {}: {what}: these files differ: {bad:?}; see {}", self.seed, kept.display());
        }
        fs::remove_dir_all(self.store(name)).unwrap();
    }
}

/// Kills of one site: they end when there were `wanted`, or at `until`. Says
/// how many there were, and in how many whole merges.
fn kill_at_random(bench: &Bench, random: &mut Random, wanted: u64, until: Option<Instant>) -> (u64, u64) {
    // How long an undisturbed collector takes: kills fall anywhere in it.
    let began = Instant::now();
    bench.finish("store");
    let whole = began.elapsed();
    bench.check("store", "an undisturbed merge, once more");
    let (mut kills, mut merges) = (0, 1);
    while kills < wanted && until.is_none_or(|until| Instant::now() < until) {
        let mut child = bench.command("store").spawn().unwrap();
        let patience = whole.mul_f64(random.below(1000) as f64 / 1500.0);
        let deadline = Instant::now() + patience;
        let mut ended = child.try_wait().unwrap();
        while ended.is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_micros(200));
            ended = child.try_wait().unwrap();
        }
        match ended {
            Some(status) => {
                assert!(status.success(), "seed {}: after {kills} kills: {status}", bench.seed);
                bench.check("store", &format!("after {kills} kills"));
                merges += 1;
            }
            None => {
                child.kill().unwrap();
                child.wait().unwrap();
                kills += 1;
            }
        }
    }
    bench.finish("store");
    bench.check("store", &format!("after {kills} kills"));
    println!("{kills} kills over {merges} whole merges, {:.0} ms each", whole.as_secs_f64() * 1000.0);
    (kills, merges)
}

#[test]
fn killed_at_random_nothing_is_lost_and_nothing_is_twice() {
    if let Some(wanted) = std::env::var("INQUEST_KILLS").ok().and_then(|n| n.parse().ok()) {
        return many_kills(wanted);
    }
    let bench = Bench::new(30, 1200, 128);
    let mut random = Random::new(bench.seed);
    let until = Instant::now() + Duration::from_secs(60);
    let (kills, _) = kill_at_random(&bench, &mut random, 400, Some(until));
    assert!(kills >= 50, "the machine is too slow: only {kills} kills in a minute");
}

/// Many kills of small and middling sites, each another one with checkpoints of
/// another size, so that a kill costs little and yet falls everywhere.
fn many_kills(wanted: u64) {
    const EACH: u64 = 500;
    let (seed, began) = (seed(), Instant::now());
    let mut random = Random::new(seed);
    let (mut kills, mut merges) = (0, 0);
    while kills < wanted {
        let plan = Plan {
            nodes: 2 + random.below(40) as u32,
            jobs: 40 << random.below(6),
            days: 1 + random.below(3) as u32,
            runs: [None, Some(3)][random.below(2) as usize],
            seed: random.below(1 << 32),
        };
        let bench = Bench::of(&plan, 16 << random.below(5), seed);
        let (more, whole) = kill_at_random(&bench, &mut random, EACH.min(wanted - kills), None);
        kills += more;
        merges += whole;
        println!("{kills} of {wanted} kills, {merges} whole merges, {} s", began.elapsed().as_secs());
    }
}

/// What a disk would have kept of a store, file by file.
#[derive(Default)]
struct Durable(BTreeMap<PathBuf, Vec<u8>>);

impl Durable {
    /// The collector came back from a system call; says whether that made
    /// something durable.
    fn synced(&mut self, store: &Path, pid: i32, number: u64, arguments: [u64; 6]) -> io::Result<bool> {
        match i64::try_from(number).unwrap_or(-1) {
            libc::SYS_syncfs => {
                self.0 = walk(store)
                    .into_iter()
                    .map(|p| Ok((p.clone(), fs::read(p)?)))
                    .collect::<io::Result<_>>()?;
            }
            libc::SYS_fsync | libc::SYS_fdatasync => {
                let path = fs::read_link(format!("/proc/{pid}/fd/{}", arguments[0]))?;
                if path.is_file() {
                    self.0.insert(path.clone(), fs::read(path)?);
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Makes of the store what is left after power was lost: of every file
    /// what was synced, or what was written since, or the beginning of that,
    /// or for a new file nothing at all. In `worst`, only what was synced.
    fn lose_power(&self, store: &Path, random: &mut Random, worst: bool) -> io::Result<u32> {
        let mut lost = 0;
        let now: BTreeSet<PathBuf> = walk(store).into_iter().collect();
        for path in now.iter().chain(self.0.keys().filter(|p| !now.contains(*p))) {
            let written = fs::read(path).ok();
            let synced = self.0.get(path);
            if written.as_ref() == synced {
                continue;
            }
            lost += 1;
            let shared_memory = path.extension().is_some_and(|e| e == "db-shm");
            let kept = match (random.below(4), &written) {
                (0, Some(written)) if !worst => Some(written.clone()),
                // Appended bytes reach the disk in pieces; what is replaced does not.
                (1, Some(written)) if !worst && synced.is_none_or(|s| written.starts_with(s)) => {
                    let from = synced.map_or(0, Vec::len);
                    Some(written[..from + random.below((written.len() - from) as u64 + 1) as usize].to_vec())
                }
                _ => synced.cloned(),
            };
            match kept.filter(|_| !shared_memory) {
                Some(bytes) => fs::write(path, bytes)?,
                None => _ = fs::remove_file(path),
            }
        }
        Ok(lost)
    }
}

/// What was seen of a traced collector.
#[derive(Default)]
struct Course {
    durable: Durable,
    calls: u64,
    /// Numbers of the calls that made something durable.
    syncs: Vec<u64>,
    ended: bool,
}

/// Runs a collector on a new store up to its `stop`th system call and kills
/// it there, unless it ends before.
fn until(bench: &Bench, stop: u64) -> Course {
    let mut course = Course::default();
    let mut traced = Traced::spawn(&mut bench.command("store")).unwrap();
    loop {
        match traced.go_on().unwrap() {
            Next::Returned { number, arguments, value } => {
                course.calls += 1;
                let (store, pid) = (bench.store("store"), traced.pid());
                if value >= 0 && course.durable.synced(&store, pid, number, arguments).unwrap() {
                    course.syncs.push(course.calls);
                }
                if course.calls == stop {
                    traced.kill().unwrap();
                    return course;
                }
            }
            Next::Ended(status) => {
                assert_eq!(status, 0, "seed {}: a traced collector fails", bench.seed);
                course.ended = true;
                return course;
            }
        }
    }
}

/// System calls at which to stop: around every one that makes something
/// durable, and `few` others all over a merge; all of them when
/// `INQUEST_KILLS` asks for as many.
fn stops(course: &Course, few: u64, random: &mut Random) -> Vec<u64> {
    let calls = course.calls;
    let asked = std::env::var("INQUEST_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(few);
    if asked >= calls {
        return (1..=calls).collect();
    }
    let around = course.syncs.iter().flat_map(|&n| n.saturating_sub(2).max(1)..=(n + 2).min(calls));
    let others = (0..asked).map(|n| 1 + (calls * n + random.below(calls)) / asked);
    around.chain(others).collect::<BTreeSet<_>>().into_iter().collect()
}

#[test]
fn killed_at_every_system_call_nothing_is_lost_and_nothing_is_twice() {
    let bench = Bench::new(5, 40, 24);
    let mut random = Random::new(bench.seed);
    let course = until(&bench, 0);
    bench.check("store", "a traced merge");
    let (stops, calls) = (stops(&course, 100, &mut random), course.calls);
    for &stop in &stops {
        until(&bench, stop);
        bench.finish("store");
        bench.check("store", &format!("killed after system call {stop} of {calls}"));
    }
    println!("killed at {} of {calls} system calls", stops.len());
}

#[test]
fn without_power_what_was_not_synced_is_not_missed() {
    let bench = Bench::new(5, 40, 24);
    let mut random = Random::new(bench.seed);
    let course = until(&bench, 0);
    bench.check("store", "a traced merge");
    let (stops, calls, mut lost) = (stops(&course, 150, &mut random), course.calls, 0);
    for (n, &stop) in stops.iter().enumerate() {
        let course = until(&bench, stop);
        if !course.ended {
            lost += course.durable.lose_power(&bench.store("store"), &mut random, n % 3 == 0).unwrap();
        }
        bench.finish("store");
        bench.check("store", &format!("power lost after system call {stop} of {calls}"));
    }
    println!("power lost at {} of {calls} system calls, {lost} files set back", stops.len());
    assert!(lost > 0, "nothing was ever at risk, so nothing was shown");
}
