//! Every row of `packaging/doc/recorded.md`: real jobs on a private cluster with plugin and agent, and
//! the event that each must leave. The file is what this test has seen; `INQUEST_UPDATE=1` writes it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use inquest_tests::agent::Agent;
use inquest_tests::catalogue::{Action, CATALOGUE, Entry, MORE, Submitted};
use inquest_tests::children::collect_once;
use inquest_tests::cluster::{Cluster, Config, Process, USERS};
use inquest_tests::evidence::{ROWS, Row, command, shown, table};
use inquest_tests::stores::{files, gaps, identities};
use rustix::process::Signal;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/doc/recorded.md");

/// What was done where a job alone does not show it, and what it left.
struct Scene {
    command: String,
    events: Vec<Value>,
}

fn scene(command: &str, events: Vec<Value>) -> Scene {
    Scene { command: command.to_owned(), events }
}

fn wait_for<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(found) = ready() {
            return found;
        }
        assert!(Instant::now() < deadline, "not after {SOON:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The events of jobs of these ids, and what belongs to no job.
fn of_jobs(events: &[Value], jobs: &[u32]) -> Vec<Value> {
    let ids: Vec<String> = jobs.iter().map(u32::to_string).collect();
    let ours = |e: &&Value| e["job_id"].as_str().is_some_and(|id| ids.iter().any(|job| job == id));
    events.iter().filter(ours).cloned().collect()
}

fn has(events: &[Value], job: u32, step: &str, event_type: &str) -> bool {
    let id = job.to_string();
    events.iter().any(|e| e["job_id"] == id.as_str() && e["step"] == step && e["event_type"] == event_type)
}

/// A step that ends while the disk of its journal is full; then there is room again.
fn full_disk(cluster: &Cluster) -> Scene {
    let small = cluster.dir().join("small");
    fs::create_dir(&small).unwrap();
    let mount = ["-t", "tmpfs", "-o", "size=64k,mode=0755", "inquest-test"];
    assert!(Command::new("mount").args(mount).arg(&small).status().unwrap().success());
    let plugstack = cluster.dir().join("etc/plugstack.conf");
    let usual = fs::read_to_string(&plugstack).unwrap();
    let journal = cluster.journal_dir().display().to_string();
    fs::write(
        &plugstack,
        usual.replace(&format!("journal={journal}"), &format!("journal={}", small.display())),
    )
    .unwrap();

    let script = "#!/bin/bash\ntouch began; while [ ! -e go ]; do sleep 0.05; done\nsrun -n2 true\ntouch ended; while [ ! -e end ]; do sleep 0.05; done\n";
    let job = cluster.sbatch(USERS[0], &["-n2"], script).unwrap();
    let at = |name: &str| cluster.work_dir().join(name);
    wait_for("the job runs", || at("began").exists().then_some(()));
    fs::write(small.join("ballast"), vec![0; 1 << 17]).unwrap_err();
    // The batch step's slurmstepd tries to tell of this one, the step's own of everything.
    fs::write(at("go"), "").unwrap();
    wait_for("the step has ended", || at("ended").exists().then_some(()));
    // What a step could not say at all is unknown; one that goes on tells.
    let running =
        cluster.sbatch(USERS[0], &["-n1"], "#!/bin/bash\nwhile [ ! -e end ]; do sleep 0.05; done\n").unwrap();
    wait_for("the next one runs", || {
        (!cluster.cgroup_pids(running, "step_batch/task_0").is_empty()).then_some(())
    });
    fs::remove_file(small.join("ballast")).unwrap();
    fs::write(at("end"), "").unwrap();
    for job in [job, running] {
        assert_eq!(cluster.wait_end(job, SOON).unwrap().state, "COMPLETED");
    }
    fs::write(&plugstack, usual).unwrap();
    let events = wait_for("its end is recorded", || {
        let events = Cluster::events_of(&small);
        has(&events, running, "batch", "job_ended").then_some(events)
    });
    assert_eq!(gaps(&events), [""; 0]);
    assert!(Command::new("umount").arg("-l").arg(&small).status().unwrap().success());
    scene(
        "A batch job that starts while the disk of its journal is full, which has room again before it ends",
        of_jobs(&events, &[running]),
    )
}

/// The directory of the task of a running job's extern step, and the job's user.
fn extern_step(cluster: &Cluster, job: u32) -> (PathBuf, u32) {
    let node = wait_for("it runs", || {
        let record = cluster.job(job).unwrap();
        (record.state == "RUNNING").then_some(record.node_list)
    });
    let extern_step = wait_for("its extern step", || {
        let tree = Path::new("/sys/fs/cgroup/memory").join(format!("slurm_{node}"));
        let users = fs::read_dir(tree).ok()?.flatten();
        let steps = users.map(|user| user.path().join(format!("job_{job}/step_extern")));
        steps.map(|step| step.join("task_0")).find(|task| task.is_dir())
    });
    wait_for("the journal knows of it", || {
        has(&cluster.events(), job, "extern", "step_started").then_some(())
    });
    (extern_step, user_id(USERS[0]))
}

/// A process of the user's that root puts into the extern step, as pam_slurm_adopt does
/// with a session of ssh.
fn adopted(cluster: &Cluster) -> (u32, String) {
    let job = cluster.sbatch(USERS[0], &["-n1", "-N1"], "#!/bin/sh\nsleep 600\n").unwrap();
    let (extern_step, uid) = extern_step(cluster, job);
    let mut session = Command::new("/bin/bash");
    session.args(["-c", "read -r go; bash -c 'kill -SEGV $$'; sleep 0.5; true"]).uid(uid).gid(uid);
    let mut session =
        session.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    fs::write(extern_step.join("cgroup.procs"), session.id().to_string()).unwrap();
    session.stdin.take().unwrap().write_all(b"go\n").unwrap();
    session.wait().unwrap();
    wait_for("its death is recorded", || has(&cluster.events(), job, "extern", "process_died").then_some(()));
    cluster.scancel(&[&job.to_string()]).unwrap();
    (
        job,
        "A process of the job's user that root puts into the cgroup of the extern step, as pam_slurm_adopt \
           does with sessions of ssh: `bash -c 'kill -SEGV $$'`"
            .to_owned(),
    )
}

fn user_id(name: &str) -> u32 {
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let line = passwd.lines().find(|l| l.split(':').next() == Some(name)).unwrap();
    line.split(':').nth(2).unwrap().parse().unwrap()
}

/// Such a process that needs more memory than the job has.
fn adopted_and_killed(cluster: &Cluster) -> (u32, String) {
    let job = cluster.sbatch(USERS[0], &["-n1", "-N1", "--mem=64M"], "#!/bin/sh\nsleep 600\n").unwrap();
    let (extern_step, uid) = extern_step(cluster, job);
    let mut session = Command::new("/bin/bash");
    session.args([
        "-c",
        "read -r go; /usr/bin/python3 -c 'eaten = [bytearray(4 << 20) for _ in range(128)]'; true",
    ]);
    let session = session.uid(uid).gid(uid).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut session = session.spawn().unwrap();
    fs::write(extern_step.join("cgroup.procs"), session.id().to_string()).unwrap();
    session.stdin.take().unwrap().write_all(b"go\n").unwrap();
    session.wait().unwrap();
    wait_for("its kill is recorded", || has(&cluster.events(), job, "extern", "oom_kill").then_some(()));
    cluster.scancel(&[&job.to_string()]).unwrap();
    (
        job,
        "A process that root puts into the cgroup of the extern step of a job with `--mem=64M`: \
           `python3 -c 'eaten = [bytearray(4 << 20) for _ in range(128)]'`"
            .to_owned(),
    )
}

/// A line appended to the file of INQUEST_NOTE.
fn noted(cluster: &Cluster) -> (u32, String) {
    let line = r#"echo '{"kind":"progress","text":"half way","percent":50}' >>"$INQUEST_NOTE""#;
    let job = cluster.sbatch(USERS[0], &["-n1"], &format!("#!/bin/sh\n{line}\nsleep 1\n")).unwrap();
    cluster.wait_end(job, SOON).unwrap();
    (job, format!("`sbatch: {line}`"))
}

/// SIGKILL to the slurmstepd of a step, found by what the journal says.
fn vanished(cluster: &Cluster) -> (u32, String) {
    let job = cluster.sbatch(USERS[0], &["-n1"], "#!/bin/sh\nsrun -n1 sleep 600\n").unwrap();
    let id = job.to_string();
    let started = wait_for("its step runs", || {
        let mut events = cluster.events().into_iter();
        let started =
            |e: &Value| e["job_id"] == id.as_str() && e["step"] == "0" && e["event_type"] == "step_started";
        events.find(started).filter(|_| !cluster.cgroup_pids(job, "step_0/task_0").is_empty())
    });
    let orphans = cluster.cgroup_pids(job, "step_0/task_0");
    Process::of(started["stepd_pid"].as_i64().unwrap() as i32).unwrap().signal(Signal::KILL);
    orphans.into_iter().filter_map(Process::of).for_each(|p| p.signal(Signal::KILL));
    cluster.scancel(&[&id]).unwrap();
    (job, "`sbatch: srun -n1 sleep 600`, and `kill -9` of its slurmstepd".to_owned())
}

/// All jobs of a node together have no more memory than this, and none of them is at its own limit.
fn node_limit(cluster: &Cluster, node: &str) -> (u32, String) {
    let tree = Path::new("/sys/fs/cgroup/memory").join(format!("slurm_{node}"));
    fs::write(tree.join("memory.limit_in_bytes"), "100M").unwrap();
    let script = "#!/bin/sh\n/usr/bin/python3 -c 'eaten = [bytearray(4 << 20) for _ in range(128)]'\nsleep 1\nexit 0\n";
    let nodelist = format!("--nodelist={node}");
    let job = cluster.sbatch(USERS[0], &["-n1", "--mem=2000M", &nodelist], script).unwrap();
    cluster.wait_end(job, SOON).unwrap();
    fs::write(tree.join("memory.limit_in_bytes"), "-1").unwrap();
    (job, "`sbatch --mem=2000M: python3 -c 'eaten = [bytearray(4 << 20) for _ in range(128)]'`, under a limit of \
           100 MiB for all jobs of the node".to_owned())
}

#[test]
fn every_row_of_the_table_is_recorded() {
    let cluster = Cluster::start(Config::default()).unwrap();
    cluster.record(&format!("note={}/notes", cluster.work_dir().display())).unwrap();
    let nodes = cluster.nodes();
    let mut agents: Vec<Agent> = nodes.iter().map(|node| Agent::start(&cluster, node).unwrap()).collect();

    let wanted: BTreeSet<&str> = ROWS.iter().map(|row| row.job).collect();
    let entries: Vec<&'static Entry> =
        CATALOGUE.iter().chain(MORE).filter(|e| wanted.contains(e.name)).collect();
    // What waits for Slurm's clocks comes first.
    let (slow, fast): (Vec<&Entry>, Vec<&Entry>) = entries.into_iter().partition(|e| e.slow);
    let mut scenes = BTreeMap::new();
    let submit = |entry: &&'static Entry| entry.submit(&cluster, USERS[0]).unwrap();
    let mut jobs: Vec<Submitted> = slow.iter().map(submit).collect();
    let requeued = jobs.iter().find(|job| job.entry.action == Action::Requeue);
    requeued.unwrap().act(&cluster).unwrap();
    // Before their journal is another one.
    for job in &jobs {
        wait_for("every one of them runs", || {
            has(&cluster.events(), job.job, "batch", "task_started").then_some(())
        });
    }
    scenes.insert("full-disk", full_disk(&cluster));
    for entry in &fast {
        jobs.push(submit(entry));
        jobs.last().unwrap().act(&cluster).unwrap();
    }
    let mut more = BTreeMap::from([
        ("adopted", adopted(&cluster)),
        ("adopted-oom", adopted_and_killed(&cluster)),
        ("vanished", vanished(&cluster)),
        ("noted", noted(&cluster)),
    ]);

    let mut wrong = Vec::new();
    let mut members = BTreeMap::new();
    let deadline = Instant::now() + SOON * 4;
    while members.len() < jobs.len() {
        let records = cluster.jobs().unwrap();
        for job in &mut jobs {
            if !members.contains_key(job.entry.name)
                && let Some(ended) = job.ended(&records)
            {
                wrong.extend(job.deviations(&ended).into_iter().map(|d| format!("{}: {d}", job.entry.name)));
                // The second component of a het job bears the next id.
                let ids = ended.iter().map(|r| r.job).chain((job.entry.name == "het").then_some(job.job + 1));
                members.insert(job.entry.name, ids.collect::<Vec<u32>>());
            }
        }
        assert!(Instant::now() < deadline, "have not ended: {records:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
    more.insert("node-limit", node_limit(&cluster, &nodes[1]));

    // An agent remembers another boot than this one. One of its own, because it takes every
    // kill in the kernel's log for one of the new boot.
    let state = cluster.dir().join("state-again/agent.json");
    drop(Agent::start(&cluster, "again").unwrap());
    fs::write(&state, r#"{"boot":"0badc0de"}"#).unwrap();
    agents.push(Agent::start(&cluster, "again").unwrap());

    let rows: Vec<&Row> = ROWS.iter().filter(|row| row.job != "copies").collect();
    let evidence = |events: &[Value], row: &Row| -> Option<(String, Value)> {
        let (command, events) = if let Some(scene) = scenes.get(row.job) {
            (scene.command.clone(), scene.events.clone())
        } else if row.job == "reboot" {
            let free = events.iter().filter(|e| e["job_id"].is_null()).cloned().collect();
            ("A new boot, as the agent sees it when it starts".to_owned(), free)
        } else if let Some((job, command)) = more.get(row.job) {
            (command.clone(), of_jobs(events, &[*job]))
        } else {
            let job = jobs.iter().find(|job| job.entry.name == row.job);
            let job = job.unwrap_or_else(|| panic!("{}: there is no job {}", row.what, row.job));
            let done = match job.entry.action {
                Action::Wait => "",
                Action::Cancel => ", and `scancel`",
                Action::KillScript => ", and `kill -9` of the script",
                Action::Requeue => ", and `scontrol requeue`",
                Action::Preempt => ", and a job of a partition that goes before",
                Action::NodeDown => ", and `scontrol update` of its node",
            };
            (command(job.entry) + done, of_jobs(events, &members[row.job]))
        };
        (row.find)(&events).cloned().map(|event| (command, event))
    };
    // A hook may write after the end of a job is known.
    let deadline = Instant::now() + Duration::from_secs(20);
    let (events, missing) = loop {
        let events = cluster.events();
        let missing: Vec<&Row> =
            rows.iter().filter(|row| evidence(&events, row).is_none()).copied().collect();
        if missing.is_empty() || Instant::now() > deadline {
            break (events, missing);
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    for row in &missing {
        wrong.push(format!("{}: no such event of {}", row.what, row.job));
        let ids = members.get(row.job).cloned().or_else(|| more.get(row.job).map(|(job, _)| vec![*job]));
        let seen = ids.map_or_else(Vec::new, |ids| of_jobs(&events, &ids));
        wrong.extend(seen.iter().map(|e| format!("    {e}")));
    }
    wrong.extend(gaps(&events));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    let copies = copies(&cluster, &events);
    let mut found: Vec<(&Row, String, Value)> = Vec::new();
    for row in ROWS {
        let of_row = if row.job == "copies" {
            (row.find)(&copies.events).map(|event| (copies.command.clone(), event.clone()))
        } else {
            evidence(&events, row)
        };
        let (command, event) = of_row.unwrap_or_else(|| panic!("{}", row.what));
        println!("{}: {}", row.what, shown(row, &event));
        found.push((row, command, event));
    }
    let seen: Vec<(&Row, String, &Value)> =
        found.iter().map(|(row, command, e)| (*row, command.clone(), e)).collect();
    let text = table(&seen);
    if std::env::var_os("INQUEST_UPDATE").is_some() {
        fs::write(FILE, &text).unwrap();
    }
    let kept = fs::read_to_string(FILE).unwrap_or_default();
    assert!(kept == text, "{FILE} is not what was seen; INQUEST_UPDATE=1 writes it. Seen was:\n{text}");
    drop(agents);
    cluster.stop().unwrap();
}

/// The journals with a copy of every file beside it, merged twice.
fn copies(cluster: &Cluster, events: &[Value]) -> Scene {
    let (journal, store) = (cluster.dir().join("copied"), cluster.dir().join("store"));
    for (name, bytes) in files(&cluster.journal_dir()) {
        let path = journal.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let copy = path.with_file_name("2020-01-01.jsonl");
        for path in [path, copy] {
            fs::write(path, &bytes).unwrap();
        }
    }
    for _ in 0..2 {
        let output = collect_once(&journal, &store).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    // Panics at an event that is there twice.
    let merged = identities(&files(&store));
    let id = |e: &Value| (e["stream"].as_str().unwrap().to_owned(), e["seq"].as_u64().unwrap());
    let jobs = events.iter().filter(|e| e["job_id"].is_string());
    let missing: Vec<_> = jobs.filter(|e| !merged.contains(&id(e))).collect();
    assert!(missing.is_empty(), "not merged: {missing:?}");
    scene("Every job of this table, with a copy of every file of the journals beside it", events.to_vec())
}
