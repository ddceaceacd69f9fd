//! One event into a story.

use std::mem::take;

use inquest_journal::{Body, Head, JobStarted, Source, StepEnded, StepId, StepStarted, TaskExited, Via};

use super::{Asked, Attempt, EventId, Exit, Facts, JobEnd, Moment, Name, Note, Oom, Process, Step, Story};

impl Story {
    /// Puts one event of the job where it belongs. Says whether it began a
    /// further attempt. What is kept is taken out of the body.
    pub fn apply(&mut self, head: &Head<'_>, body: &mut Body) -> bool {
        let at = self.moment(head);
        if let Body::NodeBooted(_) = body {
            self.lose(&at);
            return false;
        }
        let (index, began) = self.attempt_for(head, body);
        let attempt = &mut self.attempts[index];
        if !attempt.nodes.contains(&at.node) {
            attempt.nodes.insert(at.node.clone());
        }
        if attempt.started.as_ref().is_none_or(|old| at.since(old) < 0) {
            attempt.started = Some(at.clone());
        }
        if attempt.last.as_ref().is_none_or(|old| at.since(old) > 0) {
            attempt.last = Some(at.clone());
        }
        if head.source == Source::Plugin {
            attempt.count(&at, body);
        }
        let begins = matches!(body, Body::StepStarted(_));
        attempt.apply(at, head, body);
        if begins && self.attempts.len() > 1 {
            self.sort_externs();
        }
        began && self.attempts.len() > 1
    }

    /// Where and when it happened, with names that are in memory already, where they are.
    fn moment(&self, head: &Head<'_>) -> Moment {
        let attempt = self.attempts.last();
        let last = attempt.and_then(|a| a.last.as_ref());
        let stream = match last.filter(|last| *last.event.stream == *head.stream) {
            Some(last) => Some((&last.event.stream, &last.node)),
            None => attempt
                .and_then(|a| a.streams.get_key_value(&*head.stream))
                .map(|(name, stream)| (name, &stream.node)),
        };
        let name = |text: &str, known: [Option<&Name>; 2]| {
            let known = known.into_iter().flatten().find(|known| ***known == *text);
            known.map_or_else(|| text.into(), Name::clone)
        };
        Moment {
            wall: head.timestamp,
            node: name(&head.node, [stream.map(|(_, node)| node), last.map(|last| &last.node)]),
            boot: name(&head.boot, [last.map(|last| &last.boot), None]),
            mono_us: head.mono_us,
            event: EventId {
                stream: name(&head.stream, [stream.map(|(name, _)| name), None]),
                seq: head.seq,
            },
        }
    }

    /// A node came up anew: what was at work there under another boot id ended
    /// with it, and nobody recorded when.
    fn lose(&mut self, at: &Moment) {
        let parts = self.attempts.iter_mut().flat_map(|a| a.steps.values_mut());
        for part in parts.filter_map(|s| s.nodes.get_mut(&at.node)) {
            let before = part.started.as_ref().is_some_and(|s| s.boot != at.boot);
            if before && part.ended.is_none() && part.lost.is_none() {
                part.lost = Some(at.clone());
            }
        }
    }
}

impl Attempt {
    fn apply(&mut self, at: Moment, head: &Head<'_>, body: &mut Body) {
        let step = head.step;
        match body {
            Body::JobStarted(b) => self.facts.learn_job(b),
            Body::JobEnded(b) => {
                let asked = |text| Asked { text, from: b.warning_from.take().unwrap_or_default() };
                self.facts.warning = b.warning.take().map(asked).or(self.facts.warning.take());
                // The epilog speaks last and knows best, if it knows.
                let end = JobEnd { at, exit_code: b.exit_code, signal: b.signal };
                if end.is_known() || !self.ended.as_ref().is_some_and(JobEnd::is_known) {
                    self.ended = Some(end);
                }
            }
            Body::StepStarted(b) => {
                self.facts.learn_step(b);
                if let Some(step) = self.step(step) {
                    step.start(at, b);
                }
            }
            Body::StepEnded(b) => {
                if let Some(step) = self.step(step) {
                    step.end(at, b);
                }
            }
            Body::TaskStarted(b) => {
                if let (Some(step), Some(rank)) = (self.step(step), head.task) {
                    let task = step.tasks.entry(rank).or_default();
                    task.node.clone_from(&at.node);
                    task.pid = b.pid;
                    task.stdout = b.stdout.take();
                    task.stderr = b.stderr.take();
                    task.started = Some(at);
                }
            }
            Body::TaskExited(b) => {
                if let (Some(step), Some(rank)) = (self.step(step), head.task) {
                    step.exit(rank, at, b);
                }
            }
            Body::OomKill(b) => self.oom.push(Oom {
                at,
                step,
                task: head.task,
                count: b.count.unwrap_or(1),
                level: b.level,
                limit_bytes: b.limit_bytes,
                peak_bytes: b.peak_bytes,
                victims: take(&mut b.victims),
                reported_by_slurm: b.reported_by_slurm,
                oom_group: b.oom_group,
            }),
            Body::ProcessDied(died) => {
                self.processes.push(Process { at, step, task: head.task, died: take(died) })
            }
            Body::Note(note) => self.notes.push(Note { at, step, note: take(note) }),
            // The plugin's are counted with the numbers of its events.
            Body::Lost(b) if head.source != Source::Plugin => {
                self.lost = self.lost.saturating_add(b.count.unwrap_or(0));
            }
            Body::Lost(_) | Body::MemoryHigh(_) | Body::NodeBooted(_) => {}
        }
    }

    /// Counts an event of a stream that writes of this job alone.
    fn count(&mut self, at: &Moment, body: &Body) {
        let stream = match self.streams.get_mut(&at.event.stream) {
            Some(stream) => stream,
            None => self.streams.entry(at.event.stream.clone()).or_default(),
        };
        let before = stream.lost();
        if stream.seen == 0 {
            stream.node = at.node.clone();
        }
        stream.seen += 1;
        stream.next = stream.next.max(at.event.seq.saturating_add(1));
        if let Body::Lost(b) = body {
            stream.told = stream.told.saturating_add(b.count.unwrap_or(0));
            stream.reason.clone_from(&b.reason);
        }
        self.lost = self.lost.saturating_sub(before).saturating_add(stream.lost());
    }

    fn step(&mut self, id: Option<StepId>) -> Option<&mut Step> {
        Some(self.steps.entry(id?).or_default())
    }
}

impl Step {
    fn start(&mut self, at: Moment, b: &mut StepStarted) {
        let part = self.nodes.entry(at.node.clone()).or_default();
        part.started = Some(at);
        part.stepd_pid = b.stepd_pid;
        part.limit_bytes = b.limit_bytes;
        if !b.argv.is_empty() {
            self.argv = take(&mut b.argv);
        }
        self.total_tasks = b.total_tasks.filter(|&n| n > 0).or(self.total_tasks);
    }

    fn end(&mut self, at: Moment, b: &mut StepEnded) {
        let part = self.nodes.entry(at.node.clone()).or_default();
        part.ended = Some(at);
        part.oom_kills = b.oom_kills;
        part.tasks_failed = b.tasks_failed;
        part.memory = take(&mut b.memory);
        part.cpu_us = b.cpu_us.or(b.reaped_cpu_us);
    }

    fn exit(&mut self, rank: u32, at: Moment, b: &mut TaskExited) {
        let task = self.tasks.entry(rank).or_default();
        task.node.clone_from(&at.node);
        task.pid = task.pid.or(b.pid);
        task.exit = Some(Exit {
            at,
            code: b.exit_code,
            signal: b.signal,
            core: b.core,
            duration_us: b.duration_us,
            oom_kills: b.oom_kills.unwrap_or(0),
            memory: take(&mut b.memory),
        });
    }
}

impl Facts {
    /// A job says most in its script's step; other steps fill what is missing.
    pub(crate) fn learn_job(&mut self, b: &mut JobStarted) {
        fn learn<T>(known: &mut Option<T>, said: &mut Option<T>) {
            if known.is_none() {
                *known = said.take();
            }
        }
        // Slurm tells a prolog what the user asked for, patterns and all; a task has the files open.
        if b.via != Some(Via::Prolog) {
            self.stdout = b.stdout.take().or(self.stdout.take());
            self.stderr = b.stderr.take().or(self.stderr.take());
            self.work_dir = b.work_dir.take().or(self.work_dir.take());
        }
        learn(&mut self.uid, &mut b.uid);
        learn(&mut self.name, &mut b.name);
        learn(&mut self.account, &mut b.account);
        learn(&mut self.partition, &mut b.partition);
        learn(&mut self.qos, &mut b.qos);
        learn(&mut self.comment, &mut b.comment);
        learn(&mut self.work_dir, &mut b.work_dir);
        learn(&mut self.stdout, &mut b.stdout);
        learn(&mut self.stderr, &mut b.stderr);
        learn(&mut self.node_list, &mut b.node_list);
        learn(&mut self.node_count, &mut b.node_count);
        learn(&mut self.cpus, &mut b.cpus);
        learn(&mut self.memory_mib, &mut b.memory_mib);
        learn(&mut self.array_job_id, &mut b.array_job_id);
        learn(&mut self.array_task_id, &mut b.array_task_id);
        learn(&mut self.end_limit, &mut b.end_limit);
    }

    fn learn_step(&mut self, b: &StepStarted) {
        self.uid = self.uid.or(b.uid);
        if self.name.is_none() {
            self.name.clone_from(&b.name);
        }
        self.array_job_id = self.array_job_id.or(b.array_job_id);
        self.array_task_id = self.array_task_id.or(b.array_task_id);
        self.end_limit = self.end_limit.or(b.end_limit);
    }
}
