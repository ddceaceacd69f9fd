//! Apache Airflow. Every task runs with `AIRFLOW_CTX_DAG_ID`, `_DAG_RUN_ID`,
//! `_TASK_ID` and `_TRY_NUMBER` in its environment (`airflow/utils/operator_helpers.py`),
//! which sbatch hands on. A run id is unique in its DAG only.

use crate::runs::evidence::Evidence;
use crate::runs::key::{Candidate, KeyKind};

pub(super) fn find(at: &Evidence<'_>) -> Option<Candidate> {
    let (dag, run) = (at.env("AIRFLOW_CTX_DAG_ID")?, at.env("AIRFLOW_CTX_DAG_RUN_ID")?);
    let member = at.env("AIRFLOW_CTX_TASK_ID").map(|task| match at.env("AIRFLOW_CTX_TRY_NUMBER") {
        Some(n) => format!("{task} try {n}"),
        None => task.to_owned(),
    });
    Some(Candidate::new(KeyKind::Env, format!("{dag}/{run}"), "env:AIRFLOW_CTX_DAG_RUN_ID").member(member))
}
