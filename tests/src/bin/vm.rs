//! The catalogue on other machines: writes it down for a shell to run, runs it on this machine in
//! the same form, and holds what came back to what the catalogue says.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use inquest_tests::agent::Agent;
use inquest_tests::artefacts;
use inquest_tests::catalogue::{Action, Entry, How, matrix, matrix_or};
use inquest_tests::cluster::{Cluster, Config, USERS};
use inquest_tests::machine::Machine;
use inquest_tests::versions::{cause, differences, document, whose};
use serde_json::Value;
use signal_hook::consts::{SIGINT, SIGTERM};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/doc/versions.md");

fn main() -> Result<ExitCode> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["plan", dir] => plan(Path::new(dir), false).map(|()| ExitCode::SUCCESS),
        ["plan", "--quick", dir] => plan(Path::new(dir), true).map(|()| ExitCode::SUCCESS),
        ["here", dir] => here(Path::new(dir)).map(|()| ExitCode::SUCCESS),
        ["check", "--quick", ref dirs @ ..] if !dirs.is_empty() => check(dirs, true),
        ["check", ref dirs @ ..] if !dirs.is_empty() => check(dirs, false),
        _ => bail!(
            "usage: inquest-vm plan [--quick] DIR | inquest-vm here RESULTS | inquest-vm check [--quick] RESULTS..."
        ),
    }
}

/// Write every entry as files that a shell script can read without knowing what is in them.
fn plan(dir: &Path, quick: bool) -> Result<()> {
    // The slow ones first: they run while the others do.
    let (slow, fast): (Vec<&Entry>, Vec<&Entry>) = matrix_or(quick).partition(|e| e.slow);
    for (n, entry) in slow.into_iter().chain(fast).enumerate() {
        let at = dir.join(format!("{n:02}"));
        fs::create_dir_all(&at).with_context(|| format!("cannot create {}", at.display()))?;
        let args = match entry.how {
            How::Sbatch(args, script) => {
                let (text, outside) = entry.batch(args, script);
                fs::write(at.join("script"), text)?;
                outside.into_iter().map(str::to_owned).collect()
            }
            How::Srun(args) => {
                let mut all = vec![format!("--job-name={}", entry.name)];
                all.extend(args.iter().map(|&a| a.to_owned()));
                all
            }
        };
        let args: String = args.iter().map(|a| format!("{a}\0")).collect();
        let action = match entry.action {
            Action::Wait => "wait",
            Action::Cancel => "cancel",
            Action::KillScript => "kill-script",
            Action::Requeue => "requeue",
            Action::Preempt | Action::NodeDown => {
                bail!("{}: needs nodes that the machines have not", entry.name)
            }
        };
        fs::write(at.join("name"), entry.name)?;
        fs::write(at.join("args"), args)?;
        fs::write(at.join("action"), action)?;
    }
    Ok(())
}

/// Run the catalogue on a private cluster of this machine's own Slurm, and leave the same files.
fn here(results: &Path) -> Result<()> {
    // Whoever is told to end comes back through here, so that the cluster ends too.
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let pause = |ms| {
        std::thread::sleep(Duration::from_millis(ms));
        if stop.load(Ordering::Relaxed) { Err(anyhow!("told to end")) } else { Ok(()) }
    };
    // slurmd looks for the hooks of prolog and epilog when it starts.
    let plugins = tempfile::tempdir()?;
    fs::set_permissions(plugins.path(), Permissions::from_mode(0o755))?;
    let so = plugins.path().join("spank_inquest_job.so");
    fs::copy(artefacts::plugin_of_jobs(), &so)?;
    let of_jobs = vec![format!("optional {} journal={{journal}}", so.display())];
    let cluster = Cluster::start(Config { plugstack: of_jobs, ..Config::default() })?;
    let plugstack = cluster.dir().join("etc/plugstack.conf");
    let of_jobs = fs::read_to_string(&plugstack)?;
    // Beside the sockets of the agents.
    cluster.record(&format!("note={}", cluster.work_dir().join("notes").display()))?;
    fs::write(&plugstack, fs::read_to_string(&plugstack)? + &of_jobs)?;
    let journal = cluster.journal_dir();
    let nodes = cluster.nodes();
    let agents = nodes.iter().map(|node| Agent::start(&cluster, node)).collect::<Result<Vec<_>>>()?;
    // For the job that calls it.
    fs::copy(artefacts::inquest(), cluster.work_dir().join("inquest"))?;
    let store = cluster.dir().join("store");
    let inquest = || {
        let mut command = cluster.command(None, &artefacts::inquest().to_string_lossy());
        command.env("INQUEST_STORE", &store);
        command
    };
    // Before anybody has written into it.
    fs::create_dir_all(&journal)?;
    let mut collector = inquest().arg("collect").arg("--journal").arg(&journal).spawn()?;
    cluster.adopt("collector", collector.id())?;

    let (direct, batch): (Vec<&Entry>, Vec<&Entry>) =
        matrix().filter(|e| !e.is_of_v2()).partition(|e| matches!(e.how, How::Srun(_)));
    let mut jobs = Vec::new();
    for entry in batch.into_iter().chain(direct) {
        jobs.push(entry.submit(&cluster, USERS[0])?);
        pause(0)?;
    }
    for job in &jobs {
        job.act(&cluster)?;
    }
    let deadline = Instant::now() + Duration::from_secs(420);
    for job in &mut jobs {
        while job.ended(&cluster.jobs()?).is_none() {
            if Instant::now() > deadline {
                bail!("{}: job {} has not ended", job.entry.name, job.job);
            }
            pause(500)?;
        }
    }
    for job in &jobs {
        let at = results.join("jobs").join(job.entry.name);
        fs::create_dir_all(&at).with_context(|| format!("cannot create {}", at.display()))?;
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let output = inquest().args(["why", "--json", &job.job.to_string()]).output()?;
            let why: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            let judged = why["jobs"].as_array().is_some_and(|jobs| {
                jobs.len() == job.entry.jobs() && jobs.iter().all(|j| j["verdict"].is_object())
            });
            if judged || Instant::now() > deadline {
                fs::write(at.join("why.json"), output.stdout)?;
                break;
            }
            pause(200)?;
        }
        fs::write(at.join("id"), job.job.to_string())?;
    }
    let states: String = cluster
        .jobs()?
        .iter()
        .map(|r| {
            let index = r.index.map_or("N/A".into(), |i| i.to_string());
            format!("{}|{}|{index}|{}|{}|{}|\n", r.job, r.array, r.state, r.exit_code, r.restarts)
        })
        .collect();
    fs::write(results.join("states"), states)?;
    let version = cluster.command(None, "slurmd").arg("-V").output()?;
    fs::write(results.join("version"), version.stdout)?;
    fs::write(results.join("cgroup"), "tmpfs")?;
    fs::write(results.join("kernel"), fs::read("/proc/sys/kernel/osrelease")?)?;
    let lines: String = cluster.events().iter().map(|e| format!("{e}\n")).collect();
    fs::create_dir_all(results.join("journal/all"))?;
    fs::write(results.join("journal/all/events.jsonl"), lines)?;
    drop(agents);
    collector.kill()?;
    collector.wait()?;
    cluster.stop()
}

/// A table of all machines, their differences, and whether everything is right.
fn check(dirs: &[&str], quick: bool) -> Result<ExitCode> {
    let machines = dirs.iter().map(|d| Machine::read(Path::new(d), quick)).collect::<Result<Vec<_>>>()?;
    let mut wrong = Vec::new();
    let mut row = format!("{:<14}{:<28}", "job", "verdict");
    for machine in &machines {
        row += &format!("{:<32}", machine.name);
    }
    println!("{}", row.trim_end());
    for entry in matrix_or(quick) {
        let verdict = format!("{}, {}", entry.verdict.class, entry.verdict.cause);
        let mut row = format!("{:<14}{verdict:<28}", entry.name);
        for machine in &machines {
            let Some(found) = machine.wrong.get(entry.name) else {
                row += &format!("{:<32}", "-");
                continue;
            };
            // Slurm's words for the members that fail; the others only ever complete.
            let slurm = &machine.slurm[entry.name];
            let odd = slurm.iter().find(|s| *s != "COMPLETED 0:0").or(slurm.first());
            let said = odd.cloned().unwrap_or("no record".into());
            let is = if found.is_empty() { "right" } else { "WRONG" };
            row += &format!("{:<32}", format!("{is}: {said}"));
            wrong.extend(found.iter().map(|f| format!("{} on {}: {f}", entry.name, machine.name)));
        }
        println!("{}", row.trim_end());
    }
    println!();
    for machine in &machines {
        println!("{}: {}", machine.name, machine.versions);
        let claimed = machine.claims.iter().filter_map(|c| c.strip_prefix("WRONG: "));
        wrong.extend(claimed.map(|c| format!("claim on {}: {c}", machine.name)));
    }

    let differences = differences(&machines);
    println!("\nDifferences to {}: {}", machines[0].name, differences.len());
    let mut unexplained = 0;
    for ((what, jobs), names) in &differences {
        let cause = cause(what);
        unexplained += usize::from(cause.is_none());
        let jobs = whose(jobs, &machines[0]);
        println!("- {}: {what} ({jobs})", names.join(", "));
        println!("  {}", cause.unwrap_or("nobody knows yet why: find out, and add it to CAUSES"));
    }
    // All of them: here and both virtual ones.
    if machines.len() == 3 {
        let text = document(&machines);
        if std::env::var_os("INQUEST_UPDATE").is_some() {
            fs::write(FILE, &text)?;
        }
        let kept = fs::read_to_string(FILE).unwrap_or_default();
        for line in text.lines().filter(|line| !kept.lines().any(|l| l == *line)) {
            wrong.push(format!("{FILE} does not say: {line}"));
        }
        for line in kept.lines().filter(|line| !text.lines().any(|l| l == *line)) {
            wrong.push(format!("{FILE} still says: {line}"));
        }
    }
    for line in &wrong {
        println!("WRONG {line}");
    }
    let jobs: usize = machines.iter().map(|m| m.entries.len()).sum();
    let claims: usize = machines.iter().map(|m| m.claims.len()).sum();
    println!(
        "\n{} wrong of {jobs} jobs and {claims} claims, {unexplained} of {} differences unexplained",
        wrong.len(),
        differences.len()
    );
    Ok(if wrong.is_empty() && unexplained == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
