/*!
What Slurm itself says of jobs: asked in batches, never needed.

`squeue` answers for jobs that the controller still holds in memory (MinJobAge,
300 s unless set otherwise) and therefore works on sites without slurmdbd.
[`Sacct`](super::sacct::Sacct) adds what slurmdbd knows. Both are hidden behind
[`Accounting`].
*/

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use inquest_journal::{JobId, Timestamp};
use serde::{Deserialize, Serialize};

use super::command;

/// One job as Slurm sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    /// `COMPLETED`, `TIMEOUT`, ... in Slurm's words.
    pub state: String,
    /// Reason beside the state, `None` or empty when there is none.
    pub reason: String,
    /// Exit code of the job script.
    pub exit_code: u32,
    /// Signal beside it.
    pub exit_signal: u32,
    /// Time limit as Slurm prints it, `1:00` or `UNLIMITED`.
    pub time_limit: String,
    /// How often the job was restarted.
    pub restarts: u32,
    /// Who cancelled it, where slurmdbd says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled_by: Option<u32>,
    /// It never had a node, by what slurmdbd says.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub never_ran: bool,
    /// The warning signal that was asked for on the command line, where slurmdbd says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// What slurmdbd knows of a job that no node has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Submitted {
    /// When.
    pub at: Option<Timestamp>,
    /// By whom.
    pub uid: Option<u32>,
    /// Its name.
    pub name: Option<String>,
    /// Where it would have run.
    pub work_dir: Option<String>,
    /// The array it belongs to.
    pub array: Option<JobId>,
    /// Its index there; none for an array that ended as a whole.
    pub index: Option<u32>,
}

/// A record as slurmdbd gave it, with the time it is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// Cluster, as the database writes it: in small letters.
    pub cluster: String,
    /// The job.
    pub job: JobId,
    /// When it began, if it did.
    pub start: Option<Timestamp>,
    /// When it ended.
    pub end: Option<Timestamp>,
    /// What is known of it.
    pub record: JobRecord,
    /// What it was, when it never ran.
    pub submitted: Option<Submitted>,
}

impl JobRecord {
    /// `COMPLETED 0:0`, the way sacct shows it.
    pub fn verdict(&self) -> String {
        format!("{} {}:{}", self.state, self.exit_code, self.exit_signal)
    }

    /// The job has reached a state that will not change any more. Its name is
    /// the first word (`CANCELLED by 1000`).
    pub fn is_final(&self) -> bool {
        const FINAL: [&str; 11] = [
            "BOOT_FAIL",
            "CANCELLED",
            "COMPLETED",
            "DEADLINE",
            "FAILED",
            "LAUNCH_FAILED",
            "NODE_FAIL",
            "OUT_OF_MEMORY",
            "PREEMPTED",
            "REVOKED",
            "TIMEOUT",
        ];
        FINAL.contains(&self.state_word())
    }

    /// The state without what may follow it.
    pub fn state_word(&self) -> &str {
        self.state.split([' ', '+']).next().unwrap_or_default()
    }

    /// Both tell of the same end. squeue and sacct write exit codes, limits and
    /// reasons differently, so of these only the code of a failed script counts, and the warning signal that
    /// may be why.
    pub fn agrees(&self, other: &JobRecord) -> bool {
        let code = |r: &JobRecord| (r.state_word() == "FAILED").then_some((r.exit_code, r.exit_signal));
        self.state_word() == other.state_word()
            && code(self) == code(other)
            && (self.cancelled_by == other.cancelled_by || other.cancelled_by.is_none())
            && (self.warning == other.warning || other.warning.is_none() || self.state_word() != "FAILED")
    }

    /// With what only `earlier` had to say.
    #[must_use]
    pub fn or(mut self, earlier: &JobRecord) -> JobRecord {
        let fill = |new: &mut String, old: &String| {
            if new.is_empty() {
                new.clone_from(old);
            }
        };
        fill(&mut self.reason, &earlier.reason);
        fill(&mut self.time_limit, &earlier.time_limit);
        self.cancelled_by = self.cancelled_by.or(earlier.cancelled_by);
        self.warning = self.warning.or_else(|| earlier.warning.clone());
        self.restarts = self.restarts.max(earlier.restarts);
        self
    }
}

/// A source of job records. It is asked in more than one thread.
pub trait Accounting: Send + Sync {
    /// Name of the cluster that it answers for.
    ///
    /// # Errors
    ///
    /// When the source did not answer, in words for the log.
    fn cluster(&self) -> Result<String, String>;

    /// Asks for all of `jobs`, which are of that cluster, at once. Jobs that the source does not know are
    /// absent from the answer.
    ///
    /// # Errors
    ///
    /// When the source did not answer, in words for the log.
    fn ask(&self, jobs: &BTreeSet<JobId>) -> Result<HashMap<JobId, JobRecord>, String>;

    /// Jobs that ended after `since` and not after `until`, in no order, some of them told before, or a
    /// little too early; `None` when the source keeps no history.
    ///
    /// # Errors
    ///
    /// When the source did not answer, in words for the log.
    fn news(&self, since: Timestamp, until: Timestamp) -> Result<Option<Vec<News>>, String> {
        let _ = (since, until);
        Ok(None)
    }
}

/// The `squeue` command of the cluster this machine belongs to.
#[derive(Debug, Default)]
pub struct Squeue;

/// Fixed width of every column, so that blanks in a value mean nothing.
const WIDTH: usize = 64;
const COLUMNS: [&str; 6] = ["JobId", "State", "Reason", "exit_code", "TimeLimit", "RestartCnt"];

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// Ids per call, far below what a command line can hold.
const BATCH: usize = 4000;

impl Accounting for Squeue {
    fn cluster(&self) -> Result<String, String> {
        let config = command::ask("scontrol", &["show", "config"], PATIENCE).map_err(|e| e.to_string())?;
        cluster_of(&config)
            .ok_or_else(|| "scontrol show config names no cluster; set ClusterName in slurm.conf".into())
    }

    fn ask(&self, jobs: &BTreeSet<JobId>) -> Result<HashMap<JobId, JobRecord>, String> {
        let format = format!("--Format={}", COLUMNS.map(|c| format!("{c}:{WIDTH}")).join(","));
        let ids: Vec<String> = jobs.iter().map(JobId::to_string).collect();
        let mut records = HashMap::new();
        for batch in ids.chunks(BATCH) {
            let ids = format!("--jobs={}", batch.join(","));
            let arguments = ["--noheader", "--array", "--states=all", &format, &ids];
            match command::ask("squeue", &arguments, PATIENCE) {
                Ok(text) => records.extend(parse(&text)),
                // Slurm's answer when none of the ids is known any more.
                Err(e) if e.words().contains("Invalid job id") => {}
                Err(e) => return Err(e.to_string()),
            }
        }
        Ok(records)
    }
}

/// The name of the cluster, of what `scontrol show config` says.
fn cluster_of(config: &str) -> Option<String> {
    let values = config.lines().filter_map(|line| line.split_once('='));
    values
        .map(|(key, value)| (key.trim(), value.trim()))
        .find(|(key, _)| *key == "ClusterName")
        .map(|(_, v)| v.to_owned())
}

fn parse(text: &str) -> HashMap<JobId, JobRecord> {
    text.lines().filter_map(record).collect()
}

fn record(line: &str) -> Option<(JobId, JobRecord)> {
    let chars: Vec<char> = line.chars().collect();
    let mut columns = chars.chunks(WIDTH).map(|c| c.iter().collect::<String>().trim().to_owned());
    let id = columns.next()?.parse().ok()?;
    let (state, reason, exit) = (columns.next()?, columns.next()?, columns.next()?);
    let (time_limit, restarts) = (columns.next()?, columns.next().unwrap_or_default());
    // A raw wait status on old releases, `code:signal` on newer ones.
    let (exit_code, exit_signal) = match exit.split_once(':') {
        Some((code, signal)) => (code.parse().ok()?, signal.parse().ok()?),
        None => {
            let status: u32 = exit.parse().ok()?;
            (status >> 8 & 0xff, status & 0x7f)
        }
    };
    let restarts = restarts.parse().unwrap_or(0);
    let record =
        JobRecord { state, reason, exit_code, exit_signal, time_limit, restarts, ..JobRecord::default() };
    Some((id, record))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(columns: [&str; 6]) -> String {
        columns.map(|c| format!("{c:WIDTH$}")).join("") + "\n"
    }

    #[test]
    fn columns_are_cut_by_width() {
        let text = line(["7", "TIMEOUT", "TimeLimit", "0:0", "1:00", "0"])
            + &line(["8", "CANCELLED by 0", "None", "9", "UNLIMITED", "2"])
            + "slurm_load_jobs error\n\n";
        let records = parse(&text);
        assert_eq!(records.len(), 2);
        let limit = &records[&JobId(7)];
        assert_eq!(
            (limit.state.as_str(), limit.reason.as_str(), limit.time_limit.as_str()),
            ("TIMEOUT", "TimeLimit", "1:00")
        );
        let cancelled = &records[&JobId(8)];
        assert_eq!((cancelled.state_word(), cancelled.exit_signal, cancelled.restarts), ("CANCELLED", 9, 2));
        assert!(cancelled.is_final());
        assert!(!JobRecord { state: "COMPLETING".into(), ..JobRecord::default() }.is_final());
    }
}
