//! What one event says of the run of its job.

use std::collections::BTreeMap;

use inquest_journal::{Body, JobId, Via};

/// What an engine may look at. Everything in it comes from a user.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// The job.
    pub job: JobId,
    /// Its user, from Slurm.
    pub uid: Option<u32>,
    /// Job name.
    pub name: &'a str,
    /// The user's comment, where Slurm tells it to a node.
    pub comment: Option<&'a str>,
    /// The command of a step.
    pub argv: &'a [String],
    /// Where it works.
    pub cwd: Option<&'a str>,
    /// Where it was submitted.
    pub submit_dir: Option<&'a str>,
    /// File of its standard output.
    pub stdout: Option<&'a str>,
    /// Allow-listed environment.
    pub env: &'a BTreeMap<String, String>,
    /// Given with `--inquest-run`.
    pub run: Option<&'a str>,
    /// The array, and its index in it.
    pub array: Option<(JobId, Option<u32>)>,
    /// The het job, and its component.
    pub het: Option<(JobId, Option<u32>)>,
    /// It is the environment of the job as it was submitted, not that of a
    /// step, to which something inside of the job may have added.
    pub submitted: bool,
}

impl<'a> Evidence<'a> {
    /// The evidence in an event; `None` for one that cannot know: of another
    /// kind, of the extern step, which has neither environment nor name, or of
    /// the prolog, which has no more unless the user has named the run. Nor do
    /// processes that died count, whose environment is recorded too: a run that
    /// was known by them would hold only the jobs in which something died.
    pub fn of(job: JobId, body: &'a Body) -> Option<Evidence<'a>> {
        match body {
            Body::JobStarted(b) if b.via == Some(Via::Prolog) && b.run.is_none() => None,
            Body::JobStarted(b) => Some(Evidence {
                job,
                uid: b.uid,
                name: b.name.as_deref().unwrap_or_default(),
                comment: b.comment.as_deref(),
                argv: &[],
                cwd: b.work_dir.as_deref(),
                submit_dir: b.submit_dir.as_deref(),
                stdout: b.stdout.as_deref(),
                env: &b.env,
                run: b.run.as_deref(),
                array: b.array_job_id.map(|id| (id, b.array_task_id)),
                het: b.het_job_id.map(|id| (id, b.het_offset)),
                submitted: true,
            }),
            Body::StepStarted(b) => Some(Evidence {
                job,
                uid: b.uid,
                name: b.name.as_deref()?,
                comment: None,
                argv: &b.argv,
                cwd: b.cwd.as_deref(),
                submit_dir: None,
                stdout: None,
                env: &b.env,
                run: b.run.as_deref(),
                array: b.array_job_id.map(|id| (id, b.array_task_id)),
                het: None,
                submitted: false,
            }),
            _ => None,
        }
    }

    /// A variable that is set and not empty.
    pub fn env(&self, name: &str) -> Option<&'a str> {
        self.env.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }

    /// The argument behind `--name`, or in `--name=value`.
    pub fn option(&self, name: &str) -> Option<&'a str> {
        let mut arguments = self.argv.iter();
        while let Some(argument) = arguments.next() {
            match argument.strip_prefix(name) {
                Some("") => return arguments.next().map(String::as_str),
                Some(rest) if rest.starts_with('=') => return Some(&rest[1..]),
                _ => {}
            }
        }
        None
    }

    /// A path that the job works with, and what it is: its standard output
    /// first, then where it works.
    pub fn paths(&self) -> impl Iterator<Item = (&'static str, &'a str)> {
        [("stdout", self.stdout), ("work_dir", self.cwd), ("submit_dir", self.submit_dir)]
            .into_iter()
            .filter_map(|(what, path)| Some((what, path?)))
    }
}

/// Cuts a text of the form `<before><mark><after>` at the last `mark`.
pub(super) fn around<'a>(text: &'a str, mark: &str) -> Option<(&'a str, &'a str)> {
    text.rsplit_once(mark).filter(|(before, _)| !before.is_empty())
}

/// Exactly `n` lower-case hexadecimal digits.
pub(super) fn is_hex(text: &str, n: usize) -> bool {
    text.len() == n && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// One or more digits.
pub(super) fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// A UUID in its usual form.
pub(super) fn is_uuid(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    parts.len() == 5 && parts.iter().zip([8, 4, 4, 4, 12]).all(|(part, n)| is_hex(part, n))
}
