/*!
How Slurm saw many jobs at once, by the ids that people and log files use
(`4700_3`): which have not ended (`squeue`), and how the others did (`sacct`).
*/

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::command;

/// How long somebody waits for an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Ids per call, far below what a command line can hold.
const BATCH: usize = 2000;

/// Slurm's words for jobs that have not ended.
const OPEN: &str =
    "PENDING,CONFIGURING,RUNNING,SUSPENDED,COMPLETING,REQUEUED,RESIZING,SIGNALING,STAGE_OUT,STOPPED";

/// Those of `jobs` (ids of plain jobs or of whole arrays) that have not ended,
/// as `4700` or `4700_3`.
///
/// # Errors
///
/// When squeue did not answer, in words for people.
pub fn unfinished(jobs: &BTreeSet<u32>) -> Result<BTreeSet<String>, String> {
    let mut open = BTreeSet::new();
    let states = format!("--states={OPEN}");
    for text in ask("squeue", &["--noheader", "--array", &states, "--format=%F|%K|%A"], jobs)? {
        open.extend(text.lines().filter_map(queued));
    }
    Ok(open)
}

/// `4700|3|4703`; the index is `N/A` outside arrays.
fn queued(line: &str) -> Option<String> {
    let mut columns = line.trim().split('|');
    let (array, index, job) = (columns.next()?, columns.next()?, columns.next()?);
    let number = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if number(array) && number(index) {
        Some(format!("{array}_{index}"))
    } else {
        number(job).then(|| job.to_owned())
    }
}

/// The final states of those of `jobs` (ids of plain jobs or of whole arrays)
/// that the accounting knows, by `4700` or `4700_3`.
///
/// # Errors
///
/// When sacct did not answer, in words for people.
pub fn ended(jobs: &BTreeSet<u32>) -> Result<HashMap<String, String>, String> {
    let mut states = HashMap::new();
    for text in ask("sacct", &["--noheader", "--parsable2", "--format=JobID,State"], jobs)? {
        merge(&mut states, &text);
    }
    Ok(states)
}

/// A job that is COMPLETED or FAILED by its script is OUT_OF_MEMORY where one
/// of its steps was: the reason is often only in the row of a step.
fn merge(states: &mut HashMap<String, String>, text: &str) {
    for line in text.lines() {
        let Some((id, state)) = line.trim().split_once('|') else { continue };
        // `CANCELLED by 1000` begins with the state.
        let word = state.split([' ', '+']).next().unwrap_or_default();
        match id.split_once('.') {
            None => {
                states.insert(id.to_owned(), word.to_owned());
            }
            Some((job, _)) if word == "OUT_OF_MEMORY" => {
                if let Some(state) =
                    states.get_mut(job).filter(|s| matches!(s.as_str(), "COMPLETED" | "FAILED"))
                {
                    *state = word.to_owned();
                }
            }
            Some(_) => {}
        }
    }
}

fn ask(program: &str, arguments: &[&str], jobs: &BTreeSet<u32>) -> Result<Vec<String>, String> {
    let ids: Vec<String> = jobs.iter().map(u32::to_string).collect();
    let mut answers = Vec::new();
    for batch in ids.chunks(BATCH) {
        let jobs = format!("--jobs={}", batch.join(","));
        match command::ask(program, &[arguments, &[&jobs]].concat(), PATIENCE) {
            Ok(text) => answers.push(text),
            // squeue's answer when it remembers none of the ids.
            Err(e) if e.words().contains("Invalid job id") => {}
            Err(e) => return Err(e.to_string()),
        }
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_states() {
        assert_eq!(queued("4700|3|4703\n").as_deref(), Some("4700_3"));
        assert_eq!(queued("4711|N/A|4711").as_deref(), Some("4711"));
        assert_eq!(queued("slurm_load_jobs error"), None);
        let mut states = HashMap::new();
        merge(
            &mut states,
            "4700_1|FAILED\n4700_1.batch|FAILED\n4700_1.0|OUT_OF_MEMORY\n4700_2|CANCELLED by 7\n4700_2.0|OUT_OF_MEMORY\n7|COMPLETED\nx\n",
        );
        let mut all: Vec<_> = states.iter().map(|(id, s)| (id.as_str(), s.as_str())).collect();
        all.sort_unstable();
        assert_eq!(all, [("4700_1", "OUT_OF_MEMORY"), ("4700_2", "CANCELLED"), ("7", "COMPLETED")]);
    }
}
