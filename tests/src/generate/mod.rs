/*!
Journals as a site of many nodes would have written them, from a seed.

The mix is that of a busy general-purpose cluster: most jobs are members of
arrays, most others are small, a few span nodes and hold most of the tasks.
Failures cluster on a few bad nodes. The same plan gives the same bytes, so
what was measured on one machine can be made again on another.

Every line goes through the journal's own encoder. Only the `write(2)` per line
is left out: events are gathered per node and written in blocks.
*/

mod journals;
mod site;

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use inquest_journal::Timestamp;

use self::site::Site;

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

/// 2026-11-21T00:00:00Z.
const EPOCH: Timestamp = Timestamp(1_795_219_200_000_000);
const SECOND: i64 = 1_000_000;

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
    let mut site = Site::new(plan, out, begin, habits)?;
    let day = 86_400 * SECOND;
    let span = i64::from(plan.days.max(1)) * day;
    let (mut next, mut slice) = (1, begin.0 + i64::from(days.max(1)) * day);
    while next <= plan.jobs {
        // Submissions keep the pace of the jobs that they bring.
        let now = begin.0 + span / i64::from(plan.jobs) * i64::from(next - 1);
        while slice <= now {
            each(site.play_until(slice, next - 1)?)?;
            slice += i64::from(days.max(1)) * day;
        }
        next += site.submit(now, next, plan.jobs - next + 1)?;
    }
    site.play_until(i64::MAX, next - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use inquest_journal::{Body, Head, Lines};
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
