//! Where the time in the plugin's hooks goes: the same one-task steps with each of several builds in turn,
//! by the plugin's own clock, and with a C plugin that makes the same system calls and nothing of them, the
//! floor; then every system call and page fault in them, by the kernel's tracer.
//!
//! The arguments are builds of the plugin, the one of this tree unless told. On a machine that does
//! other things, too, the fastest steps are those to look at: nothing makes a step too fast.
//!
//! The tracer writes down each call when it begins and ends, which itself takes a part of a microsecond:
//! traced steps take longer, so the second table says how the time is divided and not how much it is.
//!
//! What the floor is made of, from that table, in microseconds (Linux 6.18 on two busy cores, Slurm 22.05 on
//! cgroup v1, the journal on ext4; the fastest 30 of 120 steps; opening, reading and closing together):
//!
//! ```text
//! three writes to the journal, one per hook                  14.4 + 13.5 + 12.7
//! fstat before each: the descriptor is still the journal's    1.7 +  2.0 +  2.0
//! opening the journal: directory, owner, file, size limit    10.7
//! links of the task's descriptors 1 and 2 and directory       9.0 +  3.2 +  4.4
//! /proc/PID/cgroup of the task                               12.9
//! the step's directory, and the limit there                   2.5 +  4.2
//! oom_control and peak of the task                           13.7 +  5.6
//! boot id                                                    12.1
//! slurm.conf, for the cluster's name                          3.7
//! getpid, getrusage                                           2.7
//! ```
//!
//! Together 131 of 274; the rest is the tracer's, a dozen page faults after the fork, and code that is cold. No
//! file among them makes the kernel add up counters of other cgroups, and what is read only when something has
//! happened (limits that were hit, swap, the kernel's log) is not in it. So each of these that is left out is a
//! fact that is left out, and a line that waits for the next hook is lost with its slurmstepd.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use inquest_tests::artefacts;
use inquest_tests::cluster::{Cluster, Config, USERS};

/// Steps per build, untraced and traced; INQUEST_STEPS changes it.
const STEPS: usize = 200;
/// Steps before those, to warm the caches of the file system.
const WARM: usize = 3;

const HOOKS: [&str; 5] = [
    "slurm_spank_init",
    "slurm_spank_init_post_opt",
    "slurm_spank_task_post_fork",
    "slurm_spank_task_exit",
    "slurm_spank_exit",
];

fn main() -> Result<()> {
    let mut builds: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if builds.is_empty() {
        builds.push(artefacts::plugin());
    }
    let steps = std::env::var("INQUEST_STEPS").map_or(Ok(STEPS), |n| n.parse()).context("INQUEST_STEPS")?;
    let cluster = Cluster::start(Config { nodes: 1, ..Config::default() })?;
    let mut copies = Vec::new();
    for (n, build) in builds.iter().enumerate() {
        let so = cluster.dir().join(format!("build{n}.so"));
        fs::copy(build, &so).with_context(|| build.display().to_string())?;
        fs::set_permissions(&so, fs::Permissions::from_mode(0o755))?;
        copies.push(so);
    }
    let job = cluster.sbatch(USERS[0], &["-n1", "-N1", "--mem=500M", "-t60"], "#!/bin/bash\nsleep 3600\n")?;
    cluster.wait_state(job, "RUNNING", Duration::from_secs(30))?;
    let floor = compile_floor(cluster.dir())?;
    let bench = Bench { cluster, job };

    println!("{steps} steps of each build in turn; time in all hooks of a step, us");
    println!("{:<52}{:>8}{:>8}{:>8}{:>8}{:>8}", "", "least", "p10", "p50", "p90", "p99");
    let mut first = 0;
    for n in 0..steps + WARM {
        for so in &copies {
            bench.step(so)?;
        }
        bench.step_with(&format!("{} {}", floor.display(), bench.cluster.journal_dir().display()))?;
        if n + 1 == WARM {
            first = bench.ends()?.len();
        }
    }
    let ends = bench.ends()?;
    for (n, build) in builds.iter().enumerate() {
        row(
            &build.display().to_string(),
            ends[first..].iter().skip(n).step_by(builds.len()).copied().collect(),
        );
    }
    let told = fs::read_to_string(bench.cluster.journal_dir().join("floor.us"))?;
    row("the floor: the same system calls, from C", told.lines().skip(WARM).flat_map(str::parse).collect());
    for (build, so) in builds.iter().zip(&copies) {
        println!("\n{}, the fastest quarter of {steps} traced steps; us and page faults", build.display());
        let tracer = Tracer::start(so)?;
        for _ in 0..steps + WARM {
            bench.step(so)?;
        }
        let text = tracer.text()?;
        drop(tracer);
        report(&parse(&text));
    }
    bench.cluster.scancel(&[&job.to_string()])?;
    bench.cluster.stop()
}

fn row(name: &str, mut times: Vec<f64>) {
    times.sort_by(f64::total_cmp);
    let quantiles = [0.0, 0.1, 0.5, 0.9, 0.99];
    let at = |q: f64| times.get(((times.len() - 1) as f64 * q).round() as usize);
    let cells: String = quantiles.iter().filter_map(|&q| at(q)).map(|us| format!("{us:>8.0}")).collect();
    println!("{name:<52}{cells}");
}

fn compile_floor(dir: &Path) -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/floor.c");
    let so = dir.join("floor.so");
    let status = Command::new("cc")
        .args(["-O2", "-D_GNU_SOURCE", "-shared", "-fPIC", "-o"])
        .arg(&so)
        .arg(&source)
        .status();
    if !status.context("cannot start cc; ci/setup installs it")?.success() {
        bail!("cc cannot compile {}; it needs libslurm-dev", source.display());
    }
    Ok(so)
}

struct Bench {
    cluster: Cluster,
    job: u32,
}

impl Bench {
    fn step(&self, so: &Path) -> Result<()> {
        let journal = self.cluster.journal_dir();
        // Without the wait for the disk, whose time is the disk's.
        self.step_with(&format!("{} journal={} sync=never", so.display(), journal.display()))
    }

    fn step_with(&self, plugin: &str) -> Result<()> {
        fs::write(self.cluster.dir().join("etc/plugstack.conf"), format!("optional {plugin}\n"))?;
        let mut srun = self.cluster.command(Some(USERS[0]), "srun");
        srun.args(["--overlap", "-n1", "--mem=0", &format!("--jobid={}", self.job), "/bin/true"]);
        let output = srun.output()?;
        if !output.status.success() {
            bail!("srun failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// Time in the hooks of every step, in the order of the steps' numbers.
    fn ends(&self) -> Result<Vec<f64>> {
        let job = self.job.to_string();
        let mut ends: Vec<(u32, f64)> = self
            .cluster
            .events()
            .iter()
            .filter(|e| e["event_type"] == "step_ended" && e["job_id"] == job.as_str())
            .filter_map(|e| Some((e["step"].as_str()?.parse().ok()?, e["hook_us"].as_f64()?)))
            .collect();
        ends.sort_by_key(|end| end.0);
        Ok(ends.into_iter().map(|end| end.1).collect())
    }
}

const TRACING: &str = "/sys/kernel/tracing";

/// An instance of the kernel's tracer, and probes at the ends of the hooks.
struct Tracer {
    instance: PathBuf,
    group: String,
}

impl Tracer {
    fn start(so: &Path) -> Result<Tracer> {
        if !Path::new(TRACING).join("uprobe_events").exists() {
            bail!(
                "no tracer at {TRACING}: mount -t tracefs none {TRACING}, on a kernel with CONFIG_UPROBE_EVENTS"
            );
        }
        let group = format!("inquest{}", std::process::id());
        let tracer = Tracer { instance: Path::new(TRACING).join("instances").join(&group), group };
        let symbols = Command::new("readelf").args(["-W", "--dyn-syms", "-l"]).arg(so).output()?;
        let symbols = String::from_utf8_lossy(&symbols.stdout).into_owned();
        let mut probes = String::new();
        for (n, hook) in HOOKS.iter().enumerate() {
            let offset =
                offset_of(&symbols, hook).with_context(|| format!("no {hook} in {}", so.display()))?;
            for (kind, way) in [('p', "in"), ('r', "out")] {
                probes += &format!("{kind}:{}/{way}{n} {}:{offset:#x}\n", tracer.group, so.display());
            }
        }
        fs::create_dir(&tracer.instance).with_context(|| tracer.instance.display().to_string())?;
        for probe in probes.lines() {
            append(&Path::new(TRACING).join("uprobe_events"), probe)?;
        }
        let set = |name: &str, value: &str| -> Result<()> {
            let path = tracer.instance.join(name);
            fs::write(&path, value).with_context(|| path.display().to_string())
        };
        set("buffer_size_kb", "65536")?;
        set("trace_clock", "mono")?;
        for event in ["raw_syscalls/sys_enter", "raw_syscalls/sys_exit", "exceptions/page_fault_user"] {
            set(&format!("events/{event}/filter"), "comm == \"slurmstepd\"")?;
            set(&format!("events/{event}/enable"), "1")?;
        }
        set(&format!("events/{}/enable", tracer.group), "1")?;
        Ok(tracer)
    }

    fn text(&self) -> Result<String> {
        fs::write(self.instance.join("tracing_on"), "0")?;
        Ok(fs::read_to_string(self.instance.join("trace"))?)
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = fs::write(self.instance.join(format!("events/{}/enable", self.group)), "0");
        let _ = fs::remove_dir(&self.instance);
        for n in 0..HOOKS.len() {
            for way in ["in", "out"] {
                let _ =
                    append(&Path::new(TRACING).join("uprobe_events"), &format!("-:{}/{way}{n}", self.group));
            }
        }
    }
}

fn append(path: &Path, line: &str) -> Result<()> {
    use std::io::Write as _;
    let mut file = fs::OpenOptions::new().append(true).open(path)?;
    file.write_all(format!("{line}\n").as_bytes()).with_context(|| format!("{line} to {}", path.display()))
}

/// Where in the file a function begins, from the words of `readelf -W --dyn-syms -l`.
fn offset_of(elf: &str, name: &str) -> Option<u64> {
    let hex = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok();
    let symbol = elf.lines().find(|l| l.split_whitespace().last() == Some(name))?;
    let address = hex(symbol.split_whitespace().nth(1)?)?;
    elf.lines().filter(|l| l.trim_start().starts_with("LOAD")).find_map(|l| {
        let words: Vec<&str> = l.split_whitespace().collect();
        let (offset, start, size) = (hex(words[1])?, hex(words[2])?, hex(words[4])?);
        (start..start + size).contains(&address).then(|| address - start + offset)
    })
}

/// What one hook of one step did.
#[derive(Default)]
struct Hook {
    us: f64,
    faults: HashMap<&'static str, u32>,
    /// Calls in their order, with how long each took.
    calls: Vec<(u32, f64)>,
}

/// The hooks of each step, by process; those of processes that had all of them.
fn parse(text: &str) -> Vec<[Hook; HOOKS.len()]> {
    #[derive(Default)]
    struct Running {
        hooks: [Option<Hook>; HOOKS.len()],
        now: Option<(usize, f64)>,
        call: Option<(u32, f64)>,
    }
    let mut all: HashMap<&str, Running> = HashMap::new();
    for line in text.lines() {
        // `  slurmstepd-1234    [000] ..... 12345.678901: sys_enter: NR 257 (...)`
        let Some((head, event)) = line.split_once(": ") else { continue };
        let mut words = head.split_whitespace();
        let (Some(task), Some(Ok(at))) = (words.next(), words.next_back().map(str::parse::<f64>)) else {
            continue;
        };
        let at = at * 1e6;
        let Some((name, rest)) = event.split_once(": ") else { continue };
        let running = all.entry(task).or_default();
        if let Some(n) = name.strip_prefix("in").and_then(|n| n.parse::<usize>().ok()) {
            running.now = Some((n, at));
            // Until it has ended.
            running.hooks[n] = Some(Hook { us: -1.0, ..Hook::default() });
        } else if let Some(n) = name.strip_prefix("out").and_then(|n| n.parse::<usize>().ok()) {
            if let (Some((m, began)), Some(hook)) = (running.now.take(), &mut running.hooks[n])
                && m == n
            {
                hook.us = at - began;
            }
        } else if let Some((n, _)) = running.now
            && let Some(hook) = &mut running.hooks[n]
        {
            let number = || rest.split_whitespace().nth(1)?.parse::<u32>().ok();
            match name {
                "sys_enter" => running.call = number().map(|nr| (nr, at)),
                "sys_exit" => {
                    if let Some((nr, began)) = running.call.take() {
                        hook.calls.push((nr, at - began));
                    }
                }
                "page_fault_user" => *hook.faults.entry(kind_of_fault(rest)).or_default() += 1,
                _ => {}
            }
        }
    }
    let whole = |running: Running| {
        let hooks = running.hooks.into_iter().map(|h| h.filter(|h| h.us >= 0.0));
        hooks.collect::<Option<Vec<Hook>>>()?.try_into().ok()
    };
    all.into_values().filter_map(whole).collect()
}

/// `address=0x7f.. ip=0x7f.. error_code=0x7`: which page, and whether it was written to.
fn kind_of_fault(rest: &str) -> &'static str {
    let value = |key: &str| {
        let word = rest.split_whitespace().find_map(|w| w.strip_prefix(key)).unwrap_or("0x0");
        u64::from_str_radix(word.trim_start_matches("0x"), 16).unwrap_or(0)
    };
    let (address, code) = (value("address="), value("error_code="));
    // arch/x86/include/asm/trap_pf.h: 1 the page is there, 2 a write, 16 an instruction.
    match (address >> 40, code & 1 != 0, code & 2 != 0, code & 16 != 0) {
        (_, _, _, true) => "code",
        (0x7f, true, true, _) if address >= 0x7ff0_0000_0000 => "stack copied",
        (0x7f, false, true, _) if address >= 0x7ff0_0000_0000 => "stack new",
        (0x7f, true, true, _) => "library copied",
        (0x7f, false, true, _) => "library written",
        (0x7f, ..) => "library read",
        (_, true, true, _) => "heap copied",
        (_, _, true, _) => "heap new",
        _ => "other",
    }
}

fn report(steps: &[[Hook; HOOKS.len()]]) {
    let sum = |hooks: &[Hook; HOOKS.len()]| hooks.iter().map(|h| h.us).sum::<f64>();
    let mut steps: Vec<&[Hook; HOOKS.len()]> = steps.iter().collect();
    steps.sort_by(|a, b| sum(a).total_cmp(&sum(b)));
    steps.truncate((steps.len() / 4).max(1));
    let n = steps.len() as f64;
    let mean = |of: &dyn Fn(&[Hook; HOOKS.len()]) -> f64| steps.iter().map(|s| of(s)).sum::<f64>() / n;
    println!("{:<48}{:>8.1}", format!("all hooks, {n} steps"), mean(&|s| sum(s)));
    for (at, name) in HOOKS.iter().enumerate() {
        let of = |s: &[Hook; HOOKS.len()]| s[at].us;
        let calls = |s: &[Hook; HOOKS.len()]| s[at].calls.iter().map(|c| c.1).sum::<f64>();
        println!("{name:<48}{:>8.1}   in calls {:.1}", mean(&of), mean(&calls));
        let mut kinds: Vec<&str> = steps.iter().flat_map(|s| s[at].faults.keys().copied()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        for kind in kinds {
            let count = mean(&|s| f64::from(s[at].faults.get(kind).copied().unwrap_or(0)));
            println!("    faults: {kind:<36}{count:>8.1}");
        }
        let longest = steps.iter().map(|s| s[at].calls.len()).max().unwrap_or(0);
        for call in 0..longest {
            let seen: Vec<(u32, f64)> = steps.iter().filter_map(|s| s[at].calls.get(call).copied()).collect();
            let us = seen.iter().map(|c| c.1).sum::<f64>() / seen.len() as f64;
            println!("    {:<44}{us:>8.1}", call_name(seen[0].0));
        }
    }
}

/// Names of the calls that the plugin makes (x86-64).
fn call_name(number: u32) -> String {
    let name = match number {
        0 => "read",
        1 => "write",
        2 => "open",
        3 => "close",
        5 => "fstat",
        12 => "brk",
        17 => "pread64",
        39 => "getpid",
        89 => "readlink",
        98 => "getrusage",
        107 => "geteuid",
        257 => "openat",
        262 => "newfstatat",
        267 => "readlinkat",
        302 => "prlimit64",
        332 => "statx",
        437 => "openat2",
        _ => return format!("call {number}"),
    };
    name.into()
}
