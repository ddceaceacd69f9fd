//! The life of one step on this node, from slurm_spank_init to
//! slurm_spank_exit of its slurmstepd.

mod kills;

use inquest_journal::{
    Body, Identity, JobEnded, JobId, JobStarted, Memory, Severity, Source, Stamp, StepEnded, StepId,
    StepStarted, TaskExited, TaskStarted, Via, Writer,
};

use crate::abi::*;
use crate::args::{Config, Sync};
use crate::cgroup::{Limit, StepCgroup, Usage};
use crate::facts::{self, End, JobEnv, Logs, Told};
use crate::kmsg::Kmsg;
use crate::notes;
use crate::small::{monotonic_ns, text};

/// One task of this node. Slurm itself keeps a far larger record for each, so
/// the list is no larger than what the step costs anyway (about 100 bytes).
struct Task {
    pid: u32,
    local_id: u32,
    global_id: Option<u32>,
    started: Stamp,
    /// Its directory below the step's.
    below: Option<Box<str>>,
    /// Kills that Slurm's one check can have seen.
    kills_at_check: u64,
    /// Kills that an event has told of.
    kills_told: u64,
    /// Those of them that the kernel has counted twice.
    kills_twice: u64,
    exited: bool,
}

/// What is known of a step once its last task has ended.
#[derive(Default)]
struct Totals {
    exited: u32,
    failed: u32,
    /// As the kernel counts them.
    kills: u64,
    /// Those of them that it has counted twice.
    kills_twice: u64,
    memory: Memory,
    usage: Usage,
}

/// Everything this slurmstepd knows.
pub(crate) struct Step {
    host: Host,
    pub(crate) config: Config,
    writer: Writer,
    job: JobId,
    step: StepId,
    uid: Option<u32>,
    stepd_pid: u32,
    began: Stamp,
    /// Given with `--inquest-run`.
    run: Option<String>,
    /// The user said `--inquest=off`, and may.
    off: bool,
    started: bool,
    /// A task's descriptors were waited for in vain.
    impatient: bool,
    /// The end was written, or need not be.
    pub(crate) ended: bool,
    /// What the environment said at the start.
    told: Told,
    /// How often the job was restarted before. A script's step knows it at its end.
    restart: Option<u32>,
    cgroup: Option<StepCgroup>,
    limit: Option<Limit>,
    tasks: Vec<Task>,
    batch_end: Option<End>,
    /// The job's warning signal as sbatch's environment asks for it.
    warning: Option<String>,
    /// As the script that failed does.
    script_warning: Option<String>,
    totals: Totals,
    kmsg: Kmsg,
    /// Time in all hooks of this plugin, in nanoseconds.
    pub(crate) hook_ns: u64,
    pub(crate) hook_max_ns: u64,
    /// When the hook began that runs now.
    pub(crate) hook_began_ns: u64,
    pub(crate) panics: u32,
}

impl Step {
    /// Opens the journal. `None` when Slurm does not say which job this is.
    pub(crate) fn open(spank: &Spank<'_>, config: Config) -> Option<Step> {
        let job = JobId(spank.u32(SPK_JOB_ID)?);
        let step = StepId::from_raw(spank.u32(SPK_JOB_STEPID)?);
        let cluster = config.cluster.clone().or_else(facts::cluster_of_slurm_conf);
        // The life of this writer starts now; that of slurmstepd a few
        // milliseconds ago, but asking for that takes 25 us.
        let (pid, began) = (std::process::id(), Stamp::now());
        let identity = Identity::new(
            cluster.as_deref().unwrap_or("unknown"),
            &facts::node_name(),
            &facts::boot_id(),
            pid,
            began.mono_us,
        );
        let writer = match Writer::open(&config.journal, identity, Source::Plugin) {
            Ok((writer, None)) => writer,
            Ok((writer, Some(e))) => {
                spank.host.info(&format!(
                    "inquest: {e}, below {}; what cannot be written is counted. The job is not affected.",
                    config.journal.display()
                ));
                writer
            }
            Err(e) => {
                spank.host.info(&format!("inquest: {e}: {}; nothing is recorded", config.journal.display()));
                return None;
            }
        };
        Some(Step {
            host: *spank.host,
            config,
            writer,
            job,
            step,
            uid: spank.u32(SPK_JOB_UID),
            stepd_pid: pid,
            began,
            run: None,
            off: false,
            started: false,
            impatient: false,
            ended: false,
            told: Told::default(),
            restart: None,
            cgroup: None,
            limit: None,
            tasks: Vec::new(),
            batch_end: None,
            warning: None,
            script_warning: None,
            totals: Totals::default(),
            kmsg: Kmsg::new(pid),
            hook_ns: 0,
            hook_max_ns: 0,
            hook_began_ns: 0,
            panics: 0,
        })
    }

    /// Slurm's functions, found once.
    pub(crate) fn host(&self) -> Host {
        self.host
    }

    pub(crate) fn set_run(&mut self, run: String) {
        self.run = Some(run);
    }

    pub(crate) fn set_off(&mut self, off: bool) {
        self.off = off && self.config.opt_out;
    }

    fn write(&mut self, stamp: Stamp, severity: Severity, task: Option<u32>, body: impl Into<Body>) {
        self.writer.write_at(stamp, severity, Some(self.job), Some(self.step), task, &body.into());
    }

    /// The user's options are known.
    pub(crate) fn init_post_opt(&mut self, spank: &Spank<'_>) {
        let uid = self.uid.filter(|_| !self.off);
        notes::offer(spank, &self.config, uid, self.job, self.step, self.stepd_pid);
    }

    /// A task was forked; its process waits for us before it becomes the
    /// user's program. The extern step calls this once, without a task.
    pub(crate) fn task_post_fork(&mut self, spank: &Spank<'_>) {
        if self.off {
            return;
        }
        let stamp = Stamp::now();
        self.writer.hold();
        self.look_at_start(spank, stamp);
        self.writer.release();
    }

    fn look_at_start(&mut self, spank: &Spank<'_>, stamp: Stamp) {
        let pid = spank.int(SPK_TASK_PID).and_then(|n| u32::try_from(n).ok()).filter(|&n| n > 0);
        let mut below = None;
        match (&self.cgroup, pid) {
            (Some(cgroup), Some(pid)) => below = cgroup.below(pid),
            (None, _) => {
                // Without a task, slurmstepd itself shows where its step is.
                if let Some((cgroup, path)) = StepCgroup::of(pid.unwrap_or_else(std::process::id)) {
                    self.limit = cgroup.limit(whole_job(spank));
                    self.cgroup = Some(cgroup);
                    below = pid.map(|_| path);
                }
            }
            (Some(_), None) => {}
        }
        // What could not be waited for once is not waited for again: there may be hundreds of tasks.
        let patience_ns = if self.impatient { 0 } else { facts::PATIENCE_NS };
        let logs = pid.map(|pid| facts::logs(pid, patience_ns));
        self.impatient |= logs == Some(None);
        let logs = logs.flatten().unwrap_or_default();
        if !self.started {
            self.start(spank, stamp, pid, &logs);
        }
        let Some(pid) = pid else { return };
        let local_id = spank.int(SPK_TASK_ID).and_then(|n| u32::try_from(n).ok());
        let local_id = local_id.unwrap_or(self.tasks.len() as u32);
        let global_id = spank.u32(SPK_TASK_GLOBAL_ID);
        let body = TaskStarted { pid: Some(pid), local_id: Some(local_id), stdout: logs.0, stderr: logs.1 };
        self.tasks.push(Task {
            pid,
            local_id,
            global_id,
            started: stamp,
            below,
            kills_at_check: 0,
            kills_told: 0,
            kills_twice: 0,
            exited: false,
        });
        self.write(stamp, Severity::Info, global_id, body);
    }

    /// Says that the step, and with it perhaps the job, has reached this node.
    fn start(&mut self, spank: &Spank<'_>, stamp: Stamp, pid: Option<u32>, logs: &Logs) {
        self.started = true;
        let mut env = facts::job_env(spank, self.job, &self.config.env);
        self.told = env.attempt;
        // The extern step has next to no environment, and that of a script is not yet its job's.
        self.restart = env.attempt.restart().filter(|_| matches!(self.step, StepId::Number(_)));
        self.warning = env.warning.take();
        // The extern step says "own id" even for members of an array.
        let own = self.step != StepId::Extern;
        let array_task_id = spank.u32(SPK_JOB_ARRAY_TASK_ID).filter(|&n| own && n < SPK_NO_VAL);
        let array_job_id = array_task_id.and_then(|_| spank.positive(SPK_JOB_ARRAY_ID)).map(JobId);
        let cwd = pid.and_then(|pid| facts::proc_link(pid, b"cwd"));

        let via = match self.step {
            StepId::Batch => Some(Via::Batch),
            StepId::Interactive => Some(Via::Interactive),
            StepId::Number(0) => Some(Via::Step),
            _ => None,
        };
        if let Some(via) = via {
            let body = JobStarted {
                via: Some(via),
                uid: self.uid,
                gid: spank.u32(SPK_JOB_GID),
                name: env.name.clone(),
                account: env.account.clone(),
                partition: env.partition.clone(),
                qos: env.qos.clone(),
                comment: None,
                work_dir: cwd.clone(),
                submit_dir: env.submit_dir.clone(),
                stdout: logs.0.clone().filter(|_| self.step == StepId::Batch),
                stderr: logs.1.clone().filter(|_| self.step == StepId::Batch),
                node_list: env.node_list.clone(),
                node_count: env.node_count,
                cpus: spank.str(SPK_JOB_ALLOC_CORES).and_then(facts::cores),
                memory_mib: spank.u64(SPK_JOB_ALLOC_MEM).filter(|&n| n > 0),
                array_job_id,
                array_task_id,
                het_job_id: env.het_job_id,
                het_offset: env.het_offset,
                restart: self.restart,
                end_limit: env.end_limit,
                run: self.run.clone(),
                env: env.run_keys.clone(),
            };
            self.write(stamp, Severity::Info, None, body);
        }
        self.write_step_started(spank, stamp, env, array_job_id, array_task_id, cwd);
    }

    fn write_step_started(
        &mut self,
        spank: &Spank<'_>,
        stamp: Stamp,
        env: JobEnv,
        array_job_id: Option<JobId>,
        array_task_id: Option<u32>,
        cwd: Option<String>,
    ) {
        let body = StepStarted {
            uid: self.uid,
            name: env.name,
            argv: facts::argv(spank),
            cwd,
            // 0 in the batch step, where the job's own number is not the step's.
            node_count: spank.positive(SPK_JOB_NNODES),
            node_rank: spank.u32(SPK_JOB_NODEID).filter(|&n| n < SPK_NO_VAL),
            local_tasks: spank.positive(SPK_JOB_LOCAL_TASK_COUNT),
            total_tasks: spank.positive(SPK_JOB_TOTAL_TASK_COUNT),
            cpus: spank.str(SPK_STEP_ALLOC_CORES).and_then(facts::cores),
            memory_mib: spank.u64(SPK_STEP_ALLOC_MEM).filter(|&n| n > 0),
            limit_bytes: self.limit.map(|l| l.bytes),
            end_limit: env.end_limit,
            cgroup: self.cgroup.as_ref().map(|c| c.step.clone()),
            cgroup_version: self.cgroup.as_ref().map(|c| c.version),
            stepd_pid: Some(self.stepd_pid),
            slurm_version: spank.str(SPK_SLURM_VERSION).map(|s| text(&s[..s.len().min(64)])),
            plugin_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            array_job_id,
            array_task_id,
            restart: self.restart,
            run: self.run.clone(),
            env: env.run_keys,
        };
        self.write(stamp, Severity::Info, None, body);
    }

    /// A task was reaped. The only moment at which its cgroup can be read on
    /// v1 and v2.
    pub(crate) fn task_exit(&mut self, spank: &Spank<'_>) {
        if self.off {
            return;
        }
        let stamp = Stamp::now();
        let local_id = spank.int(SPK_TASK_ID).and_then(|n| u32::try_from(n).ok());
        let pid = spank.int(SPK_TASK_PID).and_then(|n| u32::try_from(n).ok());
        let end = spank.int(SPK_TASK_EXIT_STATUS).map(End::from_status).unwrap_or_default();
        let at = self.tasks.iter().position(|t| {
            !t.exited && (Some(t.local_id) == local_id || (local_id.is_none() && Some(t.pid) == pid))
        });
        if self.totals.exited == 0 {
            self.look_as_slurm_does();
        }
        self.totals.exited += 1;
        self.totals.failed += u32::from(end.failed());
        if self.step == StepId::Batch || self.step == StepId::Interactive {
            self.batch_end = Some(end);
            self.restart = facts::job_env(spank, self.job, &[]).attempt.restart_of_script(self.told);
            if end.failed() && self.step == StepId::Batch && self.warning.is_none() {
                self.script_warning = facts::warning_of_script(spank);
            }
        }

        // A task whose start was not seen is told of all the same.
        let Some(at) = at else {
            let body = TaskExited {
                pid,
                local_id,
                exit_code: end.exit_code,
                signal: end.signal,
                core: end.core,
                memory: self.memory(None, 0),
                ..TaskExited::default()
            };
            let task = spank.u32(SPK_TASK_GLOBAL_ID);
            return self.write(stamp, severity(end.failed()), task, body);
        };
        self.tasks[at].exited = true;
        let kills = self.kills_of(at);
        if let Some(kills) = kills {
            self.tell_kills(stamp, at, kills);
        }
        let memory = self.task_memory(at, kills.unwrap_or(0));
        if self.tasks.len() == 1 {
            // The only task is the step, without slurmstepd's own megabyte.
            self.totals.memory = memory.clone();
        } else if self.tasks.iter().all(|t| t.exited) && self.cgroup.as_ref().is_some_and(|c| c.version == 1)
        {
            // On v2 it is there until the end of the step.
            self.look_at_step();
        }
        let task = &self.tasks[at];
        let body = TaskExited {
            pid: Some(task.pid),
            local_id: Some(task.local_id),
            exit_code: end.exit_code,
            signal: end.signal,
            core: end.core,
            duration_us: Some(stamp.mono_us.saturating_sub(task.started.mono_us)),
            oom_kills: kills.map(|kills| kills.saturating_sub(task.kills_twice)),
            memory,
        };
        let rank = task.global_id;
        self.write(stamp, severity(end.failed()), rank, body);
    }

    /// The figures of a cgroup. How often its limit was hit is read only when
    /// it can matter: far from the limit, it was not hit by this cgroup.
    fn memory(&self, peak: Option<u64>, kills: u64) -> Memory {
        let largest_process_bytes = facts::reaped().map(|r| r.largest_bytes);
        let mut memory = Memory { cgroup_peak_bytes: peak, largest_process_bytes, ..Memory::default() };
        if let (Some(limit), Some(cgroup)) = (self.limit, &self.cgroup) {
            memory.limit_bytes = Some(limit.bytes);
            memory.limit_level = Some(limit.level);
            if kills > 0 || peak.is_some_and(|peak| peak >= limit.bytes - limit.bytes / 8) {
                memory.limit_hits = cgroup.limit_hits("", limit.level);
                memory.clipped =
                    memory.limit_hits.is_some_and(|n| n > 0) || peak.is_some_and(|peak| peak >= limit.bytes);
                cgroup.look_at_swap(limit.level, &mut memory);
            }
        }
        memory
    }

    fn task_memory(&self, at: usize, kills: u64) -> Memory {
        let below = self.tasks[at].below.as_deref();
        self.memory(self.cgroup.as_ref().and_then(|cgroup| cgroup.task_peak(below?)), kills)
    }

    /// The figures of the whole step, while its cgroup is there.
    fn look_at_step(&mut self) {
        let peak = self.cgroup.as_ref().and_then(StepCgroup::step_peak);
        self.totals.usage = self.cgroup.as_ref().map(StepCgroup::usage).unwrap_or_default();
        self.totals.memory = self.memory(peak, self.totals.kills);
    }

    /// Writes what a panic has left waiting.
    pub(crate) fn flush(&mut self) {
        self.writer.release();
    }

    /// The step is over: its processes are gone, on v1 its cgroups too.
    pub(crate) fn exit(&mut self, spank: &Spank<'_>) {
        if self.off {
            self.ended = true;
            return;
        }
        let stamp = Stamp::now();
        self.writer.hold();
        if !self.started && self.panics == 0 {
            // No task was ever forked: the launch failed.
            self.start(spank, stamp, None, &(None, None));
        }
        let reaped = facts::reaped();
        if self.cgroup.as_ref().is_some_and(|c| c.version == 2) {
            self.look_for_stragglers(stamp);
            self.look_at_step();
        }
        let totals = std::mem::take(&mut self.totals);
        let abnormal = totals.failed > 0 || totals.kills > 0 || self.panics > 0;
        let body = StepEnded {
            duration_us: Some(stamp.mono_us.saturating_sub(self.began.mono_us)),
            tasks_started: Some(self.tasks.len() as u32),
            tasks_exited: Some(totals.exited),
            tasks_failed: Some(totals.failed),
            oom_kills: self.cgroup.as_ref().map(|_| totals.kills.saturating_sub(totals.kills_twice)),
            memory: totals.memory,
            cpu_us: totals.usage.cpu_us,
            user_us: totals.usage.user_us,
            system_us: totals.usage.system_us,
            throttled_count: totals.usage.throttled_count,
            throttled_us: totals.usage.throttled_us,
            pressure: totals.usage.pressure,
            read_bytes: totals.usage.read_bytes,
            written_bytes: totals.usage.written_bytes,
            reaped_cpu_us: reaped.map(|r| r.user_us.saturating_add(r.system_us)),
            reaped_system_us: reaped.map(|r| r.system_us),
            reaped_read_bytes: reaped.map(|r| r.read_bytes),
            reaped_written_bytes: reaped.map(|r| r.written_bytes),
            reaped_major_faults: reaped.map(|r| r.major_faults),
            hook_us: Some((self.hook_ns + monotonic_ns().saturating_sub(self.hook_began_ns)) / 1_000),
            hook_max_us: Some(self.hook_max_ns / 1_000),
            panics: (self.panics > 0).then_some(self.panics),
        };
        let step_severity = if abnormal { Severity::Warn } else { Severity::Info };
        self.ended = true;
        self.write(stamp, step_severity, None, body);

        let via = match self.step {
            StepId::Batch => Some(Via::Batch),
            StepId::Interactive => Some(Via::Interactive),
            _ => None,
        };
        if let Some(via) = via {
            let end = self.batch_end.unwrap_or_default();
            // sbatch(1): the environment goes before what the script says.
            let asked = self.warning.take().filter(|_| end.failed()).map(|text| (text, "environment"));
            let asked = asked.or_else(|| self.script_warning.take().map(|text| (text, "script")));
            let (warning, warning_from) = asked.unzip();
            let body = JobEnded {
                via: Some(via),
                exit_code: end.exit_code,
                signal: end.signal,
                derived_exit_code: None,
                restart: self.restart,
                warning,
                warning_from: warning_from.map(str::to_owned),
            };
            self.write(stamp, severity(end.failed()), None, body);
        }
        self.writer.release();
        match self.config.sync {
            Sync::Always => self.writer.sync(),
            Sync::Abnormal if abnormal => self.writer.sync(),
            _ => {}
        }
    }
}

/// Whether the step may use all memory that its job has on this node.
fn whole_job(spank: &Spank<'_>) -> Option<bool> {
    let job = spank.u64(SPK_JOB_ALLOC_MEM).filter(|&n| n > 0)?;
    let step = spank.u64(SPK_STEP_ALLOC_MEM).filter(|&n| n > 0)?;
    Some(step >= job)
}

fn severity(failed: bool) -> Severity {
    if failed { Severity::Error } else { Severity::Info }
}
