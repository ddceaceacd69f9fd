/*!
A store as large as a year of a busy site makes it, and how fast it answers.

The journals are made and collected in slices of some days, each removed when
it is in the store, so that the disk never holds them all. The store stays;
what is there is measured again without being made again.
*/

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use inquest_journal::Timestamp;
use inquest_tests::artefacts;
use inquest_tests::children::collect_once;
use inquest_tests::generate::{Habits, Made, Plan, generate_by};
use inquest_tests::random::Random;

/// Makes a large store and measures its answers.
#[derive(Debug, Parser)]
struct Arguments {
    /// Events of the store, nearly.
    #[arg(long, default_value_t = 100_000_000)]
    events: u64,
    /// Nodes of the site.
    #[arg(long, default_value_t = 1000)]
    nodes: u32,
    /// Days over which the events spread, until now.
    #[arg(long, default_value_t = 365)]
    days: u32,
    /// Times that every page and every job is asked for.
    #[arg(long, default_value_t = 20)]
    asks: usize,
    /// Time how long the index takes to be made again, too.
    #[arg(long)]
    rebuild: bool,
    /// Only make the store.
    #[arg(long)]
    build_only: bool,
    /// Somebody in the group of operators; the pages are asked for in their name.
    #[arg(long, default_value = "operator")]
    operator: String,
    /// Users who see their own jobs only, the busiest first.
    #[arg(long, value_delimiter = ',', default_value = "u10001,u10100")]
    users: Vec<String>,
    /// The group of operators.
    #[arg(long, default_value = "operators")]
    group: String,
    /// Where the store is or will be. About 120 bytes are needed per event.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

/// A site of workflows, most of whose jobs are members of runs, so that the
/// store is not mostly of files smaller than a block of the disk. No node is
/// lost: whoever reads node after node, and asks no Slurm, cannot tell to which
/// attempt of a requeued job a step belongs that never ended, and waits.
const HABITS: Habits = Habits { losses: false, named: 90, steps: 4 };

/// Events per job of such a site, nearly.
const EVENTS_PER_JOB: f64 = 21.0;

/// Events of a slice, nearly.
const SLICE: u64 = 1_250_000;

/// Slices after which closed runs are compressed.
const PACK_EVERY: u64 = 2;

/// Bytes of the disk that are left to others.
const LEAVE: u64 = 6 << 30;

/// What the server may take for a page, and `why` from nothing.
const PAGE_MS: f64 = 200.0;
const WHY_MS: f64 = 50.0;

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let done = arguments.dir.join("made");
    if done.exists() {
        println!("measuring the store in {}; delete it to have it made anew", arguments.dir.display());
    } else {
        build(&arguments, &done)?;
    }
    if arguments.build_only {
        return Ok(());
    }
    let store = arguments.dir.join("store");
    let text = fs::read_to_string(&done)?;
    let mut numbers = text.split_whitespace().map(str::parse::<u64>);
    let (Some(Ok(events)), Some(Ok(jobs))) = (numbers.next(), numbers.next()) else {
        bail!("{} is damaged; delete {}", done.display(), arguments.dir.display());
    };
    let size = |name: &str| fs::metadata(store.join(name)).map_or(0, |m| m.blocks() * 512);
    println!(
        "\n{events} events of {jobs} jobs; index {:.0} MB, {:.0} bytes per job; ledger {:.0} MB",
        size("index.db") as f64 / 1e6,
        size("index.db") as f64 / jobs as f64,
        size("ledger.db") as f64 / 1e6
    );
    why(&arguments, &store, u32::try_from(jobs)?)?;
    pages(&arguments, &store)?;
    if arguments.rebuild {
        let began = Instant::now();
        run(Command::new(artefacts::inquest()).args(["index", "rebuild", "--store"]).arg(&store))?;
        println!("\nindex made again in {:.0} s", began.elapsed().as_secs_f64());
    }
    Ok(())
}

fn jobs(arguments: &Arguments) -> u32 {
    (arguments.events as f64 / EVENTS_PER_JOB) as u32
}

/// Makes the store; what `done` tells of it can be measured, even if the rest
/// is never made.
fn build(arguments: &Arguments, done: &Path) -> Result<()> {
    let (journal, store) = (arguments.dir.join("journal"), arguments.dir.join("store"));
    ensure!(!store.exists(), "{} is of a build that did not end; delete it", store.display());
    fs::create_dir_all(&arguments.dir)?;
    let plan =
        Plan { nodes: arguments.nodes, jobs: jobs(arguments), days: arguments.days, runs: None, seed: 1 };
    let today = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() / 86_400;
    let begin = (today - u64::from(arguments.days) - 1) * 86_400_000_000;
    let slice = (u64::from(arguments.days) * SLICE / arguments.events.max(1)).clamp(1, 30);
    let (mut generating, mut collecting, mut packing) = (0.0, 0.0, 0.0);
    let (mut began, mut slices, mut before) = (Instant::now(), 0, Made::default());
    let mut take = |made: Made, last: bool| -> Result<()> {
        generating += began.elapsed().as_secs_f64();
        began = Instant::now();
        run(&mut collect_once(&journal, &store))?;
        let took = began.elapsed().as_secs_f64();
        collecting += took;
        for node in fs::read_dir(&journal)? {
            for file in fs::read_dir(node?.path())? {
                fs::remove_file(file?.path())?;
            }
        }
        slices += 1;
        if slices % PACK_EVERY == 0 || last {
            began = Instant::now();
            let mut gc = Command::new(artefacts::inquest());
            run(gc.args(["gc", "--compress-hours", "0", "--store"]).arg(&store))?;
            packing += began.elapsed().as_secs_f64();
        }
        println!(
            "{:>4} {:>12} events, {:>6.0} MB; the last {:>9} in {took:>6.1} s; generating {generating:.0} s, \
             collecting {collecting:.0} s, compressing {packing:.0} s",
            slices,
            made.events,
            made.bytes as f64 / 1e6,
            made.events - before.events
        );
        fs::write(done, format!("{} {}\n", made.events, made.jobs))?;
        let disk = rustix::fs::statvfs(&arguments.dir)?;
        let free = disk.f_bavail * disk.f_frsize;
        ensure!(free >= LEAVE, "only {} GB of the disk are left; what is there can be measured", free >> 30);
        before = made;
        began = Instant::now();
        Ok(())
    };
    let (begin, slice) = (Timestamp(i64::try_from(begin)?), u32::try_from(slice)?);
    let made = generate_by(&plan, &journal, begin, slice, HABITS, &mut |made| {
        take(made, false).map_err(|e| std::io::Error::other(format!("{e:#}")))
    })?;
    take(made, true)?;
    Ok(fs::remove_dir_all(&journal)?)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdout(Stdio::null()).stderr(Stdio::piped()).output()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Middle and largest.
fn middle(times: &mut [f64]) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times[times.len() - 1])
}

fn why(arguments: &Arguments, store: &Path, jobs: u32) -> Result<()> {
    let mut random = Random::new(4);
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    for _ in 0..arguments.asks {
        // The newest may not have begun.
        let job = 1 + random.below(u64::from(jobs.saturating_sub(2000).max(1))) as u32;
        for (first, times) in [(true, &mut cold), (false, &mut warm)] {
            if first {
                forget_files()?;
            }
            let mut ask = Command::new(artefacts::inquest());
            ask.arg("why").arg(job.to_string()).arg("--store").arg(store).env("NO_COLOR", "1");
            let began = Instant::now();
            let output = ask.stdin(Stdio::null()).output()?;
            times.push(began.elapsed().as_secs_f64() * 1e3);
            let said = String::from_utf8_lossy(&output.stdout);
            let told = output.status.code().is_some_and(|c| c <= 1) && said.contains(&job.to_string());
            ensure!(told, "why {job}: {}{}", said, String::from_utf8_lossy(&output.stderr));
        }
    }
    let ((cold, cold_max), (warm, warm_max)) = (middle(&mut cold), middle(&mut warm));
    println!(
        "\nwhy of {} random jobs: nothing in memory p50 {cold:.1} ms, max {cold_max:.1} ms (bar {WHY_MS} ms); \
         again p50 {warm:.1} ms, max {warm_max:.1} ms",
        arguments.asks
    );
    Ok(())
}

/// Takes all files out of the kernel's memory.
fn forget_files() -> Result<()> {
    rustix::fs::sync();
    fs::write("/proc/sys/vm/drop_caches", "3").context("cannot drop the kernel's caches; be root")
}

struct Server {
    child: Child,
    socket: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(arguments: &Arguments, store: &Path) -> Result<Server> {
        let (socket, file) = (arguments.dir.join("http.sock"), arguments.dir.join("serve.toml"));
        let text = format!(
            "store = {store:?}\n[serve]\nsocket = {socket:?}\nrequests = 1000000\noperators = {:?}\n\
             proxy_header = \"X-Remote-User\"\nproxy_user = \"root\"\n",
            arguments.group
        );
        fs::write(&file, text)?;
        let mut command = Command::new(artefacts::inquest());
        let child = command.args(["serve", "--config"]).arg(&file).stdin(Stdio::null()).spawn()?;
        let server = Server { child, socket };
        for _ in 0..200 {
            if UnixStream::connect(&server.socket).is_ok() {
                return Ok(server);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("the server does not answer on {}", server.socket.display());
    }

    /// The answer, how long the server took by its own count, and how long it
    /// took from outside, in milliseconds.
    fn ask(&self, who: &str, target: &str) -> Result<(String, f64, f64)> {
        let before = self.seconds()?;
        let began = Instant::now();
        let answer = self.get(who, target)?;
        let outside = began.elapsed().as_secs_f64() * 1e3;
        Ok((answer, (self.seconds()? - before) * 1e3, outside))
    }

    fn get(&self, who: &str, target: &str) -> Result<String> {
        let mut stream = UnixStream::connect(&self.socket)?;
        write!(
            stream,
            "GET {target} HTTP/1.1\r\nHost: localhost\r\nX-Remote-User: {who}\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// Time spent on all requests but those for metrics.
    fn seconds(&self) -> Result<f64> {
        let text = self.get("", "/metrics")?;
        let sums = text.lines().filter(|l| l.contains("_seconds_sum{route=") && !l.contains("\"/metrics\""));
        Ok(sums.filter_map(|l| l.rsplit_once(' ')?.1.parse::<f64>().ok()).sum())
    }
}

/// Every page, with the filters that an operator would use.
const TARGETS: [&str; 38] = [
    "/",
    "/?since=1d",
    "/?since=30d",
    "/?since=365d",
    "/?since=2000-01-01",
    "/?since=365d&partition=parallel",
    "/?since=365d&user=u10001",
    "/?since=365d&user=u10100",
    "/?since=365d&node=n0042",
    "/?since=365d&class=oom",
    "/?since=365d&cause=node_failed",
    "/failures",
    "/failures?since=365d",
    "/failures?since=365d&user=u10100",
    "/failures?since=365d&node=n0042",
    "/failures?since=365d&class=infra",
    "/failures?since=365d&class=infra&partition=parallel&user=u10100",
    "/failures?since=365d&account=proj007&class=crash",
    "/failures?since=365d&name=sweep7",
    "/failures?since=365d&name=nobody-calls-a-job-so",
    "/failures/newest?since=365d",
    "/runs",
    "/runs?since=365d",
    "/runs?since=365d&status=failed",
    "/runs?since=365d&status=running",
    "/runs?since=365d&user=u10100",
    "/nodes",
    "/nodes?since=365d",
    "/nodes?since=365d&partition=parallel",
    "/api/v1/jobs?since=365d&limit=1000",
    "/api/v1/jobs?since=365d&node=n0042&limit=1000",
    "/api/v1/jobs?since=365d&name=nobody-calls-a-job-so",
    "/api/v1/runs?since=365d&limit=1000",
    "/api/v1/failures?since=365d&by=cause",
    "/api/v1/failures?since=365d&by=hour",
    "/api/v1/failures?since=365d&by=fingerprint",
    "/api/v1/failures?since=365d&by=account",
    "/api/v1/nodes?since=365d&limit=1000",
];

fn pages(arguments: &Arguments, store: &Path) -> Result<()> {
    let server = Server::start(arguments, store)?;
    println!("\nin ms: {:>8} {:>8} {:>9} {:>9} {:>8}", "server", "max", "outside", "first", "KB");
    let mut slowest = 0.0f64;
    for who in std::iter::once(&arguments.operator).chain(&arguments.users) {
        let mut targets: Vec<String> = TARGETS.iter().map(|t| (*t).to_owned()).collect();
        targets.extend(found(&server, who)?);
        for target in targets {
            let (mut inside, mut outside, mut first, mut bytes) = (Vec::new(), Vec::new(), 0.0, 0);
            for n in 0..arguments.asks {
                let (answer, server_ms, outside_ms) = server.ask(who, &target)?;
                let status = answer.split(' ').nth(1).unwrap_or_default().to_owned();
                ensure!(status == "200", "{who} {target}: {}", answer.lines().last().unwrap_or_default());
                bytes = answer.len();
                if n == 0 {
                    first = server_ms;
                } else {
                    inside.push(server_ms);
                    outside.push(outside_ms);
                }
            }
            let ((p50, max), (outside, _)) = (middle(&mut inside), middle(&mut outside));
            slowest = slowest.max(p50);
            println!(
                "{} {p50:>8.1} {max:>8.1} {outside:>9.1} {first:>9.1} {:>8.1}  {who} {target}",
                if p50 > PAGE_MS { "SLOW  " } else { "      " },
                bytes as f64 / 1e3
            );
        }
    }
    println!("slowest p50 {slowest:.1} ms (bar {PAGE_MS} ms)");
    Ok(())
}

/// A run, a job and a kind of failure that this person sees.
fn found(server: &Server, who: &str) -> Result<Vec<String>> {
    let answer = server.get(who, "/api/v1/jobs?since=365d&status=failed&limit=200")?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let body: serde_json::Value = serde_json::from_str(body).with_context(|| answer.clone())?;
    let jobs = body["jobs"].as_array().context("no jobs")?;
    let Some(job) = jobs.iter().max_by_key(|j| j["chunk_id"].as_u64()) else { return Ok(Vec::new()) };
    let text = |name: &str| job[name].as_str().unwrap_or_default().to_owned();
    let run = format!("{}/{}/{}", text("cluster"), text("user"), text("run_id"));
    Ok(vec![
        format!("/runs/{run}"),
        format!("/runs/{run}/jobs/{}", job["chunk_id"]),
        format!("/fingerprints/{}?since=365d", text("fingerprint")),
        format!("/api/v1/runs/{run}"),
        format!("/api/v1/runs/{run}/jobs/{}", job["chunk_id"]),
        format!("/api/v1/runs/{run}/events?limit=1000"),
    ])
}
