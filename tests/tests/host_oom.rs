//! Real kills by the kernel, in real cgroups laid out as Slurm does on v1.
//! The same on v2 and in a real Slurm is tested on a cluster.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use inquest_tests::cluster::memory_of_cgroup_v1;
use inquest_tests::host::Host;
use inquest_tests::skip::skip;
use serde_json::Value;

/// The cgroups of a step of job 7, removed at the end.
struct Cgroups(PathBuf);

impl Cgroups {
    /// `None`, with the reason printed, where they cannot be made.
    fn make(tasks: u32, job_limit: u64, step_limit: u64) -> Option<Cgroups> {
        let Some(memory) = memory_of_cgroup_v1() else {
            skip("there is no memory hierarchy of cgroup v1");
            return None;
        };
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("slurm_host_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let root = memory.join(name);
        let cgroups = Cgroups(root.join("uid_0/job_7/step_0"));
        for task in 0..tasks {
            if let Err(e) = fs::create_dir_all(cgroups.0.join(format!("task_{task}"))) {
                skip(&format!("{}: {e} (needs root)", root.display()));
                return None;
            }
        }
        // The job first: a step cannot be given more.
        fs::write(root.join("uid_0/job_7/memory.limit_in_bytes"), job_limit.to_string()).unwrap();
        fs::write(cgroups.0.join("memory.limit_in_bytes"), step_limit.to_string()).unwrap();
        Some(cgroups)
    }

    fn task(&self, n: u32) -> String {
        format!("cgroup {}", self.0.join(format!("task_{n}")).display())
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for task in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            if task.file_type().is_ok_and(|t| t.is_dir()) {
                let _ = fs::remove_dir(task.path());
            }
        }
        // The step, the job, the user and the root.
        for dir in self.0.ancestors().take(4) {
            let _ = fs::remove_dir(dir);
        }
    }
}

const MIB: u64 = 1 << 20;

/// Wants far more than any limit here, as one process called `tail`.
const EAT: &str = "head -c 300000000 /dev/zero | tail -n 1 >/dev/null";

fn oom_kills(events: &[Value]) -> Vec<&Value> {
    events.iter().filter(|e| e["event_type"] == "oom_kill").collect()
}

#[test]
fn a_child_is_killed_and_the_task_ends_well() {
    let Some(cgroups) = Cgroups::make(1, 64 * MIB, 64 * MIB) else { return };
    let run = Host::new()
        .step(0)
        .script(&format!("load\ninit\n{}\nfork 0 0 {EAT}; exit 0\nreap 0\nexit", cgroups.task(0)))
        .run();
    let kills = oom_kills(&run.events);
    assert_eq!(kills.len(), 1, "{:?}", run.events);
    let kill = kills[0];
    assert_eq!((&kill["count"], &kill["level"]), (&1.into(), &"job".into()));
    assert_eq!(kill["limit_bytes"], 64 * MIB);
    assert_eq!(kill["reported_by_slurm"], true);
    let victim = &kill["victims"][0];
    assert_eq!(victim["command"], "tail");
    assert!(victim["anon_rss_bytes"].as_u64().unwrap() > 32 * MIB, "{victim}");
    assert!(victim["cgroup"].as_str().unwrap().ends_with("/uid_0/job_7/step_0/task_0"), "{victim}");
    let end = run.of("task_exited")[0];
    assert_eq!((&end["exit_code"], &end["oom_kills"]), (&0.into(), &1.into()));
    assert_ne!(end["pid"], victim["pid"]);
    assert_eq!(end["memory"]["clipped"], true);
    assert!(end["memory"]["cgroup_peak_bytes"].as_u64().unwrap() > 60 * MIB, "{end}");
    assert_eq!(run.of("step_ended")[0]["oom_kills"], 1);
}

#[test]
fn a_kill_after_the_first_task_has_ended_is_one_that_slurm_does_not_report() {
    let Some(cgroups) = Cgroups::make(2, 256 * MIB, 64 * MIB) else { return };
    let host = Host::new().step(0);
    let go = host.dir.path().join("go");
    let wait = format!("while ! test -e {}; do sleep 0.01; done", go.display());
    // A third task, in no cgroup of the step, opens the gate after task 0 was reaped.
    let run = host
        .script(&format!("u32 6 2\nload\ninit\n{}\nfork 0 0 exit 0\n{}", cgroups.task(0), cgroups.task(1)))
        .script(&format!("fork 1 1 {wait}; {EAT}; kill -9 $$\nreap 0\ncgroup"))
        .script(&format!("fork 2 2 touch {}\nreap 2\nreap 1\nexit", go.display()))
        .run();
    let kills = oom_kills(&run.events);
    assert_eq!(kills.len(), 1, "{:?}", run.events);
    assert_eq!(kills[0]["task"], 1);
    assert_eq!(kills[0]["level"], "step");
    assert_eq!(kills[0]["limit_bytes"], 64 * MIB);
    assert_eq!(kills[0]["reported_by_slurm"], false);
}

#[test]
fn page_cache_at_the_limit_is_no_kill() {
    let Some(cgroups) = Cgroups::make(1, 32 * MIB, 32 * MIB) else { return };
    let host = Host::new().step(0);
    // Not below /tmp, which may be memory itself.
    let file = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    fs::write(file.path(), vec![1u8; 64 << 20]).unwrap();
    // Cache that belongs to nobody yet is charged to whoever reads it.
    let fd = fs::File::open(file.path()).unwrap();
    fd.sync_all().unwrap();
    // SAFETY: the descriptor is open; the call only drops cached pages.
    unsafe { libc::posix_fadvise(std::os::fd::AsRawFd::as_raw_fd(&fd), 0, 0, libc::POSIX_FADV_DONTNEED) };
    let run = host
        .script(&format!(
            "load\ninit\n{}\nfork 0 0 cat {} >/dev/null\nreap 0\nexit",
            cgroups.task(0),
            file.path().display()
        ))
        .run();
    assert!(oom_kills(&run.events).is_empty());
    let memory = &run.of("task_exited")[0]["memory"];
    assert_eq!(memory["clipped"], true, "{memory}");
    assert!(memory["cgroup_peak_bytes"].as_u64().unwrap() > 30 * MIB, "{memory}");
    assert!(memory["largest_process_bytes"].as_u64().unwrap() < 16 * MIB, "{memory}");
}
