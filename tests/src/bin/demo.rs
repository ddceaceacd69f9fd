//! The demo: jobs that end in every way that matters on a private Slurm cluster with the plugin,
//! what Inquest says of each, and whether that is right.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use inquest_tests::catalogue::{CATALOGUE, Entry, Submitted};
use inquest_tests::cluster::{Cluster, Config, Process, USERS};
use rustix::process::Signal;
use serde_json::Value;

/// Run jobs that fail in every way that matters on a private Slurm cluster, and let Inquest say why.
#[derive(Debug, Parser)]
#[command(name = "ci/demo")]
struct Arguments {
    /// The plugin, spank_inquest.so.
    #[arg(long, value_name = "FILE", required_unless_present = "stop")]
    plugin: Option<PathBuf>,
    /// The inquest command.
    #[arg(long, value_name = "FILE", required_unless_present = "stop")]
    inquest: Option<PathBuf>,
    /// Leave the cluster and the collector running, to look around and submit more.
    #[arg(long)]
    keep: bool,
    /// End what --keep left running, and do nothing else.
    #[arg(long, conflicts_with = "keep")]
    stop: bool,
    /// Leave out the jobs that take minutes: the time limit and the requeue.
    #[arg(long)]
    fast: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match (&arguments.plugin, &arguments.inquest) {
        (Some(plugin), Some(inquest)) if !arguments.stop => demo(&arguments, plugin, inquest),
        _ => stop(),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("ci/demo: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn stop() -> Result<bool> {
    let ended = Cluster::stop_kept()?;
    if ended.is_empty() {
        println!("No cluster was left running.");
    }
    for dir in ended {
        println!("Ended the cluster in {}.", dir.display());
    }
    Ok(true)
}

/// Ctrl-C and kill: an error like any other, so that everything is stopped on the way out.
struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    fn listen() -> Result<Interrupt> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&flag))?;
        }
        Ok(Interrupt(flag))
    }

    fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        Ok(())
    }
}

/// Returns whether every verdict was right.
fn demo(arguments: &Arguments, plugin: &Path, inquest: &Path) -> Result<bool> {
    let file = |path: &Path| path.canonicalize().with_context(|| format!("cannot find {}", path.display()));
    let (plugin, inquest) = (file(plugin)?, file(inquest)?);
    let interrupt = Interrupt::listen()?;
    let began = Instant::now();
    let cluster = Cluster::start(Config {
        short_names: true,
        plugstack: vec![format!("optional {} journal={{journal}}", plugin.display())],
        ..Config::default()
    })?;
    println!(
        "A private Slurm cluster with the nodes {} is up after {:.1} s in {}.",
        cluster.nodes().join(" and "),
        began.elapsed().as_secs_f32(),
        cluster.dir().display()
    );
    let mut inquest = Inquest::start(&cluster, inquest)?;

    let chosen = || CATALOGUE.iter().filter(|entry| !(arguments.fast && entry.slow));
    let began = Instant::now();
    let submitted = chosen()
        .map(|entry| interrupt.check().and_then(|()| entry.submit(&cluster, USERS[0])))
        .collect::<Result<Vec<Submitted>>>()?;
    let slow: Vec<&str> = chosen().filter(|entry| entry.slow).map(|entry| entry.name).collect();
    println!("Submitted {} jobs as {}.", submitted.len(), USERS[0]);
    if !slow.is_empty() {
        println!("Slurm checks limits twice a minute: {} will take up to two minutes.", slow.join(" and "));
    }
    println!();
    for job in &submitted {
        interrupt.check()?;
        job.act(&cluster)?;
    }
    let runs = wait(&cluster, &mut inquest, submitted, began, &interrupt)?;
    let wrong = inquest.wait_judged(&runs, &interrupt)?;

    println!("\n$ inquest runs\n{}", inquest.run(&["runs"])?);
    for (entry, job) in runs.iter().filter(|(entry, _)| entry.verdict.class != "ok") {
        let said = inquest.run(&["why", &job.to_string()])?;
        println!("$ inquest why {job}      # {}: {}\n{said}", entry.name, entry.what);
    }
    for deviation in &wrong {
        println!("WRONG: {} (job {}): {}", deviation.entry, deviation.job, deviation.what);
    }
    let right = runs.iter().filter(|(entry, _)| !wrong.iter().any(|w| w.entry == entry.name)).count();
    println!("{right} of {} verdicts are right.\n", runs.len());

    let example = runs.iter().find(|(entry, _)| entry.name == "late-oom").map_or(1, |(_, job)| *job);
    if arguments.keep {
        println!("The cluster and the collector are still running. To look around, as root:");
        println!("  export SLURM_CONF={}", cluster.slurm_conf().display());
        println!("  export INQUEST_STORE={}", inquest.store.display());
        println!("  export PATH={}:$PATH", inquest.binary.parent().unwrap_or(Path::new(".")).display());
        println!("  cd {}", cluster.work_dir().display());
        println!("  runuser -u {} -- sbatch --mem=64M task-oom.sh", USERS[0]);
        println!("  inquest runs; inquest why {example}; inquest events {example}");
        println!("To end it: ci/demo --stop");
        inquest.keep();
        cluster.keep()?;
    } else {
        let store = inquest.store.clone();
        let binary = inquest.binary.clone();
        drop(inquest);
        cluster.stop()?;
        println!("The cluster is gone; the store is in {}. To look further:", store.display());
        println!("  export INQUEST_STORE={}", store.display());
        println!("  {} events {example}", binary.display());
        println!("  {} why --json {example}", binary.display());
        println!("To have the cluster stay: ci/demo --keep");
    }
    Ok(wrong.is_empty())
}

/// One line per job as it ends; in the end, the jobs in the catalogue's order.
fn wait(
    cluster: &Cluster,
    inquest: &mut Inquest,
    submitted: Vec<Submitted>,
    began: Instant,
    interrupt: &Interrupt,
) -> Result<Vec<(&'static Entry, u32)>> {
    let runs = submitted.iter().map(|job| (job.entry, job.job)).collect();
    let mut waiting = submitted;
    while !waiting.is_empty() {
        interrupt.check()?;
        inquest.check()?;
        if began.elapsed() > Duration::from_secs(600) {
            bail!("these jobs have not ended after 10 minutes: {waiting:?}");
        }
        let jobs = cluster.jobs()?;
        waiting.retain_mut(|job| match job.ended(&jobs) {
            Some(records) => {
                let failing = records.iter().find(|r| r.state != "COMPLETED").unwrap_or(&records[0]);
                println!(
                    "{:6.1} s  {:<13} Slurm says {:<14} {:<7} {}",
                    began.elapsed().as_secs_f32(),
                    job.entry.name,
                    failing.state,
                    failing.exit_code,
                    job.entry.what
                );
                for deviation in job.deviations(&records) {
                    println!("          unexpected: {deviation}");
                }
                false
            }
            None => true,
        });
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(runs)
}

/// A verdict that is not the catalogue's.
struct Wrong {
    entry: &'static str,
    job: u32,
    what: String,
}

/// The inquest command, and its collector at work.
struct Inquest {
    binary: PathBuf,
    store: PathBuf,
    log: PathBuf,
    slurm_conf: PathBuf,
    /// None once it is left running.
    collector: Option<Child>,
}

impl Inquest {
    /// Start the collector on an empty store beside the binary. The cluster's slot names the
    /// store's directory, so that the next demo leaves the store of a kept cluster alone.
    fn start(cluster: &Cluster, binary: PathBuf) -> Result<Inquest> {
        let slot = cluster.dir().file_name().context("the cluster has no slot")?;
        let dir = binary.with_file_name("../demo").join(slot);
        if dir.exists() {
            fs::remove_dir_all(&dir).with_context(|| format!("cannot empty {}", dir.display()))?;
        }
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let dir = dir.canonicalize()?;
        let (store, log) = (dir.join("store"), dir.join("collect.log"));
        fs::create_dir(&store)?;
        let collector = Command::new(&binary)
            .args(["collect", "--journal"])
            .arg(cluster.journal_dir())
            .arg("--store")
            .arg(&store)
            .env("SLURM_CONF", cluster.slurm_conf())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            // A Ctrl-C is for the demo, which then stops the collector in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        cluster.adopt("inquest collect", collector.id())?;
        Ok(Inquest { binary, store, log, slurm_conf: cluster.slurm_conf(), collector: Some(collector) })
    }

    fn check(&mut self) -> Result<()> {
        if let Some(collector) = &mut self.collector
            && let Some(status) = collector.try_wait()?
        {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            bail!("the collector ended with {status}: {}", log.trim_end());
        }
        Ok(())
    }

    /// What a command prints; its exit code 1 says that it found failures, which is why we ask.
    fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(&self.binary)
            .args(arguments)
            .env("INQUEST_STORE", &self.store)
            .env("SLURM_CONF", &self.slurm_conf)
            .stdin(Stdio::null())
            .output()?;
        if !matches!(output.status.code(), Some(0 | 1)) {
            bail!(
                "'inquest {}' ended with {}: {}",
                arguments.join(" "),
                output.status,
                String::from_utf8_lossy(&output.stderr).trim_end()
            );
        }
        String::from_utf8(output.stdout).context("inquest printed what is not UTF-8")
    }

    /// Wait until the collector has judged every run; what is wrong with its verdicts then. A
    /// requeued job had a verdict before, so a wrong one gets some seconds to be replaced.
    fn wait_judged(&mut self, runs: &[(&'static Entry, u32)], interrupt: &Interrupt) -> Result<Vec<Wrong>> {
        let began = Instant::now();
        loop {
            interrupt.check()?;
            self.check()?;
            let list: Value = serde_json::from_str(&self.run(&["runs", "--json"])?)?;
            let known = list["runs"].as_array().map_or(0, Vec::len);
            let open: Vec<&Value> = list["runs"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|run| run["status"] == "running")
                .collect();
            if known >= runs.len() && open.is_empty() {
                let wrong = self.wrong(runs)?;
                if wrong.is_empty() || began.elapsed() > Duration::from_secs(15) {
                    return Ok(wrong);
                }
            }
            if began.elapsed() > Duration::from_secs(90) {
                bail!(
                    "the collector knows {known} of {} runs, and these have not ended: {open:?}",
                    runs.len()
                );
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn wrong(&self, runs: &[(&'static Entry, u32)]) -> Result<Vec<Wrong>> {
        let mut wrong = Vec::new();
        for &(entry, job) in runs {
            let why: Value = serde_json::from_str(&self.run(&["why", "--json", &job.to_string()])?)
                .with_context(|| format!("'inquest why --json {job}' is not JSON"))?;
            wrong.extend(entry.misjudged(&why).into_iter().map(|what| Wrong {
                entry: entry.name,
                job,
                what,
            }));
        }
        Ok(wrong)
    }

    /// Leave the collector running; the cluster's record ends it with the cluster.
    fn keep(mut self) {
        self.collector = None;
    }
}

impl Drop for Inquest {
    fn drop(&mut self) {
        if let Some(collector) = &mut self.collector {
            if let Some(process) = i32::try_from(collector.id()).ok().and_then(Process::of) {
                process.signal(Signal::TERM);
            }
            let _ = collector.wait();
        }
    }
}
