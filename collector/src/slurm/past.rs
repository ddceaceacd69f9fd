//! What Slurm's accounting remembers of jobs that nobody recorded: who, where, when, and how it saw the end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use inquest_journal::{JobId, Timestamp};

use super::accounting::JobRecord;
use super::sacct::{columns_of, limit_of, run, state_of, time};
use super::target::Target;
use crate::store::user_called;

/// A job as slurmdbd keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastJob {
    /// Its own id.
    pub id: JobId,
    /// The array that it is of, and its index there.
    pub array: Option<(JobId, u32)>,
    /// Cluster, in small letters.
    pub cluster: String,
    /// Whose it is.
    pub user: String,
    /// Name.
    pub name: String,
    /// Partition.
    pub partition: String,
    /// Host list expression of its nodes.
    pub nodes: String,
    /// Where it was submitted.
    pub work_dir: Option<PathBuf>,
    /// Where standard output went, with Slurm's patterns; releases before 24.05 do not keep it.
    pub stdout: Option<String>,
    /// Where standard error went.
    pub stderr: Option<String>,
    /// When it began, if it did.
    pub start: Option<Timestamp>,
    /// When it ended, if it has.
    pub end: Option<Timestamp>,
    /// How Slurm saw the end.
    pub record: JobRecord,
}

const COLUMNS: [&str; 15] = [
    "JobIDRaw",
    "JobID",
    "Cluster",
    "User",
    "JobName",
    "Partition",
    "NodeList",
    "WorkDir",
    "State",
    "ExitCode",
    "Timelimit",
    "Start",
    "End",
    "StdOut",
    "StdErr",
];

/// How long somebody waits for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two fields: no name that a person gives a job has it.
const FIELD: char = '\u{1f}';

/// Asks sacct for what `target` names; nothing when it knows none of it. `cluster` and `user` are those that a
/// caller has named, the user as the store calls them.
///
/// # Errors
///
/// When sacct did not answer, in words for people.
pub fn ask(target: &Target, cluster: Option<&str>, user: Option<&str>) -> Result<Vec<PastJob>, String> {
    let id = match target {
        Target::Run(_) => return Ok(Vec::new()),
        Target::Job { id, .. } | Target::Array { id, .. } | Target::Het { id, .. } => *id,
    };
    let format = format!("--format={}", columns_of(&run(&["--helpformat"], PATIENCE)?, &COLUMNS));
    let delimiter = format!("--delimiter={FIELD}");
    let jobs = format!("--jobs={id}");
    // Without its name, sacct tells of the cluster that this machine is of.
    let clusters = cluster.map(|name| format!("--clusters={name}"));
    let mut words = vec!["--parsable2", &delimiter, &format];
    words.extend(clusters.as_deref());
    words.push(&jobs);
    let mut found = parse(&run(&words, PATIENCE)?);
    found.retain(|job| cluster.is_none_or(|name| name.eq_ignore_ascii_case(&job.cluster)));
    found.retain(|job| user.is_none_or(|name| name == user_called(&job.user)));
    found.retain(|job| match target {
        Target::Array { tasks, .. } => {
            job.array.is_some_and(|(_, index)| tasks.binary_search(&index).is_ok())
        }
        Target::Het { id, offset } => job.id.0 == id.0.saturating_add(*offset),
        _ => true,
    });
    Ok(found)
}

/// Jobs by id, the newest attempt of each. The reason of an end is often only in the row of a step.
fn parse(text: &str) -> Vec<PastJob> {
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap_or_default().split(FIELD).collect();
    let mut jobs: BTreeMap<JobId, PastJob> = BTreeMap::new();
    for line in lines {
        let fields: Vec<&str> = line.split(FIELD).collect();
        if fields.len() != names.len() {
            continue;
        }
        let field = |name: &str| {
            let at = names.iter().position(|n| n.eq_ignore_ascii_case(name));
            at.map_or("", |at| fields[at].trim())
        };
        let Some((state, cancelled_by)) = state_of(field("State")) else { continue };
        let raw = field("JobIDRaw");
        if let Some((job, _)) = raw.split_once('.') {
            // One of its steps.
            if state == "OUT_OF_MEMORY"
                && let Some(job) = job.parse().ok().and_then(|id| jobs.get_mut(&id))
                && matches!(job.record.state.as_str(), "COMPLETED" | "FAILED")
            {
                job.record.state = state;
            }
            continue;
        }
        let Ok(id) = raw.parse::<JobId>() else { continue };
        let array =
            field("JobID").split_once('_').and_then(|(a, i)| Some((a.parse().ok()?, i.parse().ok()?)));
        let text = |name: &str| Some(field(name).to_owned()).filter(|text| !text.is_empty());
        let (code, signal) = field("ExitCode").split_once(':').unwrap_or_default();
        let record = JobRecord {
            state,
            exit_code: code.parse().unwrap_or(0),
            exit_signal: signal.parse().unwrap_or(0),
            time_limit: limit_of(field("Timelimit")),
            cancelled_by,
            ..JobRecord::default()
        };
        let job = PastJob {
            id,
            array,
            cluster: field("Cluster").to_owned(),
            user: field("User").to_owned(),
            name: field("JobName").to_owned(),
            partition: field("Partition").to_owned(),
            nodes: field("NodeList").to_owned(),
            work_dir: text("WorkDir").map(PathBuf::from),
            stdout: text("StdOut"),
            stderr: text("StdErr"),
            start: time(field("Start")),
            end: time(field("End")),
            record,
        };
        jobs.insert(id, job);
    }
    jobs.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_and_what_only_their_steps_know() {
        let text = "JobIDRaw|JobID|Cluster|User|JobName|Partition|NodeList|WorkDir|State|ExitCode|Timelimit|Start|End
7|7|lab|ada|a bar|main|n1|/home/ada|FAILED|3:0|00:01:00|1795000000|1795000060
7.batch|7.batch|lab||batch||n1||FAILED|3:0||1795000000|1795000060
9|8_2|lab|ada|fits|main|n[1-2]||COMPLETED|0:0|UNLIMITED|1795000000|Unknown
9.0|8_2.0|lab||x||n1||OUT_OF_MEMORY|0:125||1795000000|1795000060
a line of a name that has one
11|11|lab|ada|x|main|None assigned||CANCELLED by 1000|0:0||Unknown|1795000000
".replace('|', &FIELD.to_string());
        let jobs = parse(&text);
        let shown: Vec<String> = jobs
            .iter()
            .map(|j| {
                format!(
                    "{} {:?} {} {} {:?}",
                    j.id,
                    j.array.map(|a| a.1),
                    j.name,
                    j.record.verdict(),
                    j.record.cancelled_by
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                "7 None a bar FAILED 3:0 None",
                "9 Some(2) fits OUT_OF_MEMORY 0:0 None",
                "11 None x CANCELLED 0:0 Some(1000)"
            ]
        );
        assert_eq!(jobs[0].record.time_limit, "1:00");
        assert_eq!((jobs[1].end, jobs[2].start), (None, None));
        assert!(parse("").is_empty());
    }
}
