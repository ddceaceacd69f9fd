//! A run and its members as `run.json` shows them.

use std::collections::BTreeMap;

use inquest_journal::{JobId, Timestamp};
use serde::{Deserialize, Serialize};

use super::RunKey;
use crate::verdict::{Class, Verdict};

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// A member is running.
    Running,
    /// All known members ended well.
    Completed,
    /// All known members ended, at least one badly.
    Failed,
}

/// A run: the content of `run.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    /// Version of this file's form.
    pub schema: u32,
    /// Id and directory.
    pub run_id: String,
    /// Cluster.
    pub cluster: String,
    /// User.
    pub user: String,
    /// What decided that these jobs belong together.
    pub key: RunKey,
    /// Run ids of stronger keys that were met later: further names of this run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Name of the first job.
    pub name: Option<String>,
    /// First event of any member.
    pub started: Timestamp,
    /// Newest event of any member.
    pub last: Timestamp,
    /// Where it stands.
    pub status: RunStatus,
    /// Members by class; running ones are not counted.
    pub classes: BTreeMap<Class, u32>,
    /// Members by number in the run.
    pub members: BTreeMap<u32, Member>,
    /// Events the collector itself has added.
    pub(crate) next_seq: u64,
}

/// One job of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Its id.
    pub job_id: JobId,
    /// Array it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub array_job_id: Option<JobId>,
    /// Index in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub array_task_id: Option<u32>,
    /// What its workflow engine calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Attempts so far.
    pub attempts: u32,
    /// First event.
    pub started: Timestamp,
    /// Newest event.
    pub last: Timestamp,
    /// Where it is, when it is neither running nor ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<MemberState>,
    /// What became of it; absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// Bytes of `events.jsonl` between which all its events are.
    pub range: (u64, u64),
}

/// Where a member is that is neither running nor ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberState {
    /// An attempt is over, and the job waits in the queue again.
    Requeued,
}

/// Version of `run.json`.
pub const SCHEMA: u32 = 1;

impl RunStatus {
    /// The status of a run with so many members still `running`, and ended
    /// ones by class.
    pub fn of(running: u32, classes: &BTreeMap<Class, u32>) -> RunStatus {
        match running {
            1.. => RunStatus::Running,
            0 if failed(classes) == 0 => RunStatus::Completed,
            0 => RunStatus::Failed,
        }
    }
}

/// Members that ended badly.
pub fn failed(classes: &BTreeMap<Class, u32>) -> u32 {
    classes.iter().filter(|(class, _)| **class != Class::Ok).map(|(_, n)| n).sum()
}

impl RunState {
    /// Members that ended badly.
    pub fn failed(&self) -> u32 {
        failed(&self.classes)
    }
}

impl Member {
    /// It ended badly.
    pub fn failed(&self) -> bool {
        self.verdict.as_ref().is_some_and(|v| v.class != Class::Ok)
    }

    /// `123`, or `120_3` for a member of an array.
    pub fn display_id(&self) -> String {
        match (self.array_job_id, self.array_task_id) {
            (Some(array), Some(task)) => format!("{array}_{task}"),
            _ => self.job_id.to_string(),
        }
    }
}
