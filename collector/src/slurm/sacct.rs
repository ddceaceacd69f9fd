/*!
What slurmdbd knows: the `sacct` command, asked for many jobs at once.

It is late: a record arrives seconds after the end of its job, hours after it
when the database was down. So squeue is asked first; sacct is asked for what
squeue has forgotten, and now and then for all jobs that ended lately, the last
hour always once more.

Columns are found by their names in the first line, and only those are asked
for that `sacct --helpformat` lists: `Restarts` came after 22.05.
*/

use std::collections::{BTreeSet, HashMap};
use std::sync::OnceLock;
use std::time::Duration;

use inquest_journal::{JobId, Timestamp};

use super::accounting::{Accounting, JobRecord, News, Squeue, Submitted};
use super::command;
use super::warning::of_submit_line;

/// How long an answer is waited for: slurmdbd may have to look at all jobs of a day.
const PATIENCE: Duration = Duration::from_secs(600);

/// Ids per call, far below what a command line can hold.
const BATCH: usize = 2000;

const COLUMNS: [&str; 8] =
    ["JobIDRaw", "Cluster", "State", "ExitCode", "Reason", "Timelimit", "Start", "End"];

/// Not in every release.
const RESTARTS: &str = "Restarts";

/// Of jobs that never ran. The last two are a user's own words, which may hold
/// anything: a line break only cuts its own line short.
const SUBMITTED: [&str; 6] = ["JobID", "Submit", "UID", "NodeList", "JobName", "WorkDir"];

/// The command that it was submitted with: last, because it may be a script of many lines (`--wrap`). Of
/// these, the first has sbatch's own options.
const SUBMIT_LINE: &str = "SubmitLine";

/// What sacct writes for the nodes of a job that had none.
const NO_NODES: &str = "None assigned";

/// Every state that a job ends in, by the short names that all releases know.
const ENDED: &str = "BF,CA,CD,DL,F,NF,OOM,PR,TO";

/// Records are written after the ends that they tell of, in microseconds.
const OVERLAP_US: i64 = 3_600_000_000;

/// squeue for the newest jobs, sacct for all others.
#[derive(Debug)]
pub struct Sacct {
    squeue: Squeue,
    /// What this release can be asked for, once it is known.
    columns: OnceLock<String>,
    /// What stands between columns. Nobody can name a job so that it looks like
    /// columns, or like another job, without knowing it.
    delimiter: String,
}

impl Default for Sacct {
    fn default() -> Sacct {
        let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0u8);
        Sacct { squeue: Squeue, columns: OnceLock::new(), delimiter: format!("|{random:016x}|") }
    }
}

impl Accounting for Sacct {
    fn cluster(&self) -> Result<String, String> {
        self.squeue.cluster()
    }

    fn ask(&self, jobs: &BTreeSet<JobId>) -> Result<HashMap<JobId, JobRecord>, String> {
        let mut records = self.squeue.ask(jobs)?;
        let forgotten: Vec<String> =
            jobs.iter().filter(|id| !records.contains_key(id)).map(JobId::to_string).collect();
        for batch in forgotten.chunks(BATCH) {
            let text = self.sacct(&["--duplicates", &format!("--jobs={}", batch.join(","))])?;
            for news in newest(parse(&text, &self.delimiter)) {
                records.insert(news.job, news.record);
            }
        }
        Ok(records)
    }

    fn news(&self, since: Timestamp, until: Timestamp) -> Result<Option<Vec<News>>, String> {
        // sacct reads local time.
        let local = |at: i64| {
            let at = jiff::Timestamp::from_microsecond(at.max(0)).unwrap_or_default();
            at.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%dT%H:%M:%S").to_string()
        };
        let start = format!("--starttime={}", local(since.0.saturating_sub(OVERLAP_US)));
        let (end, states) = (format!("--endtime={}", local(until.0)), format!("--state={ENDED}"));
        let text = self.sacct(&["--allusers", &start, &end, &states])?;
        Ok(Some(parse(&text, &self.delimiter)))
    }
}

impl Sacct {
    fn sacct(&self, arguments: &[&str]) -> Result<String, String> {
        let columns = match self.columns.get() {
            Some(columns) => columns,
            None => {
                let columns = columns(&run(&["--helpformat"], PATIENCE)?);
                self.columns.get_or_init(|| columns)
            }
        };
        let format = format!("--format={columns}");
        let delimiter = format!("--delimiter={}", self.delimiter);
        let mut all = vec!["--parsable2", &delimiter, "--allocations", &format];
        all.extend(arguments);
        run(&all, PATIENCE)
    }
}

/// The columns that a release has, of those wanted.
fn columns(help: &str) -> String {
    let wanted: Vec<&str> =
        COLUMNS.into_iter().chain([RESTARTS]).chain(SUBMITTED).chain([SUBMIT_LINE]).collect();
    columns_of(help, &wanted)
}

/// Those of `wanted` that `sacct --helpformat` lists.
pub(super) fn columns_of(help: &str, wanted: &[&str]) -> String {
    let known: BTreeSet<&str> = help.split_whitespace().collect();
    wanted.iter().copied().filter(|c| known.contains(c)).collect::<Vec<_>>().join(",")
}

pub(super) fn run(arguments: &[&str], patience: Duration) -> Result<String, String> {
    command::ask("sacct", arguments, patience).map_err(|e| e.to_string())
}

/// Reads what sacct prints with `--parsable2`: the first line names the
/// columns. Steps and lines that cannot be read are left out.
fn parse(text: &str, delimiter: &str) -> Vec<News> {
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap_or_default().split(delimiter).collect();
    let at = |name: &str| names.iter().position(|n| n.eq_ignore_ascii_case(name));
    let places = COLUMNS.map(at);
    let restarts = at(RESTARTS);
    let of_submitted = SUBMITTED.map(at);
    let submit_line = at(SUBMIT_LINE);
    let row = |line: &str| {
        let fields: Vec<&str> = line.split(delimiter).collect();
        let field = |place: Option<usize>| place.and_then(|p| fields.get(p)).copied().unwrap_or_default();
        let [id, cluster, state, exit, reason, limit, start, end] = places.map(field);
        let (state, cancelled_by) = state_of(state)?;
        let (code, signal) = exit.split_once(':').unwrap_or((exit, "0"));
        let [name, submit, uid, nodes, job_name, work_dir] = of_submitted.map(field);
        let (start, end) = (time(start), time(end));
        let never_ran = nodes == NO_NODES;
        let record = JobRecord {
            // The reason is why it waited last, and says nothing of the end of a job that ran.
            reason: if start.is_some() && !never_ran { String::new() } else { reason.to_owned() },
            state,
            exit_code: code.parse().unwrap_or(0),
            exit_signal: signal.parse().unwrap_or(0),
            time_limit: limit_of(limit),
            restarts: field(restarts).parse().unwrap_or(0),
            cancelled_by,
            never_ran,
            warning: of_submit_line(field(submit_line)),
        };
        let submitted = never_ran.then(|| {
            let (array, index) = array_of(name);
            let words = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            let (name, work_dir) = (words(job_name), words(work_dir));
            Submitted { at: time(submit), uid: uid.parse().ok(), name, work_dir, array, index }
        });
        Some(News { cluster: cluster.to_owned(), job: id.parse().ok()?, start, end, record, submitted })
    };
    lines.filter_map(row).collect()
}

/// `5_1` is index 1 of array 5, `5_[1-3]` the array.
fn array_of(name: &str) -> (Option<JobId>, Option<u32>) {
    match name.split_once('_') {
        Some((array, index)) => (array.parse().ok(), index.parse().ok()),
        None => (None, None),
    }
}

/// Of several records of one job, one per attempt, the newest; the others are
/// its restarts.
fn newest(all: Vec<News>) -> Vec<News> {
    let mut jobs: HashMap<JobId, (News, u32)> = HashMap::new();
    for news in all {
        match jobs.get_mut(&news.job) {
            None => _ = jobs.insert(news.job, (news, 0)),
            Some((known, before)) => {
                *before += 1;
                // One that waits for its start is newer than all that ran.
                let age = |n: &News| n.start.map_or(i64::MAX, |t| t.0);
                if age(&news) >= age(known) {
                    *known = news;
                }
            }
        }
    }
    let with = |(mut news, before): (News, u32)| {
        news.record.restarts = news.record.restarts.max(before);
        news
    };
    jobs.into_values().map(with).collect()
}

/// The state as one word, cut ones made whole, and who cancelled the job.
pub(super) fn state_of(text: &str) -> Option<(String, Option<u32>)> {
    const LONG: [&str; 6] =
        ["CANCELLED", "COMPLETED", "OUT_OF_MEMORY", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL"];
    let (word, by) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    if word.is_empty() {
        return None;
    }
    let whole = match word.strip_suffix('+') {
        Some(begin) => LONG.into_iter().find(|w| w.starts_with(begin)).unwrap_or(begin),
        None => word,
    };
    Some((whole.to_owned(), by.strip_prefix("by ").and_then(|uid| uid.parse().ok())))
}

/// A limit as squeue writes it: `1:00`, `1-00:00:00`.
pub(super) fn limit_of(text: &str) -> String {
    if text == "Partition_Limit" {
        return String::new();
    }
    let short = text.strip_prefix("00:").unwrap_or(text);
    short
        .strip_prefix('0')
        .filter(|s| s.starts_with(|c: char| c.is_ascii_digit()))
        .unwrap_or(short)
        .to_owned()
}

/// Seconds since 1970; `Unknown` and `None` for what has not happened.
pub(super) fn time(text: &str) -> Option<Timestamp> {
    let seconds: i64 = text.parse().ok().filter(|&s| s > 0)?;
    Some(Timestamp(seconds.checked_mul(1_000_000)?))
}

#[cfg(test)]
#[path = "sacct_tests.rs"]
mod tests;
