//! A frame laid out in lines of text, for a screen and for a pipe alike.

use inquest_journal::Timestamp;
use jiff::tz::TimeZone;

use super::{Failed, Frame, Run};
use crate::report::wrap::{WIDTH, cut};
use crate::report::{clean, zoned};
use crate::units::{count, duration};

/// What a piece of text means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Ink {
    Plain,
    Soft,
    Head,
    Good,
    Bad,
    Busy,
    Chosen,
}

/// Text with a meaning.
pub type Span = (Ink, String);

/// What the person who looks has chosen.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The run that keys act on; none where there are no keys.
    pub chosen: Option<usize>,
    /// Only runs in whose names this stands.
    pub filter: String,
    /// The filter is being written.
    pub writing: bool,
    /// Seconds between two looks.
    pub interval: u64,
}

/// Lines for recent events and for errors when there is room.
const RECENT: usize = 10;
const ERRORS: usize = 6;

/// Runs that are shown before errors and events are.
const FEW: usize = 4;

/// Characters of a progress bar.
const BAR: usize = 15;

/// The runs that a filter leaves.
pub fn shown<'a>(frame: &'a Frame, view: &View) -> Vec<&'a Run> {
    frame.runs.iter().filter(|r| view.filter.is_empty() || r.mentions(&view.filter)).collect()
}

/// Lays out a frame for so many columns and at most so many lines.
pub fn lines(
    frame: &Frame,
    view: &View,
    now: Timestamp,
    zone: &TimeZone,
    width: usize,
    height: usize,
) -> Vec<Vec<Span>> {
    let runs = shown(frame, view);
    let mut out = vec![head(frame, now, zone)];
    let errors = errors(&runs, zone);
    let bottom = usize::from(view.chosen.is_some());
    // The lines below the first two; runs take what errors and events leave.
    let room = height.saturating_sub(2 + bottom);
    let mut errors_room = errors.len().min(ERRORS).min(room / 4);
    let mut recent_room = frame.recent.len().min(RECENT).min(room / 3);
    // A heading and an empty line go before each part.
    let part = |lines: usize| if lines > 0 { lines + 2 } else { 0 };
    if room.saturating_sub(part(errors_room) + part(recent_room)) < FEW {
        recent_room = 0;
    }
    if room.saturating_sub(part(errors_room)) < FEW {
        errors_room = 0;
    }
    let runs_room = room.saturating_sub(part(errors_room) + part(recent_room));
    // The last of them says how many more there are.
    let runs_room = if runs.len() > runs_room { runs_room.saturating_sub(1) } else { runs_room };

    let wide = Widths::of(width);
    out.push(vec![(Ink::Soft, wide.head())]);
    let chosen = view.chosen.map(|c| c.min(runs.len().saturating_sub(1)));
    // The chosen run is always on the screen.
    let from = chosen.map_or(0, |c| (c + 1).saturating_sub(runs_room));
    for (index, run) in runs.iter().enumerate().skip(from).take(runs_room) {
        out.push(row(run, wide, now, chosen == Some(index)));
    }
    if runs.is_empty() {
        let filtered = if frame.runs.is_empty() { "no runs yet" } else { "no run matches the filter" };
        out.push(vec![(Ink::Soft, filtered.to_owned())]);
    }
    let hidden = runs.len().saturating_sub(from + runs_room);
    if hidden > 0 {
        out.push(vec![(Ink::Soft, format!("... and {}", count(hidden, "more run", "more runs")))]);
    }
    if errors_room > 0 {
        out.push(Vec::new());
        out.push(vec![(Ink::Head, "Errors".to_owned())]);
        out.extend(errors.into_iter().take(errors_room));
    }
    if recent_room > 0 {
        out.push(Vec::new());
        out.push(vec![(Ink::Head, "Recent events".to_owned())]);
        let newest = frame.recent.iter().rev().filter(|e| runs.iter().any(|r| r.entry.run_id == e.run_id));
        for e in newest.take(recent_room) {
            let job = e.job.clone().unwrap_or_else(|| cut(&clean(&e.run_id), 9));
            let ink = if e.bad { Ink::Bad } else { Ink::Plain };
            out.push(vec![
                (Ink::Soft, format!("{}  ", zoned(e.utc, zone, "%H:%M:%S"))),
                (ink, format!("{:<7}", e.event)),
                (Ink::Plain, format!(" {:<10} {job:<9} {}", cut(&e.node, 10), e.detail)),
            ]);
        }
    }
    out.truncate(height.saturating_sub(bottom).max(1));
    if bottom > 0 {
        out.push(keys(view));
    }
    out.iter().map(|line| fit(line, width)).collect()
}

fn head(frame: &Frame, now: Timestamp, zone: &TimeZone) -> Vec<Span> {
    let running = frame.runs.iter().filter(|r| r.running()).count();
    let failed: u32 = frame.runs.iter().map(|r| r.counts().1).sum();
    let jobs: u32 = frame.runs.iter().map(|r| r.counts().2).sum();
    let ink = if failed > 0 { Ink::Bad } else { Ink::Good };
    vec![
        (Ink::Head, format!("inquest top  {}  ", zoned(now, zone, "%H:%M:%S"))),
        (Ink::Busy, format!("{} and {} running", count(running, "run", "runs"), count(jobs, "job", "jobs"))),
        (Ink::Plain, format!(", {} in all, ", count(frame.runs.len(), "run", "runs"))),
        (ink, format!("{} failed", count(failed, "job", "jobs"))),
    ]
}

/// Columns of what a run is called; a wide terminal shows more of it.
#[derive(Clone, Copy)]
struct Widths {
    run: usize,
    name: usize,
    user: usize,
}

impl Widths {
    fn of(width: usize) -> Widths {
        let more = width.saturating_sub(WIDTH);
        Widths { run: 13 + (more / 3).min(20), name: 10 + (more / 3).min(14), user: 8 + (more / 3).min(8) }
    }

    fn names(self, run: &str, name: &str, user: &str) -> String {
        let Widths { run: r, name: n, user: u } = self;
        format!("{:<r$} {:<n$} {:<u$} ", cut(run, r), cut(name, n), cut(user, u))
    }

    fn head(self) -> String {
        let bar = BAR + 2;
        let names = self.names("RUN", "NAME", "USER");
        format!(
            "{names}{:<bar$} {:>4} {:>4} {:>4} {:>8} {:>4}",
            "PROGRESS", "OK", "FAIL", "LIVE", "ELAPSED", "PEAK"
        )
    }
}

fn row(run: &Run, wide: Widths, now: Timestamp, chosen: bool) -> Vec<Span> {
    let (ok, failed, running) = run.counts();
    let until = if run.running() { now } else { run.entry.updated_at };
    let elapsed = whole(until.since(run.entry.submitted_at).max(0));
    let peak = run.seen.memory.map_or("-".into(), |(p, l)| format!("{:.0}%", 100.0 * p as f64 / l as f64));
    let near = run.seen.memory.is_some_and(|(p, l)| p as f64 >= 0.9 * l as f64);
    let name = clean(run.entry.name.as_deref().unwrap_or("-"));
    let names = wide.names(&clean(&run.entry.run_id), &name, &clean(&run.user));
    let (plain, bad, good, busy) = match chosen {
        true => (Ink::Chosen, Ink::Chosen, Ink::Chosen, Ink::Chosen),
        false => (Ink::Plain, Ink::Bad, Ink::Good, Ink::Busy),
    };
    let all = u64::from(run.entry.n_chunks.max(1));
    // Every kind that there is has at least one character.
    let part = |n: u32| (u64::from(n) * BAR as u64 / all).max(u64::from(n > 0)) as usize;
    let (b, r) = (part(failed), part(running));
    let g = BAR.saturating_sub(b + r);
    vec![
        (plain, format!("{names}[")),
        (good, if ok > 0 { "#" } else { "." }.repeat(g)),
        (bad, "!".repeat(b.min(BAR - g))),
        (busy, ">".repeat(BAR - g - b.min(BAR - g))),
        (plain, format!("] {ok:>4} ")),
        (if failed > 0 { bad } else { plain }, format!("{failed:>4} ")),
        (plain, format!("{running:>4} {elapsed:>8} ")),
        (if near { bad } else { plain }, format!("{peak:>4}")),
    ]
}

/// A duration in whole seconds: what changes with every look is hard to read.
fn whole(us: i64) -> String {
    let text = duration(us / 1_000_000 * 1_000_000);
    text.strip_suffix(".000s").map_or(text.clone(), |s| format!("{s}s"))
}

/// The newest failure of each class in each run, the newest first.
fn errors(runs: &[&Run], zone: &TimeZone) -> Vec<Vec<Span>> {
    let mut all: Vec<_> = runs
        .iter()
        .flat_map(|r| r.seen.failed.iter().map(move |(class, failed)| (*r, class, failed)))
        .collect();
    all.sort_by_key(|(_, _, failed)| std::cmp::Reverse(failed.at));
    let line = |(run, class, failed): &(&Run, &crate::verdict::Class, &Failed)| {
        let jobs = run.entry.classes.get(class).copied().unwrap_or(1);
        let (job, what) = (failed.job.as_deref().unwrap_or("-"), &failed.what);
        vec![
            (Ink::Soft, format!("{}  ", zoned(failed.at, zone, "%H:%M:%S"))),
            (Ink::Bad, format!("{:<10}", class.to_string())),
            (Ink::Plain, format!(" x{jobs:<4} {:<13} {job:<7} {what}", cut(&clean(&run.entry.run_id), 13))),
        ]
    };
    all.iter().map(line).collect()
}

fn keys(view: &View) -> Vec<Span> {
    if view.writing {
        return vec![
            (Ink::Head, format!("filter: {}_", clean(&view.filter))),
            (Ink::Soft, "  (Enter keeps it, Esc clears it)".into()),
        ];
    }
    let every = view.interval;
    let keys = (
        Ink::Soft,
        format!("q quit  up/down choose  Enter why  / filter  +/- every {every} s  r now  ? help"),
    );
    match view.filter.as_str() {
        "" => vec![keys],
        filter => vec![(Ink::Head, format!("filter: {} (Esc clears it)  ", clean(filter))), keys],
    }
}

/// Cuts a line at so many columns.
fn fit(line: &[Span], width: usize) -> Vec<Span> {
    let mut left = width;
    let mut out = Vec::new();
    let all: usize = line.iter().map(|(_, t)| t.chars().count()).sum();
    for (ink, text) in line {
        let wide = text.chars().count();
        if wide >= left && all > width {
            out.push((*ink, cut(text, left)));
            break;
        }
        out.push((*ink, text.clone()));
        left -= wide;
    }
    out
}

/// What the keys do and what the columns mean.
pub const HELP: &str = "\
q, Ctrl-C         quit
up, down, j, k    choose a run
PgUp, PgDn        ten runs up or down
Home, End         the first, the last
Enter             why: the report of the chosen run; q or Esc comes back
/                 show only runs in whose names a word stands
Esc               show all runs again
+, -              look more often, less often
r                 look now
?                 this help

PROGRESS  # ended well, ! failed, > running; of the jobs that are known so far
PEAK      the highest share of a memory limit that a task came to, page cache
          included, as far as the newest events tell
Errors    the newest failure of each class of each run, and how many there are

Press any key.";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::top::Seen;
    use crate::verdict::Class;

    fn frame(runs: u32, name: &str) -> Frame {
        let run = |n: u32| {
            let entry = serde_json::json!({
                "run_id": format!("array-{n}"), "submitted_at": "2026-11-21T14:00:00Z",
                "updated_at": "2026-11-21T14:01:00Z", "status": if n == 0 { "running" } else { "failed" },
                "backend": "slurm", "n_chunks": 1000, "n_failed": 1, "classes": { "ok": 900, "oom": 1 }, "name": name,
                "jobs": "1",
            });
            let failed =
                Failed { at: Timestamp(0), job_id: None, job: None, what: "out of memory".to_owned() };
            let failed = [(Class::Oom, failed)].into();
            Run {
                cluster: "c".into(),
                user: "ann".into(),
                entry: serde_json::from_value(entry).unwrap(),
                seen: Seen { memory: Some((63, 64)), failed },
            }
        };
        Frame { runs: (0..runs).map(run).collect(), recent: [].into() }
    }

    fn text(frame: &Frame, view: &View, width: usize, height: usize) -> Vec<String> {
        let now = Timestamp(frame.runs.first().map_or(0, |r| r.entry.submitted_at.0 + 3_600_000_000));
        let lines = lines(frame, view, now, &TimeZone::UTC, width, height);
        lines.iter().map(|l| l.iter().map(|(_, t)| t.as_str()).collect()).collect()
    }

    #[test]
    fn fits_into_any_terminal() {
        for runs in [0, 1, 5, 500] {
            let frame = frame(runs, "evil\u{1b}[2J\r\nname that is long");
            for (width, height) in [(1, 1), (20, 3), (80, 24), (80, 5), (200, 60), (79, 9)] {
                for chosen in [None, Some(0), Some(499)] {
                    let view = View { chosen, ..View::default() };
                    let lines = text(&frame, &view, width, height);
                    assert!(lines.len() <= height.max(2), "{runs} {width}x{height}: {lines:#?}");
                    assert!(lines.iter().all(|l| l.chars().count() <= width), "{width}x{height}: {lines:#?}");
                    assert!(lines.iter().all(|l| !l.contains(char::is_control)), "{lines:#?}");
                }
            }
        }
    }

    #[test]
    fn the_chosen_run_is_on_the_screen_and_filters_filter() {
        let frame = frame(100, "fit");
        let view = View { chosen: Some(77), ..View::default() };
        assert!(text(&frame, &view, 80, 24).iter().any(|l| l.starts_with("array-77 ")));
        let view = View { filter: "RAY-4".into(), ..View::default() };
        assert_eq!(shown(&frame, &view).len(), 11);
        let view = View { filter: "running".into(), ..View::default() };
        let lines = text(&frame, &view, 80, 24);
        assert_eq!(
            lines[1],
            "RUN           NAME       USER     PROGRESS            OK FAIL LIVE  ELAPSED PEAK"
        );
        assert_eq!(
            lines[2],
            "array-0       fit        ann      [#############!>]  900    1   99  1:00:00  98%"
        );
        assert!(lines.iter().any(|l| l.contains("oom        x1    array-0       -       out of memory")));
    }
}
