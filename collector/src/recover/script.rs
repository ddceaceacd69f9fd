//! The job script's path and an array's throttle, which no node knows: the
//! controller does, for as long as it remembers the job.

use std::path::Path;
use std::time::Duration;

use inquest_journal::JobId;

use super::plan::{Script, Submitted};
use crate::slurm::command;

/// How long an answer is waited for; without one the script is not known.
const PATIENCE: Duration = Duration::from_secs(3);

/// Questions to the controller for one plan.
const QUESTIONS: u32 = 50;

/// Asks for the scripts of jobs, until an answer stays out: a controller that
/// is not there is not asked again.
#[derive(Debug, Default)]
pub struct Scripts {
    asked: u32,
    silent: bool,
}

impl Scripts {
    /// What the controller knows of a job: nothing when there is no Slurm here,
    /// it does not answer, or it does not know the job any more.
    pub fn of(&mut self, job: JobId) -> Submitted {
        if self.silent || self.asked >= QUESTIONS {
            return Submitted::default();
        }
        self.asked += 1;
        let answer = ask(job);
        self.silent = answer.is_none();
        answer.unwrap_or_default()
    }
}

/// The answer; `None` without one, nothing known when Slurm has forgotten the job.
fn ask(job: JobId) -> Option<Submitted> {
    let told = command::ask("scontrol", &["--oneliner", "show", "job", &job.to_string()], PATIENCE);
    match told {
        Ok(text) => {
            Some(Submitted { script: script(&text, |p| Path::new(p).is_file()), throttle: throttle(&text) })
        }
        Err(e) => e.has_ended().then(Submitted::default),
    }
}

/// Members of its array that may run at a time. Slurm does not show it where
/// any number may.
fn throttle(text: &str) -> Option<u32> {
    // A name may hold anything; what comes before it is of Slurm.
    let (before, _) = text.lines().next()?.split_once(" JobName=")?;
    match before.split(' ').find_map(|word| word.strip_prefix("ArrayTaskThrottle=")) {
        Some(number) => number.parse().ok(),
        None => Some(0),
    }
}

/// The `Command=` of a job: the script and its arguments, joined by blanks.
/// The fields beside it tell where it ends; a file of the whole name tells
/// that its blanks are of the name.
fn script(text: &str, is_file: impl Fn(&str) -> bool) -> Option<Script> {
    let line = text.lines().next()?;
    let (_, rest) = line.split_once(" Command=")?;
    let command = rest.split(" WorkDir=").next()?.trim();
    if command.is_empty() || command == "(null)" {
        return None;
    }
    if is_file(command) {
        return Some(vec![command.to_owned()]);
    }
    Some(command.split_whitespace().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::{script, throttle};

    #[test]
    fn the_command_of_a_job() {
        let line = |command: &str| format!("JobId=7 JobName=a b Command={command} WorkDir=/w StdErr=/w/x\n");
        let words = |command: &str| script(&line(command), |p| p == "/a b/job.sh");
        assert_eq!(words("/a/job.sh").unwrap(), ["/a/job.sh"]);
        assert_eq!(words("/a/job.sh x 7").unwrap(), ["/a/job.sh", "x", "7"]);
        assert_eq!(words("/a b/job.sh").unwrap(), ["/a b/job.sh"]);
        assert_eq!(words("(null)"), None);
        assert_eq!(script("slurm_load_jobs error: Invalid job id specified\n", |_| true), None);
        assert_eq!(script("", |_| true), None);
    }

    #[test]
    fn the_throttle_of_an_array() {
        let of = |words: &str| throttle(&format!("JobId=7 {words}JobName=a ArrayTaskThrottle=9 UserId=x\n"));
        assert_eq!(of("ArrayJobId=5 ArrayTaskId=1 ArrayTaskThrottle=2 "), Some(2));
        assert_eq!(of("ArrayJobId=5 ArrayTaskId=1 "), Some(0));
        assert_eq!(throttle("slurm_load_jobs error: Invalid job id specified\n"), None);
    }
}
