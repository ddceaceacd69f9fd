//! `packaging/doc/workflows.md`: what people do when jobs fail, done with our commands on a private
//! cluster. Every command of the document is run as it stands there.
//! `INQUEST_UPDATE=1` writes the document; without it, this test fails when a command prints something
//! else in anything but times, sizes of memory, process ids and the like.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use inquest_tests::artefacts;
use inquest_tests::children::Ends;
use inquest_tests::cluster::{Cluster, Config};
use inquest_tests::transcript::{Transcript, masked};
use serde_json::Value;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/doc/workflows.md");
const SOON: Duration = Duration::from_secs(60);

const HEAD: &str = "\
# Five ways to find out why

What people do with four other systems, and with grep, when jobs fail, done with `inquest`. Every command was run
as it stands here, as an ordinary user on a Slurm cluster of one node, and printed what stands below it:
`INQUEST_UPDATE=1 cargo test -p inquest-tests --test workflows` does it again and writes this file, and the
same test without the variable fails when anything but times, process ids, names of events and sizes of
memory has changed. The terminal has 80 columns. No script knows of Inquest.";

#[test]
fn every_command_of_the_document_prints_what_it_says() {
    let cluster = start();
    let bin = cluster.dir().join("bin");
    fs::create_dir(&bin).unwrap();
    // From where every user may run it.
    cluster.place(&artefacts::inquest(), "bin/inquest").unwrap();
    let store = cluster.store();
    let mut page = Transcript::new(&cluster, &bin, &store, HEAD);

    // What ran before anybody installed anything.
    let before = before_the_plugin(&cluster, &mut page);
    cluster.record("").unwrap();
    let mut collect = cluster.command(None, bin.join("inquest").to_str().unwrap());
    collect.args(["collect", "--accounting", "sacct", "--journal"]).arg(cluster.journal_dir());
    let collector = collect.arg("--store").arg(&store).stdin(Stdio::null()).spawn().unwrap();
    let collector = Ends(collector);

    grid(&cluster, &mut page);
    nights(&cluster, &mut page);
    recovery(&cluster, &mut page);
    scenarios(&mut page);
    hidden(&cluster, &mut page);
    logs_alone(&mut page, before);

    let text = page.finish();
    drop(collector);
    cluster.stop().unwrap();
    if std::env::var_os("INQUEST_UPDATE").is_some() {
        fs::write(FILE, &text).unwrap();
    }
    let kept = fs::read_to_string(FILE).unwrap_or_default();
    let (was, is) = (masked(&kept), masked(&text));
    let differs = was.lines().zip(is.lines()).find(|(was, is)| was != is);
    assert!(
        was == is,
        "{FILE} is not what was seen; INQUEST_UPDATE=1 writes it. First: {differs:#?}\n{text}"
    );
}

/// A cluster whose node is n1, as soon as no other of this machine has that name. One, because Slurm
/// chooses among several as it likes.
fn start() -> Cluster {
    let deadline = Instant::now() + SOON * 2;
    loop {
        let config = Config { nodes: 1, short_names: true, accounting: true, ..Config::default() };
        let cluster = Cluster::start(config).unwrap();
        if cluster.nodes() == ["n1"] {
            return cluster;
        }
        cluster.stop().unwrap();
        assert!(Instant::now() < deadline, "another cluster of this machine has a node n1; end it");
        std::thread::sleep(Duration::from_secs(5));
    }
}

/// The id in what sbatch says.
fn id(said: &str) -> u32 {
    let word = said.trim().rsplit(' ').next().unwrap_or_default();
    word.parse().unwrap_or_else(|_| panic!("sbatch said {said:?}"))
}

/// Waits until the run of so many jobs has so many verdicts.
fn judged(page: &Transcript<'_>, run: &str, jobs: usize, verdicts: usize) {
    let deadline = Instant::now() + SOON;
    loop {
        let text = page.ask(&format!("inquest run {run} --json"));
        let state: Value = serde_json::from_str(&text).unwrap_or_default();
        let members: Vec<&Value> =
            state["run"]["members"].as_object().into_iter().flat_map(|m| m.values()).collect();
        let done = members.iter().filter(|m| m["verdict"]["slurm"].is_object()).count();
        if members.len() == jobs && done == verdicts {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{run}: {} of {jobs} jobs, {done} of {verdicts} verdicts: {text}",
            members.len()
        );
        std::thread::sleep(Duration::from_millis(250));
    }
}

/// parade: the quick start and the report.
fn grid(cluster: &Cluster, page: &mut Transcript<'_>) {
    page.say("## 1. parade: a grid of fits, and some are missing");
    page.stage("fits", &[("fit.sh", FIT_SH), ("fit.py", FIT_PY)]);
    page.say(
        "A model is fitted to eight sites, one job each, and five come back. What became of the others?",
    );
    page.show("bash", "fit.sh");
    page.show("python", "fit.py");
    let job = id(&page.run("sbatch fit.sh"));
    let run = format!("array-{job}");
    cluster.wait_end(job, SOON).unwrap();
    judged(page, &run, 8, 8);
    page.run("inquest why --last");
    page.say("The order of what happened, where the logs are, and what they say around a word:");
    page.run(&format!("inquest timeline '{job}_[3,5,7]' --around 0 -o OFFSET,EVENT,NODE,JOB,DETAIL"));
    page.run(&format!("inquest logs {run} -o JOB,LINES,PATH"));
    page.run(&format!("inquest grep -C 1 'gauge' {run}"));
    page.say(
        "*With parade* the same question is `wtf(handle)`, in the R session that submitted the grid and still holds \
         the handle; chunks that Slurm ended for memory have no row in it.",
    );
}

/// parade: patterns over runs, and the live view.
fn nights(cluster: &Cluster, page: &mut Transcript<'_>) {
    page.say("### Three nights of the same forecast");
    page.stage("forecast", &[("forecast.sh", FORECAST_SH)]);
    page.say(
        "The forecast runs every night, and every morning something else has failed. Each night gets a \
         name; the third is looked at while its last job still runs, and then: what stayed, came and went?",
    );
    page.show("bash", "forecast.sh");
    for night in 1..=2 {
        let job = id(&page.run(&format!("sbatch --inquest-run=night-{night} forecast.sh {night}")));
        cluster.wait_end(job, SOON).unwrap();
        judged(page, &format!("night-{night}"), 4, 4);
    }
    let job = id(&page.run("sbatch --inquest-run=night-3 forecast.sh 3"));
    judged(page, "night-3", 4, 3);
    page.run("inquest top night-3 --once");
    fs::write(page.dir().join("measured"), "").unwrap();
    cluster.wait_end(job, SOON).unwrap();
    judged(page, "night-3", 4, 4);
    page.run("inquest compare night-1 night-2 night-3");
    page.say(
        "*With parade* the live view needs the pipeline's handle for what Slurm knows, and `failure_patterns()` the \
         collected results of all three nights.",
    );
}

/// torc: what needs more memory gets it, and the rest is left alone.
fn recovery(cluster: &Cluster, page: &mut Transcript<'_>) {
    page.say("## 2. torc: run again what was too large, with more memory");
    page.stage("meshes", &[("mesh.sh", MESH_SH)]);
    page.say("Two of four meshes need more than the 48 MB they were given. These two again, with enough.");
    page.show("bash", "mesh.sh");
    let job = id(&page.run("sbatch mesh.sh"));
    let run = format!("array-{job}");
    cluster.wait_end(job, SOON).unwrap();
    judged(page, &run, 4, 4);
    page.run(&format!("inquest errors {run}"));
    let plan = page.run(&format!("inquest rerun {run} --class oom"));
    let command =
        plan.lines().find_map(|line| line.trim().strip_prefix("sbatch ")).expect("a command to run");
    page.say("The printed command is what to run:");
    let again = id(&page.run(&format!("sbatch {command}")));
    let records = cluster.wait_end(again, SOON).unwrap();
    assert_eq!(records.state, "COMPLETED");
    judged(page, &format!("array-{again}"), 2, 2);
    page.run(&format!("inquest run array-{again} -o JOB,STATE,DETAIL"));
    page.say(
        "*With torc* the jobs have to be described as a workflow and started by its own runner on a server, whose \
         sampler looks every ten seconds; then `torc recover` multiplies what was asked for.",
    );
}

/// Scalable: which scenarios failed for which reason, for a program to read; which to resume.
fn scenarios(page: &mut Transcript<'_>) {
    page.say("## 3. Scalable: what a program needs to know of each failure");
    page.stage("scenarios", &[("scenario.sh", SCENARIO_SH)]);
    page.say(
        "Five scenarios of one study, submitted one by one; three fail. A script of the user's shall decide which to \
         run again, and needs class, reason and certainty of each.",
    );
    page.show("bash", "scenario.sh");
    page.run(
        "for s in base cold dry hot wet; do sbatch --parsable --inquest-run=study -J $s scenario.sh; done",
    );
    judged(page, "study", 5, 5);
    page.run(
        "inquest errors study --json |\n    jq -c '.errors[] | {job_name, class, cause, confidence, message}' | sort",
    );
    page.say("And which are done, to go on from there:");
    page.run(
        "inquest why study --json |\n    jq -r '.jobs[] | select(.verdict.class == \"ok\") | .name' | sort",
    );
    page.say(
        "*With Scalable* `scalable diagnose` reads what its own client wrote while it lived. There, `kill -9` is a \
         lack of memory, and so is every message with \"rooms\" in it, because \"oom\" is.",
    );
}

/// Parsl: the exception below the one that is seen.
fn hidden(cluster: &Cluster, page: &mut Transcript<'_>) {
    page.say("## 4. Parsl: the exception behind the exception");
    page.stage(
        "rivers",
        &[
            ("pipeline.py", include_str!("../src/workflows/pipeline.py")),
            ("parsl.out", include_str!("../src/workflows/parsl.out")),
            ("pipeline.sh", "#!/bin/bash\n#SBATCH --job-name=rivers\ncat parsl.out\nexit 1\n"),
        ],
    );
    page.say(
        "A pipeline of Parsl ends with `DependencyError`, which says that something else failed. What was it, \
         and in which line of the user's own?",
    );
    page.show("python", "pipeline.py");
    page.say(
        "(Parsl itself is not part of this test: `pipeline.sh` prints, and ends like, what this pipeline wrote as a job \
         of Slurm, with Parsl 2026.10.26 and its HighThroughputExecutor.)",
    );
    let job = id(&page.run("sbatch pipeline.sh"));
    cluster.wait_end(job, SOON).unwrap();
    judged(page, &job.to_string(), 1, 1);
    page.run(&format!("tail -1 slurm-{job}.out"));
    page.run(&format!("inquest why {job}"));
    page.say(
        "*With Parsl* every `result()` is wrapped by a function that walks the chain of causes and logs it, in every \
         pipeline, before it fails for the first time.",
    );
}

/// The jobs of the fifth part; the first id.
fn before_the_plugin(cluster: &Cluster, page: &mut Transcript<'_>) -> u32 {
    page.stage("sweep", &[("sweep.sh", SWEEP_SH), ("sweep.py", SWEEP_PY), ("logs/.keep", "")]);
    let job = id(&page.ask("sbatch sweep.sh"));
    cluster.wait_end(job, SOON).unwrap();
    let deadline = Instant::now() + SOON;
    while page
        .ask(&format!("sacct -nXP -j {job} -o State"))
        .lines()
        .filter(|s| matches!(*s, "COMPLETED" | "FAILED" | "OUT_OF_MEMORY"))
        .count()
        < 6
    {
        assert!(Instant::now() < deadline, "slurmdbd does not know the ends of {job}");
        std::thread::sleep(Duration::from_millis(250));
    }
    job
}

/// Instead of a page of grep patterns: a directory of logs, a table of failures, a command.
fn logs_alone(page: &mut Transcript<'_>, job: u32) {
    page.say("## 5. A page of grep patterns: from a directory of logs to a table to a command");
    page.stage("sweep", &[]);
    page.say(
        "A sweep over six configurations ran before Inquest was installed, so there are only its logs and what Slurm \
         remembers. A job is done when it says `results saved`. Wanted are a table with the configuration of each \
         failure, and the failed ones run again.",
    );
    page.show("bash", "sweep.sh");
    page.run(
        "inquest scan logs --squeue --sacct --success 'results saved' \\\n    --csv failed.csv --config-template 'configs/config_%04d.json'",
    );
    page.run("head -2 failed.csv");
    page.run(&format!("inquest why {job}_5"));
    page.run("sbatch --array=2-3,5-6 sweep.sh");
    page.say(
        "*With such a page* an assistant or a patient person looks for one pattern after the other, and somebody keeps \
         it up to date: `429` finds the 429 files of the job that went well, and `OOM` does not find what Slurm writes.",
    );
}

const FIT_SH: &str = "#!/bin/bash
#SBATCH --job-name=fits --array=1-8 --mem=64M
exec python3 fit.py
";

const FIT_PY: &str = r#"import os, sys, time

site = int(os.environ["SLURM_ARRAY_TASK_ID"])
time.sleep(site / 2)
if site == 3:
    print("site 3: reading the gauge")
    gauge = {"level": 3.1}
    print(gauge["discharge"])
elif site in (5, 7):
    samples = [bytearray(4 << 20) for _ in range(100)]
print("site", site, "fitted")
"#;

const FORECAST_SH: &str = "#!/bin/bash
#SBATCH --job-name=forecast --array=1-4
sleep $((SLURM_ARRAY_TASK_ID % 4))
case night-$1-region-$SLURM_ARRAY_TASK_ID in
  *-region-1)       echo 'error: region 1 has no boundary file' >&2; exit 2 ;;
  night-1-region-2) echo 'error: wind field is older than a day' >&2; exit 3 ;;
  night-[13]-region-3) python3 -c 'raise ValueError(\"negative snow depth\")'; exit ;;
  night-3-region-4) while [ ! -e measured ]; do sleep 0.1; done; kill -SEGV $$ ;;
esac
";

const MESH_SH: &str = "#!/bin/bash
#SBATCH --job-name=meshes --array=0-3 --mem=48M
cells=(5 50 5 50)
exec python3 -c \"grid = b'x' * (${cells[SLURM_ARRAY_TASK_ID]} << 20); print('meshed')\"
";

const SCENARIO_SH: &str = "#!/bin/bash
case $SLURM_JOB_NAME in
  dry) python3 -c 'import hydrology_of_the_department' ;;
  hot) kill -9 $$ ;;
  wet) python3 -c 'raise RuntimeError(\"rooms below sea level\")' ;;
esac
";

const SWEEP_SH: &str = "#!/bin/bash
#SBATCH --job-name=sweep --array=1-6 --mem=64M
#SBATCH --output=logs/sweep_%A_%a.out --error=logs/sweep_%A_%a.err
exec python3 sweep.py configs/config_$(printf %04d $SLURM_ARRAY_TASK_ID).json
";

const SWEEP_PY: &str = r#"import json, os

index = int(os.environ["SLURM_ARRAY_TASK_ID"])
print("configuration", index, "reads 429 files")
if index == 2:
    raise ConnectionError("HTTP 429 Too Many Requests: rate limit reached")
if index == 3:
    answers = [bytearray(4 << 20) for _ in range(100)]
if index == 5:
    json.loads('{"answer": ')
if index != 6:
    print("results saved")
"#;
