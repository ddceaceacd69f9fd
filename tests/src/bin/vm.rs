//! The catalogue on other machines: writes it down for a shell to run, runs it on this machine in
//! the same form, and holds what came back to what the catalogue says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use inquest_tests::agent::Agent;
use inquest_tests::artefacts;
use inquest_tests::catalogue::{Action, CATALOGUE, Entry, How, matrix};
use inquest_tests::cluster::{Cluster, Config, USERS};
use serde_json::Value;
use signal_hook::consts::{SIGINT, SIGTERM};

/// Where a machine is unlike this one for a reason that is known: part of the difference in
/// words, and the reason.
const CAUSES: &[(&str, &str)] = &[
    (
        "has the extern step's step_ended.memory.",
        "on v1 the cgroup has gone when the last hook of a step runs, and the extern step has no task whose end \
         is seen before",
    ),
    (
        "step_ended.cpu_us",
        "on v2 the step's own directory counts CPU time; on v1 another hierarchy does, where the step need not be",
    ),
    ("step_ended.user_us", "as step_ended.cpu_us"),
    ("step_ended.system_us", "as step_ended.cpu_us"),
    (
        "step_ended.throttled_",
        "only v2 counts it in the step's own directory, and only where there is a CPU quota",
    ),
    ("step_ended.pressure.", "only v2 knows the pressure of a single cgroup"),
    (
        "step_ended.read_bytes",
        "only v2 counts storage in the step's own directory, and only where Slurm turns the io controller on",
    ),
    ("step_ended.written_bytes", "as step_ended.read_bytes"),
    (
        "_started.end_limit",
        "from 23.02 on slurmstepd gives tasks SLURM_JOB_END_TIME, and srun in a job script hands it on to its step",
    ),
];

/// Keys of every line, which say where it comes from.
const ENVELOPE: [&str; 12] = [
    "v",
    "timestamp",
    "event_type",
    "severity",
    "source",
    "cluster",
    "node",
    "boot",
    "mono_us",
    "stream",
    "seq",
    "job_id",
];

fn main() -> Result<ExitCode> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["plan", dir] => plan(Path::new(dir)).map(|()| ExitCode::SUCCESS),
        ["here", dir] => here(Path::new(dir)).map(|()| ExitCode::SUCCESS),
        ["check", ref dirs @ ..] if !dirs.is_empty() => check(dirs),
        _ => bail!("usage: inquest-vm plan DIR | inquest-vm here RESULTS | inquest-vm check RESULTS..."),
    }
}

/// Write every entry as files that a shell script can read without knowing what is in them.
fn plan(dir: &Path) -> Result<()> {
    // The slow ones first: they run while the others do.
    let (slow, fast): (Vec<&Entry>, Vec<&Entry>) = matrix().partition(|e| e.slow);
    for (n, entry) in slow.into_iter().chain(fast).enumerate() {
        let at = dir.join(format!("{n:02}"));
        fs::create_dir_all(&at).with_context(|| format!("cannot create {}", at.display()))?;
        let mut args = vec![format!("--job-name={}", entry.name)];
        match entry.how {
            How::Sbatch(more, script) => {
                let id = if entry.array.is_some() { "%A_%a" } else { "%j" };
                args.push("--ntasks=1".into());
                args.push(format!("--output={}-{id}.out", entry.name));
                args.extend(more.iter().map(|&a| a.into()));
                fs::write(at.join("script"), format!("#!/bin/bash\n{script}"))?;
            }
            How::Srun(more) => args.extend(more.iter().map(|&a| a.into())),
        }
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
    let cluster = Cluster::start(Config::default())?;
    cluster.record("")?;
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
    let mut collector = inquest().arg("collect").arg("--journal").arg(&journal).spawn()?;
    cluster.adopt("collector", collector.id())?;

    let (direct, batch): (Vec<&Entry>, Vec<&Entry>) = matrix().partition(|e| matches!(e.how, How::Srun(_)));
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

/// What one machine left.
struct Machine {
    /// `24.11.5/v2`
    name: String,
    kernel: String,
    /// Answers of `inquest why --json`, by the name of the entry.
    whys: BTreeMap<&'static str, Value>,
    /// Slurm's state and exit code, by the name of the entry; of an array's members in their order.
    slurm: BTreeMap<&'static str, Vec<String>>,
    /// Names of the recorded fields, `srun's task_exited.memory.limit_bytes`, by the name of the entry.
    fields: BTreeMap<&'static str, BTreeSet<String>>,
    /// What should be recorded and is not, by the name of the entry.
    unrecorded: BTreeMap<&'static str, Vec<String>>,
}

impl Machine {
    fn read(dir: &Path) -> Result<Machine> {
        let text = |name: &str| {
            let path = dir.join(name);
            let text =
                fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            Ok::<String, anyhow::Error>(text.trim().to_owned())
        };
        let version = text("version")?.split(' ').next_back().unwrap_or_default().to_owned();
        let cgroup = if text("cgroup")? == "cgroup2fs" { "v2" } else { "v1" };
        let mut machine = Machine {
            name: format!("{version}/{cgroup}"),
            kernel: text("kernel")?,
            whys: BTreeMap::new(),
            slurm: BTreeMap::new(),
            fields: BTreeMap::new(),
            unrecorded: BTreeMap::new(),
        };
        let states = text("states")?;
        let events = events(&dir.join("journal"))?;
        for entry in matrix() {
            let id = text(&format!("jobs/{}/id", entry.name))?;
            let why = text(&format!("jobs/{}/why.json", entry.name)).unwrap_or_default();
            machine.whys.insert(entry.name, serde_json::from_str(&why).unwrap_or_default());
            let mut members: Vec<(String, String)> = Vec::new();
            let mut ids = BTreeSet::new();
            for line in states.lines() {
                let field: Vec<&str> = line.split('|').map(str::trim).collect();
                if let [job, array, index, state, exit, ..] = field[..]
                    && (job == id || array == id)
                {
                    ids.insert(job.to_owned());
                    members.push((index.to_owned(), format!("{state} {}", exit_code(exit))));
                }
            }
            members.sort();
            machine.slurm.insert(entry.name, members.into_iter().map(|m| m.1).collect());
            let mut fields = BTreeSet::new();
            let of_job = |event: &&Value| event["job_id"].as_str().is_some_and(|job| ids.contains(job));
            let of_job: Vec<Value> = events.iter().filter(of_job).cloned().collect();
            machine.unrecorded.insert(entry.name, entry.unrecorded(&of_job));
            for event in &of_job {
                // What dies in the end of a job, and which of it the agent sees, is never the same twice.
                if event["source"] != "agent" {
                    let kind = event["event_type"].as_str().unwrap_or("?");
                    // Steps of a job know different things.
                    let step = match event["step"].as_str() {
                        Some(step) if step.starts_with(|c: char| c.is_ascii_digit()) => "srun's ",
                        Some("batch") => "the script's ",
                        Some(_) => "the extern step's ",
                        None => "",
                    };
                    names(&format!("{step}{kind}"), event, &mut fields);
                }
            }
            // Every line has these.
            fields.retain(|f| !ENVELOPE.iter().any(|key| f.split_once('.').is_some_and(|(_, n)| n == *key)));
            machine.fields.insert(entry.name, fields);
        }
        Ok(machine)
    }
}

/// squeue of old prints wait statuses as they are.
fn exit_code(raw: &str) -> String {
    raw.parse::<u32>().map_or(raw.to_owned(), |s| format!("{}:{}", s >> 8 & 0xff, s & 0x7f))
}

/// Every whole line of every journal.
fn events(journal: &Path) -> Result<Vec<Value>> {
    let mut events = Vec::new();
    for node in fs::read_dir(journal).with_context(|| format!("cannot read {}", journal.display()))? {
        for file in fs::read_dir(node?.path())? {
            let path = file?.path();
            if path.extension().is_some_and(|e| e == "jsonl") {
                let text = fs::read(&path)?;
                events.extend(text.split(|b| *b == b'\n').filter_map(|l| serde_json::from_slice(l).ok()));
            }
        }
    }
    Ok(events)
}

fn names(prefix: &str, value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                names(&format!("{prefix}.{key}"), value, found);
            }
        }
        Value::Array(values) => values.iter().for_each(|v| names(prefix, v, found)),
        _ => drop(found.insert(prefix.to_owned())),
    }
}

/// What must be the same everywhere: of every member, the verdict and the death it names.
fn facts(why: &Value) -> Vec<String> {
    let mut facts: Vec<String> = why["jobs"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|job| {
            let verdict = &job["verdict"];
            let member = job["id"]
                .as_str()
                .and_then(|id| id.split_once('_'))
                .map_or(String::new(), |(_, n)| format!("[{n}] "));
            let word = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
            let mut said = format!("{member}{} ({})", word(&verdict["cause"]), word(&verdict["confidence"]));
            let death = &verdict["first_failure"];
            if death.is_object() {
                said += &format!(", step {} task {}", word(&death["step"]), death["task"]);
                for key in
                    ["exit_code", "signal", "oom_kills", "limit_bytes", "limit_level", "reported_by_slurm"]
                {
                    if !death[key].is_null() && death[key] != 0 {
                        said += &format!(", {key} {}", word(&death[key]));
                    }
                }
                if death["oom_kills"].as_u64().is_some_and(|n| n > 0) {
                    let share =
                        |d: &Value| Some(d["peak_bytes"].as_u64()? * 100 / d["limit_bytes"].as_u64()?);
                    let peak = share(death).map_or("unknown".into(), |p| {
                        (if p >= 90 { "at the limit" } else { "below the limit" }).to_owned()
                    });
                    let victim = death["victims"][0]["command"].as_str().unwrap_or("unknown");
                    said += &format!(", peak {peak}, victim {victim}");
                }
            }
            let more = verdict["consequences"].as_array().map_or(0, Vec::len);
            if more > 0 {
                said += &format!(", {more} consequences");
            }
            said
        })
        .collect();
    facts.sort();
    facts
}

/// A table of all machines, their differences, and whether every verdict is right.
fn check(dirs: &[&str]) -> Result<ExitCode> {
    let machines = dirs.iter().map(|d| Machine::read(Path::new(d))).collect::<Result<Vec<_>>>()?;
    let mut wrong = Vec::new();
    let mut row = format!("{:<14}{:<28}", "job", "verdict");
    for machine in &machines {
        row += &format!("{:<32}", machine.name);
    }
    println!("{}", row.trim_end());
    for entry in matrix() {
        let mut row =
            format!("{:<14}{:<28}", entry.name, format!("{}, {}", entry.verdict.class, entry.verdict.cause));
        for machine in &machines {
            let mut found = machine.unrecorded[entry.name].clone();
            // Of the other jobs it is what is recorded that counts.
            if CATALOGUE.iter().any(|e| e.name == entry.name) {
                found.extend(entry.misjudged(&machine.whys[entry.name]));
            }
            // Slurm's words for the members that fail; the others only ever complete.
            let slurm = &machine.slurm[entry.name];
            let odd: Vec<&String> = slurm.iter().filter(|s| *s != "COMPLETED 0:0").collect();
            let said = odd.first().copied().or(slurm.first()).cloned().unwrap_or("no record".into());
            if slurm.len() != entry.jobs() {
                found.push(format!("Slurm has {} records, not {}", slurm.len(), entry.jobs()));
            }
            row +=
                &format!("{:<32}", format!("{} {said}", if found.is_empty() { "right:" } else { "WRONG:" }));
            wrong.extend(found.iter().map(|f| format!("{} on {}: {f}", entry.name, machine.name)));
        }
        println!("{}", row.trim_end());
    }
    for machine in &machines {
        println!("{}: Linux {}", machine.name, machine.kernel);
    }

    let differences = differences(&machines);
    println!("\nDifferences to {}: {}", machines[0].name, differences.len());
    let mut unexplained = 0;
    for ((what, jobs), names) in &differences {
        let cause = CAUSES.iter().find(|(part, _)| what.contains(part)).map(|(_, cause)| *cause);
        unexplained += usize::from(cause.is_none());
        let jobs = if jobs.len() == matrix().count() { "every job".into() } else { jobs.join(", ") };
        println!("- {}: {what} ({jobs})", names.join(", "));
        println!("  {}", cause.unwrap_or("nobody knows yet why: find out, and add it to CAUSES"));
    }
    for line in &wrong {
        println!("WRONG {line}");
    }
    println!(
        "\n{} of {} jobs wrong, {unexplained} of {} differences unexplained",
        wrong.len(),
        matrix().count() * machines.len(),
        differences.len()
    );
    Ok(if wrong.is_empty() && unexplained == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is not as on the first machine, and at which jobs, with the machines where it is so.
fn differences(machines: &[Machine]) -> BTreeMap<(String, Vec<&'static str>), Vec<&str>> {
    let base = &machines[0];
    let mut grouped: BTreeMap<_, Vec<&str>> = BTreeMap::new();
    for machine in &machines[1..] {
        let mut differences: BTreeMap<String, Vec<&'static str>> = BTreeMap::new();
        for entry in matrix() {
            let name = entry.name;
            let mut differ = |what: String| differences.entry(what).or_default().push(name);
            let (ours, theirs) = (&machine.slurm[name], &base.slurm[name]);
            if ours != theirs {
                differ(format!("Slurm says {}, not {}", ours.join(", "), theirs.join(", ")));
            }
            let (ours, theirs) = (facts(&machine.whys[name]), facts(&base.whys[name]));
            if ours.len() != theirs.len() {
                differ(format!("{} verdicts, not {}", ours.len(), theirs.len()));
            }
            for (ours, theirs) in ours.iter().zip(&theirs).filter(|(a, b)| a != b) {
                differ(format!("{ours}; not {theirs}"));
            }
            for field in machine.fields[name].difference(&base.fields[name]) {
                differ(format!("has {field}"));
            }
            for field in base.fields[name].difference(&machine.fields[name]) {
                differ(format!("lacks {field}"));
            }
        }
        for difference in differences {
            grouped.entry(difference).or_default().push(&machine.name);
        }
    }
    grouped
}
