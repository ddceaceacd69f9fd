//! What jobs say by appending lines to the file of `INQUEST_NOTE`, on a real cluster: in any language, each
//! once however often the agent is killed, and whatever a user puts there instead.

use std::time::Duration;

use inquest_tests::agent::Agent;
use inquest_tests::cluster::{Cluster, Config, USERS};
use serde_json::Value;

const WAIT: Duration = Duration::from_secs(60);

fn notes(events: &[Value], job: u32) -> Vec<(String, String)> {
    let of_job =
        events.iter().filter(|e| e["event_type"] == "note" && e["job_id"] == job.to_string().as_str());
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    of_job
        .inspect(|e| assert_eq!(e["source"], "user"))
        .map(|e| (word(&e["step"]), word(&e["text"])))
        .collect()
}

#[test]
fn jobs_append_lines_and_nothing_else_counts() {
    let cluster = Cluster::start(Config { nodes: 1, ..Config::default() }).unwrap();
    let dir = cluster.work_dir().join("notes");
    cluster.record(&format!("note={} optout=yes", dir.display())).unwrap();
    let node = cluster.nodes()[0].clone();
    let mut agent = Agent::start(&cluster, &node).unwrap();

    let said = r#"#!/bin/bash
set -e
echo '{"kind":"stage","text":"from bash"}' >> "$INQUEST_NOTE"
python3 -c 'import json, os
with open(os.environ["INQUEST_NOTE"], "a") as notes:
    print(json.dumps({"percent": 40, "text": "from python"}), file=notes)'
echo plain words >> "$INQUEST_NOTE"
srun -n1 sh -c 'echo in a step >> "$INQUEST_NOTE"'
printf 'bell\a and \000 zero\n' >> "$INQUEST_NOTE"
{ head -c 100000 /dev/zero | tr '\0' x; echo; } >> "$INQUEST_NOTE"
for n in $(seq 30); do echo "line $n" >> "$INQUEST_NOTE"; sleep 0.1; done
stat -c '%a %U' "$(dirname "$INQUEST_NOTE")"
printf 'no end of line' >> "$INQUEST_NOTE"
"#;
    let job = cluster.sbatch(USERS[0], &["-n1", "-N1"], said).unwrap();
    for seen in [5, 15, 25] {
        let line = format!("line {seen}");
        cluster.wait_events(WAIT, |events| notes(events, job).iter().any(|n| n.1 == line)).unwrap();
        agent.kill_and_restart(&cluster).unwrap();
    }
    cluster.wait_end(job, WAIT).unwrap();
    let all = cluster
        .wait_events(WAIT, |events| notes(events, job).iter().any(|n| n.1 == "no end of line"))
        .unwrap();
    let lines = (1..=30).map(|n| format!("line {n}"));
    let mut wanted: Vec<(String, String)> =
        ["from bash", "from python", "plain words", "bell\u{7} and \u{0} zero"]
            .map(str::to_owned)
            .into_iter()
            .chain(lines)
            .chain(["no end of line".to_owned()])
            .map(|text| ("batch".to_owned(), text))
            .collect();
    wanted.push(("0".into(), "in a step".into()));
    let mut found = notes(&all, job);
    // Of the line that was far too long, what comes last may stand as one of its own.
    found.retain(|n| !n.1.starts_with("xxxx"));
    wanted.sort();
    found.sort();
    assert_eq!(found, wanted);
    assert_eq!(cluster.stdout(job).unwrap().trim(), format!("700 {}", USERS[0]));
    let progress = all.iter().find(|e| e["text"] == "from python").unwrap();
    assert_eq!((&progress["kind"], &progress["percent"]), (&"progress".into(), &40.0.into()));

    // Who says no to recording has no file that nobody would read: in the script and in its steps, or in a step.
    let place = "echo ${INQUEST_NOTE+set}.\n";
    let off = format!("#!/bin/sh\n{place}srun -n1 sh -c '{}'\n", place.trim());
    let off = cluster.sbatch(USERS[0], &["-n1", "-N1", "--inquest=off"], &off).unwrap();
    let step = format!("#!/bin/sh\n{place}srun --inquest=off -n1 sh -c '{}'\n", place.trim());
    let step = cluster.sbatch(USERS[0], &["-n1", "-N1"], &step).unwrap();
    for (job, said) in [(off, ".\n.\n"), (step, "set.\n.\n")] {
        cluster.wait_end(job, WAIT).unwrap();
        assert_eq!(cluster.stdout(job).unwrap(), said, "{job}");
    }

    // Somebody else puts there what is no file of notes, and claims to be another job.
    let hostile = format!(
        r#"#!/bin/bash
mine=$(dirname "$INQUEST_NOTE")
ln -s /etc/shadow "$INQUEST_NOTE"; sleep 0.3; rm "$INQUEST_NOTE"
mkfifo "$INQUEST_NOTE"; sleep 0.3; rm "$INQUEST_NOTE"
mkdir "$INQUEST_NOTE"; sleep 0.3; rmdir "$INQUEST_NOTE"
echo hard > "$mine/other"; ln "$mine/other" "$INQUEST_NOTE"; sleep 0.3; rm "$INQUEST_NOTE"
truncate -s 1T "$INQUEST_NOTE"; sleep 0.3; rm "$INQUEST_NOTE"
echo forged >> "$mine/{job}.batch.1"
{{ echo forged >> "$mine/../$(id -u {victim})/forged" && echo written >&3; }} 3>&1 2>/dev/null
{{ ls "$mine/../$(id -u {victim})" && echo seen; }} 2>/dev/null
seq 300 | sed 's/^/flood /' >> "$INQUEST_NOTE"; sleep 0.5
echo 'still here' > "$INQUEST_NOTE"; sleep 0.5
"#,
        victim = USERS[0],
    );
    let other = cluster.sbatch(USERS[1], &["-n1", "-N1"], &hostile).unwrap();
    cluster.wait_end(other, WAIT).unwrap();
    let all = cluster
        .wait_events(WAIT, |events| {
            let ended = |e: &Value| {
                e["event_type"] == "step_ended"
                    && e["step"] == "batch"
                    && e["job_id"] == other.to_string().as_str()
            };
            events.iter().any(ended) && events.iter().any(|e| e["event_type"] == "lost")
        })
        .unwrap();
    assert!(agent.is_running());
    assert_eq!(cluster.stdout(other).unwrap(), "", "what it tried failed");
    let found = notes(&all, other);
    let floods = found.iter().filter(|n| n.1.starts_with("flood ")).count();
    assert!((100..=130).contains(&floods), "{floods} of a flood of 300 passed");
    assert!(found.iter().all(|n| n.1.starts_with("flood ") || n.1 == "still here"), "{found:?}");
    assert_eq!(notes(&all, job).iter().filter(|n| n.1 == "forged").count(), 0);
    cluster.stop().unwrap();
}
