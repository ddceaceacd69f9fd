/*!
Journals as a site of many nodes would have written them, from a seed.

The mix is that of a busy general-purpose cluster: most jobs are members of
arrays, most others are small, a few span nodes and hold most of the tasks.
Failures cluster on a few bad nodes. The same plan gives the same bytes, so
what was measured on one machine can be made again on another.

Every line goes through the journal's own encoder. Only the `write(2)` per line
is left out: events are gathered per node and written in blocks.
*/

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use inquest_journal::{
    Body, Header, Identity, JobEnded, JobId, JobStarted, Level, Memory, NodeBooted, OomKill, Severity,
    Source, Stamp, StepEnded, StepId, StepStarted, TaskExited, TaskStarted, Timestamp, Via, Victim, encode,
};

use crate::random::Random;

/// What to make.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Nodes, `n0001` and on.
    pub nodes: u32,
    /// Jobs; requeued ones count once.
    pub jobs: u32,
    /// Days over which they are submitted, evenly.
    pub days: u32,
    /// All jobs are members of so many large runs, instead of as they come:
    /// nearly all runs are of one job then.
    pub runs: Option<u32>,
    /// The same seed gives the same bytes.
    pub seed: u64,
}

/// How the people of a site work, and its nodes.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// Nodes go away with what they run.
    pub losses: bool,
    /// Of a hundred single jobs, those that a user runs under a name of six hours.
    pub named: u64,
    /// Most steps of a job on one core.
    pub steps: u64,
}

impl Default for Habits {
    fn default() -> Habits {
        Habits { losses: true, named: 10, steps: 0 }
    }
}

/// What was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// Lines.
    pub events: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Files.
    pub files: u64,
    /// Jobs that were submitted.
    pub jobs: u32,
    /// Jobs whose last attempt ended badly or never ended.
    pub failed: u64,
}

const CLUSTER: &str = "lab";
/// 2026-11-21T00:00:00Z.
const EPOCH: Timestamp = Timestamp(1_795_219_200_000_000);
const SECOND: i64 = 1_000_000;
const GIB: u64 = 1 << 30;
/// Bytes gathered for a node before they are written.
const BLOCK: usize = 24 << 10;

/// Writes the journals of `plan` below `out`, which is made.
///
/// # Errors
///
/// When a file cannot be written, or `out` holds something already.
pub fn generate(plan: &Plan, out: &Path) -> io::Result<Made> {
    generate_by(plan, out, EPOCH, plan.days, Habits::default(), &mut |_| Ok(()))
}

/// Writes the journals of `plan` as [`generate`] does, from the midnight
/// `begin` on, and stops after every `days` days for `each`, which is told what
/// was made until then. It may take the files away, but not the directories:
/// no later slice writes to a file of an earlier one.
///
/// # Errors
///
/// As [`generate`], and what `each` says.
pub fn generate_by(
    plan: &Plan,
    out: &Path,
    begin: Timestamp,
    days: u32,
    habits: Habits,
    each: &mut dyn FnMut(Made) -> io::Result<()>,
) -> io::Result<Made> {
    fs::DirBuilder::new().recursive(true).mode(0o750).create(out)?;
    if fs::read_dir(out)?.next().is_some() {
        let reason = format!("{} is not empty; give a new directory", out.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, reason));
    }
    let mut site = Site::new(plan, out, begin)?;
    site.habits = habits;
    let day = 86_400 * SECOND;
    let span = i64::from(plan.days.max(1)) * day;
    let (mut next, mut slice) = (1, begin.0 + i64::from(days.max(1)) * day);
    while next <= plan.jobs {
        // Submissions keep the pace of the jobs that they bring.
        let now = begin.0 + span / i64::from(plan.jobs) * i64::from(next - 1);
        while slice <= now {
            site.advance(slice)?;
            site.write_all()?;
            site.made.jobs = next - 1;
            each(site.made())?;
            slice += i64::from(days.max(1)) * day;
        }
        site.advance(now)?;
        next += site.submit(now, next, plan.jobs - next + 1);
    }
    site.advance(i64::MAX)?;
    site.write_all()?;
    site.made.jobs = next - 1;
    Ok(site.made())
}

/// How an attempt ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Well,
    /// Exit code of the program.
    Code(u8),
    /// Its own fault: SIGSEGV, SIGABRT, SIGBUS.
    Signal(u8),
    Oom,
    Timeout,
    /// The node went away: nothing more is written.
    NodeLost,
}

/// A job as it was submitted.
#[derive(Clone, Debug)]
struct Job {
    id: u32,
    array: Option<(u32, u32)>,
    run: Option<String>,
    user: u32,
    nodes: u32,
    tasks_per_node: u32,
    steps: u32,
    memory_mib: u64,
    seconds: i64,
}

struct Node {
    name: String,
    boot: String,
    boots: u32,
    bad: bool,
    next_pid: u32,
    day: i64,
    waiting: Vec<u8>,
}

/// A line of the future: time, order of making, node, line.
type Later = (i64, u64, u32, Box<[u8]>);

struct Site {
    out: PathBuf,
    begin: Timestamp,
    habits: Habits,
    random: Random,
    nodes: Vec<Node>,
    future: BinaryHeap<Reverse<Later>>,
    order: u64,
    line: Vec<u8>,
    made: Made,
    runs: Option<u32>,
    files: HashSet<(u32, i64)>,
}

/// One slurmstepd.
struct Stepd {
    node: u32,
    identity: Identity,
    pid: u32,
    seq: u64,
    job: JobId,
    step: StepId,
}

impl Site {
    fn new(plan: &Plan, out: &Path, begin: Timestamp) -> io::Result<Site> {
        let mut random = Random::new(plan.seed);
        let nodes = (1..=plan.nodes.max(1)).map(|n| Node {
            name: format!("n{n:04}"),
            boot: format!("{:08x}", random.any() >> 32),
            boots: 1,
            bad: random.percent(2),
            next_pid: 2000 + random.below(20_000) as u32,
            day: 0,
            waiting: Vec::new(),
        });
        let nodes: Vec<Node> = nodes.collect();
        for node in &nodes {
            fs::DirBuilder::new().mode(0o750).create(out.join(&node.name))?;
        }
        Ok(Site {
            out: out.to_owned(),
            begin,
            habits: Habits::default(),
            random,
            nodes,
            future: BinaryHeap::new(),
            order: 0,
            line: Vec::new(),
            made: Made::default(),
            runs: plan.runs,
            files: HashSet::new(),
        })
    }

    /// Submits one job or one array at `now`; says how many jobs that were.
    fn submit(&mut self, now: i64, id: u32, room: u32) -> u32 {
        let r = &mut self.random;
        let mut user = 10_000 + r.spread(1, 200) as u32;
        let (nodes, tasks, steps) = match r.below(100) {
            0..80 if self.habits.steps > 0 => (1, 1, r.below(self.habits.steps + 1) as u32),
            0..80 => (1, 1, 0),
            80..92 => (1, r.spread(2, 64) as u32, 1 + r.below(2) as u32),
            92..97 => (r.spread(2, 32) as u32, r.spread(4, 32) as u32, 1 + r.below(3) as u32),
            _ => (1, 1, u32::from(r.percent(30))),
        };
        let array = r.percent(4) && nodes == 1 && tasks <= 8;
        let size = if array { (r.spread(8, 1000) as u32).min(room) } else { 1 };
        // A sweep that a user drives by hand: single jobs under one name.
        let sweep = !array && r.percent(self.habits.named);
        let mut run = sweep.then(|| format!("sweep-{user}-{}", now / (6 * 3600 * SECOND)));
        if let Some(runs) = self.runs {
            let number = id % runs.max(1);
            user = 10_000 + number;
            run = Some(format!("campaign-{number}"));
        }
        let seconds = r.spread(20, 4 * 3600).cast_signed();
        let memory_mib = 1024 << r.below(6);
        for task in 0..size {
            let job = Job {
                id: id + task,
                array: array.then_some((id, task)),
                run: run.clone(),
                user,
                nodes: nodes.min(self.nodes.len() as u32),
                tasks_per_node: tasks,
                steps,
                memory_mib,
                seconds: seconds / 2 + self.random.below(seconds.unsigned_abs()).cast_signed(),
            };
            // Members of an array start as places become free.
            let start = now + i64::from(task) * SECOND / 2;
            self.run(&job, start);
        }
        size
    }

    /// Plays a job to its end, through all its attempts.
    fn run(&mut self, job: &Job, mut start: i64) {
        for restart in 0.. {
            let first = self.random.below(self.nodes.len() as u64) as u32;
            let bad = self.nodes[first as usize].bad;
            let end = match self.end(bad) {
                End::NodeLost if !self.habits.losses => End::Timeout,
                end => end,
            };
            let stopped = self.attempt(job, restart, first, start, end);
            if end != End::NodeLost || restart == 3 {
                self.made.failed += u64::from(end != End::Well);
                return;
            }
            start = stopped + 60 * SECOND + self.random.below(600).cast_signed() * SECOND;
        }
    }

    fn end(&mut self, bad: bool) -> End {
        let r = &mut self.random;
        if !r.percent(if bad { 35 } else { 4 }) {
            return End::Well;
        }
        match r.below(100) {
            0..40 => End::Code(1 + r.below(3) as u8),
            40..68 => End::Oom,
            68..82 => End::Signal([11, 6, 7][r.below(3) as usize]),
            82..94 => End::Timeout,
            _ => End::NodeLost,
        }
    }

    /// Events of one attempt on all its nodes; says when it was over.
    fn attempt(&mut self, job: &Job, restart: u32, first: u32, start: i64, end: End) -> i64 {
        let all = self.nodes.len() as u32;
        let nodes: Vec<u32> = (0..job.nodes).map(|n| (first + n) % all).collect();
        let share = if end == End::Well { 100 } else { 5 + self.random.below(90).cast_signed() };
        let stop = start + SECOND + job.seconds * SECOND / 100 * share;
        let list = self.node_list(&nodes);

        // The extern step: on every node, as long as the job.
        for &node in &nodes {
            let mut stepd = self.stepd(node, job, StepId::Extern, start);
            let body = StepStarted { name: None, ..self.step_started(job, &stepd, restart, 1, 0, 1) };
            self.say(&mut stepd, start, None, Severity::Info, body);
            if end != End::NodeLost {
                let at = stop + 400_000 + self.random.below(200_000).cast_signed();
                let body =
                    StepEnded { duration_us: Some((at - start).unsigned_abs()), ..StepEnded::default() };
                self.say(&mut stepd, at, None, Severity::Info, body);
            }
        }
        let mut at = start + 40_000 + self.random.below(20_000).cast_signed();
        let mut batch = self.stepd(nodes[0], job, StepId::Batch, at);
        let body = self.step_started(job, &batch, restart, 1, 0, 1);
        self.say(&mut batch, at, None, Severity::Info, body);
        let body = self.job_started(job, restart, list);
        self.say(&mut batch, at + 300, None, Severity::Info, body);
        let pid = batch.pid + 5;
        let body = TaskStarted {
            pid: Some(pid),
            local_id: Some(0),
            stdout: Some(self.log(job)),
            stderr: Some(self.log(job)),
        };
        self.say(&mut batch, at + 900, Some(0), Severity::Info, body);
        at += 500_000;

        let length = (stop - at).max(SECOND) / i64::from(job.steps.max(1));
        for step in 0..job.steps {
            // What goes wrong, goes wrong in the last step.
            let end = if step + 1 == job.steps { end } else { End::Well };
            self.step(job, restart, step, &nodes, at, at + length - 200_000, end);
            at += length;
        }
        self.finish_batch(&mut batch, job, restart, pid, start, stop, end);
        if end == End::NodeLost {
            self.reboot(nodes[0], stop + 90 * SECOND);
        }
        stop
    }

    #[allow(clippy::too_many_arguments)] // One call, all of it needed.
    fn step(&mut self, job: &Job, restart: u32, step: u32, nodes: &[u32], at: i64, stop: i64, end: End) {
        // One rank dies first; the others follow by SIGTERM, as with srun -K.
        let victim = self.random.below(u64::from(job.tasks_per_node) * nodes.len() as u64) as u32;
        for (rank, &node) in (0u32..).zip(nodes) {
            let mut stepd = self.stepd(node, job, StepId::Number(step), at);
            let body = self.step_started(job, &stepd, restart, job.tasks_per_node, rank, nodes.len() as u32);
            self.say(&mut stepd, at, None, Severity::Info, body);
            for local in 0..job.tasks_per_node {
                let task = rank * job.tasks_per_node + local;
                let pid = Some(stepd.pid + 4 + local);
                let body = TaskStarted { pid, local_id: Some(local), ..TaskStarted::default() };
                self.say(&mut stepd, at + 1500 + i64::from(local) * 40, Some(task), Severity::Info, body);
            }
            if end == End::NodeLost {
                continue;
            }
            for local in 0..job.tasks_per_node {
                let task = rank * job.tasks_per_node + local;
                let how = match end {
                    End::Well | End::Timeout => end,
                    _ if task == victim => end,
                    _ => End::Signal(15),
                };
                let late = if task == victim { 0 } else { 30_000 + i64::from(local) * 50 };
                let pid = stepd.pid + 4 + local;
                self.exit(&mut stepd, job, Some(task), local, pid, at, stop + late, how);
            }
            let failed = u32::from(end != End::Well) * job.tasks_per_node;
            let body = StepEnded {
                duration_us: Some((stop - at).unsigned_abs()),
                tasks_started: Some(job.tasks_per_node),
                tasks_exited: Some(job.tasks_per_node),
                tasks_failed: Some(failed),
                memory: self.memory(job, end),
                hook_us: Some(60 + self.random.below(60)),
                ..StepEnded::default()
            };
            self.say(&mut stepd, stop + 90_000, None, severity(end), body);
        }
    }

    #[allow(clippy::too_many_arguments)] // One call, all of it needed.
    fn finish_batch(
        &mut self,
        batch: &mut Stepd,
        job: &Job,
        restart: u32,
        pid: u32,
        start: i64,
        stop: i64,
        end: End,
    ) {
        if end == End::NodeLost {
            return;
        }
        let how = match end {
            // The script sees its srun fail and ends with its code.
            End::Oom | End::Signal(_) if job.steps > 0 => End::Code(1),
            end => end,
        };
        self.exit(batch, job, Some(0), 0, pid, start, stop, how);
        let body = StepEnded {
            duration_us: Some((stop - start).unsigned_abs()),
            tasks_started: Some(1),
            tasks_exited: Some(1),
            tasks_failed: Some(u32::from(how != End::Well)),
            oom_kills: Some(u64::from(how == End::Oom)),
            memory: self.memory(job, how),
            cpu_us: Some((stop - start).unsigned_abs() / 10 * 9),
            reaped_cpu_us: Some((stop - start).unsigned_abs() / 10 * 9),
            hook_us: Some(40 + self.random.below(60)),
            hook_max_us: Some(12 + self.random.below(20)),
            panics: None,
            ..StepEnded::default()
        };
        self.say(batch, stop + 110_000, None, severity(how), body);
        let (exit_code, signal) = code_and_signal(how);
        let body = JobEnded {
            via: Some(Via::Batch),
            exit_code,
            signal,
            restart: Some(restart),
            ..JobEnded::default()
        };
        self.say(batch, stop + 110_200, None, severity(how), body);
    }

    #[allow(clippy::too_many_arguments)] // One call, all of it needed.
    fn exit(
        &mut self,
        stepd: &mut Stepd,
        job: &Job,
        task: Option<u32>,
        local: u32,
        pid: u32,
        start: i64,
        at: i64,
        how: End,
    ) {
        let memory = self.memory(job, how);
        if how == End::Oom {
            let victim = Victim {
                pid: Some(pid + 1),
                command: Some("python3".into()),
                anon_rss_bytes: memory.limit_bytes.map(|l| l - (l >> 6)),
                ..Victim::default()
            };
            let body = OomKill {
                count: Some(1),
                level: Some(Level::Job),
                limit_bytes: memory.limit_bytes,
                peak_bytes: memory.cgroup_peak_bytes,
                victims: vec![victim],
                reported_by_slurm: Some(true),
            };
            self.say(stepd, at - 20, task, Severity::Error, body);
        }
        let (exit_code, signal) = code_and_signal(how);
        let body = TaskExited {
            pid: Some(pid),
            local_id: Some(local),
            exit_code,
            signal,
            core: matches!(how, End::Signal(6 | 11)),
            duration_us: Some((at - start).unsigned_abs()),
            oom_kills: Some(u64::from(how == End::Oom)),
            memory,
        };
        self.say(stepd, at, task, severity(how), body);
    }

    /// Everything that was open on the node ended with it.
    fn reboot(&mut self, node: u32, at: i64) {
        let n = &mut self.nodes[node as usize];
        let boot = format!("{:08x}", self.random.any() >> 32);
        let previous_boot = Some(std::mem::replace(&mut n.boot, boot));
        n.boots += 1;
        let identity = Identity::new(CLUSTER, &n.name, &n.boot, 600, u64::from(n.boots));
        let mut agent = Stepd { node, identity, pid: 600, seq: 0, job: JobId(0), step: StepId::Extern };
        let body = NodeBooted { previous_boot, booted_at: Some(Timestamp(at - 20 * SECOND)) };
        self.say(&mut agent, at, None, Severity::Warn, body);
    }

    fn stepd(&mut self, node: u32, job: &Job, step: StepId, at: i64) -> Stepd {
        let n = &mut self.nodes[node as usize];
        n.next_pid = if n.next_pid > 4_000_000 { 2000 } else { n.next_pid + 7 };
        let ticks = ((at - self.begin.0) / 10_000).unsigned_abs() + 8_640_000;
        let identity = Identity::new(CLUSTER, &n.name, &n.boot, n.next_pid, ticks);
        Stepd { node, identity, pid: n.next_pid, seq: 0, job: JobId(job.id), step }
    }

    fn job_started(&mut self, job: &Job, restart: u32, node_list: String) -> JobStarted {
        JobStarted {
            via: Some(Via::Batch),
            uid: Some(job.user),
            gid: Some(10_000),
            name: Some(job_name(job)),
            account: Some(format!("proj{:03}", job.user % 60)),
            partition: Some(if job.nodes > 1 { "parallel" } else { "main" }.into()),
            work_dir: Some(work_dir(job)),
            stdout: Some(self.log(job)),
            stderr: Some(self.log(job)),
            node_list: Some(node_list),
            node_count: Some(job.nodes),
            cpus: Some(job.tasks_per_node),
            memory_mib: Some(job.memory_mib),
            array_job_id: job.array.map(|(id, _)| JobId(id)),
            array_task_id: job.array.map(|(_, task)| task),
            restart: Some(restart),
            run: job.run.clone(),
            ..JobStarted::default()
        }
    }

    fn step_started(
        &mut self,
        job: &Job,
        stepd: &Stepd,
        restart: u32,
        tasks: u32,
        rank: u32,
        nodes: u32,
    ) -> StepStarted {
        let argv = match stepd.step {
            StepId::Batch => vec!["/var/spool/slurmd/job/slurm_script".to_owned()],
            StepId::Number(_) => {
                vec!["./solve".into(), "--input".into(), format!("case-{}.toml", job.id % 97)]
            }
            StepId::Extern | StepId::Interactive => Vec::new(),
        };
        let place = format!("/system.slice/slurmstepd.scope/job_{}/step_{}", job.id, stepd.step);
        StepStarted {
            uid: Some(job.user),
            name: Some(job_name(job)),
            argv,
            cwd: Some(work_dir(job)),
            node_count: Some(nodes),
            node_rank: Some(rank),
            local_tasks: Some(tasks),
            total_tasks: Some(tasks * nodes),
            cpus: Some(job.tasks_per_node),
            memory_mib: Some(job.memory_mib),
            limit_bytes: Some(job.memory_mib << 20),
            cgroup: Some(place),
            cgroup_version: Some(2),
            stepd_pid: Some(stepd.pid),
            slurm_version: Some("24.11.5".into()),
            plugin_version: Some("0.1.0".into()),
            array_job_id: job.array.filter(|_| stepd.step != StepId::Extern).map(|(id, _)| JobId(id)),
            array_task_id: job.array.filter(|_| stepd.step != StepId::Extern).map(|(_, task)| task),
            restart: (stepd.step != StepId::Extern).then_some(restart),
            run: job.run.clone().filter(|_| stepd.step != StepId::Extern),
            ..StepStarted::default()
        }
    }

    fn memory(&mut self, job: &Job, how: End) -> Memory {
        let limit = job.memory_mib << 20;
        let peak = match how {
            End::Oom => limit,
            _ => (limit / 100 * (10 + self.random.below(85))).max(GIB >> 6),
        };
        Memory {
            cgroup_peak_bytes: Some(peak),
            limit_bytes: Some(limit),
            limit_level: Some(Level::Job),
            clipped: peak == limit,
            limit_hits: Some(if how == End::Oom { 40 + self.random.below(400) } else { 0 }),
            largest_process_bytes: Some(peak - peak / 8),
            anon_peak_bytes: None,
        }
    }

    fn log(&self, job: &Job) -> String {
        format!("{}/logs/{}-{}.out", work_dir(job), job_name(job), job.id)
    }

    fn node_list(&self, nodes: &[u32]) -> String {
        let names: Vec<&str> = nodes.iter().map(|&n| self.nodes[n as usize].name.as_str()).collect();
        names.join(",")
    }

    /// Puts a line among those of the future.
    fn say(
        &mut self,
        stepd: &mut Stepd,
        at: i64,
        task: Option<u32>,
        severity: Severity,
        body: impl Into<Body>,
    ) {
        let agent = stepd.job.0 == 0;
        let mono_us = (at - self.begin.0 + 86_400 * SECOND).unsigned_abs();
        let header = Header {
            stamp: Stamp { wall: Timestamp(at), mono_us },
            severity,
            source: if agent { Source::Agent } else { Source::Plugin },
            cluster: stepd.identity.cluster(),
            node: stepd.identity.node(),
            boot: stepd.identity.boot(),
            stream: stepd.identity.stream(),
            seq: stepd.seq,
            job_id: (!agent).then_some(stepd.job),
            step: (!agent).then_some(stepd.step),
            task,
        };
        self.line.clear();
        encode(&mut self.line, &header, &body.into());
        stepd.seq += 1;
        self.order += 1;
        let line = self.line.as_slice().into();
        self.future.push(Reverse((at, self.order, stepd.node, line)));
    }

    /// Writes what has happened before `now`.
    fn advance(&mut self, now: i64) -> io::Result<()> {
        while let Some(next) = self.future.peek() {
            if next.0.0 >= now {
                break;
            }
            let Some(Reverse((at, _, n, line))) = self.future.pop() else { break };
            let day = Timestamp(at).day_number();
            let node = &self.nodes[n as usize];
            if node.waiting.len() >= BLOCK || (node.day != day && !node.waiting.is_empty()) {
                self.write(n)?;
            }
            let node = &mut self.nodes[n as usize];
            node.day = day;
            node.waiting.extend_from_slice(&line);
            self.made.events += 1;
            self.made.bytes += line.len() as u64;
        }
        Ok(())
    }

    fn write(&mut self, n: u32) -> io::Result<()> {
        let node = &mut self.nodes[n as usize];
        if node.waiting.is_empty() {
            return Ok(());
        }
        let day = Timestamp(node.day * 86_400 * SECOND).day();
        let path = self.out.join(&node.name).join(format!("{day}.jsonl"));
        let mut file = OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
        file.write_all(&node.waiting)?;
        node.waiting.clear();
        self.files.insert((n, node.day));
        Ok(())
    }

    /// Leaves nothing waiting.
    fn write_all(&mut self) -> io::Result<()> {
        (0..self.nodes.len() as u32).try_for_each(|n| self.write(n))
    }

    fn made(&self) -> Made {
        Made { files: self.files.len() as u64, ..self.made }
    }
}

fn job_name(job: &Job) -> String {
    match job.array {
        Some((id, _)) => format!("sweep{}", id % 89),
        None => format!("run{}", job.id % 83),
    }
}

fn work_dir(job: &Job) -> String {
    format!("/lustre/projects/proj{:03}/u{}/campaign", job.user % 60, job.user)
}

fn severity(how: End) -> Severity {
    if how == End::Well { Severity::Info } else { Severity::Error }
}

fn code_and_signal(how: End) -> (Option<u8>, Option<u8>) {
    match how {
        End::Well => (Some(0), None),
        End::Code(code) => (Some(code), None),
        End::Signal(signal) => (None, Some(signal)),
        End::Oom => (None, Some(9)),
        End::Timeout | End::NodeLost => (None, Some(15)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use inquest_journal::{Head, Lines};
    use std::collections::BTreeSet;

    fn content(dir: &Path) -> Vec<(String, Vec<u8>)> {
        let mut all = Vec::new();
        for node in fs::read_dir(dir).unwrap() {
            for file in fs::read_dir(node.unwrap().path()).unwrap() {
                let path = file.unwrap().path();
                let name = path.strip_prefix(dir).unwrap().display().to_string();
                all.push((name, fs::read(path).unwrap()));
            }
        }
        all.sort();
        all
    }

    #[test]
    fn a_seed_is_a_site() {
        let dir = tempfile::tempdir().unwrap();
        let plan = Plan { nodes: 40, jobs: 600, days: 2, runs: None, seed: 7 };
        let made = generate(&plan, &dir.path().join("a")).unwrap();
        assert_eq!(generate(&plan, &dir.path().join("b")).unwrap(), made);
        let files = content(&dir.path().join("a"));
        assert_eq!(files, content(&dir.path().join("b")));
        let other = Plan { seed: 8, ..plan };
        assert_ne!(generate(&other, &dir.path().join("c")).unwrap(), made);

        let (mut events, mut jobs, mut ids) = (0, BTreeSet::new(), BTreeSet::new());
        for (name, bytes) in &files {
            let mut last = Timestamp(0);
            for (_, line) in Lines::new(bytes) {
                let head = Head::parse(line).unwrap();
                assert_eq!(name, &format!("{}/{}.jsonl", head.node, head.timestamp.day()));
                assert!(head.timestamp >= last, "a file is in the order of time");
                last = head.timestamp;
                assert!(ids.insert((head.stream.to_string(), head.seq)));
                assert!(Body::parse(&head.event_type, line).unwrap().is_ok());
                jobs.extend(head.job_id);
                events += 1;
            }
        }
        assert_eq!((events, jobs.len()), (made.events, 600));
        assert_eq!(files.iter().map(|(_, b)| b.len() as u64).sum::<u64>(), made.bytes);
        assert_eq!(files.len() as u64, made.files);
        assert!(made.failed > 10 && made.failed < 200, "{made:?}");
    }

    /// Slices together are the site that is made at once.
    #[test]
    fn a_site_in_slices_is_the_same_site() {
        let dir = tempfile::tempdir().unwrap();
        let plan = Plan { nodes: 20, jobs: 400, days: 4, runs: None, seed: 9 };
        let whole = generate(&plan, &dir.path().join("whole")).unwrap();
        let (out, mut files, mut stops) = (dir.path().join("slices"), Vec::new(), Vec::new());
        let made = generate_by(&plan, &out, EPOCH, 1, Habits::default(), &mut |made| {
            for (name, bytes) in content(&out) {
                fs::remove_file(out.join(&name))?;
                files.push((name, bytes));
            }
            stops.push(made.events);
            Ok(())
        });
        files.extend(content(&out));
        files.sort();
        assert_eq!(made.unwrap(), whole);
        assert_eq!(files, content(&dir.path().join("whole")));
        assert!(stops.len() == 3 && stops.is_sorted() && stops[0] > 0, "{stops:?}");
    }

    #[test]
    fn a_full_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("x"), "").unwrap();
        let plan = Plan { nodes: 1, jobs: 1, days: 1, runs: None, seed: 1 };
        assert!(generate(&plan, dir.path()).unwrap_err().to_string().contains("not empty"));
    }
}
