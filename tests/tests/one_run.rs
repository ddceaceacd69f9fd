//! One run of 48 members that end in every way that can be produced for real: each verdict, the line
//! that each log is quoted with, and the commands that run them again, executed as they are printed.

use std::time::{Duration, Instant};

use inquest_tests::catalogue::{Action, Submitted};
use inquest_tests::children::Ends;
use inquest_tests::classes;
use inquest_tests::cluster::{Cluster, USERS};
use serde_json::Value;

const TIMEOUT: Duration = Duration::from_secs(150);
const RUN: &str = "everything";
const MEMBERS: usize = 48;

fn text(cluster: &Cluster, arguments: &[&str]) -> String {
    let output = cluster.inquest(None, arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn forty_eight_members_of_one_run() {
    let cluster = Cluster::start(classes::config()).unwrap();
    cluster.record("").unwrap();
    let stage = classes::stage(&cluster).unwrap();
    let collector = Ends(cluster.collect(&[]).spawn().unwrap());

    let jobs = submit_all(&cluster);
    let why = judged(&cluster, &jobs);

    let mut wrong = Vec::new();
    let errors = cluster.inquest_json(&["errors", RUN, "--json"]);
    for job in &jobs {
        wrong.extend(wrong_about(job, &why, &errors).into_iter().map(|w| format!("{}: {w}", job.entry.name)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    run_again(&cluster, &jobs);
    drop(collector);
    drop(stage);
    cluster.stop().unwrap();
}

/// Submits every entry, the slow ones first, and does to each what the entry says.
fn submit_all(cluster: &Cluster) -> Vec<Submitted> {
    let mut entries: Vec<_> = classes::entries().collect();
    entries.sort_by_key(|entry| !entry.slow);
    let submit = |entry: &'static inquest_tests::catalogue::Entry| {
        let mut more = vec![format!("--inquest-run={RUN}")];
        if entry.action == Action::NodeDown {
            more.push(format!("--nodelist={}", cluster.nodes()[3]));
        }
        let job = entry.submit_with(cluster, USERS[0], &more).unwrap();
        job.act(cluster).unwrap();
        job
    };
    let jobs: Vec<Submitted> = entries.into_iter().map(submit).collect();
    // Slurm keeps a requeued job for two minutes before it may start.
    for job in jobs.iter().filter(|job| job.entry.action == Action::Requeue) {
        cluster.wait_state(job.job, "PENDING", TIMEOUT).unwrap();
        cluster.scontrol(&["update", &format!("JobId={}", job.job), "StartTime=now"]).unwrap();
    }
    jobs
}

/// The report of the run, once every member has its verdict.
fn judged(cluster: &Cluster, jobs: &[Submitted]) -> Value {
    assert_eq!(jobs.iter().map(|job| job.entry.jobs()).sum::<usize>(), MEMBERS);
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let why = cluster.inquest_json(&["why", RUN, "--json"]);
        let members = why["jobs"].as_array().cloned().unwrap_or_default();
        let open: Vec<&Value> =
            members.iter().filter(|m| !m["verdict"].is_object()).map(|m| &m["id"]).collect();
        if members.len() == MEMBERS && open.is_empty() {
            return why;
        }
        assert!(
            Instant::now() < deadline,
            "{} members after {TIMEOUT:?}, no verdict on {open:?}: {:?}",
            members.len(),
            cluster.jobs()
        );
        std::thread::sleep(Duration::from_millis(250));
    }
}

/// What is said of one entry's jobs and is not so.
fn wrong_about(job: &Submitted, why: &Value, errors: &Value) -> Vec<String> {
    let id = job.job.to_string();
    let of = |value: &Value, key: &str| {
        let said = value[key].as_str().unwrap_or_default();
        said == id || said.strip_prefix(&id).is_some_and(|rest| rest.starts_with('_'))
    };
    let mine = |list: &Value, key: &str| -> Vec<Value> {
        list.as_array().into_iter().flatten().filter(|value| of(value, key)).cloned().collect()
    };
    let members = mine(&why["jobs"], "id");
    let mut wrong = job.entry.misjudged(&serde_json::json!({ "jobs": members }));
    for member in &members {
        let verdict = &member["verdict"];
        let silent = verdict["evidence"].as_array().is_none_or(Vec::is_empty);
        // Slurm alone knows of a limit that was dealt with and of a node that went.
        if silent && !verdict["slurm"].is_object() {
            wrong.push(format!("a verdict without evidence: {verdict}"));
        }
    }
    if let Some((cause, quote)) = job.entry.log {
        for error in mine(&errors["errors"], "job") {
            let (said, message) =
                (error["cause"].as_str().unwrap_or(""), error["message"].as_str().unwrap_or(""));
            // An own error of the program has no other name in the log.
            let named = said == cause || cause == "app_error" || job.entry.verdict.class == "crash";
            if !named || !message.contains(quote) {
                wrong.push(format!("its log says {cause}, {quote:?}, and not {said}, {message:?}"));
            }
        }
    }
    wrong
}

/// Runs again what the printed commands are said to mend, and looks that they do.
fn run_again(cluster: &Cluster, jobs: &[Submitted]) {
    let whole = text(cluster, &["rerun", RUN]);
    let mut again = Vec::new();
    for job in jobs.iter().filter(|job| job.entry.mended) {
        let printed = text(cluster, &["rerun", &job.job.to_string()]);
        let commands: Vec<&str> = printed.lines().filter(|line| line.starts_with("  sbatch ")).collect();
        assert_eq!(commands.len(), 1, "{}: {printed}", job.entry.name);
        assert!(whole.contains(commands[0]), "{}: not in {whole}", commands[0]);
        let output = cluster.command(Some(USERS[0]), "bash").args(["-c", commands[0]]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let number = said.trim().rsplit(' ').next().and_then(|id| id.parse().ok());
        let id: u32 = number.unwrap_or_else(|| panic!("{}: {output:?}", commands[0]));
        again.push((job, commands[0].to_owned(), id));
    }
    for (job, command, id) in again {
        cluster.wait_end(id, TIMEOUT).unwrap();
        let members = cluster.members(id).unwrap();
        let wanted = job.entry.array.map_or(1, |(_, failing)| failing.len());
        let well = members.iter().all(|member| member.state == "COMPLETED" && member.exit_code == "0:0");
        assert!(well && members.len() == wanted, "{}: {command}: {members:?}", job.entry.name);
    }
}
