use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, IsTerminal, Write};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use inquest_journal::{JobId, Timestamp};
use jiff::tz::TimeZone;

use super::{GOOD, NOT_FOUND, NoPermission, Output, Usage, Where};
use crate::export::{self, Cell, Column, Events, Format, Sink};
use crate::slurm::target::Target;
use crate::slurm::when::when;
use crate::store::{EventsFile, Found, ReadError, Store};
use crate::units::count;

const EXAMPLES: &str = "\
Examples:
  inquest export members -S now-30days -o members.parquet
  inquest export events array-4700 -t oom_kill,task_exited | jq -c .
  inquest export runs -u ann --as csv > runs.csv
  duckdb -c \"select class, count(*) from 'members.parquet' group by 1\"

The columns are in inquest-tables(5). In CSV, text that a spreadsheet would
take for a formula gets an apostrophe in front and control characters are
escaped; --raw leaves it as it is, for programs.

Exit status: 0 all was written, 2 wrong usage, 3 not found or unreadable,
or something was left out, 4 permission denied.";

/// Bytes of events that are read at once.
const PIECE: usize = 4 << 20;

/// Between two lines of progress.
const TELL: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// Recorded events, one row each.
    Events,
    /// Jobs with their verdicts.
    Members,
    /// Runs.
    Runs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum As {
    /// One JSON object per line.
    Jsonl,
    /// Comma-separated values.
    Csv,
    /// Apache Parquet.
    #[cfg(feature = "parquet")]
    Parquet,
}

/// Write events, members or runs as a table for other tools.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// What the rows are.
    what: What,
    /// Only of this job, these members of an array, or this run; of all runs that
    /// you may see when not given.
    #[arg(value_name = "RUN|JOB")]
    target: Option<String>,
    /// Write this file, which is there when it is whole; standard output when not
    /// given, or -.
    #[arg(short = 'o', long, value_name = "FILE")]
    output: Option<Output>,
    /// The form; by the file's name when not given, else jsonl.
    #[arg(long = "as", value_name = "FORM")]
    form: Option<As>,
    /// Leave text in CSV as it is, even where a spreadsheet would run it.
    #[arg(long)]
    raw: bool,
    /// Only events of this type, for example oom_kill; may be repeated.
    #[arg(short = 't', long = "type", value_name = "TYPE", value_delimiter = ',')]
    types: Vec<String>,
    /// Only what happened since then: 2026-11-21, 2026-11-21T14:30, now-2days.
    #[arg(short = 'S', long, value_name = "TIME")]
    starttime: Option<String>,
    /// Only what happened until then.
    #[arg(short = 'E', long, value_name = "TIME")]
    endtime: Option<String>,
    #[command(flatten)]
    place: Where,
}

/// Times that are asked for.
type Span = RangeInclusive<Timestamp>;

pub(super) fn main(arguments: &Arguments, zone: &TimeZone) -> anyhow::Result<u8> {
    if !arguments.types.is_empty() && arguments.what != What::Events {
        return Err(Usage("only events have types; leave --type out, or export events".into()).into());
    }
    super::events::known(&arguments.types)?;
    let target = arguments.target.as_deref().map(str::parse::<Target>).transpose()?;
    let format = format(arguments)?;
    let span = time(arguments.starttime.as_deref(), i64::MIN, zone)?
        ..=time(arguments.endtime.as_deref(), i64::MAX, zone)?;
    // Whoever asks for something that is not there gets no empty file.
    let (store, whole) = (arguments.place.open()?, matches!(target, None | Some(Target::Run(_))));
    let found = target.map(|t| arguments.place.find(&t)).transpose()?;
    let mut export = Export { span, progress: Progress::new(), skipped: 0, damaged: 0 };
    let (goal, jobs) = (Goal::begin(arguments.output.as_ref()), !whole);
    match arguments.what {
        What::Runs => {
            let mut sink = goal.table(format, "runs", &export::runs())?;
            export.runs(&store, arguments, found.as_ref(), sink.as_mut())?;
            sink.finish()?;
        }
        What::Members => {
            let mut sink = goal.table(format, "members", &export::members())?;
            export.each_run(&store, arguments, found, &mut |export, found| {
                export.members(&found, sink.as_mut())
            })?;
            sink.finish()?;
        }
        What::Events => {
            let mut events = Events::new();
            let mut sink = goal.table(format, "events", events.columns())?;
            let site = found.is_none() && arguments.place.user.is_none();
            export.each_run(&store, arguments, found, &mut |export, found| {
                let only = jobs.then(|| found.members.iter().map(|n| found.run.members[n].job_id).collect());
                let whose = (found.run.cluster.as_str(), found.run.user.as_str());
                let range = if jobs { range(&found) } else { (0, u64::MAX) };
                let wanted = Wanted { types: &arguments.types, jobs: only, range };
                export.events(&found.dir, whose, &wanted, &mut events, sink.as_mut())
            })?;
            for (cluster, dir) in
                if site { store.sites(arguments.place.cluster.as_deref())? } else { Vec::new() }
            {
                let wanted = Wanted { types: &arguments.types, jobs: None, range: (0, u64::MAX) };
                export.events(&dir, (&cluster, ""), &wanted, &mut events, sink.as_mut())?;
            }
            sink.finish()?;
        }
    }
    goal.done()?;
    export.progress.end();
    if export.damaged > 0 {
        eprintln!(
            "inquest: {} damaged and left out; 'inquest events RUN' counts those of a run",
            count(export.damaged, "line is", "lines are")
        );
    }
    if export.skipped > 0 {
        eprintln!(
            "inquest: {} left out, which went away or cannot be read",
            count(export.skipped, "run is", "runs are")
        );
    }
    Ok(if export.damaged + export.skipped == 0 { GOOD } else { NOT_FOUND })
}

fn format(arguments: &Arguments) -> Result<Format, Usage> {
    let named = match &arguments.output {
        Some(Output::File(path)) => path.extension().and_then(|e| As::from_str(e.to_str()?, true).ok()),
        _ => None,
    };
    let form = arguments.form.or(named).unwrap_or(As::Jsonl);
    if arguments.raw && form != As::Csv {
        return Err(Usage("--raw is about CSV only; the other forms change no text".into()));
    }
    Ok(match form {
        As::Jsonl => Format::Jsonl,
        As::Csv => Format::Csv { raw: arguments.raw },
        #[cfg(feature = "parquet")]
        As::Parquet => Format::Parquet,
    })
}

fn time(text: Option<&str>, without: i64, zone: &TimeZone) -> Result<Timestamp, Usage> {
    let Some(text) = text else { return Ok(Timestamp(without)) };
    let now = Timestamp(jiff::Timestamp::now().as_microsecond());
    when(text, now, zone).ok_or_else(|| {
        let text = text.escape_debug();
        Usage(format!("'{text}' is no time; write 2026-11-21, 2026-11-21T14:30 or now-2days"))
    })
}

/// Bytes between which all events of the found members are.
fn range(found: &Found) -> (u64, u64) {
    let ranges = || found.members.iter().map(|n| found.run.members[n].range);
    (ranges().map(|r| r.0).min().unwrap_or(0), ranges().map(|r| r.1).max().unwrap_or(0))
}

/// Which events of a run.
struct Wanted<'a> {
    types: &'a [String],
    jobs: Option<BTreeSet<JobId>>,
    range: (u64, u64),
}

struct Export {
    span: Span,
    progress: Progress,
    /// Runs that could not be read.
    skipped: u64,
    /// Lines that are none.
    damaged: u64,
}

impl Export {
    fn overlaps(&self, from: Timestamp, to: Timestamp) -> bool {
        from <= *self.span.end() && to >= *self.span.start()
    }

    fn runs(
        &mut self,
        store: &Store,
        arguments: &Arguments,
        found: Option<&Found>,
        sink: &mut dyn Sink,
    ) -> anyhow::Result<()> {
        let place = &arguments.place;
        for run in store.runs(place.cluster.as_deref(), place.user.as_deref())? {
            let other =
                |f: &Found| (&f.run.cluster, &f.run.user, &f.run.run_id) != (&run.0, &run.1, &run.2.run_id);
            if found.is_none_or(|f| !other(f)) && self.overlaps(run.2.submitted_at, run.2.updated_at) {
                sink.row(&export::run(&run))?;
                self.progress.add(1);
            }
        }
        Ok(())
    }

    /// What was found, or every run that the caller may see.
    fn each_run(
        &mut self,
        store: &Store,
        arguments: &Arguments,
        found: Option<Found>,
        each: &mut dyn FnMut(&mut Export, Found) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        if let Some(found) = found {
            return each(self, found);
        }
        let place = &arguments.place;
        for (cluster, user, entry) in store.runs(place.cluster.as_deref(), place.user.as_deref())? {
            if !self.overlaps(entry.submitted_at, entry.updated_at) {
                continue;
            }
            match store.run(&cluster, &user, &entry.run_id) {
                Ok((dir, run)) => {
                    let members = run.members.keys().copied().collect();
                    each(self, Found { dir, run, members, parts: None })?;
                }
                Err(_) => self.skipped += 1,
            }
        }
        Ok(())
    }

    fn members(&mut self, found: &Found, sink: &mut dyn Sink) -> anyhow::Result<()> {
        for (number, member) in found.members.iter().filter_map(|n| Some((*n, found.run.members.get(n)?))) {
            if self.overlaps(member.started, member.last) {
                sink.row(&export::member(&found.run, number, member))?;
                self.progress.add(1);
            }
        }
        Ok(())
    }

    fn events(
        &mut self,
        dir: &Path,
        (cluster, user): (&str, &str),
        wanted: &Wanted<'_>,
        events: &mut Events,
        sink: &mut dyn Sink,
    ) -> anyhow::Result<()> {
        let file = match EventsFile::open(dir) {
            Ok(file) => file,
            // Removed since it was listed.
            Err(ReadError::NotFound(_)) => {
                self.skipped += 1;
                return Ok(());
            }
            Err(e) => return Err(e.into()),
        };
        let place = |columns: &[Column], name: &str| columns.iter().position(|c| c.name == name);
        let columns = events.columns();
        let (time, kind, job) =
            (place(columns, "timestamp"), place(columns, "event_type"), place(columns, "job_id"));
        let (span, mut damaged, mut rows) = (self.span.clone(), 0, 0);
        let mut written: io::Result<()> = Ok(());
        file.lines(wanted.range.0, wanted.range.1, PIECE, |_, line| {
            if written.is_err() {
                return; // There is nobody left to write for.
            }
            let Some(row) = events.row(cluster, user, line) else {
                damaged += 1;
                return;
            };
            let cell = |at: Option<usize>| at.and_then(|at| row.get(at));
            let in_time = matches!(cell(time), Some(Cell::Time(at)) if span.contains(at));
            let of_type = wanted.types.is_empty()
                || matches!(cell(kind), Some(Cell::Text(t)) if wanted.types.contains(t));
            let of_job = wanted.jobs.as_ref().is_none_or(|jobs| {
                matches!(cell(job), Some(Cell::Text(id)) if id.parse().is_ok_and(|id| jobs.contains(&JobId(id))))
            });
            if in_time && of_type && of_job {
                written = sink.row(row);
                rows += 1;
            }
        })?;
        self.damaged += damaged;
        self.progress.add(rows);
        Ok(written?)
    }
}

/// Where the table goes: standard output, or a file that gets its name when it
/// is whole.
struct Goal {
    /// The name, and what the file is called until then.
    file: Option<(PathBuf, PathBuf)>,
}

impl Goal {
    fn begin(output: Option<&Output>) -> Goal {
        let file = match output {
            Some(Output::File(path)) => {
                // What is no file (a pipe, a device) is written as it comes.
                let other = std::fs::metadata(path).is_ok_and(|m| !m.is_file());
                let mut part = path.as_os_str().to_owned();
                part.push(".part");
                Some((path.clone(), if other { path.clone() } else { part.into() }))
            }
            _ => None,
        };
        Goal { file }
    }

    fn table(&self, format: Format, name: &str, columns: &[Column]) -> anyhow::Result<Box<dyn Sink>> {
        let Some((path, part)) = &self.file else {
            if !matches!(format, Format::Jsonl | Format::Csv { .. }) && io::stdout().is_terminal() {
                return Err(Usage("Parquet is not for a terminal; name a file with -o".into()).into());
            }
            return Ok(export::begin(format, name, columns, BufWriter::new(io::stdout()))?);
        };
        let file = File::options().write(true).create(true).truncate(true).open(part);
        let file = file.map_err(|e| unwritable(path, &e))?;
        Ok(export::begin(format, name, columns, BufWriter::new(file))?)
    }

    /// The table is whole.
    fn done(self) -> anyhow::Result<()> {
        match self.file {
            Some((path, part)) if path != part => {
                Ok(std::fs::rename(&part, &path).map_err(|e| unwritable(&path, &e))?)
            }
            _ => Ok(()),
        }
    }
}

fn unwritable(path: &Path, e: &io::Error) -> anyhow::Error {
    match e.kind() {
        ErrorKind::PermissionDenied => NoPermission(format!("write {}", path.display())).into(),
        _ => anyhow::anyhow!("cannot write {}: {e}; name another file", path.display()),
    }
}

/// How far it is, on a terminal, once it takes long.
struct Progress {
    told: Instant,
    rows: u64,
    shown: bool,
}

impl Progress {
    fn new() -> Progress {
        Progress { told: Instant::now(), rows: 0, shown: false }
    }

    fn add(&mut self, rows: u64) {
        self.rows += rows;
        if self.told.elapsed() >= TELL && io::stderr().is_terminal() {
            (self.told, self.shown) = (Instant::now(), true);
            let _ = write!(io::stderr(), "\r{}", self.said());
        }
    }

    fn end(&self) {
        if self.shown {
            eprintln!("\r{}", self.said());
        }
    }

    fn said(&self) -> String {
        count(self.rows, "row", "rows")
    }
}
