//! The plugin broken in every way that we know, on a real cluster: every job
//! runs, ends and prints exactly as it does without the plugin.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use inquest_tests::artefacts;
use inquest_tests::cluster::{Cluster, Config, USERS};
use inquest_tests::mounts::Mounted;

const TIMEOUT: Duration = Duration::from_secs(90);

/// Everything that a user can see of a few jobs.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    /// State and exit code of a batch job with a two-task step.
    batch: (String, String),
    /// Its output and errors, sorted: tasks print in any order.
    batch_output: (Vec<String>, Vec<String>),
    /// Exit code, output and errors of a step started by hand.
    direct: (Option<i32>, String, String),
}

const SCRIPT: &str = r#"#!/bin/bash
echo script; echo trouble >&2
srun -n2 bash -c 'echo task $SLURM_PROCID of $SLURM_NTASKS; echo task trouble >&2; env | grep -c INQUEST || true'
bash -c 'bash -c "kill -SEGV \$\$"; true' 2>/dev/null
exit 3
"#;

fn jobs(cluster: &Cluster, environment: &[(&str, &str)]) -> Seen {
    let sorted = |path: &Path| {
        let text = String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let work = cluster.work_dir();
    let script = work.join("script");
    fs::write(&script, SCRIPT).unwrap();
    let (out, err) = (work.join("out-%j"), work.join("err-%j"));
    let mut sbatch = cluster.command(Some(USERS[0]), "sbatch");
    sbatch.args(["--parsable", "-n2", "--mem=100M", "-o"]).arg(&out).arg("-e").arg(&err).arg(&script);
    sbatch.envs(environment.iter().copied());
    let output = sbatch.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let job: u32 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();

    let mut srun = cluster.command(Some(USERS[0]), "srun");
    srun.args(["-n1", "--mem=50M", "bash", "-c", "echo by hand; echo hand trouble >&2; exit 4"]);
    srun.envs(environment.iter().copied());
    let direct = srun.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    // srun may have to wait for the batch job's cores, says so with the job's
    // id, and names the node of a failure: all of that may differ.
    let errors = text(direct.stderr).replace(&cluster.nodes()[1], &cluster.nodes()[0]);
    let mut errors: Vec<&str> = errors.lines().filter(|l| !l.starts_with("srun: job ")).collect();
    errors.sort();

    let record = cluster.wait_end(job, TIMEOUT).unwrap();
    Seen {
        batch: (record.state, record.exit_code),
        batch_output: (sorted(&work.join(format!("out-{job}"))), sorted(&work.join(format!("err-{job}")))),
        direct: (direct.status.code(), text(direct.stdout), errors.join("\n")),
    }
}

#[test]
fn every_job_runs_as_without_the_plugin() {
    let mut cluster = Cluster::start(Config::default()).unwrap();
    // slurmd looks for the hooks of prolog and epilog when it starts, and from then on at every job.
    cluster.record_jobs("").unwrap();
    cluster.plugstack("").unwrap();
    let usual = jobs(&cluster, &[]);
    assert_eq!(usual.batch, ("FAILED".to_owned(), "3:0".to_owned()));
    assert_eq!(usual.direct.0, Some(4));
    assert_eq!(usual.batch_output.1, ["task trouble", "task trouble", "trouble"]);

    let place = |plugin: &Path, name: &str| cluster.place(plugin, name).unwrap();
    let plugin = place(&artefacts::plugin(), "spank_inquest.so");
    let faulty = place(&artefacts::plugin_with_faults(), "faulty.so");
    let plugin_of_jobs = place(&artefacts::plugin_of_jobs(), "spank_inquest_job.so");
    let faulty_of_jobs = place(&artefacts::plugin_of_jobs_with_faults(), "faulty_job.so");
    // Both plugins with the same arguments.
    let lines = |so: &str, of_jobs: &str, arguments: &str| {
        format!("optional {so} {arguments}\noptional {of_jobs} {arguments}")
    };
    let dir = cluster.dir().to_owned();
    let at = |name: &str| dir.join(name).display().to_string();

    // What a healthy plugin does, so that the rest is not compared with nothing.
    let healthy = format!("journal={}", cluster.journal_dir().display());
    cluster.plugstack(&lines(&plugin, &plugin_of_jobs, &healthy)).unwrap();
    assert_eq!(jobs(&cluster, &[]), usual, "with a healthy plugin");
    let count = |events: &[serde_json::Value], key: &str, value: &str| {
        events.iter().filter(|e| e[key] == value).count()
    };
    let ended = |events: &[serde_json::Value]| {
        count(events, "event_type", "step_ended") >= 5 && count(events, "via", "epilog") >= 2
    };
    cluster.wait_events(TIMEOUT, ended).unwrap();

    fs::write(dir.join("a-file"), "").unwrap();
    fs::create_dir(dir.join("open-to-all")).unwrap();
    fs::set_permissions(dir.join("open-to-all"), fs::Permissions::from_mode(0o777)).unwrap();
    symlink(cluster.work_dir(), dir.join("a-link")).unwrap();
    fs::create_dir(dir.join("linked")).unwrap();
    fs::create_dir(dir.join("piped")).unwrap();
    let today = cluster.events()[0]["timestamp"].as_str().unwrap()[..10].to_owned();
    for node in cluster.nodes() {
        symlink(cluster.work_dir(), dir.join("linked").join(&node)).unwrap();
        fs::create_dir(dir.join("piped").join(&node)).unwrap();
        let fifo = dir.join("piped").join(&node).join(format!("{today}.jsonl"));
        assert!(Command::new("mkfifo").arg(fifo).status().unwrap().success());
    }
    let read_only = Mounted::tmpfs(&dir.join("read-only"), "size=64k,ro");
    let full = Mounted::tmpfs(&dir.join("full"), "size=64k");
    fs::write(dir.join("full/ballast"), vec![0; 1 << 17]).unwrap_err();

    let work_before = fs::read_dir(cluster.work_dir()).unwrap().count();
    let mut cases: Vec<(String, String)> = Vec::new();
    let mut case =
        |name: &str, arguments: &str| cases.push((name.into(), lines(&plugin, &plugin_of_jobs, arguments)));
    case("no journal directory", &format!("journal={}", at("nowhere")));
    case("a file for a journal directory", &format!("journal={}", at("a-file")));
    case("a directory open to all", &format!("journal={}", at("open-to-all")));
    case("a link for a journal directory", &format!("journal={}", at("a-link")));
    case("a link for a node's directory", &format!("journal={}", at("linked")));
    case("a pipe for a journal file", &format!("journal={}", at("piped")));
    case("a read-only file system", &format!("journal={}", at("read-only")));
    case("a full file system", &format!("journal={}", at("full")));
    case("a relative path", "journal=here");
    case("an unknown argument", "jurnal=/x");
    case("an argument without a value", "journal");
    case("an argument twice", "sync=never sync=always");
    for hook in ["init", "init_post_opt", "task_post_fork", "task_exit", "exit", "job_prolog", "job_epilog"] {
        let arguments = format!("{healthy} inject={hook}");
        cases.push((format!("a panic in {hook}"), lines(&faulty, &faulty_of_jobs, &arguments)));
    }
    for (name, line) in &cases {
        cluster.plugstack(line).unwrap();
        assert_eq!(jobs(&cluster, &[]), usual, "with {name}");
        println!("{name}: as without the plugin");
    }
    // Our own jobs leave two files each there; nothing came through a link.
    let mine = cases.len() * 2;
    assert_eq!(fs::read_dir(cluster.work_dir()).unwrap().count(), work_before + mine);
    for node in cluster.nodes() {
        assert!(cluster.slurmd_log(&node).lines().all(|l| !l.contains("panicked")));
    }
    let logs: String = cluster.nodes().iter().map(|n| cluster.slurmd_log(n)).collect();
    for words in ["jurnal", "must be an absolute path", "given twice", "not of the form key=value"] {
        assert!(logs.contains(words), "slurmd's log does not say: {words}");
    }

    // A hostile environment, with a healthy plugin again.
    cluster.plugstack(&lines(&plugin, &plugin_of_jobs, &format!("{healthy} env=BIG,ODD"))).unwrap();
    let big = "x".repeat(120_000);
    let odd = "line\nline\u{1b}[2J\"}{\\\u{202e}";
    let hostile = [("BIG", big.as_str()), ("ODD", odd), ("WANDB_RUN_GROUP", odd), ("SBATCH_JOB_NAME", odd)];
    let before = cluster.events().len();
    assert_eq!(jobs(&cluster, &hostile), usual, "with a hostile environment");
    let events = cluster.wait_events(TIMEOUT, |e| e.len() > before).unwrap();
    assert!(events.iter().any(|e| e["env"]["ODD"] == odd), "the hostile value is recorded as it is");
    drop((read_only, full));
    cluster.stop().unwrap();
}
