/*!
The steps of this node, as far as the agent has heard of them: from the
plugin's lines in the journal, which know the job id, user, limit and tasks, and
from cgroup paths that name the job.
*/

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use inquest_journal::{Body, Head, JobId, StepId};

use super::cgroup::StepPath;
use super::files;
use super::rate::{Bucket, Rate};

/// A step of a job on this node.
pub(super) type Key = (JobId, StepId);

/// Where a process belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) key: Key,
    /// Rank of its task, where that is known.
    pub(super) task: Option<u32>,
}

/// Steps that are remembered; beyond it the ones quiet for longest are forgotten.
const MOST_STEPS: usize = 4096;
/// Tasks whose pids are remembered.
const MOST_TASKS: usize = 65_536;
/// Directories whose owner is remembered.
const MOST_DIRS: usize = 8192;

/// Deaths that a step may report at once, and over time. Signals have a
/// bucket of their own, so that a script full of `grep` cannot hide a crash.
const DEATHS: Rate = Rate { burst: 100, refill_us: 5_000_000 };
/// Notes of a step.
const NOTES: Rate = Rate { burst: 100, refill_us: 1_000_000 };

/// What is known of a step.
#[derive(Debug)]
pub(super) struct Step {
    /// The job's user.
    pub(super) uid: Option<u32>,
    /// Its memory cgroup below the mount point, and the hierarchy's version.
    pub(super) memory: Option<(String, Option<u8>)>,
    /// Its limit in bytes.
    pub(super) limit_bytes: Option<u64>,
    /// The plugin told of its start and not of its end.
    pub(super) live: bool,
    /// An abnormal death in it was already reported.
    pub(super) has_died: bool,
    /// So was that it is close to its memory limit.
    pub(super) is_high: bool,
    pub(super) signals: Bucket,
    pub(super) exits: Bucket,
    pub(super) notes: Bucket,
    /// How far its file of notes was read, and what could not be taken from it.
    pub(super) file: files::Place,
    pub(super) file_skipped: u64,
    /// Of slurmstepd.
    pid: Option<u32>,
    dir: Option<String>,
    touched_us: u64,
}

impl Step {
    fn new(now_us: u64) -> Step {
        Step {
            uid: None,
            memory: None,
            limit_bytes: None,
            live: false,
            has_died: false,
            is_high: false,
            signals: Bucket::new(DEATHS),
            exits: Bucket::new(DEATHS),
            notes: Bucket::new(NOTES),
            file: files::Place::default(),
            file_skipped: 0,
            pid: None,
            dir: None,
            touched_us: now_us,
        }
    }
}

/// What a line of the journal changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Started(Key),
    Ended(Key),
}

/// All of them.
#[derive(Debug)]
pub(super) struct Steps {
    node: String,
    steps: HashMap<Key, Step>,
    by_dir: HashMap<String, Key>,
    /// Parents of job directories, and whether they are root's.
    owners: RefCell<HashMap<String, bool>>,
    tasks: HashMap<u32, Task>,
    /// Live jobs of which a `memory_high` has told.
    high_jobs: HashSet<JobId>,
}

/// A task by its pid.
#[derive(Debug)]
struct Task {
    place: Place,
    /// It has ended then, or its step.
    ended_us: Option<u64>,
}

impl Task {
    fn is_known(&self, now_us: u64) -> bool {
        self.ended_us.is_none_or(|at| now_us.saturating_sub(at) < ENDED_US)
    }
}

/// For so long a task that has ended is known: on a busy node the journal's line of its end is often
/// read before the kernel's record of what died in it.
const ENDED_US: u64 = 5_000_000;

impl Steps {
    /// An empty table of the node `node`.
    pub(super) fn new(node: &str) -> Steps {
        Steps {
            node: node.into(),
            steps: HashMap::new(),
            by_dir: HashMap::new(),
            owners: RefCell::default(),
            tasks: HashMap::new(),
            high_jobs: HashSet::new(),
        }
    }

    /// Learns from a line of the plugin.
    pub(super) fn apply(&mut self, head: &Head<'_>, body: &Body, now_us: u64) -> Option<Change> {
        let key = (head.job_id?, head.step?);
        match body {
            Body::StepStarted(b) => {
                // A requeued job starts the same step anew.
                self.forget(key);
                let dir = b.cgroup.as_deref().and_then(StepPath::parse).map(|p| p.step_dir.to_owned());
                if let Some(dir) = &dir {
                    self.by_dir.insert(dir.clone(), key);
                }
                let step = self.step(key, now_us);
                step.uid = b.uid;
                step.pid = b.stepd_pid;
                step.memory = b.cgroup.clone().map(|path| (path, b.cgroup_version));
                step.limit_bytes = b.limit_bytes;
                step.live = true;
                step.dir = dir;
                Some(Change::Started(key))
            }
            Body::StepEnded(_) => {
                if let Some(step) = self.steps.get_mut(&key) {
                    step.live = false;
                }
                let steps = &self.steps;
                self.tasks.retain(|_, task| {
                    if task.place.key == key {
                        task.ended_us.get_or_insert(head.mono_us);
                    }
                    task.is_known(now_us) || steps.get(&task.place.key).is_some_and(|s| s.live)
                });
                if !self.live().any(|live| live.0 == key.0) {
                    self.high_jobs.remove(&key.0);
                }
                Some(Change::Ended(key))
            }
            Body::TaskExited(b) => {
                if let Some(task) = b.pid.and_then(|pid| self.tasks.get_mut(&pid))
                    && task.place.key == key
                {
                    task.ended_us.get_or_insert(head.mono_us);
                }
                None
            }
            Body::TaskStarted(b) => {
                if let (Some(pid), true) = (b.pid, self.tasks.len() < MOST_TASKS) {
                    self.tasks.insert(pid, Task { place: Place { key, task: head.task }, ended_us: None });
                }
                None
            }
            Body::Note(b) => {
                // Written by an earlier life.
                if let (Some(at), Some(step)) = (b.file_end, self.steps.get_mut(&key)) {
                    step.file = files::Place { at, cut_out: false };
                }
                None
            }
            Body::ProcessDied(_) => {
                // Told by an earlier life of this agent.
                self.step(key, now_us).has_died = true;
                None
            }
            _ => None,
        }
    }

    /// A `memory_high` of a job, or of a step of it, was told.
    pub(super) fn told_high(&mut self, job: JobId, step: Option<StepId>) {
        if let Some(step) = step.and_then(|step| self.steps.get_mut(&(job, step))) {
            step.is_high = true;
        }
        if self.live().any(|key| key.0 == job) {
            self.high_jobs.insert(job);
        }
    }

    /// Whether a `memory_high` of the job or of one of its steps was told.
    pub(super) fn is_high_job(&self, job: JobId) -> bool {
        self.high_jobs.contains(&job)
    }

    /// The step of a cgroup path. A path that the journal does not know
    /// counts when it names the job, is not another node's, and only root can
    /// have made the job's directory, which `is_roots` finds out as long as
    /// its parent is there.
    pub(super) fn of_path(&self, path: &str, is_roots: impl FnOnce(&str) -> Option<bool>) -> Option<Place> {
        let path = StepPath::parse(path)?;
        if let Some(&key) = self.by_dir.get(path.step_dir) {
            return Some(Place { key, task: path.task });
        }
        let job_id = path.job_id?;
        if path.node.is_some_and(|node| node != self.node) {
            return None;
        }
        let mut owners = self.owners.borrow_mut();
        let good = match owners.get(path.parent) {
            Some(&good) => good,
            None => {
                if owners.len() >= MOST_DIRS {
                    owners.clear();
                }
                // Slurm removes a user's directory with the last job and makes it again for the next.
                let good = is_roots(path.parent)?;
                owners.insert(path.parent.into(), good);
                good
            }
        };
        good.then_some(Place { key: (job_id, path.step), task: path.task })
    }

    /// The step whose task has this pid, as far as a process of user `uid` can be of it: where slurmstepd was
    /// killed, nobody tells of the task's end, and its pid becomes somebody else's.
    pub(super) fn of_task(&self, pid: u32, uid: Option<u32>, now_us: u64) -> Option<Place> {
        let task = self.tasks.get(&pid).filter(|task| task.is_known(now_us))?;
        self.is_users(task, uid).then_some(task.place)
    }

    /// The step whose task leads this process group, perhaps still after its end: its pid is given to no other
    /// process as long as the group has members.
    pub(super) fn of_group(&self, leader: u32, uid: Option<u32>, now_us: u64) -> Option<Place> {
        let live = |task: &Task| self.steps.get(&task.place.key).is_some_and(|s| s.live);
        let task = self.tasks.get(&leader).filter(|task| task.is_known(now_us) || live(task))?;
        self.is_users(task, uid).then_some(task.place)
    }

    fn is_users(&self, task: &Task, uid: Option<u32>) -> bool {
        let owner = self.steps.get(&task.place.key).and_then(|step| step.uid);
        uid == Some(0) || owner.is_none_or(|owner| uid.is_none_or(|uid| uid == owner))
    }

    /// What is known of a step, if anything.
    pub(super) fn get(&self, key: Key) -> Option<&Step> {
        self.steps.get(&key)
    }

    /// What is known of a step; begins to know it.
    pub(super) fn step(&mut self, key: Key, now_us: u64) -> &mut Step {
        if self.steps.len() >= MOST_STEPS && !self.steps.contains_key(&key) {
            let quiet = self.steps.iter().min_by_key(|(_, s)| (s.live, s.touched_us)).map(|(k, _)| *k);
            quiet.into_iter().for_each(|k| self.forget(k));
        }
        let step = self.steps.entry(key).or_insert_with(|| Step::new(now_us));
        step.touched_us = now_us;
        step
    }

    /// Steps that have a file of notes: whose it is and its name, `7.0.4711`, and whether the step lives.
    pub(super) fn files(&self) -> impl Iterator<Item = (Key, u32, String, bool)> {
        self.steps.iter().filter_map(|(key, step)| {
            let name = format!("{}.{}.{}", key.0, key.1, step.pid?);
            Some((*key, step.uid?, name, step.live))
        })
    }

    /// Whether a live step belongs to this user.
    pub(super) fn has_user(&self, uid: u32) -> bool {
        self.steps.values().any(|s| s.live && s.uid == Some(uid))
    }

    /// The steps, for what has to be told of each now and then.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (Key, &mut Step)> {
        self.steps.iter_mut().map(|(k, s)| (*k, s))
    }

    /// Steps the plugin told of that have not ended.
    pub(super) fn live(&self) -> impl Iterator<Item = Key> {
        self.steps.iter().filter(|(_, s)| s.live).map(|(k, _)| *k)
    }

    fn forget(&mut self, key: Key) {
        if let Some(step) = self.steps.remove(&key) {
            if let Some(dir) = step.dir {
                self.by_dir.remove(&dir);
            }
            self.tasks.retain(|_, task| task.place.key != key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use inquest_journal::{Severity, Source, StepEnded, StepStarted, TaskExited, TaskStarted, Timestamp};

    fn head(job: u32, step: u32, task: Option<u32>) -> Head<'static> {
        Head {
            v: 1,
            timestamp: Timestamp(0),
            event_type: "".into(),
            severity: Severity::Info,
            source: Source::Plugin,
            cluster: "".into(),
            node: "n1".into(),
            boot: "".into(),
            mono_us: 0,
            stream: "".into(),
            seq: 0,
            job_id: Some(JobId(job)),
            step: Some(StepId::Number(step)),
            task,
        }
    }

    fn started(path: &str) -> Body {
        StepStarted { cgroup: Some(path.into()), uid: Some(1001), ..StepStarted::default() }.into()
    }

    const SLUID: &str = "/system.slice/n1_slurmstepd.scope/s6P1M7Y1TACN00/step_0";

    #[test]
    fn a_sluid_path_is_known_from_the_journal_alone() {
        let mut steps = Steps::new("n1");
        let task = format!("{SLUID}/user/task_2");
        assert_eq!(steps.of_path(&task, |_| Some(true)), None);
        steps.apply(&head(207, 0, None), &started(SLUID), 1);
        let key = (JobId(207), StepId::Number(0));
        assert_eq!(steps.of_path(&task, |_| Some(false)), Some(Place { key, task: Some(2) }));
        assert!(steps.has_user(1001) && !steps.has_user(1002));
    }

    #[test]
    fn a_path_that_names_the_job_counts_if_root_made_it_for_this_node() {
        let steps = Steps::new("n1");
        let path = "/slurm_n1/uid_5/job_7/step_1/task_0";
        let place = Place { key: (JobId(7), StepId::Number(1)), task: Some(0) };
        assert_eq!(steps.of_path(path, |p| Some(p == "/slurm_n1/uid_5")), Some(place));
        assert_eq!(steps.of_path(path, |_| panic!("asked twice")), Some(place));
        assert_eq!(steps.of_path("/user.slice/x/job_7/step_1", |_| Some(false)), None);
        assert_eq!(steps.of_path("/slurm_n2/uid_5/job_7/step_1", |_| Some(true)), None);
    }

    #[test]
    fn an_owner_that_could_not_be_seen_is_asked_again() {
        let steps = Steps::new("n1");
        let path = "/slurm_n1/uid_5/job_7/step_1/task_0";
        assert_eq!(steps.of_path(path, |_| None), None);
        assert!(steps.of_path(path, |_| Some(true)).is_some());
    }

    #[test]
    fn a_task_is_known_until_shortly_after_its_own_end() {
        let mut steps = Steps::new("n1");
        steps.apply(&head(7, 1, None), &started("/slurm/uid_5/job_7/step_1"), 1);
        let task = TaskStarted { pid: Some(99), ..TaskStarted::default() };
        steps.apply(&head(7, 1, Some(3)), &task.into(), 2);
        let exited = TaskExited { pid: Some(99), ..TaskExited::default() };
        steps.apply(&head(7, 1, Some(3)), &exited.into(), 3);
        let last = ENDED_US - 1;
        assert!(steps.of_task(99, Some(1001), last).is_some());
        assert_eq!(steps.of_task(99, Some(1001), last + 1), None);
        // Its pid is free, but not as long as its group has members.
        assert!(steps.of_group(99, Some(1001), last + 1).is_some());
        steps.apply(&head(8, 1, None), &StepEnded::default().into(), last + 1);
        assert!(steps.of_group(99, Some(1001), last + 1).is_some());
        steps.apply(&head(7, 1, None), &StepEnded::default().into(), last + 1);
        assert_eq!(steps.of_group(99, Some(1001), last + 1), None);
    }

    #[test]
    fn a_pid_that_became_another_users_is_not_the_tasks() {
        let mut steps = Steps::new("n1");
        steps.apply(&head(7, 1, None), &started("/slurm/uid_5/job_7/step_1"), 1);
        let task = TaskStarted { pid: Some(99), ..TaskStarted::default() };
        steps.apply(&head(7, 1, Some(3)), &task.into(), 2);
        let of = |uid| (steps.of_task(99, uid, 3).is_some(), steps.of_group(99, uid, 3).is_some());
        assert_eq!([of(None), of(Some(0)), of(Some(1001))], [(true, true); 3]);
        assert_eq!(of(Some(1002)), (false, false));
    }

    #[test]
    fn tasks_go_with_their_step() {
        let mut steps = Steps::new("n1");
        let key = (JobId(7), StepId::Number(1));
        assert_eq!(
            steps.apply(&head(7, 1, None), &started("/slurm/uid_5/job_7/step_1"), 1),
            Some(Change::Started(key))
        );
        let task = TaskStarted { pid: Some(99), ..TaskStarted::default() };
        steps.apply(&head(7, 1, Some(3)), &task.into(), 2);
        assert_eq!(steps.of_task(99, None, 2), Some(Place { key, task: Some(3) }));
        steps.apply(&head(7, 1, None), &StepEnded::default().into(), 3);
        assert_eq!(steps.live().count(), 0);
        // The kernel's word of its death may come later, but not much.
        assert_eq!(steps.of_task(99, None, 3), Some(Place { key, task: Some(3) }));
        assert_eq!(steps.of_task(99, None, 3 + ENDED_US), None);
        steps.apply(&head(7, 2, None), &StepEnded::default().into(), 3 + ENDED_US);
        assert!(steps.tasks.is_empty());
    }

    #[test]
    fn the_table_has_a_bound_and_forgets_ended_steps_first() {
        let mut steps = Steps::new("n1");
        steps.apply(&head(0, 0, None), &started("/slurm/uid_5/job_0/step_0"), 0);
        for n in 1..MOST_STEPS as u32 + 50 {
            steps.step((JobId(n), StepId::Batch), u64::from(n));
        }
        assert_eq!(steps.steps.len(), MOST_STEPS);
        assert!(steps.get((JobId(0), StepId::Number(0))).is_some_and(|s| s.live));
        assert!(steps.get((JobId(1), StepId::Batch)).is_none());
    }
}
