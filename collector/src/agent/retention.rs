/*!
How long this node keeps its own journal. Only whole files of past days are
deleted, oldest first, and only when it was asked for: the agent cannot know
whether a collector has merged them.
*/

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// What to keep; nothing set keeps everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keep {
    /// Days before today.
    pub days: Option<u32>,
    /// Bytes of all files together.
    pub bytes: Option<u64>,
}

/// A file that something wrote to within this time is kept: a late line of
/// yesterday, a copy under way.
const SETTLED: Duration = Duration::from_secs(3600);

/// A journal file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Candidate {
    name: String,
    bytes: u64,
    settled: bool,
}

/// Days since 1970 of a file name `2026-11-21.jsonl`, or `.jsonl.zst`.
fn day_of(name: &str) -> Option<i64> {
    let day = name.strip_suffix(".zst").unwrap_or(name).strip_suffix(".jsonl")?;
    let noon: inquest_journal::Timestamp = format!("{day}T12:00:00Z").parse().ok()?;
    (noon.day() == day).then(|| noon.day_number())
}

/// Which files go, oldest first.
fn plan(mut files: Vec<Candidate>, keep: Keep, today: i64) -> Vec<String> {
    files.sort_by(|a, b| a.name.cmp(&b.name));
    let mut total: u64 = files.iter().map(|f| f.bytes).sum();
    let mut gone = Vec::new();
    // Where all of the past would go, it may be the clock that is wrong. Another day's file tells.
    let newest = files.iter().rev().filter_map(|f| day_of(&f.name)).find(|&day| day < today);
    for file in files {
        let Some(day) = day_of(&file.name) else { continue };
        let since = |days: u32| today - i64::from(days);
        let old = keep.days.is_some_and(|days| day < since(days) && newest >= Some(since(days.max(1))));
        let much = keep.bytes.is_some_and(|most| total > most);
        if (old || much) && day < today && file.settled {
            total -= file.bytes;
            gone.push(file.name);
        }
    }
    gone
}

/// Deletes what need not be kept in `dir`; gives the names.
///
/// # Errors
///
/// When the directory cannot be read or a file not be deleted.
pub(super) fn clean(dir: &Path, keep: Keep, today: i64, now: SystemTime) -> io::Result<Vec<String>> {
    let mut files = Vec::new();
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let (Ok(name), Ok(meta)) = (entry.file_name().into_string(), entry.metadata()) else { continue };
        if meta.is_file() && day_of(&name).is_some() {
            let age = meta.modified().ok().and_then(|m| now.duration_since(m).ok());
            files.push(Candidate { name, bytes: meta.len(), settled: age.is_some_and(|a| a >= SETTLED) });
        }
    }
    let gone = plan(files, keep, today);
    for name in &gone {
        std::fs::remove_file(dir.join(name))?;
    }
    Ok(gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> Vec<Candidate> {
        let file = |name: &str, bytes| Candidate { name: name.into(), bytes, settled: true };
        vec![
            file("2026-11-21.jsonl", 100),
            file("2026-11-18.jsonl.zst", 10),
            file("2026-11-20.jsonl", 100),
            file("2026-11-19.jsonl", 100),
        ]
    }

    fn gone(keep: Keep) -> Vec<String> {
        plan(files(), keep, day_of("2026-11-21.jsonl").unwrap())
    }

    #[test]
    fn nothing_goes_unasked() {
        assert!(gone(Keep::default()).is_empty());
    }

    #[test]
    fn old_days_go_and_today_never_does() {
        assert_eq!(gone(Keep { days: Some(1), bytes: None }), ["2026-11-18.jsonl.zst", "2026-11-19.jsonl"]);
        let all = ["2026-11-18.jsonl.zst", "2026-11-19.jsonl", "2026-11-20.jsonl"];
        assert_eq!(gone(Keep { days: Some(0), bytes: None }), all);
        assert_eq!(gone(Keep { days: None, bytes: Some(0) }), all);
    }

    #[test]
    fn the_oldest_go_until_the_rest_fits() {
        assert_eq!(gone(Keep { days: None, bytes: Some(300) }), ["2026-11-18.jsonl.zst"]);
        assert_eq!(gone(Keep { days: None, bytes: Some(299) }), ["2026-11-18.jsonl.zst", "2026-11-19.jsonl"]);
        assert!(gone(Keep { days: None, bytes: Some(310) }).is_empty());
    }

    #[test]
    fn a_clock_far_ahead_deletes_nothing() {
        let at = |day: &str, days| {
            let keep = Keep { days: Some(days), bytes: None };
            plan(files(), keep, day_of(day).unwrap())
        };
        assert!(at("2036-11-21.jsonl", 14).is_empty());
        assert!(at("2026-12-06.jsonl", 14).is_empty());
        assert_eq!(at("2026-12-05.jsonl", 14).len(), 3);
        // What was written on another day says that time has passed.
        let file = |name: &str| Candidate { name: name.into(), bytes: 1, settled: true };
        let later = [files(), vec![file("2036-11-20.jsonl")]].concat();
        let keep = Keep { days: Some(14), bytes: None };
        assert_eq!(plan(later, keep, day_of("2036-11-21.jsonl").unwrap()).len(), 4);
    }

    #[test]
    fn a_file_that_was_just_written_to_stays() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("2026-11-20.jsonl"), "x").unwrap();
        std::fs::write(dir.path().join("2026-11-31.jsonl"), "no day").unwrap();
        std::fs::write(dir.path().join("notes.jsonl"), "x").unwrap();
        let (keep, today) = (Keep { days: Some(0), bytes: None }, day_of("2026-11-21.jsonl").unwrap());
        let now = SystemTime::now();
        assert!(clean(dir.path(), keep, today, now).unwrap().is_empty());
        assert_eq!(clean(dir.path(), keep, today, now + SETTLED * 2).unwrap(), ["2026-11-20.jsonl"]);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
