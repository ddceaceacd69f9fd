//! Kills for memory: how many, who, by whose limit, and whether Slurm will tell.

use inquest_journal::{Level, OomKill, Severity, Stamp, Victim};

use super::Step;
use crate::cgroup::StepCgroup;

/// Names in one event; more would not fit into its line.
const VICTIMS_MAX: u64 = 8;

impl Step {
    pub(super) fn kills_of(&self, at: usize) -> Option<u64> {
        self.cgroup.as_ref()?.task_oom_kills(self.tasks[at].below.as_deref()?)
    }

    /// Slurm looks for kills once per step and node, right after this hook
    /// for the first task that ends: later ones it never reports.
    pub(super) fn look_as_slurm_does(&mut self) {
        let Some(cgroup) = self.cgroup.as_ref().filter(|_| self.tasks.len() > 1) else { return };
        // Nobody was killed where no limit was hit; that spares reading one
        // file per task, which is all this would cost in nearly every step.
        // A node out of memory kills without a limit, and then only the tasks
        // that have ended are known to have been seen.
        let hit = |level| cgroup.limit_hits("", level).is_none_or(|n| n > 0);
        if !hit(Level::Step) && !hit(Level::Job) {
            return;
        }
        for task in &mut self.tasks {
            let kills = task.below.as_deref().and_then(|below| cgroup.task_oom_kills(below));
            task.kills_at_check = kills.unwrap_or(0);
        }
    }

    /// Tells of the kills of a task that nobody has been told of.
    pub(super) fn tell_kills(&mut self, stamp: Stamp, at: usize, kills: u64) {
        let task = &self.tasks[at];
        let fresh = kills.saturating_sub(task.kills_told);
        if fresh == 0 {
            return;
        }
        let reported = task.kills_told < task.kills_at_check || self.totals.exited == 1;
        let (below, pid, rank) = (task.below.clone(), task.pid, task.global_id);
        self.tasks[at].kills_told = kills;
        self.totals.kills += fresh;
        let twice =
            self.write_kills(stamp, rank, below.as_deref().unwrap_or(""), Some(pid), fresh, Some(reported));
        self.tasks[at].kills_twice += twice;
    }

    /// Returns how many of them the kernel had counted twice.
    fn write_kills(
        &mut self,
        stamp: Stamp,
        rank: Option<u32>,
        below: &str,
        pid: Option<u32>,
        count: u64,
        reported_by_slurm: Option<bool>,
    ) -> u64 {
        let (victims, level, twice) = self.victims(below, pid, count);
        let count = count.saturating_sub(twice);
        self.totals.kills_twice += twice;
        let mut body = OomKill { count: Some(count), victims, reported_by_slurm, ..OomKill::default() };
        if let Some(cgroup) = &self.cgroup {
            // Without the kernel's word: the outermost limit that was hit.
            let hit = |l: &Level| cgroup.limit_hits(below, *l).is_some_and(|n| n > 0);
            let level = level.or_else(|| [Level::Job, Level::Step].into_iter().find(hit));
            body.level = level;
            body.limit_bytes = match level {
                Some(Level::Host) | None => None,
                Some(level) => cgroup.limit_at(below, level),
            };
            body.peak_bytes = cgroup.task_peak(below);
            body.oom_group = cgroup.oom_group(below, level.unwrap_or(Level::Job));
        }
        self.write(stamp, Severity::Error, rank, body);
        twice
    }

    /// Who was killed: by cgroup, else by process id, else by user, which is
    /// the last resort for when the kernel left the cgroup out. Such a victim
    /// has no cgroup in the event. And by whose limit, and how many of them were counted twice.
    fn victims(&mut self, below: &str, pid: Option<u32>, count: u64) -> (Vec<Victim>, Option<Level>, u64) {
        let Some(cgroup) = &self.cgroup else { return (Vec::new(), None, 0) };
        let uid_of_job = self.uid;
        let kills = self.kmsg.kills();
        let wanted = count.min(VICTIMS_MAX);
        let mut victims = Vec::new();
        let (mut level, mut twice) = (None, 0);
        for pass in 0..3 {
            for kill in kills.iter_mut().rev() {
                if victims.len() as u64 + twice >= wanted {
                    break;
                }
                let mine = match (pass, &kill.victim.cgroup) {
                    (0, Some(path)) => cgroup.is_task(below, path),
                    (1, None) => kill.victim.pid == pid,
                    (2, None) => kill.victim.uid.is_some() && kill.victim.uid == uid_of_job,
                    _ => false,
                };
                if !mine || kill.told {
                    continue;
                }
                kill.told = true;
                twice += u64::from(kill.twice);
                let of = kill.limit_of.as_deref().and_then(|path| cgroup.level_of(path));
                level = level.or(if kill.host { Some(Level::Host) } else { of });
                victims.push(kill.victim.clone());
            }
        }
        victims.reverse();
        (victims, level, twice)
    }

    /// What was left of the step when its last task had ended has been killed
    /// since. Where counters still stand (v2), they tell of kills for memory
    /// that came after the tasks.
    pub(super) fn look_for_stragglers(&mut self, stamp: Stamp) {
        let counted = self.cgroup.as_ref().and_then(StepCgroup::step_oom_kills).unwrap_or(0);
        if counted <= self.totals.kills {
            return;
        }
        for at in 0..self.tasks.len() {
            if let Some(kills) = self.kills_of(at) {
                self.tell_kills(stamp, at, kills);
            }
        }
        // In a directory that is no task's: the processes of an extern step.
        let fresh = counted.saturating_sub(self.totals.kills);
        if fresh > 0 {
            self.totals.kills = counted;
            self.write_kills(stamp, None, "", None, fresh, None);
        }
    }
}
