/*!
Which variables of a job's environment may stand in an event.

The environment is the user's, and secrets lie in it beside the names of runs.
So there is one list of what is copied, for every writer, and a second look at
name and value for the keys that an admin adds.
*/

/// Variables that tell which run, and which member of it, a process belongs
/// to, for the engines that people use; sorted. None of them is a secret, and
/// those that sit beside one are not here.
pub const RUN_KEYS: &[&str] = &[
    "AIRFLOW_CTX_DAG_ID",
    "AIRFLOW_CTX_DAG_RUN_ID",
    "AIRFLOW_CTX_EXECUTION_DATE",
    "AIRFLOW_CTX_LOGICAL_DATE",
    "AIRFLOW_CTX_TASK_ID",
    "AIRFLOW_CTX_TRY_NUMBER",
    "INQUEST_RUN",
    "JOBNAME",
    "MLFLOW_EXPERIMENT_ID",
    "MLFLOW_EXPERIMENT_NAME",
    "MLFLOW_RUN_ID",
    "NXF_CLI",
    "NXF_ORG",
    "NXF_TASK_WORKDIR",
    "PARADE_ATTEMPT",
    "PARADE_CHUNK_ID",
    "PARADE_REGISTRY_DIR",
    "PARADE_RUN_ID",
    "PARADE_SCRIPT_NAME",
    "PARADE_SCRIPT_PATH",
    "PARADE_STAGE",
    "PARALLEL_JOBSLOT",
    "PARALLEL_PID",
    "PARALLEL_SEQ",
    "PARSL_WORKER_BLOCK_ID",
    "PARSL_WORKER_POOL_ID",
    "PARSL_WORKER_RANK",
    "RAY_ADDRESS",
    "RAY_JOB_ID",
    "SCALABLE_RUNS_DIR",
    "SLURM_WCKEY",
    "SUBMITIT_EXECUTOR",
    "TORC_API_URL",
    "TORC_ATTEMPT_ID",
    "TORC_JOB_ID",
    "TORC_RUN_ID",
    "TORC_WORKFLOW_ID",
    "WANDB_ENTITY",
    "WANDB_JOB_TYPE",
    "WANDB_PROJECT",
    "WANDB_RUN_GROUP",
    "WANDB_RUN_ID",
    "WANDB_SWEEP_ID",
];

/// Variables that give a process its number among those of one program, as MPI and distributed training start
/// them inside of one step; sorted. The agent reads them of processes that die, beside [`RUN_KEYS`].
pub const RANK_KEYS: &[&str] = &["OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "RANK"];

/// Those of both lists that tell one member of a run, packed into a step with others, from the next.
pub const MEMBER_KEYS: &[&str] = &[
    "AIRFLOW_CTX_TASK_ID",
    "MLFLOW_RUN_ID",
    "NXF_TASK_WORKDIR",
    "OMPI_COMM_WORLD_RANK",
    "PARADE_CHUNK_ID",
    "PARALLEL_SEQ",
    "PARSL_WORKER_BLOCK_ID",
    "PARSL_WORKER_RANK",
    "PMIX_RANK",
    "PMI_RANK",
    "RANK",
    "TORC_JOB_ID",
    "WANDB_RUN_ID",
];

/// Longest name of a variable that is looked at, in bytes.
pub const KEY_MAX: usize = 64;

/// Longest value that is copied, in bytes. A longer one is no id, and half an
/// id would put two runs into one, so it is left out.
pub const VALUE_MAX: usize = 512;

/// Whether a value may be copied: it is there, is short, and holds no login.
pub fn is_fit(value: &[u8]) -> bool {
    !value.is_empty() && value.len() <= VALUE_MAX && !holds_login(value)
}

/// Whether a variable's name sounds like a secret.
pub fn looks_secret(name: &str) -> bool {
    const ENDS: &[&str] = &[
        "AUTH",
        "COOKIE",
        "CREDENTIAL",
        "CREDENTIALS",
        "KEY",
        "KEYS",
        "PASSPHRASE",
        "PASSWD",
        "PASSWORD",
        "SECRET",
        "SECRETS",
        "TOKEN",
        "TOKENS",
    ];
    name.to_ascii_uppercase()
        .split('_')
        .any(|word| word == "PASS" || ENDS.iter().any(|end| word.ends_with(end)))
}

/// A value such as `https://user:password@host/` carries a secret inside.
fn holds_login(value: &[u8]) -> bool {
    let Some(at) = value.windows(3).position(|w| w == b"://") else { return false };
    let host = value[at + 3..].split(|&b| b == b'/').next().unwrap_or_default();
    host.contains(&b'@')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sorted_for_the_search_and_none_is_secret() {
        assert!(RUN_KEYS.is_sorted() && RANK_KEYS.is_sorted());
        assert!(MEMBER_KEYS.iter().all(|k| RUN_KEYS.contains(k) || RANK_KEYS.contains(k)));
        assert!(RUN_KEYS.iter().all(|k| k.len() <= KEY_MAX));
        let secret: Vec<_> = RUN_KEYS.iter().filter(|k| looks_secret(k)).collect();
        // A wckey is Slurm's name for a project, not a key to anything.
        assert_eq!(secret, [&"SLURM_WCKEY"]);
    }

    #[test]
    fn secrets_are_known_by_their_names() {
        for name in
            ["WANDB_API_KEY", "my_token", "TORC_PASSWORD", "AWS_SECRET_ACCESS_KEY", "APIKEY", "X_AUTH"]
        {
            assert!(looks_secret(name), "{name}");
        }
        for name in ["KEYWORD", "TOKENIZERS_PARALLELISM", "AUTHOR", "COMPASS_ID", "RUN_ID"] {
            assert!(!looks_secret(name), "{name}");
        }
    }

    #[test]
    fn a_login_in_a_url_is_a_secret() {
        assert!(holds_login(b"https://u:p@host/x"));
        assert!(!holds_login(b"https://host/x@y"));
        assert!(!holds_login(b"u@h"));
        assert!(is_fit(b"x") && !is_fit(b"") && !is_fit(&[b'x'; VALUE_MAX + 1]));
    }
}
