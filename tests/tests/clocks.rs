//! A node whose clock is wrong: the journals of a real job on two nodes, of which one is written
//! again as its node would have written it with a clock that is 3.2 s ahead.

use std::fs;
use std::time::Duration;

use inquest_journal::Timestamp;
use inquest_tests::cluster::{Cluster, Config, USERS};
use serde_json::Value;

const TIMEOUT: Duration = Duration::from_secs(60);
const AHEAD_US: i64 = 3_200_000;

fn text(cluster: &Cluster, arguments: &[&str]) -> String {
    String::from_utf8(cluster.inquest(None, arguments).output().unwrap().stdout).unwrap()
}

/// Sets the clock of a node ahead in all that it wrote.
fn shift(cluster: &Cluster, node: &str) {
    const KEY: &str = "\"timestamp\":\"";
    for file in fs::read_dir(cluster.journal_dir().join(node)).unwrap() {
        let path = file.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let shifted = text.lines().map(|line| {
            let from = line.find(KEY).unwrap() + KEY.len();
            let to = from + line[from..].find('"').unwrap();
            let at: Timestamp = serde_json::from_str(&format!("\"{}\"", &line[from..to])).unwrap();
            let at = serde_json::to_string(&Timestamp(at.0 + AHEAD_US)).unwrap();
            format!("{}{}{}\n", &line[..from], at.trim_matches('"'), &line[to..])
        });
        let shifted: String = shifted.collect();
        fs::write(&path, shifted).unwrap();
    }
}

#[test]
fn the_first_failure_is_found_in_spite_of_a_wrong_clock() {
    let cluster = Cluster::start(Config::default()).unwrap();
    cluster.record("").unwrap();
    // The task on the second node fails first, the other one two seconds later.
    let tasks = "if [ $SLURM_PROCID = 1 ]; then sleep 1; exit 6; else sleep 3; exit 5; fi";
    let script = format!("#!/bin/bash\nsrun --wait=0 sh -c '{tasks}'\n");
    let job = cluster.sbatch(USERS[0], &["-N2", "-n2"], &script).unwrap();
    cluster.wait_end(job, TIMEOUT).unwrap();
    let ended = |e: &&Value| e["event_type"] == "step_ended";
    // Of two extern steps, the script's and two of srun's.
    cluster.wait_events(TIMEOUT, |events| events.iter().filter(ended).count() == 5).unwrap();
    let exit = |e: &Value| {
        e["event_type"] == "task_exited" && e["exit_code"] == 6 && e["step"].to_string().contains('0')
    };
    let second = cluster.events().into_iter().find(exit).unwrap()["node"].as_str().unwrap().to_owned();
    let first = cluster.nodes().into_iter().find(|n| *n != second).unwrap();
    shift(&cluster, &second);

    let collect = |arguments: &[&str]| {
        assert!(cluster.collect(&["--once"]).args(arguments).status().unwrap().success());
    };
    collect(&[]);
    let id = job.to_string();
    let why = cluster.inquest_json(&["why", "--json", &id]);
    let verdict = &why["jobs"][0]["verdict"];
    assert_eq!(verdict["first_failure"]["exit_code"], 6, "{verdict:#}");
    assert_eq!(verdict["first_failure"]["at"]["node"], second.as_str());
    let skew = &verdict["clocks"][0];
    let (ahead, give) = (skew["ahead_us"].as_i64().unwrap(), skew["give_us"].as_i64().unwrap());
    let truly = if skew["node"] == second.as_str() { AHEAD_US } else { -AHEAD_US };
    assert!((ahead - truly).abs() <= give, "{skew:#}");
    // Its offset is that of the true time: after the sleep of one second, before the other's end.
    let offset = |d: &Value| d["offset_us"].as_i64().unwrap();
    let other =
        verdict["consequences"].as_array().unwrap().iter().find(|d| d["at"]["node"] == first.as_str());
    assert!(offset(&verdict["first_failure"]) < offset(other.unwrap()), "{verdict:#}");

    let why = text(&cluster, &["why", &id]);
    assert!(why.contains("Clocks") && why.contains("clock is about 3."), "{why}");
    let timeline = text(&cluster, &["timeline", &id]);
    assert!(timeline.contains("Clock: ") && timeline.contains("put right"), "{timeline}");
    let line = |code: &str| timeline.lines().position(|l| l.contains("DIED") && l.contains(code)).unwrap();
    assert!(line("exit code 6") < line("exit code 5"), "{timeline}");
    cluster.stop().unwrap();
}
