/*!
What merging costs: the collector with everything durable, beside DuckDB and jq
reading the same journals in the same run, and how soon a fresh event can be
read in its run's store.

All of them read from memory what was just written. One core is one core for
all: the processes are bound to it.
*/

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use inquest_journal::{
    Body, Header, JobId, JobStarted, Level, OomKill, Severity, Source, Stamp, StepId, StepStarted, Timestamp,
    encode,
};
use inquest_tests::artefacts;
use inquest_tests::children::collect_once;
use inquest_tests::generate::{Made, Plan, generate};
use inquest_tests::random::Random;

/// Measures the collector beside DuckDB and jq.
#[derive(Debug, Parser)]
struct Arguments {
    /// Events to merge, one size after the other; a tenth of a million at least,
    /// or 0 for none.
    #[arg(long, value_delimiter = ',', default_value = "1000000")]
    events: Vec<u32>,
    /// Nodes, each with its own journal.
    #[arg(long, default_value_t = 4000)]
    nodes: u32,
    /// A python that has the module duckdb.
    #[arg(long, default_value = "python3", value_name = "FILE")]
    python: PathBuf,
    /// Fresh events whose way into the store is timed; 0 leaves that out.
    #[arg(long, default_value_t = 300)]
    latencies: u32,
    /// Where data goes, which is deleted at the end. About 4 bytes are needed per byte of events.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

/// The generator's events per job, nearly.
const EVENTS_PER_JOB: f64 = 13.3;

/// Large runs of a site that has nothing else.
const LARGE_RUNS: u32 = 20;

/// Events that jq, which is slow, is given at most.
const JQ_EVENTS: u64 = 1_000_000;

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    fs::create_dir_all(&arguments.dir)?;
    let dir = tempfile::tempdir_in(&arguments.dir)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("collector, DuckDB and jq on the same files, on a machine of {cores} cores; MB are 10^6 bytes");
    let mut costs: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (n, &events) in arguments.events.iter().filter(|n| **n > 0).enumerate() {
        // Both shapes at the first size; at further ones the harder.
        let shapes: &[(&str, Option<u32>)] = match n {
            0 => &[("large runs", Some(LARGE_RUNS)), ("as a site's", None)],
            _ => &[("as a site's", None)],
        };
        for &(shape, runs) in shapes {
            let at = dir.path().join(format!("{events}-{}", runs.unwrap_or(0)));
            let cost = merge(&arguments, &at, events, shape, runs)?;
            costs.entry(shape).or_default().push(cost);
        }
    }
    for (shape, costs) in costs.iter().filter(|(_, c)| c.len() > 1) {
        let (first, last) = (costs[0], costs[costs.len() - 1]);
        row(&format!("{shape}: CPU per byte, last size against first"), last / first, "<=", 1.15, "x");
    }
    if arguments.latencies > 0 {
        latency(&arguments, &dir.path().join("latency"))?;
    }
    Ok(())
}

/// Merges one site; says how many seconds of CPU a GB took.
fn merge(arguments: &Arguments, at: &Path, events: u32, shape: &str, runs: Option<u32>) -> Result<f64> {
    let journal = at.join("journal");
    fs::create_dir_all(at)?;
    let jobs = (f64::from(events) / EVENTS_PER_JOB) as u32;
    let plan = Plan { nodes: arguments.nodes, jobs, days: 1, runs, seed: 1 };
    let began = Instant::now();
    let made = generate(&plan, &journal)?;
    // Nothing that is still on its way to the disk should be in anybody's way.
    rustix::fs::syncfs(fs::File::open(at)?)?;
    println!(
        "\n{shape}: {} events, {:.0} MB, {:.0} bytes each, {} journals of {} nodes, {jobs} jobs; made in {:.0} s",
        made.events,
        made.bytes as f64 / 1e6,
        made.bytes as f64 / made.events as f64,
        made.files,
        arguments.nodes,
        began.elapsed().as_secs_f64()
    );
    let files = files(&journal)?;
    for file in &files {
        fs::read(file)?;
    }
    println!("{:<34} {:>8} {:>8} {:>9} {:>11}", "", "wall, s", "CPU, s", "MB/s", "peak, MiB");
    // Durable is what the run stores hold. The index follows behind and may be
    // made at any time; what it takes beside is the second line.
    let collect = |store: &str, index: &str| {
        let mut collect = collect_once(&journal, &at.join(store));
        collect.args(["--index", index]);
        collect
    };
    let ours =
        measure("inquest collect, one core", &mut one_core(&mut collect("store", "false")), made.bytes)?;
    let indexed =
        measure("  and with its index", &mut one_core(&mut collect("indexed", "true")), made.bytes)?;
    let duckdb = |threads: u32| {
        let mut command = Command::new(&arguments.python);
        command.arg("-c").arg(DUCKDB).arg(&journal).arg(threads.to_string());
        command
    };
    let theirs = measure("DuckDB, one core", &mut one_core(&mut duckdb(1)), made.bytes)?;
    measure("DuckDB, all cores", &mut duckdb(0), made.bytes)?;
    jq(&files, &made)?;
    row("merge", ours.rate, ">=", 300.0, "MB/s");
    row("against DuckDB on one core", ours.rate / theirs.rate, ">=", 1.0, "x");
    row("against DuckDB on one core, by CPU", theirs.cpu / ours.cpu, ">=", 1.0, "x");
    row("merge and index against DuckDB, by CPU", theirs.cpu / indexed.cpu, ">=", 1.0, "x");
    row("peak memory, with the index", indexed.peak_mib, "<=", 256.0, "MiB");
    // Not earlier: for minutes, ext4 goes around the inodes of deleted files, one by one, when it
    // makes others.
    fs::remove_dir_all(at)?;
    Ok(ours.cpu / (made.bytes as f64 / 1e9))
}

/// Counts, with all columns named so that nothing must be guessed. It fails
/// when it did not find all.
const DUCKDB: &str = "\
import duckdb, sys
db = duckdb.connect()
if int(sys.argv[2]):
    db.execute('SET threads = ' + sys.argv[2])
rows = db.execute('''
    SELECT event_type, node, count(*), max(seq), count(DISTINCT job_id), count(DISTINCT stream)
    FROM read_json(?, format = 'newline_delimited', columns = {
        timestamp: 'VARCHAR', event_type: 'VARCHAR', severity: 'VARCHAR', cluster: 'VARCHAR',
        node: 'VARCHAR', stream: 'VARCHAR', seq: 'BIGINT', job_id: 'VARCHAR', step: 'VARCHAR'})
    GROUP BY ALL''', [sys.argv[1] + '/*/*.jsonl']).fetchall()
assert sum(row[2] for row in rows) > 0
";

fn jq(files: &[PathBuf], made: &Made) -> Result<()> {
    let share = (JQ_EVENTS as f64 / made.events as f64).min(1.0);
    let files = &files[..((files.len() as f64 * share) as usize).max(1)];
    let bytes = files.iter().map(|f| Ok(fs::metadata(f)?.len())).sum::<std::io::Result<u64>>()?;
    let mut command = Command::new("jq");
    command.args(["-c", "select(.severity == \"error\") | .node"]).args(files);
    let of = if share < 1.0 { format!(", {:.0} % of the files", share * 100.0) } else { String::new() };
    measure(&format!("jq, one core{of}"), &mut one_core(&mut command), bytes)?;
    Ok(())
}

/// What a process took.
struct Cost {
    cpu: f64,
    rate: f64,
    peak_mib: f64,
}

fn one_core(command: &mut Command) -> Command {
    let mut bound = Command::new("taskset");
    bound.args(["-c", "0"]).arg(command.get_program()).args(command.get_args());
    bound
}

fn measure(name: &str, command: &mut Command, bytes: u64) -> Result<Cost> {
    let began = Instant::now();
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = child.with_context(|| format!("cannot start {command:?}; ci/setup installs it"))?;
    let mut said = String::new();
    child.stderr.take().context("no stderr")?.read_to_string(&mut said)?;
    let (status, usage) = wait(&child)?;
    let wall = began.elapsed().as_secs_f64();
    if status != 0 {
        bail!("{name} failed with {status}: {said}");
    }
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    let cost = Cost {
        cpu: seconds(usage.ru_utime) + seconds(usage.ru_stime),
        rate: bytes as f64 / 1e6 / wall,
        peak_mib: usage.ru_maxrss as f64 / 1024.0,
    };
    println!("{name:<34} {wall:>8.2} {:>8.2} {:>9.0} {:>11.0}", cost.cpu, cost.rate, cost.peak_mib);
    Ok(cost)
}

fn wait(child: &Child) -> Result<(i32, libc::rusage)> {
    let pid = libc::pid_t::try_from(child.id())?;
    // SAFETY: all-zero is a valid value of this plain struct.
    let (mut status, mut usage) = (0, unsafe { std::mem::zeroed::<libc::rusage>() });
    // SAFETY: the process is our child, and both places are valid.
    if unsafe { libc::wait4(pid, &mut status, 0, &mut usage) } != pid {
        bail!("cannot wait for a process: {}", std::io::Error::last_os_error());
    }
    Ok((status, usage))
}

fn files(journal: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for node in fs::read_dir(journal)? {
        for file in fs::read_dir(node?.path())? {
            found.push(file?.path());
        }
    }
    found.sort();
    Ok(found)
}

fn row(what: &str, measured: f64, relation: &str, bar: f64, unit: &str) {
    let met = if relation == ">=" { measured >= bar } else { measured <= bar };
    let verdict = if met { "" } else { "  MISSED" };
    println!(
        "  {what:<52} {:>12} {:>14}{verdict}",
        format!("{measured:.2} {unit}"),
        format!("{relation} {bar} {unit}")
    );
}

/// How long after its `write(2)` an event stands in the store, on a site of
/// many nodes of which one speaks.
fn latency(arguments: &Arguments, at: &Path) -> Result<()> {
    let (journal, store) = (at.join("journal"), at.join("store"));
    generate(
        &Plan { nodes: arguments.nodes, jobs: arguments.nodes, days: 2, runs: None, seed: 3 },
        &journal,
    )?;
    let mut collect = Command::new(artefacts::inquest());
    collect
        .args(["collect", "--accounting", "off"])
        .arg("--journal")
        .arg(&journal)
        .arg("--store")
        .arg(&store);
    // SAFETY: prctl is a bare system call.
    unsafe {
        collect.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    let mut collector = collect.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let timed = latencies(arguments, &journal, &store);
    collector.kill()?;
    collector.wait()?;
    let mut times = timed?;
    times.sort();
    let ms = |q: f64| times[((times.len() - 1) as f64 * q).round() as usize].as_secs_f64() * 1e3;
    println!(
        "\nan OOM kill on one of {} nodes, from write(2) until it can be read in its run:",
        arguments.nodes
    );
    row(&format!("median of {}", times.len()), ms(0.5), "<=", 250.0, "ms");
    row("99 of 100", ms(0.99), "<=", 1000.0, "ms");
    println!("  {:<52} {:>12}", "longest", format!("{:.2} ms", ms(1.0)));
    Ok(())
}

fn latencies(arguments: &Arguments, journal: &Path, store: &Path) -> Result<Vec<Duration>> {
    const JOB: JobId = JobId(4_000_000);
    let node = journal.join("n0001");
    let path = node.join("2026-12-24.jsonl");
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    let (mut seq, mut line) = (0u64, Vec::new());
    let mut say = |body: Body| -> Result<u64> {
        let header = Header {
            stamp: Stamp { wall: Timestamp(1_798_070_400_000_000 + seq.cast_signed()), mono_us: seq },
            severity: Severity::Error,
            source: Source::Agent,
            cluster: "lab",
            node: "n0001",
            boot: "0badc0de",
            stream: "n0001-0badc0de-1-2",
            seq,
            job_id: Some(JOB),
            step: Some(StepId::Batch),
            task: None,
        };
        line.clear();
        encode(&mut line, &header, &body);
        file.write_all(&line)?;
        seq += 1;
        Ok(seq - 1)
    };
    say(JobStarted { uid: Some(4_000_000), name: Some("fresh".into()), ..JobStarted::default() }.into())?;
    say(StepStarted { uid: Some(4_000_000), name: Some("fresh".into()), ..StepStarted::default() }.into())?;
    let events = store.join("lab/uid-4000000/runs").join(format!("job-{JOB}")).join("events.jsonl");
    let patience = Instant::now() + Duration::from_secs(120);
    while !fs::read_to_string(&events).is_ok_and(|t| t.contains("step_started")) {
        if Instant::now() > patience {
            bail!("the collector does not come to an end with the history");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut random = Random::new(1);
    let mut times = Vec::new();
    for _ in 0..arguments.latencies {
        // At any moment between two looks.
        std::thread::sleep(Duration::from_micros(20_000 + random.below(200_000)));
        let before = fs::metadata(&events).map_or(0, |m| m.len());
        let began = Instant::now();
        let n = say(OomKill { count: Some(1), level: Some(Level::Job), ..OomKill::default() }.into())?;
        let mark = format!("\"seq\":{n},\"job_id\":\"{JOB}\"");
        loop {
            if fs::metadata(&events).is_ok_and(|m| m.len() > before)
                && fs::read_to_string(&events)?.lines().last().is_some_and(|l| l.contains(&mark))
            {
                times.push(began.elapsed());
                break;
            }
            if began.elapsed() > Duration::from_secs(30) {
                bail!("event {n} is not in {} after 30 s", events.display());
            }
            std::thread::sleep(Duration::from_micros(500));
        }
    }
    Ok(times)
}
