//! Workflow engines as their users run them: each submits a few jobs to a private cluster, of which
//! one fails, and its jobs are found as one run, by the name that the engine has for it, with the
//! engine's names for its members. `INQUEST_ENGINES` is the Python environment that they are
//! installed in; ci/engines makes it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use inquest_tests::children::Ends;
use inquest_tests::cluster::{Cluster, Config, USERS};
use serde_json::Value;

const TIMEOUT: Duration = Duration::from_secs(240);

struct Engine {
    name: &'static str,
    file: &'static str,
    text: &'static str,
    /// Program and arguments, beside the file.
    command: &'static [&'static str],
    kind: &'static str,
    /// What the run's key ends with; `{dir}` stands for where it was started.
    value: &'static str,
    /// Members by the engine's name, with the class of each.
    members: &'static [(&'static str, &'static str)],
}

const ENGINES: &[Engine] = &[
    Engine {
        name: "submitit",
        file: "run_submitit.py",
        text: include_str!("../src/engines/run_submitit.py"),
        command: &["python", "run_submitit.py"],
        kind: "path",
        value: "{dir}/logs array ",
        members: &[("0", "ok"), ("1", "ok"), ("2", "app_error"), ("3", "ok")],
    },
    Engine {
        name: "parsl",
        file: "run_parsl.py",
        text: include_str!("../src/engines/run_parsl.py"),
        command: &["python", "run_parsl.py"],
        kind: "path",
        value: "{dir}/runinfo/000",
        // Parsl ends its blocks with scancel.
        members: &[("block-0", "app_error"), ("block-0", "cancelled")],
    },
    Engine {
        name: "snakemake",
        file: "Snakefile",
        text: include_str!("../src/engines/Snakefile"),
        command: &[
            "snakemake",
            "--executor=slurm",
            "--slurm-status-command=squeue",
            "--jobs=3",
            "--keep-going",
            "--latency-wait=20",
            "--default-resources",
            "mem_mb=600",
            "runtime=5",
            "slurm_partition=main",
            "slurm_account=lab",
        ],
        kind: "name",
        value: "",
        members: &[("rule_fit/a", "ok"), ("rule_fit/b", "app_error"), ("rule_fit/c", "ok")],
    },
    Engine {
        name: "dask",
        file: "run_dask.py",
        text: include_str!("../src/engines/run_dask.py"),
        command: &["python", "run_dask.py"],
        kind: "group",
        value: "dask-worker in {dir}",
        members: &[("", "cancelled"), ("", "crash")],
    },
];

/// Where the engines are installed.
fn environment() -> PathBuf {
    let Some(at) = std::env::var_os("INQUEST_ENGINES") else {
        panic!(
            "INQUEST_ENGINES names no Python environment with the engines: run ci/engines, which makes it"
        );
    };
    PathBuf::from(at).canonicalize().unwrap()
}

/// Starts an engine in a directory of its own, as a user does.
fn start(cluster: &Cluster, python: &Path, engine: &Engine) -> (PathBuf, Ends) {
    let dir = cluster.work_dir().join(engine.name);
    let made = cluster.command(Some(USERS[0]), "mkdir").arg(&dir).status().unwrap();
    assert!(made.success());
    fs::write(dir.join(engine.file), engine.text).unwrap();
    // Snakemake takes SLURM_CONF from its jobs; a site has its slurm.conf where srun looks for it.
    let bin = dir.join("bin");
    fs::create_dir(&bin).unwrap();
    let srun =
        format!("#!/bin/sh\nSLURM_CONF={} exec /usr/bin/srun \"$@\"\n", cluster.slurm_conf().display());
    fs::write(bin.join("srun"), srun).unwrap();
    fs::set_permissions(bin.join("srun"), fs::Permissions::from_mode(0o755)).unwrap();
    let (program, arguments) = engine.command.split_first().unwrap();
    let mut command = cluster.command(Some(USERS[0]), python.join("bin").join(program).to_str().unwrap());
    let path = format!("{}:{}:/usr/local/bin:/usr/bin:/bin", bin.display(), python.join("bin").display());
    let said = fs::File::create(dir.join("said")).unwrap();
    command.args(arguments).env("PATH", path).env("HOME", &dir).current_dir(&dir);
    let child = command.stdout(said.try_clone().unwrap()).stderr(said).spawn().unwrap();
    (dir, Ends(child))
}

fn wait(engine: &Engine, dir: &Path, mut running: Ends) {
    let deadline = Instant::now() + TIMEOUT;
    while running.0.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "{} does not end: {}", engine.name, said(dir));
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn said(dir: &Path) -> String {
    fs::read_to_string(dir.join("said")).unwrap_or_default()
}

/// What is wrong with what is known of an engine's run.
fn wrong_about(cluster: &Cluster, engine: &Engine, dir: &Path, runs: &Value) -> Vec<String> {
    let of = |run: &&Value| {
        run["key"]["engine"] == engine.name
            && run["key"]["value"]
                .as_str()
                .is_some_and(|v| v.starts_with('/') || v.contains("dask") || v.len() == 36)
    };
    let found: Vec<&Value> = runs["runs"].as_array().unwrap().iter().filter(of).collect();
    let [run] = found.as_slice() else {
        return vec![format!("{} runs, not one: {runs:#}\n{}", found.len(), said(dir))];
    };
    let mut wrong = Vec::new();
    let value = run["key"]["value"].as_str().unwrap();
    if run["key"]["kind"] != engine.kind {
        wrong.push(format!("its key is {}, not of kind {}", run["key"], engine.kind));
    }
    let wanted = engine.value.replace("{dir}", dir.to_str().unwrap());
    if !value.starts_with(&wanted) {
        wrong.push(format!("its key is {value}, not {wanted}"));
    }
    let id = run["run_id"].as_str().unwrap();
    let state = cluster.inquest_json(&["run", id, "--json"]);
    let members = state["run"]["members"].as_object().unwrap().values();
    let mut got: Vec<(String, String)> = members
        .map(|m| {
            let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
            (text(&m["name"]), text(&m["verdict"]["class"]))
        })
        .collect();
    got.sort();
    let want: Vec<(String, String)> =
        engine.members.iter().map(|(name, class)| ((*name).to_owned(), (*class).to_owned())).collect();
    if got != want {
        wrong.push(format!("its members are {got:?}, not {want:?}: {state:#}\n{}", said(dir)));
    }
    wrong
}

#[test]
fn every_engine_has_one_run_with_its_own_names() {
    let only = std::env::var("INQUEST_ENGINE").ok();
    let engines: Vec<&Engine> =
        ENGINES.iter().filter(|e| only.as_ref().is_none_or(|o| o == e.name)).collect();
    let known = ENGINES.iter().map(|e| e.name).collect::<Vec<_>>().join(", ");
    assert!(!engines.is_empty(), "INQUEST_ENGINE={}: known are {known}", only.unwrap_or_default());
    let python = environment();
    let cluster = Cluster::start(Config::default()).unwrap();
    cluster.record("").unwrap();
    let started: Vec<_> = engines.into_iter().map(|e| (e, start(&cluster, &python, e))).collect();
    let mut dirs = Vec::new();
    for (engine, (dir, running)) in started {
        wait(engine, &dir, running);
        dirs.push((engine, dir));
    }
    let deadline = Instant::now() + TIMEOUT;
    while cluster.jobs().unwrap().iter().any(|job| !job.has_ended()) {
        assert!(Instant::now() < deadline, "{:?}", cluster.jobs());
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(cluster.collect(&["--once"]).status().unwrap().success());
    let runs = cluster.inquest_json(&["runs", "--json"]);
    let wrong: Vec<String> = dirs
        .iter()
        .flat_map(|(engine, dir)| {
            let of = wrong_about(&cluster, engine, dir, &runs);
            of.into_iter().map(|w| format!("{}: {w}", engine.name))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    cluster.stop().unwrap();
}
