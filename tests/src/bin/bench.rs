//! What the plugin costs, measured on a real cluster in one run, beside an
//! empty C plugin and no plugin at all.
//!
//! Three figures: the time inside our own hooks, by the plugin's own clock;
//! the time of a whole srun, with the three variants in turn so that a drift
//! of the machine hits all alike; and the memory of a sleeping slurmstepd.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use inquest_tests::artefacts;
use inquest_tests::cluster::{Cluster, Config, USERS};

/// Steps per variant.
const STEPS: usize = 240;

/// Sleeping steps whose memory is read, per variant.
const SLEEPERS: usize = 5;

/// The variants in the order of the table; two without a plugin show how far
/// the method itself can be trusted.
const VARIANTS: [&str; 4] = ["none", "none again", "empty C plugin", "inquest"];

fn main() -> Result<()> {
    let cluster = Cluster::start(Config::default())?;
    let empty = compile_empty(cluster.dir())?;
    let ours = readable_copy(&artefacts::plugin(), &cluster.dir().join("spank_inquest.so"))?;
    let journal = cluster.journal_dir();
    let lines = [
        String::new(),
        String::new(),
        format!("optional {}", empty.display()),
        // Without the wait for the disk, whose time is the disk's.
        format!("optional {} journal={} sync=never", ours.display(), journal.display()),
    ];
    let bench = Bench { cluster, lines };

    println!("{STEPS} one-task steps of each variant in turn, in one allocation, on {} cores", cores());
    let allocation = bench.allocate()?;
    let mut walls: Vec<Vec<f64>> = vec![Vec::new(); VARIANTS.len()];
    for round in 0..STEPS + 3 {
        for (variant, times) in walls.iter_mut().enumerate() {
            let took = bench.step(allocation, variant)?;
            // The first rounds warm caches.
            if round >= 3 {
                times.push(took.as_secs_f64() * 1e3);
            }
        }
    }
    let memory = (0..VARIANTS.len()).map(|v| bench.memory(allocation, v)).collect::<Result<Vec<_>>>()?;
    let (without, with) = (bench.rest(allocation, 0)?, bench.rest(allocation, 3)?);
    bench.cluster.scancel(&[&allocation.to_string()])?;

    println!("\n{:<16} {:>26} {:>24}", "", "srun, ms: p50 (p10..p90)", "slurmstepd, private KiB");
    for (variant, name) in VARIANTS.iter().enumerate() {
        let [p10, p50, p90] = [0.1, 0.5, 0.9].map(|q| quantile(&mut walls[variant], q));
        let srun = format!("{p50:.1} ({p10:.1}..{p90:.1})");
        println!("{name:<16} {srun:>26} {:>24}", memory[variant]);
    }
    let p50 = |v: usize, walls: &mut Vec<Vec<f64>>| quantile(&mut walls[v], 0.5);
    let (a, b, c) = (p50(0, &mut walls), p50(1, &mut walls), p50(3, &mut walls));
    println!("srun, p50: none again against none {:+.1} ms; inquest against none {:+.1} ms", b - a, c - a);

    let mut hooks = bench.hooks(allocation);
    let size = fs::metadata(&ours)?.len();
    let added = memory[3].saturating_sub(memory[0]);
    println!("\n{:<44} {:>12} {:>12}", "", "measured", "bar");
    let count = hooks.len();
    row(&format!("sum of hooks of a step, p50 over {count} steps"), quantile(&mut hooks, 0.5), 100.0, "us");
    row(&format!("sum of hooks of a step, p99 over {count} steps"), quantile(&mut hooks, 0.99), 300.0, "us");
    row("memory added to slurmstepd", added as f64, 512.0, "KiB");
    row("the stripped .so", size as f64 / 1e3, 600.0, "kB");
    row("threads of slurmstepd, added", with.threads - without.threads, 0.0, "");
    row("its wake-ups while a task runs, added", with.wakes - without.wakes, 0.0, "in 3 s");
    row("its reads and writes while a task runs, added", with.calls - without.calls, 0.0, "in 3 s");
    bench.cluster.stop()
}

fn row(what: &str, measured: f64, bar: f64, unit: &str) {
    let verdict = if measured <= bar { "" } else { "  MISSED" };
    println!(
        "{what:<44} {:>12} {:>12}{verdict}",
        format!("{measured:.0} {unit}"),
        format!("<= {bar:.0} {unit}")
    );
}

/// What a slurmstepd does while its task sleeps.
struct Rest {
    threads: f64,
    /// Voluntary context switches of all threads.
    wakes: f64,
    /// System calls that read or write.
    calls: f64,
}

impl Rest {
    fn of(pid: &str) -> Result<Rest> {
        let number = |text: &str, name: &str| -> f64 {
            text.lines().find_map(|l| l.strip_prefix(name)?.trim().parse().ok()).unwrap_or(0.0)
        };
        let io = fs::read_to_string(format!("/proc/{pid}/io"))?;
        let mut rest =
            Rest { threads: 0.0, wakes: 0.0, calls: number(&io, "syscr:") + number(&io, "syscw:") };
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            let status = fs::read_to_string(thread?.path().join("status"))?;
            rest.threads += 1.0;
            rest.wakes += number(&status, "voluntary_ctxt_switches:");
        }
        Ok(rest)
    }
}

struct Bench {
    cluster: Cluster,
    /// plugstack.conf of each variant.
    lines: [String; 4],
}

impl Bench {
    /// A job that holds cores for the steps.
    fn allocate(&self) -> Result<u32> {
        let job = self.cluster.sbatch(
            USERS[0],
            &["-n1", "-N1", "--mem=500M", "-t60"],
            "#!/bin/bash\nsleep 3600\n",
        )?;
        self.cluster.wait_state(job, "RUNNING", Duration::from_secs(30))?;
        Ok(job)
    }

    fn srun(&self, job: u32, variant: usize, command: &[&str]) -> Result<Command> {
        let conf = self.cluster.dir().join("etc/plugstack.conf");
        fs::write(&conf, format!("{}\n", self.lines[variant])).with_context(|| conf.display().to_string())?;
        let mut srun = self.cluster.command(Some(USERS[0]), "srun");
        srun.args(["--overlap", "-n1", "--mem=0", &format!("--jobid={job}")]).args(command);
        Ok(srun)
    }

    fn step(&self, job: u32, variant: usize) -> Result<Duration> {
        let mut srun = self.srun(job, variant, &["/bin/true"])?;
        let began = Instant::now();
        let output = srun.output()?;
        let took = began.elapsed();
        if !output.status.success() {
            bail!("srun failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(took)
    }

    /// Private memory of a slurmstepd whose step sleeps: the median of a few.
    fn memory(&self, job: u32, variant: usize) -> Result<u64> {
        let mut sizes = Vec::new();
        for _ in 0..SLEEPERS {
            let mut srun = self.srun(job, variant, &["bash", "-c", "echo $PPID; exec sleep 2"])?;
            srun.stdout(std::process::Stdio::piped());
            let mut child = srun.spawn()?;
            let mut line = String::new();
            if let Some(out) = child.stdout.as_mut() {
                BufReader::new(out).read_line(&mut line)?;
            }
            let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", line.trim()))?;
            let field = |name: &str| -> u64 {
                let value = rollup
                    .lines()
                    .find_map(|l| l.strip_prefix(name)?.split_whitespace().next()?.parse().ok());
                value.unwrap_or(0)
            };
            sizes.push((field("Private_Clean:") + field("Private_Dirty:")) as f64);
            child.wait()?;
        }
        Ok(quantile(&mut sizes, 0.5) as u64)
    }

    /// What a slurmstepd does in three seconds in which its task sleeps: the median of a few, because
    /// Slurm itself has timers.
    fn rest(&self, job: u32, variant: usize) -> Result<Rest> {
        let mut found = Vec::new();
        for _ in 0..3 {
            let mut srun = self.srun(job, variant, &["bash", "-c", "echo $PPID; exec sleep 6"])?;
            let mut child = srun.stdout(std::process::Stdio::piped()).spawn()?;
            let mut line = String::new();
            if let Some(out) = child.stdout.as_mut() {
                BufReader::new(out).read_line(&mut line)?;
            }
            std::thread::sleep(Duration::from_secs(1));
            let before = Rest::of(line.trim())?;
            std::thread::sleep(Duration::from_secs(3));
            let after = Rest::of(line.trim())?;
            found.push([after.threads, after.wakes - before.wakes, after.calls - before.calls]);
            child.wait()?;
        }
        let [threads, wakes, calls] =
            [0, 1, 2].map(|n| quantile(&mut found.iter().map(|f| f[n]).collect::<Vec<f64>>(), 0.5));
        Ok(Rest { threads, wakes, calls })
    }

    /// Time in our hooks of every step of the job, in microseconds, as the
    /// plugin itself has clocked it.
    fn hooks(&self, job: u32) -> Vec<f64> {
        let job = job.to_string();
        let ends = self.cluster.events().into_iter().filter(|e| {
            e["event_type"] == "step_ended"
                && e["job_id"] == job
                && e["step"].as_str().is_some_and(|s| s != "batch")
        });
        ends.filter_map(|e| e["hook_us"].as_f64()).collect()
    }
}

fn compile_empty(dir: &Path) -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/empty.c");
    let so = dir.join("empty.so");
    let status = Command::new("cc").args(["-O2", "-shared", "-fPIC", "-o"]).arg(&so).arg(&source).status();
    if !status.context("cannot start cc; ci/setup installs it")?.success() {
        bail!("cc cannot compile {}; it needs libslurm-dev", source.display());
    }
    Ok(so)
}

fn readable_copy(from: &Path, to: &Path) -> Result<PathBuf> {
    fs::copy(from, to)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
    Ok(to.to_owned())
}

fn quantile(values: &mut [f64], q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len().saturating_sub(1)) as f64 * q;
    values.get(at.round() as usize).copied().unwrap_or(f64::NAN)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
