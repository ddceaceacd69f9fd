//! What a machine has left on which the catalogue ran: a virtual one with a newer release of Slurm, or this one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::catalogue::{Entry, matrix_or};
use crate::evidence::{rows, shown};

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

/// What one machine left.
#[derive(Debug)]
pub struct Machine {
    /// `24.11/v2`
    pub name: String,
    /// Slurm's own version and the kernel's.
    pub versions: String,
    /// The jobs that ran there.
    pub entries: Vec<&'static Entry>,
    /// Of every verdict and the death that it names, what must be the same everywhere; by the name of the entry.
    pub facts: BTreeMap<&'static str, Vec<String>>,
    /// Slurm's state and exit code, by the name of the entry; of an array's members in their order.
    pub slurm: BTreeMap<&'static str, Vec<String>>,
    /// Names of the recorded fields, `srun's task_exited.memory.limit_bytes`, by the name of the entry.
    pub fields: BTreeMap<&'static str, BTreeSet<String>>,
    /// The event that shows a row of the table of what is recorded, by the row's place there.
    pub rows: BTreeMap<usize, String>,
    /// What is not as the catalogue says, by the name of the entry.
    pub wrong: BTreeMap<&'static str, Vec<String>>,
    /// What was claimed of the machine, and `right: ` or `WRONG: ` before it.
    pub claims: Vec<String>,
}

impl Machine {
    /// Read what a machine has left in a directory, on which all of the catalogue ran or the few jobs of a
    /// quick run.
    ///
    /// # Errors
    ///
    /// When a file is missing.
    pub fn read(dir: &Path, quick: bool) -> Result<Machine> {
        let text = |name: &str| {
            let path = dir.join(name);
            let text =
                fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            Ok::<String, anyhow::Error>(text.trim().to_owned())
        };
        let version = text("version")?.split(' ').next_back().unwrap_or_default().to_owned();
        let cgroup = if text("cgroup")? == "cgroup2fs" { "v2" } else { "v1" };
        let release: Vec<&str> = version.splitn(3, '.').take(2).collect();
        let mut machine = Machine {
            name: format!("{}/{cgroup}", release.join(".")),
            versions: format!("Slurm {version}, Linux {}", text("kernel")?),
            entries: matrix_or(quick).filter(|entry| cgroup == "v2" || !entry.is_of_v2()).collect(),
            facts: BTreeMap::new(),
            slurm: BTreeMap::new(),
            fields: BTreeMap::new(),
            rows: BTreeMap::new(),
            wrong: BTreeMap::new(),
            claims: text("claims").unwrap_or_default().lines().map(str::to_owned).collect(),
        };
        let states = text("states")?;
        let events = events(&dir.join("journal"))?;
        for entry in machine.entries.clone() {
            let id = text(&format!("jobs/{}/id", entry.name))?;
            let why = text(&format!("jobs/{}/why.json", entry.name)).unwrap_or_default();
            let why: Value = serde_json::from_str(&why).unwrap_or_default();
            machine.facts.insert(entry.name, facts(&why));
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
            // The second component of a heterogeneous job bears the next id.
            if entry.name == "het" {
                ids.extend(id.parse::<u32>().ok().map(|id| (id + 1).to_string()));
            }
            members.sort();
            let mut wrong = Vec::new();
            if members.len() != entry.jobs() {
                wrong.push(format!("Slurm has {} records, not {}", members.len(), entry.jobs()));
            }
            machine.slurm.insert(entry.name, members.into_iter().map(|m| m.1).collect());
            let mut fields = BTreeSet::new();
            let of_job = |event: &&Value| event["job_id"].as_str().is_some_and(|job| ids.contains(job));
            let of_job: Vec<Value> = events.iter().filter(of_job).cloned().collect();
            wrong.extend(entry.unrecorded(&of_job));
            for (at, row) in rows().enumerate().filter(|(_, row)| row.job == entry.name) {
                match (row.find)(&of_job) {
                    Some(event) => drop(machine.rows.insert(at, shown(row, event))),
                    None => wrong.push(format!("{}: no such event", row.what)),
                }
            }
            wrong.extend(entry.misjudged(&why));
            machine.wrong.insert(entry.name, wrong);
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

    /// Whether this job ran there.
    pub fn ran(&self, entry: &Entry) -> bool {
        self.facts.contains_key(entry.name)
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
    // As they happened, whichever node has told of it.
    events.sort_by(|a: &Value, b: &Value| a["timestamp"].as_str().cmp(&b["timestamp"].as_str()));
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
