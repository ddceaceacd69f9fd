//! What each engine's jobs look like to the plugin: the fields of `job_started`
//! (`job`) and `step_started` (`step`), and the run they must give.

use inquest_journal::{Body, JobId};
use serde_json::{Value, json};

use crate::runs::{KeyKind, RunKey};

const UUID: &str = "3f2b8a60-4c1e-4f0e-9f43-2d1f0f6f7a11";
const HASH: &str = "0123456789abcdef0123456789abcdef";

fn key(event_type: &str, fields: &Value) -> RunKey {
    let body = Body::parse(event_type, fields.to_string().as_bytes()).unwrap().unwrap();
    RunKey::of(JobId(123), &body).unwrap()
}

struct Case {
    event: &'static str,
    fields: Value,
    engine: &'static str,
    kind: KeyKind,
    value: String,
    from: &'static str,
    member: Option<&'static str>,
}

#[allow(clippy::too_many_lines)] // A table.
fn cases() -> Vec<Case> {
    use KeyKind::{Env, Group, Name, Path};
    let job = |fields, engine, kind, value: &str, from, member| Case {
        event: "job_started",
        fields,
        engine,
        kind,
        value: value.into(),
        from,
        member,
    };
    let step = |fields, engine, kind, value: &str, from, member| Case {
        event: "step_started",
        ..job(fields, engine, kind, value, from, member)
    };
    vec![
        job(
            json!({"name": "model-c0007", "stdout": "/s/parade/model-a1b2c3d4/logs/model-c0007.log"}),
            "parade",
            Path,
            "a1b2c3d4",
            "stdout",
            Some("0007"),
        ),
        job(
            json!({"name": "model-c0001-0004", "stdout": "/s/parade/model-a1b2c3d4/logs/model-c0001-0004.log"}),
            "parade",
            Path,
            "a1b2c3d4",
            "stdout",
            Some("0001-0004"),
        ),
        job(
            json!({"name": "fit", "env": {"PARADE_RUN_ID": "a1b2c3d4", "PARADE_CHUNK_ID": "7"}}),
            "parade",
            Env,
            "a1b2c3d4",
            "env:PARADE_RUN_ID",
            Some("7"),
        ),
        job(
            json!({"name": "fit.R", "stdout": "/s/parade/script-a1b2c3d4/logs/fit.log"}),
            "parade",
            Path,
            "a1b2c3d4",
            "stdout",
            None,
        ),
        step(
            json!({"name": "w", "env": {"TORC_WORKFLOW_ID": "12", "TORC_RUN_ID": "1", "TORC_JOB_ID": "88",
                "TORC_ATTEMPT_ID": "2", "TORC_API_URL": "http://login1:8080/torc-service/v1"}}),
            "torc",
            Env,
            "workflow 12 run 1 at http://login1:8080/torc-service/v1",
            "env:TORC_WORKFLOW_ID",
            Some("job 88 attempt 2"),
        ),
        job(
            json!({"name": "wf12_34567_1", "stdout": "/p/torc_output/slurm_output_wf12_sl123.o"}),
            "torc",
            Name,
            "workflow 12 in /p/torc_output",
            "name, stdout",
            Some("1"),
        ),
        job(
            json!({"name": "x", "env": {"AIRFLOW_CTX_DAG_ID": "etl", "AIRFLOW_CTX_TASK_ID": "load",
                "AIRFLOW_CTX_DAG_RUN_ID": "manual__2026-01-02T03:04:05+00:00", "AIRFLOW_CTX_TRY_NUMBER": "2"}}),
            "airflow",
            Env,
            "etl/manual__2026-01-02T03:04:05+00:00",
            "env:AIRFLOW_CTX_DAG_RUN_ID",
            Some("load try 2"),
        ),
        job(
            json!({"name": UUID, "stdout": "/w/.snakemake/slurm_logs/rule_align/s1_2/123.log"}),
            "snakemake",
            Name,
            UUID,
            "name",
            Some("rule_align/s1_2"),
        ),
        job(
            json!({"name": format!("lab_{UUID}"), "comment": "rule_align_wildcards_s1"}),
            "snakemake",
            Name,
            UUID,
            "name",
            Some("rule_align_wildcards_s1"),
        ),
        job(
            json!({"name": "nf-ALIGN_(s1)", "env": {"NXF_CLI": "nextflow run main.nf"},
                "stdout": format!("/w/work/{}/{}/.command.log", &HASH[..2], &HASH[2..])}),
            "nextflow",
            Path,
            "/w/work of nextflow run main.nf",
            "stdout",
            Some("01/234567"),
        ),
        job(
            json!({"name": "cromwell_3f2b8a60_align",
                "work_dir": format!("/w/cromwell-executions/wf/{UUID}/call-align/shard-3/attempt-2/execution")}),
            "cromwell",
            Path,
            UUID,
            "work_dir",
            Some("align/shard-3/attempt-2"),
        ),
        job(json!({"name": "cromwell_3f2b8a60_align"}), "cromwell", Name, "3f2b8a60", "name", Some("align")),
        job(
            json!({"name": "parsl.htex.block-3.1763700000.12",
                "stdout": "/h/runinfo/004/submit_scripts/parsl.htex.block-3.1763700000.12.stdout"}),
            "parsl",
            Path,
            "/h/runinfo/004",
            "stdout",
            Some("block-3"),
        ),
        step(
            json!({"name": "parsl.htex.block-3.1763700000.12", "argv": ["process_worker_pool.py", "--debug",
                "--block_id=3", "--logdir=/h/runinfo/004/htex"]}),
            "parsl",
            Name,
            "/h/runinfo/004",
            "argv",
            Some("block-3"),
        ),
        job(
            json!({"name": "parsl.htex.block-3.1763700000.12", "submit_dir": "/h"}),
            "parsl",
            Group,
            "htex in /h",
            "name, submit_dir",
            Some("block-3"),
        ),
        step(
            json!({"name": "sweep", "array_job_id": "120", "array_task_id": 3, "argv": ["/v/bin/python", "-u", "-m",
                "submitit.core._submit", "/h/multirun/2026-01-02/03-04-05/.submitit/%j"]}),
            "hydra",
            Name,
            "/h/multirun/2026-01-02/03-04-05",
            "argv",
            Some("3"),
        ),
        step(
            json!({"name": "sub", "argv": ["python", "-u", "-m", "submitit.core._submit", "/h/logs"]}),
            "submitit",
            Name,
            "/h/logs",
            "argv",
            None,
        ),
        job(
            json!({"name": "sub", "stdout": "/h/logs/123/123_0_log.out"}),
            "submitit",
            Path,
            "/h/logs",
            "stdout",
            None,
        ),
        job(
            json!({"name": "sub", "array_job_id": "120", "array_task_id": 3, "stdout": "/h/logs/120_3_0_log.out"}),
            "submitit",
            Path,
            "/h/logs array 120",
            "stdout",
            Some("3"),
        ),
        job(
            json!({"name": format!("job{HASH}"), "stdout": format!("/h/reg/logs/job{HASH}.log")}),
            "batchtools",
            Path,
            "/h/reg",
            "stdout",
            Some(HASH),
        ),
        job(
            json!({"name": "sim_1", "stdout": "/h/p/.future/20260102_030405-Ab12Cd/sim_1/logs/sim_1.log"}),
            "future",
            Path,
            "/h/p/.future/20260102_030405-Ab12Cd",
            "stdout",
            Some("sim_1"),
        ),
        step(
            json!({"name": "dask-worker", "argv": ["/v/bin/python", "-m", "distributed.cli.dask_worker",
                "tcp://10.0.0.5:8786", "--name", "SLURMCluster-4", "--nanny"]}),
            "dask",
            Name,
            "tcp://10.0.0.5:8786",
            "argv",
            Some("SLURMCluster-4"),
        ),
        job(
            json!({"name": "dask-worker", "submit_dir": "/h"}),
            "dask",
            Group,
            "dask-worker in /h",
            "name, submit_dir",
            None,
        ),
        step(
            json!({"name": "r", "argv": ["raylet", "--session_dir=/tmp/ray/session_2026-01-02_03-04-05_678901_42"]}),
            "ray",
            Name,
            "session_2026-01-02_03-04-05_678901_42",
            "argv",
            None,
        ),
        job(
            json!({"name": "r", "env": {"RAY_ADDRESS": "10.0.0.5:6379", "RAY_JOB_ID": "01000000"}}),
            "ray",
            Path,
            "10.0.0.5:6379",
            "env:RAY_ADDRESS",
            Some("01000000"),
        ),
        job(
            json!({"name": "gcam-job", "env": {"SCALABLE_RUNS_DIR": "/h/.scalable/runs"}}),
            "scalable",
            Path,
            "/h/.scalable/runs",
            "env:SCALABLE_RUNS_DIR",
            Some("gcam"),
        ),
        job(
            json!({"name": "agent", "env": {"WANDB_SWEEP_ID": "k2x9", "WANDB_PROJECT": "vision",
                "WANDB_ENTITY": "lab", "WANDB_RUN_ID": "r1"}}),
            "wandb",
            Env,
            "sweep k2x9 of lab/vision",
            "env:WANDB_SWEEP_ID",
            Some("r1"),
        ),
        job(
            json!({"name": "p", "submit_dir": "/h", "env": {"PARALLEL_PID": "4711", "PARALLEL_SEQ": "9"}}),
            "parallel",
            Path,
            "4711 in /h",
            "env:PARALLEL_PID",
            Some("9"),
        ),
    ]
}

#[test]
fn every_engine_is_known_by_its_own_marks() {
    for case in cases() {
        let key = key(case.event, &case.fields);
        let won = &key.won;
        assert_eq!(won.engine.as_deref(), Some(case.engine), "{}: {key:?}", case.fields);
        assert_eq!((won.kind, &won.value), (case.kind, &case.value), "{}", case.fields);
        assert_eq!((won.from.as_str(), won.member.as_deref()), (case.from, case.member), "{}", case.fields);
        let id = won.run_id(JobId(123));
        assert_eq!(crate::runs::path_id(&id), id, "{}", case.fields);
    }
    let known: std::collections::BTreeSet<&str> = cases().iter().map(|c| c.engine).collect();
    let untried: Vec<_> = super::ENGINES.iter().map(|e| e.name).filter(|n| !known.contains(n)).collect();
    assert_eq!(untried, ["mlflow"], "it only links, see below");
}

#[test]
fn a_link_never_decides() {
    let env = json!({"MLFLOW_RUN_ID": "0f", "WANDB_RUN_ID": "r1"});
    let key = key("job_started", &json!({"name": "train", "submit_dir": "/h", "env": env}));
    assert_eq!(key.won.kind, KeyKind::Group);
    let links: Vec<_> =
        key.losers.iter().map(|c| (c.kind, c.engine.as_deref().unwrap(), c.value.as_str())).collect();
    assert_eq!(links, [(KeyKind::Link, "wandb", "r1"), (KeyKind::Link, "mlflow", "0f")]);
}

#[test]
fn what_only_looks_like_an_engine_is_none() {
    for fields in [
        json!({"name": UUID}),
        json!({"name": "model-c0007", "stdout": "/s/model-a1b2c3d4.log"}),
        json!({"name": "model", "stdout": "/s/model-a1b2c3d4/logs/model.log"}),
        json!({"name": "wf12_34567_1"}),
        json!({"name": "nf-ALIGN", "stdout": "/w/01/xyz/.command.log"}),
        json!({"name": "cromwell_run_all"}),
        json!({"name": "parsl.htex"}),
        json!({"name": "a", "stdout": "/h/logs/x_log.out"}),
        json!({"name": "jobs", "stdout": "/h/reg/logs/jobs.log"}),
        json!({"name": "a", "env": {"RAY_ADDRESS": "auto", "PARALLEL_PID": "7", "AIRFLOW_CTX_DAG_ID": "d"}}),
        json!({"name": "é", "stdout": "/", "work_dir": "", "env": {"NXF_TASK_WORKDIR": "////"}}),
    ] {
        let key = key("job_started", &fields);
        assert_eq!((key.won.kind, &key.losers[..]), (KeyKind::Job, &[][..]), "{fields}");
    }
    // Inside a job, parallel tells tasks apart and not jobs.
    let step = key("step_started", &json!({"name": "p", "env": {"PARALLEL_PID": "4711"}}));
    assert_eq!(step.won.kind, KeyKind::Job);
}

#[test]
fn keys_rank_as_documented() {
    let mut fields = json!({
        "name": UUID, "submit_dir": "/h", "array_job_id": "120", "array_task_id": 3, "het_job_id": "9",
        "comment": "rule_a_wildcards_b", "run": "mine", "env": {"PARADE_RUN_ID": "a1b2c3d4"},
        "stdout": "/h/logs/120_3_0_log.out",
    });
    let mut seen = Vec::new();
    for remove in ["", "run", "env", "comment", "stdout", "array_job_id", "het_job_id", "submit_dir"] {
        fields.as_object_mut().unwrap().remove(remove);
        let key = key("job_started", &fields);
        let rest: Vec<KeyKind> = key.losers.iter().map(|c| c.kind).collect();
        assert!(rest.is_sorted() && rest.iter().all(|k| *k >= key.won.kind), "{key:?}");
        seen.push(key.won.kind);
    }
    use KeyKind::{Array, Env, Explicit, Group, Het, Job, Name, Path};
    assert_eq!(seen, [Explicit, Env, Name, Path, Array, Het, Group, Job]);
}
