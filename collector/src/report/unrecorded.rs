/*!
Jobs that the plugin did not record: a run made of what Slurm's accounting says, so that the same report can
tell of them, with fewer facts and saying so. No event is made up; a story without steps is what is known.
*/

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use inquest_journal::{JobId, Timestamp};

use super::scan::LogName;
use crate::runs::{Member, RunKey, RunState, RunStatus, SCHEMA};
use crate::slurm::past::PastJob;
use crate::slurm::signal_name;
use crate::store::Found;
use crate::story::{Attempt, Facts, Story};
use crate::verdict::{Class, Confidence, Retry, Verdict, judge};

/// Files of a directory that are looked at for the logs of a job.
const FILES: usize = 20_000;

/// The jobs as members of a run, with the little story of each. None of no jobs.
pub fn found(jobs: &[PastJob]) -> Option<(Found, BTreeMap<JobId, Story>)> {
    let first = jobs.first()?;
    let times = || jobs.iter().flat_map(|j| [j.start, j.end]).flatten();
    let mut run = RunState {
        schema: SCHEMA,
        run_id: first.array.map_or(format!("job-{}", first.id), |(array, _)| format!("array-{array}")),
        cluster: first.cluster.clone(),
        user: first.user.clone(),
        key: RunKey::of_job(first.id),
        aliases: Vec::new(),
        name: Some(first.name.clone()),
        started: times().min().unwrap_or(Timestamp(0)),
        last: times().max().unwrap_or(Timestamp(0)),
        status: RunStatus::Running,
        classes: BTreeMap::new(),
        members: BTreeMap::new(),
        next_seq: 0,
    };
    let mut stories = BTreeMap::new();
    for (number, job) in (1..).zip(jobs) {
        let attempt = attempt(job);
        let verdict = job.record.is_final().then(|| verdict(&attempt, job));
        if let Some(verdict) = &verdict {
            *run.classes.entry(verdict.class).or_default() += 1;
        }
        let member = Member {
            job_id: job.id,
            array_job_id: job.array.map(|(array, _)| array),
            array_task_id: job.array.map(|(_, index)| index),
            name: None,
            attempts: 1,
            started: job.start.or(job.end).unwrap_or(run.started),
            last: job.end.or(job.start).unwrap_or(run.last),
            state: None,
            verdict,
            range: (0, 0),
        };
        run.members.insert(number, member);
        stories.insert(job.id, Story { attempts: vec![attempt] });
    }
    let running = run.members.values().filter(|m| m.verdict.is_none()).count();
    run.status = RunStatus::of(running as u32, &run.classes);
    let members = run.members.keys().copied().collect();
    Some((Found { dir: PathBuf::new(), run, members, parts: None }, stories))
}

fn attempt(job: &PastJob) -> Attempt {
    let named = || job.work_dir.as_deref().map_or_else(Vec::new, |dir| logs_of(dir, job));
    let paths = [&job.stdout, &job.stderr].map(|path| path.clone().filter(|path| path.starts_with('/')));
    let [stdout, stderr] = match paths {
        [None, None] => {
            let mut logs = named().into_iter().map(|path| path.to_string_lossy().into_owned());
            [logs.next(), logs.next()]
        }
        known => known,
    };
    let facts = Facts {
        name: Some(job.name.clone()),
        partition: Some(job.partition.clone()),
        work_dir: job.work_dir.as_ref().map(|dir| dir.to_string_lossy().into_owned()),
        stdout,
        stderr,
        node_list: Some(job.nodes.clone()),
        array_job_id: job.array.map(|(array, _)| array),
        array_task_id: job.array.map(|(_, index)| index),
        ..Facts::default()
    };
    let nodes = Some(job.nodes.clone()).filter(|n| !n.is_empty() && n != "None assigned");
    Attempt { facts, nodes: nodes.into_iter().map(Into::into).collect(), ..Attempt::default() }
}

/// Files of the directory, and of those in it, whose names bear the job's id; errors last, as in `.out`, `.err`.
fn logs_of(dir: &Path, job: &PastJob) -> Vec<PathBuf> {
    let mut left = FILES;
    let mut found = Vec::new();
    let mut look = |dir: &Path, below: Option<&mut Vec<PathBuf>>| {
        let mut below = below;
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            left = left.saturating_sub(1);
            if left == 0 {
                return;
            }
            let (path, kind) = (entry.path(), entry.file_type());
            if kind.as_ref().is_ok_and(fs::FileType::is_dir) {
                below.iter_mut().for_each(|dirs| dirs.push(path.clone()));
            } else if kind.is_ok_and(|kind| kind.is_file()) && is_of(&path, job) {
                found.push(path);
            }
        }
    };
    let mut below = Vec::new();
    look(dir, Some(&mut below));
    below.sort();
    for dir in below {
        look(&dir, None);
    }
    found.sort_by_key(|path| (path.extension().is_some_and(|e| e == "err" || e == "e"), path.clone()));
    found
}

fn is_of(path: &Path, job: &PastJob) -> bool {
    let ending =
        path.extension().is_some_and(|e| ["out", "err", "log", "o", "e"].iter().any(|known| e == *known));
    let name = LogName::parse(&path.file_stem().unwrap_or_default().to_string_lossy());
    let ids = (name.job_id, name.array_id);
    ending
        && (ids == (Some(job.id.0), None)
            || job.array.is_some_and(|(array, index)| ids == (Some(array.0), Some(index))))
}

/// By the rules; where they find nothing, because they judge deaths and none was seen, by the exit code.
fn verdict(attempt: &Attempt, job: &PastJob) -> Verdict {
    let judged = judge(attempt, Some(&job.record));
    let (code, signal) = (job.record.exit_code, job.record.exit_signal);
    let ok = job.record.state_word() == "COMPLETED";
    // That a step has no end means nothing where no step was recorded, and the exit code says more than that
    // the job failed.
    if !matches!(judged.cause.as_str(), "lost" | "unknown" | "app_error") {
        return judged;
    }
    let (class, cause, label, detail) = match (code, signal) {
        _ if job.record.state_word() == "OUT_OF_MEMORY" => {
            let what = "Slurm says that it ran out of memory; which process was killed is not known.";
            return Verdict {
                class: Class::Oom,
                cause: "oom_cgroup".into(),
                label: "OOM".into(),
                detail: what.into(),
                confidence: Confidence::Fact,
                advice: vec!["ask for more memory, half as much again to begin with".into()],
                retry: Retry::WithMoreMemory,
                slurm: Some(job.record.clone()),
                ..judged
            };
        }
        _ if ok => (Class::Ok, "ok", "OK", "ended well, as far as Slurm knows.".to_owned()),
        (_, 1..) => {
            let name = signal_name(u8::try_from(signal).unwrap_or(0));
            (Class::Crash, "signal", "CRASH", format!("its script was ended by {name}."))
        }
        (126 | 127, _) => {
            let what =
                format!("its script ended with exit code {code}: a command could not be run or found.");
            (Class::AppError, "launch_fail", "LAUNCH", what)
        }
        (129..=192, _) => {
            let name = signal_name(u8::try_from(code - 128).unwrap_or(0));
            let what = format!(
                "its script ended with exit code {code}, as a shell does when {name} has ended a command."
            );
            (Class::Crash, "child_signal", "CRASH", what)
        }
        (1.., _) => {
            (Class::AppError, "app_error", "ERROR", format!("its script ended with exit code {code}."))
        }
        (0, 0) => return judged,
    };
    Verdict {
        class,
        cause: cause.into(),
        label: label.into(),
        detail,
        confidence: Confidence::Fact,
        retry: Retry::Not,
        slurm: Some(job.record.clone()),
        ..judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slurm::accounting::JobRecord;

    fn job(state: &str, exit_code: u32, exit_signal: u32) -> PastJob {
        PastJob {
            id: "4703".parse().unwrap(),
            array: Some(("4700".parse().unwrap(), 3)),
            cluster: "lab".into(),
            user: "ada".into(),
            name: "fits".into(),
            partition: "main".into(),
            nodes: "n1".into(),
            work_dir: None,
            stdout: None,
            stderr: None,
            start: Some(Timestamp(1)),
            end: Some(Timestamp(2)),
            record: JobRecord { state: state.into(), exit_code, exit_signal, ..JobRecord::default() },
        }
    }

    #[test]
    fn slurm_alone_gives_a_verdict() {
        for (state, code, signal, class, cause) in [
            ("COMPLETED", 0, 0, "ok", "ok"),
            ("FAILED", 3, 0, "app_error", "app_error"),
            ("FAILED", 127, 0, "app_error", "launch_fail"),
            ("FAILED", 139, 0, "crash", "child_signal"),
            ("FAILED", 0, 11, "crash", "signal"),
            ("TIMEOUT", 0, 15, "timeout", "timeout"),
            ("OUT_OF_MEMORY", 0, 125, "oom", "oom_cgroup"),
            ("NODE_FAIL", 1, 0, "infra", "node_fail"),
            ("PREEMPTED", 0, 15, "preempted", "preempted"),
        ] {
            let (found, stories) = found(&[job(state, code, signal)]).unwrap();
            let member = &found.run.members[&1];
            let verdict = member.verdict.as_ref().unwrap();
            assert_eq!(
                (verdict.class.to_string().as_str(), verdict.cause.as_str()),
                (class, cause),
                "{state} {code}:{signal}"
            );
            assert!(verdict.evidence.is_empty() && verdict.first_failure.is_none(), "no event is made up");
            assert!(verdict.slurm.is_some());
            assert_eq!((member.display_id().as_str(), found.run.run_id.as_str()), ("4700_3", "array-4700"));
            assert_eq!(stories.len(), 1);
        }
        let open = found(&[job("RUNNING", 0, 0)]).unwrap().0;
        assert!(open.run.members[&1].verdict.is_none() && open.run.status == RunStatus::Running);
        assert!(found(&[]).is_none());
    }

    #[test]
    fn logs_are_found_by_their_names() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("logs/deep")).unwrap();
        let names = [
            "slurm-4700_3.out",
            "slurm-4700_2.out",
            "logs/fits_4700_3.err",
            "logs/deep/x_4700_3.out",
            "n-4703.out",
            "4700_3.txt",
        ];
        for name in names {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let found = logs_of(dir.path(), &job("FAILED", 1, 0));
        let found: Vec<_> =
            found.iter().map(|p| p.strip_prefix(dir.path()).unwrap().to_str().unwrap()).collect();
        assert_eq!(found, ["n-4703.out", "slurm-4700_3.out", "logs/fits_4700_3.err"]);
    }
}
