//! The same jobs on several releases of Slurm: in what they differ and why, and the table of it,
//! `packaging/doc/versions.md`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::catalogue::{Action, Entry, matrix};
use crate::evidence::{command, rows};
use crate::machine::Machine;

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
        "memory.swap_",
        "v2 limits and counts swap by itself; on v1 it is counted together with memory, under another name",
    ),
    ("memory.memsw_", "as memory.swap_: v1 alone has the sum"),
    ("\"swap_limit_bytes\"", "as memory.swap_"),
    (
        "_started.end_limit",
        "from 23.02 on slurmstepd gives tasks SLURM_JOB_END_TIME, and srun in a job script hands it on to its step",
    ),
];

/// The known cause of a difference.
pub fn cause(what: &str) -> Option<&'static str> {
    CAUSES.iter().find(|(part, _)| what.contains(part)).map(|(_, cause)| *cause)
}

/// What is not as on the first machine, and at which jobs, with the machines where it is so.
pub fn differences(machines: &[Machine]) -> BTreeMap<(String, Vec<&'static str>), Vec<&str>> {
    let base = &machines[0];
    let mut grouped: BTreeMap<_, Vec<&str>> = BTreeMap::new();
    for machine in &machines[1..] {
        let mut differences: BTreeMap<String, Vec<&'static str>> = BTreeMap::new();
        for entry in matrix().filter(|entry| machine.ran(entry) && base.ran(entry)) {
            let name = entry.name;
            let mut differ = |what: String| differences.entry(what).or_default().push(name);
            let (ours, theirs) = (&machine.slurm[name], &base.slurm[name]);
            if ours != theirs {
                differ(format!("Slurm says {}, not {}", ours.join(", "), theirs.join(", ")));
            }
            let (ours, theirs) = (&machine.facts[name], &base.facts[name]);
            if ours.len() != theirs.len() {
                differ(format!("{} verdicts, not {}", ours.len(), theirs.len()));
            }
            for (ours, theirs) in ours.iter().zip(theirs).filter(|(a, b)| a != b) {
                differ(format!("{ours}; not {theirs}"));
            }
            for (at, _) in rows().enumerate().filter(|(_, row)| row.job == name) {
                if let (Some(ours), Some(theirs)) = (machine.rows.get(&at), base.rows.get(&at))
                    && ours != theirs
                {
                    differ(format!("shows {ours}, not {theirs}"));
                }
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

/// Jobs in words: most differences are those of all of them.
pub fn whose(jobs: &[&str], base: &Machine) -> String {
    let others: Vec<&str> = base.entries.iter().map(|e| e.name).filter(|name| !jobs.contains(name)).collect();
    match others.len() {
        0 => "every job".into(),
        1..4 => format!("every job but {}", others.join(", ")),
        _ => jobs.join(", "),
    }
}

const HEAD: &str = "# The same jobs on three releases of Slurm

Written by `INQUEST_UPDATE=1 ci/vm` from what it has seen, which fails when it is not so any more. The same
plugin file and the same command run on this machine's own Slurm (cgroup v1, no systemd) and, in virtual machines with
systemd and cgroup v2, on newer ones. A cell that tells no releases apart holds for all of them.

## How they end

Slurm's state and exit code of each job, and what `inquest why` says: the cause, how sure it is, and the
death that explains it. Members of an array that end well are left out.

| Job | What it does | Slurm | Inquest |
|---|---|---|---|
";

const RECORDED: &str = "
## What is recorded

The rows of [recorded.md](recorded.md) that a job alone shows, `…` being a value that is another every time.

| What is known | Job | Recorded |
|---|---|---|
";

const UNLIKE: &str = "
## Where they differ

Everything that is recorded on one of them and not on another, and every verdict that is not the same.

";

const CLAIMS: &str = "
## The machines themselves

On each of the virtual machines, with Inquest installed as its packages do and running in the units that
they ship:

";

/// One text where all machines on which the job ran say the same, else each with those that say so.
fn told(all: &[Machine], entry: &Entry, say: impl Fn(&Machine) -> String) -> String {
    let mut groups: Vec<(String, Vec<&str>)> = Vec::new();
    for machine in all.iter().filter(|machine| machine.ran(entry)) {
        let said = say(machine);
        match groups.iter_mut().find(|(other, _)| *other == said) {
            Some((_, names)) => names.push(&machine.name),
            None => groups.push((said, vec![&machine.name])),
        }
    }
    match &groups[..] {
        [(said, names)] if names.len() == all.len() => said.clone(),
        _ => {
            let parts: Vec<String> =
                groups.iter().map(|(said, names)| format!("{}: {said}", names.join(", "))).collect();
            parts.join("<br>")
        }
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn started(entry: &Entry) -> String {
    let done = match entry.action {
        Action::Cancel => ", and `scancel`",
        Action::KillScript => ", and `kill -9` of the script",
        Action::Requeue => ", and `scontrol requeue`",
        Action::Wait | Action::Preempt | Action::NodeDown => "",
    };
    command(entry) + done
}

/// Without the members of an array that end well, each text once.
fn of_note(all: &[String], well: &str) -> String {
    let mut kept: Vec<&str> = all.iter().map(String::as_str).filter(|s| !s.ends_with(well)).collect();
    if kept.is_empty() {
        kept = all.iter().map(String::as_str).take(1).collect();
    }
    kept.dedup();
    kept.join("; ")
}

/// The whole file.
pub fn document(machines: &[Machine]) -> String {
    let mut text = String::from(HEAD);
    for entry in matrix() {
        let slurm = told(machines, entry, |m| of_note(&m.slurm[entry.name], "COMPLETED 0:0"));
        let ours = told(machines, entry, |m| of_note(&m.facts[entry.name], "] ok (fact)"));
        let _ =
            writeln!(text, "| {} | {} | {} | {} |", entry.name, cell(entry.what), cell(&slurm), cell(&ours));
    }
    text += RECORDED;
    for (at, row) in rows().enumerate() {
        let Some(entry) = matrix().find(|entry| entry.name == row.job) else { continue };
        let shown =
            told(machines, entry, |m| m.rows.get(&at).map_or("nothing".into(), |event| format!("`{event}`")));
        let (what, job) = (cell(row.what), cell(&started(entry)));
        let _ = writeln!(text, "| {what} | {job} | {} |", cell(&shown));
    }
    text += UNLIKE;
    for ((what, jobs), names) in &differences(machines) {
        let jobs = whose(jobs, &machines[0]);
        let cause = cause(what).unwrap_or("not known");
        let _ = writeln!(text, "- {}: {} ({jobs}): {cause}.", names.join(", "), cell(what));
    }
    text += CLAIMS;
    // All machines are asked the same.
    for claim in machines.last().into_iter().flat_map(|m| &m.claims) {
        let claim = claim.split_once(": ").map_or(claim.as_str(), |(_, claim)| claim);
        let _ = writeln!(text, "- {claim}");
    }
    text
}
