//! What the node agent costs a node that is quiet, that ends 100 processes in a second and that ends
//! 2,000, beside a program that reads the same cgroups every ten seconds, in one run.
//!
//! The sampler is what the agent is not: it sees how much memory a step uses now and then, and nothing
//! of what dies in between. It is of this same language and keeps its files open, so that the
//! comparison is with a good one.
//!
//! The one argument is how many seconds a phase lasts, 30 unless told.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use inquest_tests::agent::{Agent, memory_kib};
use inquest_tests::cluster::{Cluster, Config, USERS};

/// Steps that live while it is measured.
const STEPS: usize = 16;
/// Time between two looks of the sampler.
const PERIOD: Duration = Duration::from_secs(10);

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        [] => measure(30),
        ["sample", tree] => sample(Path::new(tree)),
        ["exits", rate, code, seconds] => exits(rate.parse()?, code.parse()?, seconds.parse()?),
        [seconds] => measure(seconds.parse().context("SECONDS is no number")?),
        _ => bail!("usage: inquest-bench-agent [SECONDS]"),
    }
}

/// A load of one phase: its name, processes that end in a second, and with which code.
const PHASES: [(&str, u32, u8); 4] = [
    ("idle", 0, 0),
    ("100 exits/s, all with 1", 100, 1),
    ("2,000 exits/s, all with 0", 2000, 0),
    ("2,000 exits/s, all with 1", 2000, 1),
];

fn measure(seconds: u64) -> Result<()> {
    let cluster = Cluster::start(Config { nodes: 1, ..Config::default() })?;
    cluster.record("sync=never")?;
    let node = cluster.nodes()[0].clone();
    let agent = Agent::start(&cluster, &node)?;
    let program = cluster.work_dir().join("bench");
    fs::copy(std::env::current_exe()?, &program)?;

    let script = format!(
        "#!/bin/bash\nfor i in $(seq {STEPS}); do srun --overlap -n1 --mem=0 sleep 3600 & done\nwait\n"
    );
    let sleepers = cluster.sbatch(USERS[0], &["-n1", "--mem=1000M"], &script)?;
    let deadline = Instant::now() + Duration::from_secs(60);
    while (0..STEPS).any(|step| cluster.cgroup_pids(sleepers, &format!("step_{step}/task_0")).is_empty()) {
        if Instant::now() > deadline {
            bail!("not all steps run after a minute");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let tree = Path::new("/sys/fs/cgroup/memory").join(format!("slurm_{node}"));
    let sampler = Sampler(Command::new(&program).arg("sample").arg(&tree).stdin(Stdio::null()).spawn()?);

    println!("{STEPS} sleeping steps, {seconds} s of each load; CPU in % of one core, memory resident");
    println!("{:<28} {:>30}   {:>30}", "", "inquest agent", "sampler, every 10 s");
    println!(
        "{:<28} {:>9} {:>9} {:>10}   {:>9} {:>9} {:>10}",
        "", "CPU", "wakes/s", "memory", "CPU", "wakes/s", "memory"
    );
    for (name, rate, code) in PHASES {
        let load = if rate > 0 {
            let command = format!("#!/bin/sh\nexec ./bench exits {rate} {code} {}\n", seconds + 4);
            let job = cluster.sbatch(USERS[0], &["-n1", "--mem=500M"], &command)?;
            cluster.wait_state(job, "RUNNING", Duration::from_secs(60))?;
            Some(job)
        } else {
            None
        };
        std::thread::sleep(Duration::from_secs(2));
        let pids = [agent.pid(), sampler.0.id()];
        let (before, began) = (pids.map(Cost::of), Instant::now());
        std::thread::sleep(Duration::from_secs(seconds));
        let (after, took) = (pids.map(Cost::of), began.elapsed().as_secs_f64());
        let mut row = format!("{name:<28}");
        for (before, after) in before.into_iter().zip(after) {
            let cpu = (after.cpu_ns - before.cpu_ns) / 1e9 / took * 100.0;
            let wakes = (after.wakes - before.wakes) / took;
            row += &format!(
                " {:>9} {:>9} {:>10}  ",
                format!("{cpu:.3} %"),
                format!("{wakes:.1}"),
                format!("{} KiB", after.memory_kib)
            );
        }
        println!("{}", row.trim_end());
        if let Some(job) = load {
            let record = cluster.wait_end(job, Duration::from_secs(60))?;
            let said = cluster.stdout(job).unwrap_or_default();
            println!("    {} ({})", said.trim(), record.state);
        }
    }
    let of = |kind: &str| {
        cluster.events().iter().filter(|e| e["event_type"] == kind && e["source"] == "agent").count()
    };
    println!(
        "the agent told of {} deaths one by one and of {} losses (what it held back, in sums); the sampler saw none",
        of("process_died"),
        of("lost")
    );
    drop((sampler, agent));
    cluster.stop()
}

struct Sampler(Child);

impl Drop for Sampler {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a process has cost so far.
struct Cost {
    cpu_ns: f64,
    wakes: f64,
    memory_kib: u64,
}

impl Cost {
    fn of(pid: u32) -> Cost {
        let mut cost = Cost { cpu_ns: 0.0, wakes: 0.0, memory_kib: memory_kib(pid, "VmRSS").unwrap_or(0) };
        for thread in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let text = |name: &str| fs::read_to_string(thread.path().join(name)).unwrap_or_default();
            let first = text("schedstat").split(' ').next().and_then(|n| n.parse().ok());
            cost.cpu_ns += first.unwrap_or(0.0);
            let status = text("status");
            let wakes =
                status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:")?.trim().parse().ok());
            cost.wakes += wakes.unwrap_or(0.0);
        }
        cost
    }
}

/// The sampler: every cgroup below `tree`, what a monitoring agent asks of each. Never ends.
fn sample(tree: &Path) -> Result<()> {
    const FILES: [&str; 4] =
        ["memory.usage_in_bytes", "memory.max_usage_in_bytes", "memory.stat", "memory.oom_control"];
    let mut open: Vec<(PathBuf, Vec<fs::File>)> = Vec::new();
    let mut text = String::new();
    loop {
        let mut dirs = vec![tree.to_owned()];
        let mut found = Vec::new();
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|t| t.is_dir()) {
                    dirs.push(entry.path());
                }
            }
            found.push(dir);
        }
        open.retain(|(dir, _)| found.contains(dir));
        for dir in found {
            if !open.iter().any(|(known, _)| *known == dir) {
                let files = FILES.iter().filter_map(|name| fs::File::open(dir.join(name)).ok()).collect();
                open.push((dir, files));
            }
        }
        let mut sum = 0;
        for file in open.iter_mut().flat_map(|(_, files)| files) {
            text.clear();
            // A cgroup that has gone answers with an error.
            if file.seek(SeekFrom::Start(0)).is_ok() && file.read_to_string(&mut text).is_ok() {
                sum += text.len();
            }
        }
        std::hint::black_box(sum);
        std::thread::sleep(PERIOD);
    }
}

/// The load: so many processes a second that end with `code`, at an even pace.
fn exits(rate: u32, code: u8, seconds: u64) -> Result<()> {
    let began = Instant::now();
    let mut made = 0u64;
    while began.elapsed() < Duration::from_secs(seconds) {
        let due = (began.elapsed().as_secs_f64() * f64::from(rate)) as u64;
        while made < due {
            // SAFETY: this process has one thread and its child only ends; waitpid is given no pointer.
            unsafe {
                match libc::fork() {
                    0 => libc::_exit(code.into()),
                    -1 => bail!("cannot fork: {}", std::io::Error::last_os_error()),
                    pid => libc::waitpid(pid, std::ptr::null_mut(), 0),
                };
            }
            made += 1;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    println!("{:.0} processes a second ended with {code}", made as f64 / began.elapsed().as_secs_f64());
    Ok(())
}
