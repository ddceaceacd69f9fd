/*!
Steps, and jobs of several steps, that come close to their memory limit.

On cgroup v1 the kernel wakes us when the charge passes 90 % of the limit
(`cgroup.event_control`). v2 has no such thing: there the charge of live steps
is looked at every two seconds. The charge counts page cache that the kernel
would drop at once, so what counts is the charge without inactive file pages; a
v1 step that is full of cache is looked at like one of v2 from then on.
*/

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use inquest_journal::{Level, MemoryHigh};
use rustix::event::{EventfdFlags, eventfd};

use super::cgroup::{Mounts, StepPath};
use super::oom::read_number;
use super::steps::{Key, Step};

/// Microseconds between two looks at steps that the kernel does not watch for us.
pub(super) const LOOK_US: u64 = 2_000_000;
const PERCENT: u64 = 90;

/// A step that uses this share of its job's limit explains by itself why the
/// job is at its limit.
const MOST_OF_JOB_PERCENT: u64 = 80;

/// One step under watch, or one job.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) key: Key,
    /// Whose limit it is: the step's, or that of its job on this node.
    pub(super) level: Level,
    dir: PathBuf,
    version: u8,
    limit_bytes: u64,
    /// Readable when the threshold was passed, and when the cgroup is gone.
    pub(super) event: Option<OwnedFd>,
}

/// What a look at a step gave.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Seen {
    /// Nothing to tell yet.
    Low,
    /// It is at 90 %.
    High(MemoryHigh),
    /// Its cgroup is gone.
    Gone,
}

impl Watch {
    /// Begins to watch a step; `None` when it has no memory cgroup or limit.
    pub(super) fn new(key: Key, step: &Step, mounts: &Mounts) -> Option<Watch> {
        let (path, version) = step.memory.as_ref()?;
        let version = version.unwrap_or(if mounts.memory.is_some() { 1 } else { 2 });
        let mount = if version == 1 { &mounts.memory } else { &mounts.unified };
        let dir = mount.as_ref()?.join(StepPath::parse(path)?.step_dir.trim_start_matches('/'));
        // v1 limits the step's own directory. v2 limits `user` below it, and beside that is slurmstepd.
        let user = Some(dir.join("user")).filter(|user| version != 1 && user.is_dir());
        let dir = user.unwrap_or(dir);
        Watch::of_dir(key, Level::Step, dir, version, step.limit_bytes)
    }

    /// Begins to watch the job of a step: the sum of its steps may reach the
    /// limit while none of them does.
    pub(super) fn of_job(key: Key, step: &Step, mounts: &Mounts) -> Option<Watch> {
        let (path, version) = step.memory.as_ref()?;
        let (job, _) = StepPath::parse(path)?.step_dir.rsplit_once('/')?;
        let (dir, found) = mounts.memory_dir(job)?;
        Watch::of_dir(key, Level::Job, dir, version.unwrap_or(found), None)
    }

    /// Whether this step alone uses most of what its job may.
    pub(super) fn is_most_of(&self, job: &Watch) -> bool {
        self.usage().is_some_and(|usage| usage >= job.limit_bytes / 100 * MOST_OF_JOB_PERCENT)
    }

    fn of_dir(key: Key, level: Level, dir: PathBuf, version: u8, told: Option<u64>) -> Option<Watch> {
        let file = if version == 1 { "memory.limit_in_bytes" } else { "memory.max" };
        let own = read_number(&dir.join(file));
        let limit_bytes = own.into_iter().chain(told).min().filter(|&n| n > 0)?;
        let event = if version == 1 { threshold(&dir, limit_bytes / 100 * PERCENT).ok() } else { None };
        Some(Watch { key, level, dir, version, limit_bytes, event })
    }

    /// The charge in bytes; `None` when the cgroup is gone.
    fn usage(&self) -> Option<u64> {
        let file = if self.version == 1 { "memory.usage_in_bytes" } else { "memory.current" };
        read_number(&self.dir.join(file))
    }

    /// Looks at the charge now.
    pub(super) fn look(&self) -> Seen {
        let cache = if self.version == 1 { "total_inactive_file " } else { "inactive_file " };
        let Some(usage) = self.usage() else { return Seen::Gone };
        let stat = std::fs::read_to_string(self.dir.join("memory.stat")).unwrap_or_default();
        let inactive = stat.lines().find_map(|l| l.strip_prefix(cache)?.trim().parse().ok()).unwrap_or(0);
        if usage.saturating_sub(inactive) < self.limit_bytes / 100 * PERCENT {
            return Seen::Low;
        }
        // Only v2 knows the pressure of a single cgroup.
        let pressure = std::fs::read_to_string(self.dir.join("memory.pressure")).ok();
        Seen::High(MemoryHigh {
            usage_bytes: Some(usage),
            limit_bytes: Some(self.limit_bytes),
            level: Some(self.level),
            pressure_some_percent: pressure.as_deref().and_then(some_avg10),
        })
    }
}

/// `some avg10=` of a PSI file, in percent.
fn some_avg10(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|l| l.strip_prefix("some "))?;
    let value: f64 = line.split(' ').find_map(|f| f.strip_prefix("avg10="))?.parse().ok()?;
    value.is_finite().then_some(value)
}

fn threshold(dir: &Path, bytes: u64) -> io::Result<OwnedFd> {
    let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let usage = File::open(dir.join("memory.usage_in_bytes"))?;
    let wish = format!("{} {} {bytes}", event.as_fd().as_raw_fd(), usage.as_raw_fd());
    rustix::io::write(File::options().write(true).open(dir.join("cgroup.event_control"))?, wish.as_bytes())?;
    Ok(event)
}

#[cfg(test)]
mod tests {
    use super::*;
    use inquest_journal::{JobId, StepId};

    const KEY: Key = (JobId(7), StepId::Batch);

    #[test]
    fn what_counts_is_memory_that_cannot_be_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        put("memory.max", "1000\n");
        put("memory.current", "950\n");
        put("memory.stat", "anon 100\ninactive_file 700\nactive_file 150\n");
        let watch = Watch::of_dir(KEY, Level::Step, dir.path().into(), 2, None).unwrap();
        assert_eq!(watch.look(), Seen::Low);
        put("memory.stat", "anon 900\ninactive_file 50\n");
        put(
            "memory.pressure",
            "some avg10=12.50 avg60=1.00 avg300=0.00 total=9\nfull avg10=1.00 avg60=0 avg300=0 total=1\n",
        );
        let Seen::High(event) = watch.look() else { panic!("not seen") };
        assert_eq!((event.usage_bytes, event.limit_bytes), (Some(950), Some(1000)));
        assert_eq!(event.pressure_some_percent, Some(12.5));
        std::fs::remove_file(dir.path().join("memory.current")).unwrap();
        assert_eq!(watch.look(), Seen::Gone);
    }

    #[test]
    fn on_v2_the_limit_is_that_of_the_users_part() {
        let dir = tempfile::tempdir().unwrap();
        let mounts = Mounts { unified: Some(dir.path().into()), ..Mounts::default() };
        let path = "/x.scope/job_7/step_0";
        let mut steps = super::super::steps::Steps::new("n1");
        let step = steps.step(KEY, 0);
        step.memory = Some((path.into(), Some(2)));
        let put = |below: &str, limit: &str, usage: u64| {
            let dir = dir.path().join("x.scope/job_7/step_0").join(below);
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join("memory.max"), limit).unwrap();
            std::fs::write(dir.join("memory.current"), usage.to_string()).unwrap();
        };
        // slurmstepd has a part of its own beside it.
        put("user", "1000", 100);
        put("", "max", 950);
        let watch = Watch::new(KEY, step, &mounts).unwrap();
        assert_eq!((watch.limit_bytes, watch.look()), (1000, Seen::Low));
        put("user", "1000", 950);
        assert!(matches!(watch.look(), Seen::High(_)));
        // A Slurm that makes no such part.
        std::fs::remove_dir_all(dir.path().join("x.scope/job_7/step_0/user")).unwrap();
        put("", "500", 100);
        assert_eq!(Watch::new(KEY, step, &mounts).unwrap().limit_bytes, 500);
    }

    #[test]
    fn the_tighter_limit_counts_and_none_is_none() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("memory.max"), "max\n").unwrap();
        assert!(Watch::of_dir(KEY, Level::Step, dir.path().into(), 2, None).is_none());
        let watch = Watch::of_dir(KEY, Level::Step, dir.path().into(), 2, Some(500)).unwrap();
        assert_eq!(watch.limit_bytes, 500);
        std::fs::write(dir.path().join("memory.max"), "400\n").unwrap();
        assert_eq!(
            Watch::of_dir(KEY, Level::Step, dir.path().into(), 2, Some(500)).unwrap().limit_bytes,
            400
        );
    }

    #[test]
    fn a_step_may_be_most_of_its_job() {
        let dir = tempfile::tempdir().unwrap();
        let watch = |level, name: &str, limit: u64, usage: u64| {
            let dir = dir.path().join(name);
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join("memory.max"), limit.to_string()).unwrap();
            std::fs::write(dir.join("memory.current"), usage.to_string()).unwrap();
            Watch::of_dir(KEY, level, dir, 2, None).unwrap()
        };
        let job = watch(Level::Job, "job", 1000, 950);
        assert!(watch(Level::Step, "job/step_0", 1000, 810).is_most_of(&job));
        assert!(!watch(Level::Step, "job/step_1", 1000, 500).is_most_of(&job));
        let Seen::High(event) = job.look() else { panic!("not seen") };
        assert_eq!((event.level, event.limit_bytes), (Some(Level::Job), Some(1000)));
    }

    #[test]
    fn pressure_is_read_or_left_out() {
        assert_eq!(some_avg10("some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"), Some(0.0));
        assert_eq!(some_avg10("some avg10=NaN\n"), None);
        assert_eq!(some_avg10("full avg10=3.00\n"), None);
    }
}
