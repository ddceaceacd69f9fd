//! Names of log files, from the patterns that users give to sbatch and srun.

use std::path::{Path, PathBuf};

/// What Slurm puts in place of the letters of a pattern; fields that are not
/// known leave their letter standing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PatternContext {
    /// `%j`, and `%J` together with the step.
    pub job_id: Option<u64>,
    /// `%A`: the array's own job id; the job id outside arrays.
    pub array_job_id: Option<u64>,
    /// `%a`: index in the array; 4294967294 outside arrays, as Slurm writes.
    pub array_task_id: Option<u64>,
    /// `%s`, as Slurm writes it: `0`, `batch`, `extern`, `interactive`.
    pub step: Option<String>,
    /// `%t`: rank of the task in its step; 0 for a batch script.
    pub task: Option<u64>,
    /// `%n`: position of the node in the job; 0 for a batch script.
    pub node: Option<u64>,
    /// `%N`: short name of the first node.
    pub host: Option<String>,
    /// `%u`.
    pub user: Option<String>,
    /// `%x`.
    pub job_name: Option<String>,
    /// Directory that a relative name starts from.
    pub workdir: Option<PathBuf>,
}

/// Expands a file name pattern as sbatch(1) and srun(1) document.
///
/// A number between the percent sign and the letter pads numeric fields with
/// zeros (at most ten, as Slurm does) and is ignored for others. A backslash
/// anywhere in the pattern turns expansion off, and the backslashes are
/// removed. Array jobs without a name default to `slurm-%A_%a.out`, others to
/// `slurm-%j.out`.
pub fn expand_pattern(pattern: &str, context: &PatternContext) -> PathBuf {
    let pattern = match (pattern.is_empty(), context.array_task_id) {
        (true, Some(_)) => "slurm-%A_%a.out",
        (true, None) => "slurm-%j.out",
        (false, _) => pattern,
    };
    let name = if pattern.contains('\\') { pattern.replace('\\', "") } else { expand(pattern, context) };
    match &context.workdir {
        Some(dir) if Path::new(&name).is_relative() => dir.join(name),
        _ => PathBuf::from(name),
    }
}

fn expand(pattern: &str, c: &PatternContext) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let spec = &rest[at + 1..];
        let digits = spec.bytes().take_while(u8::is_ascii_digit).count();
        let Some(letter) = spec[digits..].chars().next() else {
            out.push_str(&rest[at..]);
            return out;
        };
        let width = spec[..digits].parse::<usize>().unwrap_or(if digits > 0 { 10 } else { 0 }).min(10);
        let end = at + 1 + digits + letter.len_utf8();
        let number = |n: Option<u64>| n.map(|n| format!("{n:0width$}"));
        let value = match letter {
            '%' => Some("%".to_owned()),
            'j' => number(c.job_id),
            'J' => match (number(c.job_id), &c.step) {
                (Some(job), Some(step)) if step != "batch" => Some(format!("{job}.{step}")),
                (job, _) => job,
            },
            'A' => number(c.array_job_id.or(c.job_id)),
            'a' => number(Some(c.array_task_id.unwrap_or(4_294_967_294))),
            's' => c.step.as_ref().map(|s| match s.parse::<u64>() {
                Ok(n) => format!("{n:0width$}"),
                Err(_) => s.clone(),
            }),
            't' => number(Some(c.task.unwrap_or(0))),
            'n' => number(Some(c.node.unwrap_or(0))),
            'N' => c.host.clone(),
            'u' => c.user.clone(),
            'x' => c.job_name.clone(),
            _ => None,
        };
        match value {
            Some(v) => out.push_str(&v),
            None => out.push_str(&rest[at..end]),
        }
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_sbatch_documents() {
        let c = PatternContext {
            job_id: Some(128),
            array_job_id: Some(120),
            array_task_id: Some(7),
            step: Some("0".into()),
            task: Some(3),
            node: Some(1),
            host: Some("n01".into()),
            user: Some("ann".into()),
            job_name: Some("fit".into()),
            workdir: Some("/home/ann".into()),
        };
        for (pattern, path) in [
            ("job%J.out", "/home/ann/job128.0.out"),
            ("job%4j.out", "/home/ann/job0128.out"),
            ("job%2j-%2t.out", "/home/ann/job128-03.out"),
            ("/x/%A_%a-%x.%u@%N-%n", "/x/120_7-fit.ann@n01-1"),
            ("%99j", "/home/ann/0000000128"),
            ("100%%", "/home/ann/100%"),
            ("a\\%j", "/home/ann/a%j"),
            ("%q-%", "/home/ann/%q-%"),
            ("", "/home/ann/slurm-120_7.out"),
        ] {
            assert_eq!(expand_pattern(pattern, &c), PathBuf::from(path), "{pattern}");
        }
    }

    #[test]
    fn unknown_fields_stay() {
        assert_eq!(expand_pattern("%x-%j.out", &PatternContext::default()), PathBuf::from("%x-%j.out"));
    }
}
