//! What a person points at: a job, a member of an array, a step, or a run.

use std::fmt;
use std::str::FromStr;

use inquest_journal::{JobId, StepId};

/// A job, array, step or run as written on a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `123`, `123.batch`, `123.0`; `123` may also be a whole array.
    Job {
        /// The id.
        id: JobId,
        /// One step of it.
        step: Option<StepId>,
    },
    /// `123_4`, `123_[1-3,7]`, with a step `123_4.0`.
    Array {
        /// Id of the array.
        id: JobId,
        /// Indices.
        tasks: Vec<u32>,
        /// One step of it.
        step: Option<StepId>,
    },
    /// `123+1`: a component of a het job.
    Het {
        /// Id of the leader.
        id: JobId,
        /// Index of the component.
        offset: u32,
    },
    /// Anything that cannot be a job: the id of a run.
    Run(String),
}

/// A word that begins like a job id but is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadTarget {
    word: String,
    reason: &'static str,
}

impl fmt::Display for BadTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.word.escape_debug();
        write!(
            f,
            "'{word}' is no job or run id: {}; write 123, 123_4, 123_[1-3], 123+0, 123.batch or a run id",
            self.reason
        )
    }
}

impl std::error::Error for BadTarget {}

/// More members than any Slurm array can have (MaxArraySize is at most 4000001).
const TASKS_MAX: usize = 4_000_001;

impl FromStr for Target {
    type Err = BadTarget;

    fn from_str(word: &str) -> Result<Target, BadTarget> {
        let bad = |reason| BadTarget { word: word.to_owned(), reason };
        if word.is_empty() {
            return Err(bad("it is empty"));
        }
        // A run id may begin with a digit (eight hex digits), so only what has
        // the shape of a job id is judged as one.
        let shape = |b: u8| {
            b.is_ascii_digit() || matches!(b, b'_' | b'[' | b']' | b',' | b'-' | b':' | b'%' | b'+' | b'.')
        };
        let (main, step) = match word.split_once('.') {
            Some((main, step))
                if main.bytes().all(shape) && main.starts_with(|c: char| c.is_ascii_digit()) =>
            {
                (main, Some(step.parse::<StepId>().map_err(|_| bad("the part after the dot is no step"))?))
            }
            _ => (word, None),
        };
        if !main.starts_with(|c: char| c.is_ascii_digit()) || !main.bytes().all(shape) {
            let named = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
            let run = word.len() <= 128 && word.bytes().all(named) && !word.starts_with(['.', '-']);
            return if run {
                Ok(Target::Run(word.to_owned()))
            } else {
                Err(bad("a run id has letters, digits, dots, dashes and underscores only"))
            };
        }
        let id = |s: &str| s.parse::<JobId>().map_err(|_| bad("the number is too large or not a number"));
        if let Some((id_text, tasks)) = main.split_once('_') {
            return Ok(Target::Array { id: id(id_text)?, tasks: array_tasks(tasks).map_err(bad)?, step });
        }
        if let Some((id_text, offset)) = main.split_once('+') {
            let offset = offset.parse().map_err(|_| bad("the component after the plus is no number"))?;
            return Ok(Target::Het { id: id(id_text)?, offset });
        }
        Ok(Target::Job { id: id(main)?, step })
    }
}

impl Target {
    /// The run that may be called so, where there is no such job.
    pub fn as_run(&self) -> Option<Target> {
        match self {
            Target::Job { id, step: None } => Some(Target::Run(id.to_string())),
            Target::Array { id, tasks, step: None } => match tasks.as_slice() {
                [task] => Some(Target::Run(format!("{id}_{task}"))),
                _ => None,
            },
            _ => None,
        }
    }
}

/// `4`, `[1-3,7]`, `[1-9:2]`, `[0-99%5]`.
fn array_tasks(text: &str) -> Result<Vec<u32>, &'static str> {
    let inner = match text.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').ok_or("the bracket is not closed")?,
        None => text,
    };
    let inner = inner.split_once('%').map_or(inner, |(list, _)| list);
    let mut tasks = Vec::new();
    for part in inner.split(',') {
        let (range, step) = part.split_once(':').unwrap_or((part, "1"));
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        let number = |s: &str| s.parse::<u32>().map_err(|_| "an array index is no number");
        let (from, to, step) = (number(from)?, number(to)?, number(step)?);
        if from > to || step == 0 || (to - from) as usize >= TASKS_MAX {
            return Err("an array range is empty or too large");
        }
        tasks.extend((from..=to).step_by(step as usize));
        if tasks.len() > TASKS_MAX {
            return Err("an array range is empty or too large");
        }
    }
    tasks.sort_unstable();
    tasks.dedup();
    Ok(tasks)
}

/// Numbers as Slurm folds them: `1-3,7`.
pub fn fold_ranges(numbers: impl IntoIterator<Item = u32>) -> String {
    let mut sorted: Vec<u32> = numbers.into_iter().collect();
    sorted.sort_unstable();
    sorted.dedup();
    let mut out = String::new();
    let mut rest = sorted.as_slice();
    while let [first, ..] = rest {
        let len = rest
            .iter()
            .enumerate()
            .take_while(|(i, n)| u64::from(**n) == u64::from(*first) + *i as u64)
            .count();
        let comma = if out.is_empty() { "" } else { "," };
        out += &match len {
            1 => format!("{comma}{first}"),
            n => format!("{comma}{first}-{}", rest[n - 1]),
        };
        rest = &rest[len..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_as_people_write_them() {
        let job = |n, step| Ok(Target::Job { id: JobId(n), step });
        assert_eq!("123".parse(), job(123, None));
        assert_eq!("123.batch".parse(), job(123, Some(StepId::Batch)));
        assert_eq!("123.0".parse(), job(123, Some(StepId::Number(0))));
        let array = |tasks: &[u32], step| Ok(Target::Array { id: JobId(9), tasks: tasks.into(), step });
        assert_eq!("9_4".parse(), array(&[4], None));
        assert_eq!("9_[1-3,7%2]".parse(), array(&[1, 2, 3, 7], None));
        assert_eq!("9_[1-9:4]".parse(), array(&[1, 5, 9], None));
        assert_eq!("9_4.0".parse(), array(&[4], Some(StepId::Number(0))));
        assert_eq!("9+1".parse(), Ok(Target::Het { id: JobId(9), offset: 1 }));
        for run in ["a1b2c3d4", "1b2c3d4e", "job-7", "sweep.v2"] {
            assert_eq!(run.parse(), Ok(Target::Run(run.into())));
        }
    }

    #[test]
    fn what_is_no_id_says_why() {
        for bad in [
            "",
            "99999999999",
            "9_",
            "9_[1-",
            "9_[3-1]",
            "9.x",
            "9+",
            "../etc",
            "a b",
            "-1",
            "9_[0-4294967295]",
        ] {
            let error = bad.parse::<Target>().unwrap_err().to_string();
            assert!(error.contains("no job or run id"), "{bad}: {error}");
        }
    }

    proptest! {
        #[test]
        fn ranges_fold_and_unfold(numbers in proptest::collection::btree_set(0u32..200, 1..60)) {
            let folded = fold_ranges(numbers.iter().copied());
            prop_assert_eq!(array_tasks(&folded).unwrap(), numbers.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn any_word_is_read_or_refused(word in any::<String>()) {
            let _ = word.parse::<Target>();
        }
    }
}
