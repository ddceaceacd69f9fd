//! What people submit, where it runs and how it ends.

use std::io;
use std::path::Path;

use inquest_journal::{
    JobEnded, JobId, JobStarted, Level, Memory, OomKill, Severity, StepEnded, StepId, StepStarted,
    TaskExited, TaskStarted, Timestamp, Via, Victim,
};

use super::journals::{Journals, Stepd};
use super::{Habits, Made, Plan, SECOND};
use crate::random::Random;

const GIB: u64 = 1 << 30;

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

pub(super) struct Site {
    habits: Habits,
    runs: Option<u32>,
    random: Random,
    journals: Journals,
    failed: u64,
}

impl Site {
    pub(super) fn new(plan: &Plan, out: &Path, begin: Timestamp, habits: Habits) -> io::Result<Site> {
        let mut random = Random::new(plan.seed);
        let journals = Journals::new(plan.nodes, out, begin, &mut random)?;
        Ok(Site { habits, runs: plan.runs, random, journals, failed: 0 })
    }

    /// Writes everything before `now`; says what was made since the beginning,
    /// where so many jobs were submitted.
    pub(super) fn play_until(&mut self, now: i64, jobs: u32) -> io::Result<Made> {
        self.journals.advance(now)?;
        self.journals.write_all()?;
        Ok(Made { jobs, failed: self.failed, ..self.journals.made() })
    }

    /// Submits one job or one array at `now`; says how many jobs that were.
    ///
    /// # Errors
    ///
    /// When what has happened before cannot be written.
    pub(super) fn submit(&mut self, now: i64, id: u32, room: u32) -> io::Result<u32> {
        self.journals.advance(now)?;
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
                nodes: nodes.min(self.journals.nodes.len() as u32),
                tasks_per_node: tasks,
                steps,
                memory_mib,
                seconds: seconds / 2 + self.random.below(seconds.unsigned_abs()).cast_signed(),
            };
            // Members of an array start as places become free.
            let start = now + i64::from(task) * SECOND / 2;
            self.run(&job, start);
        }
        Ok(size)
    }

    /// Plays a job to its end, through all its attempts.
    fn run(&mut self, job: &Job, mut start: i64) {
        for restart in 0.. {
            let first = self.random.below(self.journals.nodes.len() as u64) as u32;
            let bad = self.journals.nodes[first as usize].bad;
            let end = match self.end(bad) {
                End::NodeLost if !self.habits.losses => End::Timeout,
                end => end,
            };
            let stopped = self.attempt(job, restart, first, start, end);
            if end != End::NodeLost || restart == 3 {
                self.failed += u64::from(end != End::Well);
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
        let all = self.journals.nodes.len() as u32;
        let nodes: Vec<u32> = (0..job.nodes).map(|n| (first + n) % all).collect();
        let share = if end == End::Well { 100 } else { 5 + self.random.below(90).cast_signed() };
        let stop = start + SECOND + job.seconds * SECOND / 100 * share;
        let list = self.node_list(&nodes);

        // The extern step: on every node, as long as the job.
        for &node in &nodes {
            let mut stepd = self.journals.stepd(node, job.id, StepId::Extern, start);
            let body = StepStarted { name: None, ..self.step_started(job, &stepd, restart, 1, 0, 1) };
            self.journals.say(&mut stepd, start, None, Severity::Info, body);
            if end != End::NodeLost {
                let at = stop + 400_000 + self.random.below(200_000).cast_signed();
                let body =
                    StepEnded { duration_us: Some((at - start).unsigned_abs()), ..StepEnded::default() };
                self.journals.say(&mut stepd, at, None, Severity::Info, body);
            }
        }
        let mut at = start + 40_000 + self.random.below(20_000).cast_signed();
        let mut batch = self.journals.stepd(nodes[0], job.id, StepId::Batch, at);
        let body = self.step_started(job, &batch, restart, 1, 0, 1);
        self.journals.say(&mut batch, at, None, Severity::Info, body);
        let body = self.job_started(job, restart, list);
        self.journals.say(&mut batch, at + 300, None, Severity::Info, body);
        let pid = batch.pid + 5;
        let body = TaskStarted {
            pid: Some(pid),
            local_id: Some(0),
            stdout: Some(self.log(job)),
            stderr: Some(self.log(job)),
        };
        self.journals.say(&mut batch, at + 900, Some(0), Severity::Info, body);
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
            self.journals.reboot(nodes[0], stop + 90 * SECOND, &mut self.random);
        }
        stop
    }

    #[allow(clippy::too_many_arguments)] // One call, all of it needed.
    fn step(&mut self, job: &Job, restart: u32, step: u32, nodes: &[u32], at: i64, stop: i64, end: End) {
        // One rank dies first; the others follow by SIGTERM, as with srun -K.
        let victim = self.random.below(u64::from(job.tasks_per_node) * nodes.len() as u64) as u32;
        for (rank, &node) in (0u32..).zip(nodes) {
            let mut stepd = self.journals.stepd(node, job.id, StepId::Number(step), at);
            let body = self.step_started(job, &stepd, restart, job.tasks_per_node, rank, nodes.len() as u32);
            self.journals.say(&mut stepd, at, None, Severity::Info, body);
            for local in 0..job.tasks_per_node {
                let task = rank * job.tasks_per_node + local;
                let pid = Some(stepd.pid + 4 + local);
                let body = TaskStarted { pid, local_id: Some(local), ..TaskStarted::default() };
                self.journals.say(
                    &mut stepd,
                    at + 1500 + i64::from(local) * 40,
                    Some(task),
                    Severity::Info,
                    body,
                );
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
            self.journals.say(&mut stepd, stop + 90_000, None, severity(end), body);
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
        self.journals.say(batch, stop + 110_000, None, severity(how), body);
        let (exit_code, signal) = code_and_signal(how);
        let body = JobEnded {
            via: Some(Via::Batch),
            exit_code,
            signal,
            restart: Some(restart),
            ..JobEnded::default()
        };
        self.journals.say(batch, stop + 110_200, None, severity(how), body);
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
                ..OomKill::default()
            };
            self.journals.say(stepd, at - 20, task, Severity::Error, body);
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
        self.journals.say(stepd, at, task, severity(how), body);
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
            ..Memory::default()
        }
    }

    fn log(&self, job: &Job) -> String {
        format!("{}/logs/{}-{}.out", work_dir(job), job_name(job), job.id)
    }

    fn node_list(&self, nodes: &[u32]) -> String {
        let names: Vec<&str> = nodes.iter().map(|&n| self.journals.nodes[n as usize].name.as_str()).collect();
        names.join(",")
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
