//! One small story per rule: events in, verdict out.

use inquest::slurm::accounting::JobRecord;
use inquest::story::Story;
use inquest::verdict::{Class, Confidence, judge, rules};
use inquest_journal::{
    Body, Head, JobEnded, JobId, JobStarted, Level, Lost, NodeBooted, OomKill, ProcessDied, Severity, Source,
    StepEnded, StepId, StepStarted, TaskExited, TaskStarted, Timestamp, Via, Victim,
};

const T0: i64 = 1_763_735_400_000_000;

/// Writes the events of one job.
struct Script {
    story: Story,
    seq: u64,
    /// Which slurmstepds write.
    life: u32,
}

impl Script {
    fn new() -> Script {
        Script { story: Story::default(), seq: 0, life: 1 }
    }

    fn say(
        &mut self,
        ms: i64,
        node: &str,
        step: StepId,
        task: Option<u32>,
        body: impl Into<Body>,
    ) -> &mut Script {
        let mut body = body.into();
        let head = self.head(ms, node, step, task, body.event_type());
        self.seq += 1;
        self.story.apply(&head, &mut body);
        self
    }

    fn head(&self, ms: i64, node: &str, step: StepId, task: Option<u32>, event_type: &str) -> Head<'static> {
        Head {
            v: 1,
            timestamp: Timestamp(T0 + ms * 1000),
            event_type: event_type.to_owned().into(),
            severity: Severity::Info,
            source: Source::Plugin,
            cluster: "lab".into(),
            node: node.to_owned().into(),
            boot: "0badc0de".into(),
            mono_us: 1_000_000_000_u64.wrapping_add_signed(ms * 1000),
            stream: format!("{node}-{step}-{}", self.life).into(),
            seq: self.seq,
            job_id: Some(JobId(7)),
            step: Some(step),
            task,
        }
    }

    fn start(
        &mut self,
        ms: i64,
        node: &str,
        step: StepId,
        tasks: &[u32],
        restart: Option<u32>,
    ) -> &mut Script {
        self.say(
            ms,
            node,
            step,
            None,
            StepStarted { restart, name: Some("j".into()), ..StepStarted::default() },
        );
        for &task in tasks {
            self.say(
                ms,
                node,
                step,
                Some(task),
                TaskStarted { pid: Some(100 + task), ..TaskStarted::default() },
            );
        }
        self
    }

    fn exit(
        &mut self,
        ms: i64,
        node: &str,
        step: StepId,
        task: u32,
        code: Option<u8>,
        signal: Option<u8>,
    ) -> &mut Script {
        self.say(ms, node, step, Some(task), TaskExited { exit_code: code, signal, ..TaskExited::default() })
    }

    /// The node has no memory left, and the kernel kills a process of the task.
    fn host_oom(&mut self, ms: i64, node: &str, step: StepId, task: u32) -> &mut Script {
        let victim = Victim { pid: Some(42), command: Some("eater".into()), ..Victim::default() };
        let body =
            OomKill { count: Some(1), level: Some(Level::Host), victims: vec![victim], ..OomKill::default() };
        self.say(ms, node, step, Some(task), body)
    }

    fn oom(&mut self, ms: i64, node: &str, step: StepId, task: u32, reported: bool) -> &mut Script {
        let victim = Victim { pid: Some(42), command: Some("eater".into()), ..Victim::default() };
        let body = OomKill {
            count: Some(1),
            level: Some(Level::Job),
            limit_bytes: Some(64 << 20),
            peak_bytes: Some(64 << 20),
            victims: vec![victim],
            reported_by_slurm: Some(reported),
            oom_group: None,
        };
        self.say(ms, node, step, Some(task), body)
    }

    fn end(&mut self, ms: i64, node: &str, step: StepId) -> &mut Script {
        self.say(ms, node, step, None, StepEnded::default())
    }
}

const BATCH: StepId = StepId::Batch;
const STEP: StepId = StepId::Number(0);

/// A batch job on n1 whose script ends like this after a second.
fn batch(code: Option<u8>, signal: Option<u8>) -> Script {
    let mut s = Script::new();
    s.start(0, "n1", BATCH, &[0], Some(0)).exit(1000, "n1", BATCH, 0, code, signal).end(1001, "n1", BATCH);
    s
}

fn slurm(state: &str) -> JobRecord {
    JobRecord { state: state.into(), ..JobRecord::default() }
}

fn cause(script: &Script, record: Option<&JobRecord>) -> (Class, String) {
    let verdict = judge(script.story.attempts.last().unwrap(), record);
    assert!(verdict.class == Class::Ok || !verdict.detail.is_empty());
    (verdict.class, verdict.cause)
}

#[test]
fn every_rule_has_a_story() {
    let mut seen = Vec::new();
    let mut is = |script: &Script, record: Option<&str>, class: Class, name: &'static str| {
        let record = record.map(slurm);
        assert_eq!(cause(script, record.as_ref()), (class, name.to_owned()));
        seen.push(name);
    };

    is(&batch(Some(0), None), None, Class::Ok, "ok");
    is(&batch(Some(3), None), None, Class::AppError, "app_error");
    is(&batch(Some(127), None), None, Class::AppError, "launch_fail");
    is(&batch(Some(139), None), None, Class::Crash, "child_signal");
    is(&batch(None, Some(11)), None, Class::Crash, "signal");
    is(&batch(None, Some(9)), None, Class::Crash, "killed_other");
    is(&batch(None, Some(15)), None, Class::Cancelled, "ended_by_slurm");
    is(&batch(None, Some(15)), Some("CANCELLED by 1001"), Class::Cancelled, "cancelled");
    is(&batch(None, Some(15)), Some("TIMEOUT"), Class::Timeout, "timeout");
    is(&batch(Some(0), None), Some("TIMEOUT"), Class::Timeout, "timeout_handled");
    is(&batch(None, Some(15)), Some("PREEMPTED"), Class::Preempted, "preempted");
    is(&batch(None, Some(15)), Some("NODE_FAIL"), Class::Infra, "node_fail");
    is(&batch(None, Some(15)), Some("BOOT_FAIL"), Class::Infra, "boot_fail");
    is(&batch(None, Some(15)), Some("DEADLINE"), Class::Timeout, "deadline");

    let mut oom = Script::new();
    oom.start(0, "n1", BATCH, &[0], Some(0)).oom(900, "n1", BATCH, 0, true);
    oom.exit(901, "n1", BATCH, 0, None, Some(9)).end(902, "n1", BATCH);
    is(&oom, Some("OUT_OF_MEMORY"), Class::Oom, "oom_cgroup");

    let mut host = Script::new();
    host.start(0, "n1", BATCH, &[0], Some(0)).host_oom(900, "n1", BATCH, 0);
    host.exit(901, "n1", BATCH, 0, None, Some(9)).end(902, "n1", BATCH);
    is(&host, Some("OUT_OF_MEMORY"), Class::Oom, "oom_host");
    let verdict = judge(host.story.attempts.last().unwrap(), None);
    assert!(verdict.detail.contains("eater (pid 42)"), "{}", verdict.detail);
    assert!(verdict.advice.iter().all(|a| !a.contains("--mem=")), "{:?}", verdict.advice);

    let mut partial = Script::new();
    partial.start(0, "n1", BATCH, &[0], Some(0)).oom(900, "n1", BATCH, 0, true);
    partial.exit(901, "n1", BATCH, 0, Some(0), None).end(902, "n1", BATCH);
    is(&partial, None, Class::Oom, "oom_partial");

    let mut host = Script::new();
    host.start(0, "n1", BATCH, &[0], Some(0)).host_oom(900, "n1", BATCH, 0);
    host.exit(901, "n1", BATCH, 0, Some(0), None).end(902, "n1", BATCH);
    is(&host, None, Class::Oom, "oom_host");

    let mut masked = Script::new();
    masked.start(0, "n1", BATCH, &[0], Some(0)).start(100, "n1", STEP, &[0], Some(0));
    masked.exit(200, "n1", STEP, 0, None, Some(11)).end(210, "n1", STEP);
    masked.exit(900, "n1", BATCH, 0, Some(0), None).end(902, "n1", BATCH);
    is(&masked, Some("COMPLETED"), Class::Crash, "crash_masked");

    let mut lost = Script::new();
    lost.start(0, "n1", BATCH, &[0], Some(0));
    is(&lost, None, Class::Infra, "lost");

    let mut reboot = Script::new();
    reboot.start(0, "n1", BATCH, &[0], Some(0));
    let head = Head { boot: "5eedf00d".into(), ..reboot.head(300_000, "n1", BATCH, None, "node_booted") };
    reboot.story.apply(&head, &mut NodeBooted::default().into());
    is(&reboot, None, Class::Infra, "node_reboot");
    // The end was recorded and came late.
    reboot.exit(1000, "n1", BATCH, 0, Some(0), None).end(1001, "n1", BATCH);
    is(&reboot, None, Class::Ok, "ok");

    let requeued = JobRecord { state: "PENDING".into(), restarts: 1, ..JobRecord::default() };
    assert_eq!(cause(&batch(None, Some(15)), Some(&requeued)), (Class::Preempted, "requeued".into()));
    seen.push("requeued");
    let mut warned = batch(None, Some(10));
    assert_eq!(cause(&warned, None).1, "killed_other", "nobody asked for it");
    let said = JobEnded {
        signal: Some(10),
        warning: Some("B:USR1@50".into()),
        warning_from: Some("script".into()),
        ..JobEnded::default()
    };
    warned.say(1002, "n1", BATCH, None, said);
    let judged = |record: Option<&JobRecord>| {
        let verdict = judge(&warned.story.attempts[0], record);
        (verdict.cause.clone(), verdict.confidence)
    };
    // The limit of a minute would have come 59 s later, one of an hour much later.
    let limited = |limit: &str| JobRecord { time_limit: limit.into(), ..slurm("FAILED") };
    assert_eq!(judged(None), ("limit_warning".into(), Confidence::Inferred));
    assert_eq!(judged(Some(&limited("1:00"))), ("limit_warning".into(), Confidence::Fact));
    assert_eq!(judged(Some(&limited("1:00:00"))).0, "killed_other");
    // sbatch's command line goes before the script, and without B: a script is not told.
    for (line, cause) in
        [("B:USR2@50", "killed_other"), ("USR1@50", "killed_other"), ("B:10", "limit_warning")]
    {
        let record = JobRecord { warning: Some(line.into()), ..limited("1:00") };
        assert_eq!(judged(Some(&record)).0, cause, "{line}");
    }
    assert_eq!(judged(Some(&slurm("TIMEOUT"))).0, "timeout");
    seen.push("limit_warning");

    let mut told = |record: JobRecord, class: Class, name: &'static str| {
        let mut ended = batch(None, Some(15));
        let owner = StepStarted { uid: Some(1001), ..StepStarted::default() };
        ended.say(0, "n1", BATCH, None, owner);
        assert_eq!(cause(&ended, Some(&record)), (class, name.to_owned()));
        seen.push(name);
    };
    let by = |uid| JobRecord { cancelled_by: Some(uid), ..slurm("CANCELLED") };
    told(by(1001), Class::Cancelled, "cancelled_user");
    told(by(0), Class::Cancelled, "cancelled_admin");
    told(by(7), Class::Cancelled, "cancelled_admin");
    let never = JobRecord { reason: "DependencyNeverSatisfied".into(), ..slurm("CANCELLED") };
    told(never, Class::Dependency, "dependency");

    let untold: Vec<_> = rules::RULES.iter().map(|r| r.cause()).filter(|c| !seen.contains(c)).collect();
    assert!(untold.is_empty(), "rules without a story: {untold:?}");
}

#[test]
fn a_job_whose_tasks_end_is_lost_did_not_end_well_when_something_else_says_so() {
    // A step without a script, as srun from outside makes it; its task's end is not there.
    let step = |end: StepEnded| {
        let mut s = Script::new();
        s.start(0, "n1", STEP, &[0], None).say(1000, "n1", STEP, None, end);
        s
    };
    let failed = || StepEnded { tasks_failed: Some(1), ..StepEnded::default() };
    let ended = |exit_code| JobEnded { exit_code: Some(exit_code), ..JobEnded::default() };
    let told = |script: &Script, state: Option<&str>| {
        let verdict = judge(script.story.attempts.last().unwrap(), state.map(slurm).as_ref());
        (verdict.class, verdict.cause, verdict.detail, verdict.evidence.len())
    };
    let well = (Class::Ok, "ok".to_owned(), "ended well.".to_owned(), 1);
    assert_eq!(told(&step(StepEnded::default()), None), well);
    assert_eq!(told(&step(StepEnded::default()), Some("COMPLETED")), well);

    let error = |words: &str, evidence| {
        let detail = format!("no recorded end of a task explains it, but {words}.");
        (Class::AppError, "app_error".to_owned(), detail, evidence)
    };
    assert_eq!(told(&step(failed()), None), error("1 task of step 0 on n1 failed", 1));
    let mut script = step(StepEnded::default());
    script.say(1001, "n1", StepId::Extern, None, ended(3));
    assert_eq!(told(&script, None), error("the job ended with exit code 3", 1));
    let mut script = step(failed());
    script.say(1001, "n1", StepId::Extern, None, ended(0));
    assert_eq!(told(&script, None).0, Class::AppError);
    assert_eq!(
        told(&step(StepEnded::default()), Some("FAILED")).0,
        Class::AppError,
        "Slurm knows of the shell that held the allocation"
    );
    // A script that ended well has dealt with what failed in it.
    let mut script = batch(Some(0), None);
    script.start(100, "n1", STEP, &[0], None).say(200, "n1", STEP, None, failed());
    assert_eq!(told(&script, None).0, Class::Ok);
}

#[test]
fn numbers_that_are_not_there_are_counted_where_they_are_missing() {
    let lost = |seqs: &[u64], told: u64| {
        let mut s = Script::new();
        for &seq in seqs {
            s.seq = seq;
            let body: Body = match (seq, told) {
                (9, 1..) => Lost { count: Some(told), reason: Some("disk full".into()) }.into(),
                _ => StepStarted::default().into(),
            };
            s.say(0, "n1", STEP, None, body);
        }
        s.story.attempts.last().unwrap().lost
    };
    assert_eq!(lost(&[0, 1, 2], 0), 0);
    assert_eq!(lost(&[1, 4, 2], 0), 2);
    // Those that it could not write have numbers: they are not lost twice.
    assert_eq!(lost(&[0, 9], 8), 8);
    assert_eq!(lost(&[0, 3, 4, 5, 6, 7, 8, 9], 5), 5);
}

#[test]
fn a_kill_that_slurm_never_reports_is_named_as_such() {
    let mut late = Script::new();
    late.start(0, "n1", BATCH, &[0], Some(0)).start(100, "n1", STEP, &[0, 1], Some(0));
    late.exit(200, "n1", STEP, 0, Some(0), None).oom(3000, "n1", STEP, 1, false);
    late.exit(3001, "n1", STEP, 1, None, Some(9)).end(3010, "n1", STEP);
    late.exit(3100, "n1", BATCH, 0, Some(0), None).end(3101, "n1", BATCH);
    let verdict = judge(&late.story.attempts[0], Some(&slurm("COMPLETED")));
    assert_eq!((verdict.class, verdict.cause.as_str()), (Class::Oom, "oom_partial"));
    assert!(
        verdict.detail.contains("eater") && verdict.detail.contains("does not report it"),
        "{}",
        verdict.detail
    );
    let first = verdict.first_failure.unwrap();
    assert_eq!((first.step, first.task, first.limit_bytes), (STEP, 1, Some(64 << 20)));
    assert_eq!(verdict.evidence.len(), 2);
    assert_eq!(verdict.confidence, Confidence::Fact);
}

/// A step whose slurmstepd the kernel killed after two processes of its task, as the agent wrote it down
/// on Slurm 26.05: what is in `/dev/shm` is not given back with who wrote it.
fn without_stepd(script: &mut Script, step: StepId) -> &mut Script {
    let started = StepStarted { stepd_pid: Some(469), ..StepStarted::default() };
    script.say(0, "n1", step, None, started);
    script.say(0, "n1", step, Some(0), TaskStarted { pid: Some(506), ..TaskStarted::default() });
    for (ms, task, pid, command) in
        [(2520, Some(0), 506, "slurm_script"), (2969, Some(0), 519, "dd"), (3229, None, 469, "slurmstepd")]
    {
        let victim = Victim { pid: Some(pid), command: Some(command.into()), ..Victim::default() };
        let killed = OomKill {
            count: Some(1),
            level: Some(Level::Job),
            limit_bytes: Some(67_108_864),
            peak_bytes: Some(if task.is_some() { 66_785_280 } else { 1_048_576 }),
            victims: vec![victim],
            ..OomKill::default()
        };
        let died = ProcessDied {
            pid: Some(pid),
            command: Some(command.into()),
            signal: Some(9),
            ..ProcessDied::default()
        };
        script.say(ms, "n1", step, task, killed).say(ms + 70, "n1", step, task, died);
    }
    script
}

#[test]
fn a_kill_for_memory_explains_the_job_whose_slurmstepd_it_took_too() {
    let mut script = Script::new();
    without_stepd(&mut script, BATCH).start(0, "n1", StepId::Extern, &[], None);
    let orphans: Vec<_> = script.story.attempts[0].orphans().map(|o| (o.step, o.pid, o.for_memory)).collect();
    assert_eq!(orphans, [(BATCH, 469, true)]);
    // Until somebody ends it, or its time does.
    script.end(600_000, "n1", StepId::Extern);
    for state in ["CANCELLED", "TIMEOUT"] {
        let verdict = judge(&script.story.attempts[0], Some(&slurm(state)));
        assert_eq!((verdict.cause.as_str(), verdict.confidence), ("oom_cgroup", Confidence::Fact));
        let said = "out of memory: slurm_script (pid 506), dd (pid 519) killed in step batch task 0 on n1, which ended \
                    with SIGKILL; peak 63.7 MiB of a limit of 64.0 MiB (job). Its slurmstepd (pid 469) was killed, \
                    too, so Slurm was not told of the end.";
        assert_eq!(verdict.detail, said);
        let first = verdict.first_failure.unwrap();
        assert_eq!((first.signal, first.oom_kills, verdict.evidence.len()), (Some(9), 2, 4));
    }

    // A step of which srun was never told, until the time limit ended the script.
    let mut waited = Script::new();
    waited.start(0, "n1", BATCH, &[0], None);
    without_stepd(&mut waited, STEP);
    waited.exit(600_000, "n1", BATCH, 0, None, Some(15)).end(600_001, "n1", BATCH);
    let verdict = judge(&waited.story.attempts[0], Some(&slurm("TIMEOUT")));
    assert_eq!((verdict.cause.as_str(), verdict.first_failure.unwrap().step), ("oom_cgroup", STEP));
    // Or the script went on without it.
    let mut went_on = Script::new();
    went_on.start(0, "n1", BATCH, &[0], None);
    without_stepd(&mut went_on, STEP);
    went_on.exit(600_000, "n1", BATCH, 0, Some(0), None).end(600_001, "n1", BATCH);
    assert_eq!(cause(&went_on, Some(&slurm("COMPLETED"))), (Class::Oom, "oom_partial".into()));
}

#[test]
fn a_slurmstepd_that_somebody_killed_is_named() {
    let mut lost = Script::new();
    let started = StepStarted { stepd_pid: Some(469), ..StepStarted::default() };
    let died = ProcessDied { pid: Some(469), signal: Some(9), ..ProcessDied::default() };
    lost.say(0, "n1", BATCH, None, started).say(900, "n1", BATCH, None, died);
    let verdict = judge(&lost.story.attempts[0], None);
    assert_eq!((verdict.cause.as_str(), verdict.confidence), ("lost", Confidence::Fact));
    assert_eq!(
        verdict.detail,
        "slurmstepd (pid 469) of step batch on n1 died, so its end was never recorded."
    );
}

#[test]
fn the_first_of_many_deaths_is_the_cause_and_the_rest_follow_from_it() {
    // Rank 1 exits 5 on n2; srun ends rank 0 on n1, whose clock is 80 ms
    // behind, so that its death even seems to come first.
    let mut ranks = Script::new();
    ranks.start(0, "n1", BATCH, &[0], Some(0)).start(100, "n1", STEP, &[0], Some(0));
    ranks.start(100, "n2", STEP, &[1], Some(0));
    ranks.exit(1200, "n2", STEP, 1, Some(5), None).exit(1120, "n1", STEP, 0, None, Some(15));
    ranks.end(1250, "n1", STEP).end(1250, "n2", STEP);
    ranks.exit(1400, "n1", BATCH, 0, Some(5), None).end(1401, "n1", BATCH);
    let verdict = judge(&ranks.story.attempts[0], Some(&slurm("FAILED")));
    let first = verdict.first_failure.as_ref().unwrap();
    assert_eq!((first.task, &*first.at.node, first.exit_code), (1, "n2", Some(5)));
    assert_eq!(verdict.consequences.len(), 2);
    assert_eq!(verdict.cause, "app_error");
}

#[test]
fn a_script_that_fails_long_after_its_step_failed_for_itself() {
    let mut own = Script::new();
    own.start(0, "n1", BATCH, &[0], Some(0)).start(100, "n1", STEP, &[0], Some(0));
    own.exit(200, "n1", STEP, 0, Some(1), None).end(210, "n1", STEP);
    own.exit(900_000, "n1", BATCH, 0, Some(3), None).end(900_001, "n1", BATCH);
    let verdict = judge(&own.story.attempts[0], None);
    assert_eq!(verdict.first_failure.unwrap().exit_code, Some(3));
}

#[test]
fn a_requeued_job_has_two_attempts_whatever_came_first() {
    let mut s = Script::new();
    s.start(0, "n1", StepId::Extern, &[], None).start(10, "n1", BATCH, &[0], Some(0));
    s.exit(500, "n1", BATCH, 0, None, Some(15)).end(501, "n1", BATCH).end(502, "n1", StepId::Extern);
    assert_eq!(s.story.attempts.len(), 1);
    s.life = 2;
    s.start(9000, "n1", StepId::Extern, &[], None).start(9010, "n1", BATCH, &[0], Some(1));
    s.exit(9500, "n1", BATCH, 0, Some(0), None).end(9501, "n1", BATCH).end(9502, "n1", StepId::Extern);
    let attempts = &s.story.attempts;
    assert_eq!(attempts.iter().map(|a| a.restart).collect::<Vec<_>>(), [0, 1]);
    assert!(attempts.iter().all(|a| a.is_over()));
    assert_eq!(judge(&attempts[1], None).class, Class::Ok);
}

/// A job whose first attempt was on n1, until that went down, and whose second was on n2 with a part on n3;
/// no step of its script says which attempt it is.
fn attempts_on_other_nodes(journals: &[&str]) -> Script {
    let mut s = Script::new();
    for journal in journals {
        match *journal {
            "n1" => {
                s.life = 1;
                s.start(0, "n1", StepId::Extern, &[], None).start(10, "n1", BATCH, &[0], None);
            }
            "n2" => {
                s.life = 2;
                s.start(300_000, "n2", StepId::Extern, &[], None).start(300_010, "n2", BATCH, &[0], None);
                s.start(300_500, "n2", STEP, &[0], Some(1)).exit(300_900, "n2", STEP, 0, Some(0), None);
                s.end(300_901, "n2", STEP).exit(301_000, "n2", BATCH, 0, Some(0), None);
                s.end(301_001, "n2", BATCH).end(301_002, "n2", StepId::Extern);
            }
            other => {
                s.life = 2;
                s.start(299_900, other, StepId::Extern, &[], None).end(301_100, other, StepId::Extern);
            }
        }
    }
    s
}

#[test]
fn attempts_are_told_apart_whichever_journal_is_read_first() {
    for order in [
        ["n1", "n2", "n3"],
        ["n1", "n3", "n2"],
        ["n2", "n1", "n3"],
        ["n2", "n3", "n1"],
        ["n3", "n1", "n2"],
        ["n3", "n2", "n1"],
    ] {
        let story = attempts_on_other_nodes(&order).story;
        let attempts = &story.attempts;
        assert_eq!(attempts.iter().map(|a| a.restart).collect::<Vec<_>>(), [0, 1], "{order:?}");
        let nodes: Vec<Vec<&str>> =
            attempts.iter().map(|a| a.nodes.iter().map(AsRef::as_ref).collect()).collect();
        assert_eq!(nodes, [vec!["n1"], vec!["n2", "n3"]], "{order:?}");
        assert!(!attempts[0].is_over() && attempts[1].is_over(), "{order:?}");
        assert_eq!(judge(&attempts[1], None).class, Class::Ok, "{order:?}");
        assert_eq!(attempts[1].elapsed_us(), Some(1_200_000), "{order:?}");
    }
}

#[test]
fn the_end_of_a_script_says_which_attempt_it_was() {
    let end = |restart| JobEnded { exit_code: Some(0), restart, ..JobEnded::default() };
    let numbers = |s: &Script| s.story.attempts.iter().map(|a| a.restart).collect::<Vec<_>>();
    let script = |s: &mut Script, life: u32, ms: i64, node: &str, restart: Option<u32>| {
        s.life = life;
        s.start(ms, node, BATCH, &[0], None).exit(ms + 900, node, BATCH, 0, Some(0), None);
        s.end(ms + 901, node, BATCH).say(ms + 901, node, BATCH, None, end(restart));
    };
    // The journal of the first two attempts is gone; then it is found.
    let mut s = Script::new();
    script(&mut s, 3, 600_000, "n3", Some(2));
    assert_eq!(numbers(&s), [2]);
    script(&mut s, 1, 0, "n1", None);
    assert_eq!(numbers(&s), [0, 2]);
    script(&mut s, 2, 300_000, "n2", Some(1));
    assert_eq!(numbers(&s), [0, 1, 2]);
    assert!(s.story.attempts.iter().all(|a| a.ended.is_some() && a.is_over()));
    // Of two that were counted, both were one too low.
    let mut s = Script::new();
    script(&mut s, 2, 300_000, "n1", None);
    s.life = 3;
    s.start(600_000, "n1", BATCH, &[0], None).start(600_010, "n1", STEP, &[0], None);
    assert_eq!(numbers(&s), [0, 1]);
    s.say(600_900, "n1", BATCH, None, end(Some(2)));
    assert_eq!(numbers(&s), [0, 2]);
    s.life = 2;
    s.say(300_902, "n1", BATCH, None, end(Some(1)));
    assert_eq!(numbers(&s), [1, 2]);
    assert!(s.story.attempts[1].steps.contains_key(&STEP));

    // A step of the second attempt, read before its script: the first was over.
    let mut s = Script::new();
    script(&mut s, 1, 0, "n1", None);
    s.life = 2;
    s.start(300_500, "n3", STEP, &[0], Some(1));
    assert_eq!(numbers(&s), [0, 1]);
    script(&mut s, 2, 300_000, "n2", Some(1));
    assert_eq!(numbers(&s), [0, 1]);
    assert!(s.story.attempts[1].steps.len() == 2 && !s.story.attempts[1].is_over());
    // The first one's epilog, which Slurm has already given the second one's number.
    let epilog =
        JobEnded { via: Some(Via::Epilog), exit_code: Some(7), restart: Some(1), ..JobEnded::default() };
    let head = s.head(2_000, "n1", BATCH, None, "job_ended");
    s.story.apply(&Head { step: None, ..head }, &mut epilog.into());
    assert_eq!(s.story.attempts[0].ended.as_ref().unwrap().exit_code, Some(7));
    // A contradiction changes nothing.
    s.say(300_905, "n2", BATCH, None, end(Some(0)));
    assert_eq!(numbers(&s), [0, 1]);

    // The second attempt begins at once, and a step of it without a number a moment later.
    let mut s = Script::new();
    script(&mut s, 1, 0, "n1", Some(0));
    s.life = 2;
    s.start(1_000, "n1", BATCH, &[0], None).start(1_100, "n1", STEP, &[0], None);
    assert_eq!(numbers(&s), [0, 1]);
    assert!(s.story.attempts[1].steps.contains_key(&STEP) && s.story.attempts[0].steps.len() == 1);
}

#[test]
fn a_job_counts_as_failed_once_even_when_slurm_gives_a_limit_after_a_crash() {
    // The crash came first; Slurm's state is what ended the job.
    let verdict = judge(&batch(None, Some(11)).story.attempts[0], Some(&slurm("FAILED")));
    assert_eq!(verdict.class, Class::Crash);
    let known = JobStarted { end_limit: Some(Timestamp(T0 + 1_000_000)), ..JobStarted::default() };
    let mut at_limit = Script::new();
    at_limit.start(0, "n1", BATCH, &[0], Some(0)).say(0, "n1", BATCH, None, known);
    at_limit.exit(1500, "n1", BATCH, 0, None, Some(15)).end(1501, "n1", BATCH);
    let verdict = judge(&at_limit.story.attempts[0], None);
    assert_eq!((verdict.class, verdict.confidence), (Class::Timeout, Confidence::Inferred));
}

/// Two ranks on two nodes that fail by themselves after so many milliseconds; the clock of n2 is
/// ahead by so much, and each node begins the step and ends with the job as late as `late` says.
fn two_nodes(ahead: i64, late: [[i64; 2]; 3], ends: [i64; 2]) -> Script {
    let extern_step = StepId::Extern;
    let mut s = Script::new();
    for (n, node, ahead) in [(0, "n1", 0), (1, "n2", ahead)] {
        let rank = n as u32;
        s.start(ahead + late[0][n], node, extern_step, &[], None);
        if n == 0 {
            s.start(20, node, BATCH, &[9], Some(0));
        }
        s.start(ahead + 200 + late[1][n], node, STEP, &[rank], Some(0));
        s.exit(ahead + ends[n], node, STEP, rank, Some(5 + n as u8), None).end(
            ahead + ends[n] + 1,
            node,
            STEP,
        );
        if n == 0 {
            s.exit(9000, node, BATCH, 9, Some(1), None).end(9001, node, BATCH);
        }
        s.end(ahead + 9100 + late[2][n], node, extern_step);
    }
    s
}

#[test]
fn a_wrong_clock_does_not_make_the_last_death_the_first() {
    // n1 failed a second after n2, whose clock is 3.2 s ahead.
    let s = two_nodes(3200, [[0, 30], [10, 0], [0, 40]], [2500, 1500]);
    let verdict = judge(&s.story.attempts[0], None);
    let first = verdict.first_failure.as_ref().unwrap();
    assert_eq!((&*first.at.node, first.exit_code), ("n2", Some(6)));
    assert!((first.offset_us - 1_500_000).abs() < 100_000, "{}", first.offset_us);
    assert_eq!((verdict.unordered, verdict.confidence), (None, Confidence::Fact));
    let said: Vec<String> = verdict.clocks.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        ["n1's clock is about 3.2 s behind n2's (±0.12 s, from 2 starts of steps and the end of the job)"]
    );
}

#[test]
fn what_the_clocks_cannot_order_is_not_claimed() {
    let s = two_nodes(0, [[0, 5], [10, 0], [0, 8]], [1500, 1600]);
    let verdict = judge(&s.story.attempts[0], None);
    assert!(verdict.clocks.is_empty());
    let unordered = verdict.unordered.as_ref().unwrap();
    assert_eq!((unordered.deaths, &unordered.nearest), (1, &verdict.consequences[0].at.event));
    assert!(unordered.within_us.is_some_and(|us| (100_000..150_000).contains(&us)), "{unordered:?}");
    // With the other first the exit code would be another one.
    assert_eq!(verdict.confidence, Confidence::Inferred);
    let json = serde_json::to_value(&verdict).unwrap();
    assert_eq!(serde_json::from_value::<inquest::verdict::Verdict>(json).unwrap(), verdict);
    // Far enough apart, or with nothing to compare the clocks by.
    let s = two_nodes(0, [[0, 5], [10, 0], [0, 8]], [1500, 1900]);
    assert_eq!(judge(&s.story.attempts[0], None).unordered, None);
    let mut s = Script::new();
    for (task, node) in [(0, "n1"), (1, "n2")] {
        let step = StepId::Number(task);
        s.start(0, node, step, &[task], Some(0))
            .exit(500, node, step, task, Some(3), None)
            .end(501, node, step);
    }
    let verdict = judge(&s.story.attempts[0], None);
    assert_eq!(verdict.unordered.unwrap().within_us, None);
    assert_eq!(verdict.confidence, Confidence::Fact, "both failed in the same way");
}

proptest::proptest! {
    /// Whatever n2's clock says: as long as no node is slower than another by more than is allowed
    /// for, the first failure is the true one, or the verdict says that it is not known.
    #[test]
    fn the_first_failure_is_true_or_unsure(
        ahead in -100_000_i64..100_000,
        late in proptest::array::uniform3(proptest::array::uniform2(0_i64..100)),
        ends in proptest::array::uniform2(400_i64..8000),
    ) {
        let s = two_nodes(ahead, late, ends);
        let verdict = judge(&s.story.attempts[0], None);
        let first = verdict.first_failure.as_ref().unwrap();
        let truly = if ends[0] <= ends[1] { "n1" } else { "n2" };
        proptest::prop_assert!(verdict.unordered.is_some() || *first.at.node == *truly, "{:?}", verdict.clocks);
        // Two seconds order any two deaths, when a clock is right or far off.
        let plain = ahead.abs() < 500 || ahead.abs() > 1500;
        proptest::prop_assert!(!plain || (ends[0] - ends[1]).abs() < 2000 || verdict.unordered.is_none());
    }
}
