//! MLflow. `MLFLOW_RUN_ID` names one tracked run, most often one per job
//! (`mlflow/environment_variables.py`): a link to it, no group of jobs.

use crate::runs::evidence::Evidence;
use crate::runs::key::{Candidate, KeyKind};

pub(super) fn find(at: &Evidence<'_>) -> Option<Candidate> {
    Some(Candidate::new(KeyKind::Link, at.env("MLFLOW_RUN_ID")?, "env:MLFLOW_RUN_ID"))
}
