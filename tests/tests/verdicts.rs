//! The whole line on a real cluster: jobs that really fail, the plugin that
//! records them, a collector that follows, and the verdict of each.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use inquest_tests::artefacts;
use inquest_tests::catalogue::{CATALOGUE, Entry, How, Submitted};
use inquest_tests::children::Ends;
use inquest_tests::cluster::{Cluster, Config, USERS};
use serde_json::Value;

const TIMEOUT: Duration = Duration::from_secs(120);

/// The members of a job's run, by array index or 0, once all have a verdict.
fn verdicts(cluster: &Cluster, job: &Submitted) -> BTreeMap<u32, Value> {
    let deadline = Instant::now() + TIMEOUT;
    let wanted = job.entry.array.map_or(1, |(n, _)| n as usize);
    loop {
        let why = cluster.inquest_json(&["why", "--json", &job.job.to_string()]);
        let jobs = why["jobs"].as_array().cloned().unwrap_or_default();
        if jobs.len() == wanted && jobs.iter().all(|j| j["verdict"].is_object()) {
            let index =
                |j: &Value| j["id"].as_str().unwrap().split_once('_').map_or(0, |(_, n)| n.parse().unwrap());
            return jobs.into_iter().map(|j| (index(&j), j)).collect();
        }
        assert!(Instant::now() < deadline, "{}: no verdict after {TIMEOUT:?}: {why:?}", job.entry.name);
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn check(entry: &Entry, index: u32, job: &Value) -> Result<(), String> {
    let fails = entry.array.is_none_or(|(_, failing)| failing.contains(&index));
    let want = if fails { (entry.verdict.class, entry.verdict.cause) } else { ("ok", "ok") };
    let verdict = &job["verdict"];
    let got = (verdict["class"].as_str().unwrap_or("?"), verdict["cause"].as_str().unwrap_or("?"));
    if got != want {
        return Err(format!("{} [{index}]: {got:?}, not {want:?}: {verdict:#}", entry.name));
    }
    if verdict["evidence"].as_array().is_none_or(Vec::is_empty) && got.0 != "timeout" {
        return Err(format!("{}: a verdict without evidence", entry.name));
    }
    Ok(())
}

#[test]
fn every_verdict_is_right() {
    every_verdict_is_right_with(Config::default());
}

#[test]
fn every_verdict_is_right_with_slurm_24_11() {
    every_verdict_is_right_with(Config { root: Some(artefacts::slurm("trixie")), ..Config::default() });
}

#[test]
fn every_verdict_is_right_with_the_newest_slurm_of_debian() {
    every_verdict_is_right_with(Config { root: Some(artefacts::slurm("sid")), ..Config::default() });
}

fn every_verdict_is_right_with(config: Config) {
    let cluster = Cluster::start(config).unwrap();
    cluster.record("").unwrap();
    let collector = Ends(cluster.collect(&[]).spawn().unwrap());

    let fast: Vec<&'static Entry> = CATALOGUE.iter().filter(|e| !e.slow).collect();
    let (direct, batch): (Vec<&Entry>, Vec<&Entry>) =
        fast.into_iter().partition(|e| matches!(e.how, How::Srun(_)));
    let mut jobs: Vec<Submitted> = batch.into_iter().map(|e| e.submit(&cluster, USERS[0]).unwrap()).collect();
    jobs.extend(direct.into_iter().map(|e| e.submit(&cluster, USERS[0]).unwrap()));
    for job in &jobs {
        job.act(&cluster).unwrap();
    }

    let mut wrong = Vec::new();
    let mut by_name = BTreeMap::new();
    for job in &mut jobs {
        let members = verdicts(&cluster, job);
        wrong.extend(members.iter().filter_map(|(index, m)| check(job.entry, *index, m).err()));
        by_name.insert(job.entry.name, members.into_values().collect::<Vec<_>>());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    // What only we can say.
    let late = &by_name["late-oom"][0]["verdict"];
    assert_eq!(late["slurm"]["state"], "COMPLETED", "Slurm knows nothing of it");
    let death = &late["first_failure"];
    assert_eq!(
        (&death["step"], &death["task"], &death["reported_by_slurm"]),
        (&"0".into(), &1.into(), &false.into())
    );
    for name in ["task-oom", "child-oom", "late-oom"] {
        let death = &by_name[name][0]["verdict"]["first_failure"];
        let limit = death["limit_bytes"].as_u64().unwrap();
        let peak = death["peak_bytes"].as_u64().unwrap();
        assert_eq!(limit, 64 << 20, "{name}");
        assert!(peak <= limit && peak > limit / 10 * 9, "{name}: peak {peak}");
        assert!(death["victims"][0]["command"].as_str().unwrap().starts_with("python3"), "{name}: {death}");
    }
    let ranks = &by_name["ranks"][0]["verdict"];
    assert_eq!(
        (&ranks["first_failure"]["task"], &ranks["first_failure"]["exit_code"]),
        (&1.into(), &5.into())
    );
    assert_eq!(ranks["first_failure"]["at"]["node"], cluster.nodes()[1].as_str());
    assert!(!ranks["consequences"].as_array().unwrap().is_empty());

    // One run for the array, and no run is left open.
    let runs = cluster.inquest_json(&["runs", "--json"]);
    let runs = runs["runs"].as_array().unwrap();
    assert_eq!(runs.len(), jobs.len());
    assert!(runs.iter().all(|r| r["status"] != "running"), "{runs:#?}");
    let array = runs.iter().find(|r| r["name"] == "array").unwrap();
    assert_eq!((&array["n_chunks"], &array["n_failed"]), (&6.into(), &2.into()));
    drop(collector);
    cluster.stop().unwrap();
}
