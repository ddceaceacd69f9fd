//! The node agent on the kernel it is made for: real processes in real
//! cgroups that look like those of a job step, a real out-of-memory kill, and
//! an agent that is killed in the middle. Needs root.

use std::fs;
use std::io::{Error, IoSliceMut, Write};
use std::iter;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use inquest_journal::{
    Identity, JobId, Severity, Source, StepEnded, StepId, StepStarted, TaskStarted, Writer,
};
use inquest_tests::children::apart;
use inquest_tests::cluster::memory_of_cgroup_v1;
use inquest_tests::skip::skip;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip("the agent needs root for taskstats, the kernel's log and cgroups");
    }
    root
}

/// A tree of cgroups like the one Slurm makes, on v1 or v2.
struct Cgroups {
    mount: PathBuf,
    root: String,
    v1: bool,
    made: Vec<PathBuf>,
}

impl Cgroups {
    /// The name of the node in the path keeps the agents of tests that run
    /// at the same time, and of other nodes on this host, apart.
    fn new(node: &str) -> Cgroups {
        let v1 = memory_of_cgroup_v1();
        let mount = v1.unwrap_or(Path::new("/sys/fs/cgroup")).to_owned();
        let root = format!("/inquest-agent-test-{}-{node}", std::process::id());
        let mut cgroups = Cgroups { mount, root, v1: v1.is_some(), made: Vec::new() };
        cgroups.root = cgroups.make(&format!("slurm_{node}"));
        cgroups
    }

    /// Makes every level of a path below the root; gives the path as
    /// /proc/pid/cgroup will show it.
    fn make(&mut self, below: &str) -> String {
        let mut path = self.root.clone();
        for name in iter::once("").chain(below.split('/')) {
            if !name.is_empty() {
                path = format!("{path}/{name}");
            }
            let dir = self.dir(&path);
            if !dir.exists() {
                if !self.v1 {
                    fs::write(dir.parent().unwrap().join("cgroup.subtree_control"), "+memory").unwrap();
                }
                fs::create_dir(&dir).unwrap();
                self.made.push(dir);
            }
        }
        path
    }

    fn dir(&self, path: &str) -> PathBuf {
        self.mount.join(path.trim_start_matches('/'))
    }

    fn limit(&self, path: &str, bytes: u64) {
        let file = if self.v1 { "memory.limit_in_bytes" } else { "memory.max" };
        fs::write(self.dir(path).join(file), bytes.to_string()).unwrap();
    }

    /// Starts a shell in the cgroup that waits to be sent a line before it
    /// runs `script`; gives it and a way to send the line.
    fn shell(&self, path: &str, script: &str, arguments: &[&str], uid: u32) -> Child {
        let mut child = Command::new("sh")
            .args(["-c", &format!("read go\n{script}"), "sh"])
            .args(arguments)
            .uid(uid)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        fs::write(self.dir(path).join("cgroup.procs"), child.id().to_string()).unwrap();
        child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
        child
    }

    /// Runs `script` in the cgroup to its end; gives its exit code.
    fn run(&self, path: &str, script: &str, arguments: &[&str], uid: u32) -> i32 {
        self.shell(path, script, arguments, uid).wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for dir in self.made.iter().rev() {
            let start = Instant::now();
            // The kernel needs a moment after the last process has gone.
            while let Err(e) = fs::remove_dir(dir) {
                if start.elapsed() > Duration::from_secs(5) {
                    eprintln!("left behind: {}: {e}", dir.display());
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// A private place for a journal, and the agent that runs on it.
struct Place {
    node: String,
    dir: tempfile::TempDir,
    agent: Option<Child>,
}

impl Place {
    fn new(node: &str) -> Place {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(dir.path().join("journal")).unwrap();
        fs::set_permissions(dir.path().join("journal"), fs::Permissions::from_mode(0o755)).unwrap();
        Place { node: node.into(), dir, agent: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn socket(&self) -> String {
        self.path("note.sock").to_str().unwrap().into()
    }

    fn start(&mut self) {
        self.start_with(apart(env!("CARGO_BIN_EXE_inquest")));
    }

    fn start_with(&mut self, mut command: Command) {
        let said = fs::File::create(self.path("stderr")).unwrap();
        let agent = command
            .args(["agent", "--node", &self.node, "--cluster", "lab", "--socket", &self.socket()])
            .arg("--journal")
            .arg(self.path("journal"))
            .arg("--state")
            .arg(self.path("state"))
            .stderr(said)
            .spawn()
            .unwrap();
        self.agent = Some(agent);
        let started = || fs::read_to_string(self.path("stderr")).unwrap().contains("watching");
        wait_for(
            "the agent's start",
            || started().then_some(()),
            || fs::read_to_string(self.path("stderr")).unwrap(),
        );
        let said = fs::read_to_string(self.path("stderr")).unwrap();
        assert!(!said.contains("agent: no "), "the agent is blind: {said}");
    }

    fn kill(&mut self) {
        let mut agent = self.agent.take().unwrap();
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    /// Ends the agent the way systemd does.
    fn stop(&mut self) {
        let mut agent = self.agent.take().unwrap();
        let pid = rustix::process::Pid::from_child(&agent);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(agent.wait().unwrap().success());
    }

    fn events(&self) -> Vec<Value> {
        let Ok(files) = fs::read_dir(self.path("journal").join(&self.node)) else { return Vec::new() };
        let mut texts: Vec<_> = files.map(|f| f.unwrap().path()).collect();
        texts.sort();
        let text: String = texts.iter().map(|p| fs::read_to_string(p).unwrap()).collect();
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        text[..whole]
            .lines()
            .map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}")))
            .collect()
    }

    fn of_type(&self, event_type: &str) -> Vec<Value> {
        self.events().into_iter().filter(|e| e["event_type"] == event_type).collect()
    }

    /// Waits for `n` events of a type.
    fn await_events(&self, event_type: &str, n: usize) -> Vec<Value> {
        let enough = || Some(self.of_type(event_type)).filter(|all| all.len() >= n);
        wait_for(&format!("{n} {event_type}"), enough, || format!("{:#?}", self.events()))
    }

    /// Writes as the plugin does, one stream per call.
    fn plugin(&self) -> Writer {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let boot = Identity::of_this_process("lab", &self.node).boot().to_owned();
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let identity = Identity::new("lab", &self.node, &boot, n, 1);
        Writer::open(&self.path("journal"), identity, Source::Plugin).unwrap().0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }
}

/// A name of its own for the node of each test: other agents and other tests
/// may be running on this kernel.
fn node(test: &str) -> String {
    format!("inqtest{}-{test}", std::process::id())
}

fn wait_for<T>(what: &str, mut ready: impl FnMut() -> Option<T>, state: impl Fn() -> String) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = ready() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "no {what}; there is: {}", state());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Lets a shell end that waits for one more line. Until then its children
/// have a parent that can be looked up.
fn finish(shell: &mut Child) {
    shell.stdin.as_mut().unwrap().write_all(b"seen\n").unwrap();
    assert!(shell.wait().unwrap().success(), "the script failed");
}

fn identity(event: &Value) -> (String, u64) {
    (event["stream"].as_str().unwrap().into(), event["seq"].as_u64().unwrap())
}

const EATER: &str = "tail /dev/zero; true";

#[test]
fn a_restarted_agent_neither_loses_nor_doubles() {
    if !is_root() {
        return;
    }
    let (mut cgroups, mut place) = (Cgroups::new(&node("1")), Place::new(&node("1")));
    let task = cgroups.make("uid_1/job_77/step_0/task_0");
    let step = task.strip_suffix("/task_0").unwrap();
    cgroups.limit(step, 32 << 20);
    place.start();

    let script = r#"
        sh -c 'kill -SEGV $$'
        sh -c 'exit 7'
        tail /dev/zero
        "$1" note --strict --socket "$2" --kind stage solving "$3" && read seen"#;
    let inquest = env!("CARGO_BIN_EXE_inquest");
    let mut shell = cgroups.shell(&task, script, &[inquest, &place.socket(), "\u{1b}[31m"], 0);

    let died = place.await_events("process_died", 3);
    let kills = place.await_events("oom_kill", 1);
    let notes = place.await_events("note", 1);
    let ppid = Some(u64::from(shell.id()));
    finish(&mut shell);
    for event in died.iter().chain(&kills).chain(&notes) {
        assert_eq!(
            (&event["job_id"], &event["step"], &event["task"]),
            (&"77".into(), &"0".into(), &0.into())
        );
        assert_eq!((&event["node"], &event["cluster"]), (&place.node.as_str().into(), &"lab".into()));
    }
    let brief = |e: &Value| {
        (
            e["command"].clone(),
            e["signal"].as_u64(),
            e["exit_code"].as_u64(),
            e["first"] == true,
            e["ppid"].as_u64(),
        )
    };
    assert_eq!(brief(&died[0]), ("sh".into(), Some(11), None, true, ppid));
    assert_eq!(brief(&died[1]), ("sh".into(), None, Some(7), false, ppid));
    assert_eq!(brief(&died[2]), ("tail".into(), Some(9), None, false, ppid));
    assert!(died[2]["peak_rss_bytes"].as_u64().unwrap() > 24 << 20);

    let (kill, victim) = (&kills[0], &kills[0]["victims"][0]);
    assert_eq!((&kill["level"], &kill["limit_bytes"]), (&"step".into(), &(32 << 20).into()));
    assert_eq!((&victim["pid"], &victim["command"]), (&died[2]["pid"], &"tail".into()));
    assert_eq!(victim["cgroup"], task.as_str());
    assert_eq!((&notes[0]["kind"], &notes[0]["text"]), (&"stage".into(), &"solving \u{1b}[31m".into()));
    assert_eq!(notes[0]["source"], "user");

    // A kill while nobody watches is found afterwards, the earlier one is not
    // found again.
    place.kill();
    cgroups.run(&task, EATER, &[], 0);
    place.start();
    let kills = place.await_events("oom_kill", 2);
    assert_ne!(kills[0]["victims"][0]["pid"], kills[1]["victims"][0]["pid"]);
    assert_eq!(kills[1]["job_id"], "77");

    // As if the agent had died between writing the event and its state.
    let state: Value = serde_json::from_slice(&fs::read(place.path("state/agent.json")).unwrap()).unwrap();
    place.kill();
    let back = serde_json::json!({"boot": state["boot"], "kmsg_seq": 0});
    fs::write(place.path("state/agent.json"), back.to_string()).unwrap();
    place.start();
    let mut shell = cgroups.shell(&task, "sh -c 'exit 9'; read seen", &[], 0);
    let died = place.await_events("process_died", 4);
    finish(&mut shell);
    assert_eq!(died.iter().filter(|e| e["first"] == true).count(), 1, "{died:#?}");
    let ours = |e: &&Value| e["job_id"] == "77";
    assert_eq!(place.of_type("oom_kill").iter().filter(ours).count(), 2);

    // Another boot id: the node was rebooted, and that is told once.
    place.stop();
    fs::write(place.path("state/agent.json"), r#"{"boot":"0badc0de","kmsg_seq":9}"#).unwrap();
    place.start();
    place.stop();
    place.start();
    place.stop();
    let booted = place.of_type("node_booted");
    assert_eq!(booted.len(), 1);
    assert_eq!(booted[0]["previous_boot"], "0badc0de");

    let mut ids: Vec<_> = place.events().iter().map(identity).collect();
    let all = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), all, "an identity was used twice");
}

#[test]
fn the_journal_tells_what_a_path_does_not() {
    if !is_root() {
        return;
    }
    let (mut cgroups, mut place) = (Cgroups::new(&node("2")), Place::new(&node("2")));
    // As Slurm 26.05 names it: no job id anywhere.
    let step = cgroups.make("s6P1M7Y1TACN00/step_1");
    let task = cgroups.make("s6P1M7Y1TACN00/step_1/task_0");
    let elsewhere = cgroups.make("other/step_1");
    cgroups.limit(&step, 64 << 20);
    let bin = place.path("inquest");
    fs::copy(env!("CARGO_BIN_EXE_inquest"), &bin).unwrap();
    let bin = bin.to_str().unwrap().to_owned();

    let mut plugin = place.plugin();
    let (job_id, step_id) = (Some(JobId(207)), Some(StepId::Number(1)));
    let started = StepStarted {
        uid: Some(65_534),
        cgroup: Some(step.clone()),
        cgroup_version: Some(if cgroups.v1 { 1 } else { 2 }),
        limit_bytes: Some(64 << 20),
        ..StepStarted::default()
    };
    // One line is there before the agent, the rest comes while it runs.
    plugin.write(Severity::Info, job_id, step_id, None, &started.into());
    place.start();

    let note = r#""$1" note --strict --socket "$2" hello"#;
    assert_eq!(cgroups.run(&task, note, &[&bin, &place.socket()], 65_534), 0);
    assert_ne!(
        cgroups.run(&task, note, &[&bin, &place.socket()], 65_533),
        0,
        "another user spoke for the job"
    );
    assert_ne!(cgroups.run(&elsewhere, note, &[&bin, &place.socket()], 65_534), 0, "no job spoke");
    let notes = place.await_events("note", 1);
    assert_eq!((notes.len(), &notes[0]["job_id"], &notes[0]["step"]), (1, &"207".into(), &"1".into()));

    // The task is the job's even if it was never seen in a cgroup: the
    // plugin has told its pid.
    let mut child = cgroups.shell(&elsewhere, "read more; exit 5", &[], 65_534);
    let task_started = TaskStarted { pid: Some(child.id()), ..TaskStarted::default() };
    plugin.write(Severity::Info, job_id, step_id, Some(3), &task_started.into());
    child.stdin.as_mut().unwrap().write_all(b"now\n").unwrap();
    child.wait().unwrap();
    let of_task = || place.of_type("process_died").into_iter().find(|e| e["exit_code"] == 5);
    let died = wait_for("the task's end", of_task, || format!("{:#?}", place.events()));
    assert_eq!(
        (&died["job_id"], &died["task"], &died["pid"]),
        (&"207".into(), &3.into(), &child.id().into())
    );

    // 93 % of the limit, held until it was seen.
    let bytes = "62500000";
    let mut child = cgroups.shell(&task, "exec tail -c \"$1\"", &[bytes], 0);
    let mut input = child.stdin.take().unwrap();
    for _ in 0..bytes.parse::<usize>().unwrap() / 500_000 {
        input.write_all(&[0; 500_000]).unwrap();
    }
    let high = place.await_events("memory_high", 1);
    // It is still as high, and was told.
    place.stop();
    place.start();
    assert_eq!(place.of_type("memory_high").len(), 1);
    drop(input);
    child.wait().unwrap();
    assert_eq!((&high[0]["job_id"], &high[0]["limit_bytes"]), (&"207".into(), &(64 << 20).into()));
    assert!(high[0]["usage_bytes"].as_u64().unwrap() >= 60_000_000);

    plugin.write(Severity::Info, job_id, step_id, None, &StepEnded::default().into());
    place.stop();
    assert_eq!(place.of_type("memory_high").len(), 1);
}

#[test]
fn members_of_a_packed_step_are_named_by_their_environment() {
    if !is_root() {
        return;
    }
    let (mut cgroups, mut place) = (Cgroups::new(&node("5")), Place::new(&node("5")));
    let task = cgroups.make("uid_1/job_80/step_0/task_0");
    place.start();
    // Three jobs of an engine, each dead at once, one by a process that only
    // has its parent's environment; and secrets beside their names.
    let script = r#"
        for n in 1 2; do
            env TORC_WORKFLOW_ID=9 TORC_JOB_ID=$n TORC_PASSWORD=hidden WANDB_API_KEY=hidden sh -c 'kill -SEGV $$'
        done
        env PARALLEL_SEQ=3 sh -c '(exit 5); :'
        read seen"#;
    let mut shell = cgroups.shell(&task, script, &[], 0);
    let died = place.await_events("process_died", 3);
    finish(&mut shell);
    place.stop();
    let env = |n: usize| died[n]["env"].clone();
    assert_eq!(env(0), serde_json::json!({"TORC_WORKFLOW_ID": "9", "TORC_JOB_ID": "1"}));
    assert_eq!(env(1), serde_json::json!({"TORC_WORKFLOW_ID": "9", "TORC_JOB_ID": "2"}));
    assert_eq!((env(2), &died[2]["exit_code"]), (serde_json::json!({"PARALLEL_SEQ": "3"}), &5.into()));
}

#[test]
fn a_storm_is_bounded_and_counted() {
    if !is_root() {
        return;
    }
    let (mut cgroups, mut place) = (Cgroups::new(&node("3")), Place::new(&node("3")));
    let task = cgroups.make("uid_1/job_78/step_batch/task_0");
    place.start();
    // The crash at the end must not drown in the exit codes before it.
    let script = r#"
        i=0; while [ $i -lt 3000 ]; do (exit 3); i=$((i+1)); done
        sh -c 'kill -SEGV $$'
        read seen"#;
    let mut shell = cgroups.shell(&task, script, &[], 0);
    wait_for(
        "the crash",
        || place.of_type("process_died").iter().any(|e| e["signal"] == 11).then_some(()),
        || format!("{} events", place.events().len()),
    );
    finish(&mut shell);
    place.stop();
    let died = place.of_type("process_died");
    let lost: u64 = place.of_type("lost").iter().map(|e| e["count"].as_u64().unwrap()).sum();
    assert!(died.len() < 300, "{} events of one storm", died.len());
    assert_eq!(died.len() as u64 + lost, 3001, "{:#?}", place.of_type("lost"));
    assert!(died.iter().all(|e| e["job_id"] == "78" && e["step"] == "batch"));
}

/// Takes the descriptor that the agent asks its service manager to keep.
fn kept(manager: &UnixDatagram) -> OwnedFd {
    let mut text = [0; 256];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut text)];
    let got = recvmsg(manager, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let words = str::from_utf8(&text[..got.bytes]).unwrap();
    assert!(words.contains("FDSTORE=1\nFDNAME=ends\n"), "{words}");
    let kept = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    kept.expect("no descriptor")
}

/// Starts the agent with what its service manager has kept: what execve(2) passes on is what systemd would pass,
/// descriptor 3.
fn start_with_kept(place: &mut Place, kept: &OwnedFd) {
    let mut command = apart("sh");
    let script = r#"export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=ends; exec "$0" "$@""#;
    command.args(["-c", script, env!("CARGO_BIN_EXE_inquest")]);
    let raw = kept.as_raw_fd();
    // SAFETY: dup2 is async-signal-safe, and both numbers are the child's own.
    unsafe {
        command.pre_exec(move || if libc::dup2(raw, 3) == 3 { Ok(()) } else { Err(Error::last_os_error()) });
    }
    place.start_with(command);
}

/// Starts an agent, kills it and gives what its service manager has kept.
fn killed_agents(place: &mut Place) -> OwnedFd {
    let manager = UnixDatagram::bind(place.path("notify")).unwrap();
    let mut command = apart(env!("CARGO_BIN_EXE_inquest"));
    command.env("NOTIFY_SOCKET", place.path("notify"));
    place.start_with(command);
    let kept = kept(&manager);
    place.kill();
    kept
}

#[test]
fn ends_during_a_restart_wait_with_the_service_manager() {
    if !is_root() {
        return;
    }
    let (mut cgroups, mut place) = (Cgroups::new(&node("4")), Place::new(&node("4")));
    let task = cgroups.make("uid_1/job_79/step_0/task_0");
    let kept = killed_agents(&mut place);

    let over = place.path("over");
    let script = "sh -c 'kill -SEGV $$'; : >\"$1\"; read seen";
    let mut shell = cgroups.shell(&task, script, &[over.to_str().unwrap()], 0);
    wait_for("the child's end", || over.exists().then_some(()), String::new);

    start_with_kept(&mut place, &kept);
    let died = place.await_events("process_died", 1);
    assert_eq!((&died[0]["job_id"], &died[0]["signal"]), (&"79".into(), &11.into()));
    finish(&mut shell);
    place.stop();
    assert!(place.of_type("lost").is_empty());
}

#[test]
fn a_loss_during_a_restart_has_no_number() {
    if !is_root() {
        return;
    }
    let (mut cgroups, mut place) = (Cgroups::new(&node("6")), Place::new(&node("6")));
    let task = cgroups.make("uid_1/job_81/step_0/task_0");
    let kept = killed_agents(&mut place);
    // Room for a few records, and more ends than that.
    rustix::net::sockopt::set_socket_recv_buffer_size(&kept, 4096).unwrap();
    cgroups.run(&task, "i=0; while [ $i -lt 100 ]; do (exit 3); i=$((i+1)); done", &[], 0);
    start_with_kept(&mut place, &kept);
    place.stop();
    let lost = place.of_type("lost");
    let dropped = |e: &&Value| e["reason"].as_str().unwrap().starts_with("kernel dropped");
    let dropped: Vec<_> = lost.iter().filter(dropped).collect();
    assert_eq!(dropped.len(), 1, "{lost:#?}");
    assert!(dropped[0]["count"].is_null(), "{lost:#?}");
}

#[test]
fn a_storm_that_waits_is_read_after_the_jobs() {
    if !is_root() {
        return;
    }
    let (mut cgroups, mut place) = (Cgroups::new(&node("7")), Place::new(&node("7")));
    let task = cgroups.make("uid_1/job_82/step_batch/task_0");
    place.start();
    let agent = rustix::process::Pid::from_child(place.agent.as_ref().unwrap());
    // SAFETY: takes a number.
    let policy = || unsafe { libc::sched_getscheduler(agent.as_raw_pid()) } & !libc::SCHED_RESET_ON_FORK;
    assert_eq!(policy(), libc::SCHED_FIFO);
    let storm = "i=0; while [ $i -lt 3000 ]; do (exit 3); i=$((i+1)); done";
    // The pause is short, and whoever waits for it may miss it.
    let seen = (0..20).any(|_| {
        rustix::process::kill_process(agent, rustix::process::Signal::STOP).unwrap();
        cgroups.run(&task, storm, &[], 0);
        rustix::process::kill_process(agent, rustix::process::Signal::CONT).unwrap();
        let start = Instant::now();
        iter::repeat_with(policy)
            .take_while(|_| start.elapsed() < Duration::from_secs(2))
            .any(|policy| policy == libc::SCHED_OTHER)
    });
    assert!(seen, "it read all of them before anybody else ran");
    wait_for("the end of the pause", || (policy() == libc::SCHED_FIFO).then_some(()), String::new);
    place.stop();
}
