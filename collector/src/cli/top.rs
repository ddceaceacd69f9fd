use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use inquest_journal::Timestamp;
use jiff::tz::TimeZone;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::{FAILURES, GOOD, Usage, Where, print, print_json};
use crate::report::top::{self, Frame, HELP, Ink, View, Watch};
use crate::report::why;
use crate::slurm::target::Target;
use crate::store::Store;

const EXAMPLES: &str = "\
Examples:
  inquest top                    your runs; for root, everybody's
  inquest top array-4700 --interval 5
  inquest top --once >> top.log  one frame as plain text

Keys: q quits, up and down choose a run, Enter says why, / filters, ? helps.

Exit status: 0 nothing failed in the runs that were shown last, 1 something
did, 2 wrong usage, 3 not found or unreadable, 4 permission denied.

Classes and counts are the collector's, which reads no logs; why reads them.";

/// Between two looks at the keyboard and at signals.
const TICK: Duration = Duration::from_millis(100);

/// Lines of a frame that goes into a file or pipe.
const PLAIN: usize = 60;

/// Watch runs live: progress, events, errors, memory.
///
/// The newest runs come first, running ones before all others. Without a
/// terminal, give --once.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Only this run, or the run of this job.
    #[arg(value_name = "JOB|RUN")]
    target: Option<String>,
    /// Seconds between two looks.
    #[arg(short = 'i', long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
    /// Print one frame as plain text and end.
    #[arg(long)]
    once: bool,
    /// Print one frame as JSON and end.
    #[arg(long, conflicts_with = "once")]
    json: bool,
    #[command(flatten)]
    place: Where,
}

pub(super) fn main(arguments: &Arguments, zone: &TimeZone) -> anyhow::Result<u8> {
    let store = arguments.place.open()?;
    let (cluster, user, only) = match &arguments.target {
        // Who names a run means that run, whoever it is of, and no other of the same name.
        Some(word) => {
            let run = arguments.place.find(&word.parse()?)?.run;
            (Some(run.cluster), Some(run.user), Some(run.run_id))
        }
        None => (arguments.place.cluster.clone(), arguments.place.whose(), None),
    };
    let watch = Watch::new(store.clone(), cluster, user, only);
    if arguments.once || arguments.json {
        return once(watch, arguments, zone);
    }
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(
            Usage("this is no terminal: --once prints one frame, --json the same as JSON".into()).into()
        );
    }
    let mut screen = Screen::new(watch, store, arguments, zone);
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [libc::SIGTERM, libc::SIGHUP, libc::SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    // Restores the terminal when something panics.
    let mut terminal = ratatui::try_init()?;
    let result = screen.run(&mut terminal, &stop);
    ratatui::try_restore()?;
    result?;
    Ok(code(&screen.frame))
}

fn once(mut watch: Watch, arguments: &Arguments, zone: &TimeZone) -> anyhow::Result<u8> {
    let frame = watch.look()?;
    if arguments.json {
        print_json(&top::json(frame))?;
        return Ok(code(frame));
    }
    let width = std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok()).filter(|w| *w >= 40).unwrap_or(80);
    let lines = top::lines(frame, &View::default(), now(), zone, width, PLAIN);
    let line = |spans: Vec<top::Span>| {
        let text: String = spans.into_iter().map(|(_, text)| text).collect();
        format!("{}\n", text.trim_end())
    };
    print(&lines.into_iter().map(line).collect::<String>())?;
    Ok(code(frame))
}

fn code(frame: &Frame) -> u8 {
    if frame.runs.iter().any(|r| r.entry.n_failed > 0) { FAILURES } else { GOOD }
}

fn now() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_microsecond())
}

/// What is on the screen beside the list of runs.
#[derive(Debug)]
enum Pane {
    None,
    Help,
    /// A report, and the line at which it begins on the screen.
    Text(Vec<String>, usize),
}

struct Screen<'a> {
    watch: Watch,
    store: Store,
    zone: &'a TimeZone,
    frame: Frame,
    view: View,
    pane: Pane,
    /// Why the last look failed, if it did.
    problem: Option<String>,
    /// When to look again.
    due: Instant,
}

enum Next {
    Stay,
    Quit,
    Suspend,
}

impl<'a> Screen<'a> {
    fn new(watch: Watch, store: Store, arguments: &Arguments, zone: &'a TimeZone) -> Screen<'a> {
        let view = View { chosen: Some(0), interval: arguments.interval, ..View::default() };
        let (frame, pane) = (Frame::default(), Pane::None);
        Screen { watch, store, zone, frame, view, pane, problem: None, due: Instant::now() }
    }

    fn run(&mut self, terminal: &mut DefaultTerminal, stop: &AtomicBool) -> anyhow::Result<()> {
        let mut changed = true;
        while !stop.load(Ordering::Relaxed) {
            if Instant::now() >= self.due {
                match self.watch.look() {
                    Ok(frame) => (self.frame, self.problem) = (frame.clone(), None),
                    // The store may come back; what was seen stays.
                    Err(e) => self.problem = Some(e.to_string()),
                }
                self.due = Instant::now() + Duration::from_secs(self.view.interval);
                changed = true;
            }
            if changed {
                terminal.draw(|f| self.draw(f))?;
            }
            changed = event::poll(TICK)?;
            if !changed {
                continue;
            }
            let Event::Key(key) = event::read()? else { continue };
            if key.kind == KeyEventKind::Release {
                continue;
            }
            match self.key(key, usize::from(terminal.size()?.height)) {
                Next::Stay => {}
                Next::Quit => return Ok(()),
                Next::Suspend => {
                    ratatui::try_restore()?;
                    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TSTP)?;
                    *terminal = ratatui::try_init()?;
                    terminal.clear()?;
                }
            }
        }
        Ok(())
    }

    fn draw(&self, f: &mut ratatui::Frame<'_>) {
        let area = f.area();
        let (width, height) = (usize::from(area.width), usize::from(area.height));
        let lines: Vec<Line<'_>> = match &self.pane {
            Pane::Help => HELP.lines().map(Line::raw).collect(),
            Pane::Text(lines, from) => {
                let shown = lines.iter().skip(*from).take(height.saturating_sub(1));
                let mut shown: Vec<Line<'_>> = shown.map(|l| Line::raw(l.as_str())).collect();
                shown.resize(height.saturating_sub(1), Line::default());
                let last = (from + height.saturating_sub(1)).min(lines.len());
                let text = format!("lines {}-{last} of {}  up/down scroll  q back", from + 1, lines.len());
                shown.push(Line::styled(text, style(Ink::Soft)));
                shown
            }
            Pane::None => {
                let mut lines = top::lines(&self.frame, &self.view, now(), self.zone, width, height);
                if let (Some(problem), Some(last)) = (&self.problem, lines.last_mut()) {
                    *last = vec![(Ink::Bad, crate::report::clean(problem))];
                }
                let line = |spans: Vec<top::Span>| {
                    Line::from_iter(spans.into_iter().map(|(ink, text)| Span::styled(text, style(ink))))
                };
                lines.into_iter().map(line).collect()
            }
        };
        f.render_widget(Paragraph::new(lines), area);
    }

    fn key(&mut self, key: KeyEvent, height: usize) -> Next {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control => return Next::Quit,
            KeyCode::Char('z') if control => return Next::Suspend,
            _ => {}
        }
        if self.view.writing {
            match key.code {
                KeyCode::Enter => self.view.writing = false,
                KeyCode::Esc => (self.view.writing, self.view.filter) = (false, String::new()),
                KeyCode::Backspace => drop(self.view.filter.pop()),
                KeyCode::Char(c) if !control && self.view.filter.len() < 64 => self.view.filter.push(c),
                _ => {}
            }
            self.view.chosen = Some(0);
            return Next::Stay;
        }
        match &mut self.pane {
            Pane::None => return self.list_key(key.code),
            Pane::Help => self.pane = Pane::None,
            Pane::Text(lines, from) => {
                let page = height.saturating_sub(2).max(1);
                let most = lines.len().saturating_sub(height.saturating_sub(1));
                *from = match key.code {
                    KeyCode::Char('q') | KeyCode::Esc => {
                        self.pane = Pane::None;
                        return Next::Stay;
                    }
                    KeyCode::Up | KeyCode::Char('k') => from.saturating_sub(1),
                    KeyCode::Down | KeyCode::Char('j') => (*from + 1).min(most),
                    KeyCode::PageUp => from.saturating_sub(page),
                    KeyCode::PageDown | KeyCode::Char(' ') => (*from + page).min(most),
                    KeyCode::Home => 0,
                    KeyCode::End => most,
                    _ => *from,
                };
            }
        }
        Next::Stay
    }

    fn list_key(&mut self, code: KeyCode) -> Next {
        let shown = top::shown(&self.frame, &self.view).len();
        let chosen = self.view.chosen.unwrap_or(0).min(shown.saturating_sub(1));
        let last = shown.saturating_sub(1);
        let to = match code {
            KeyCode::Char('q') => return Next::Quit,
            KeyCode::Char('?' | 'h') => {
                self.pane = Pane::Help;
                chosen
            }
            KeyCode::Char('/') => {
                self.view.writing = true;
                0
            }
            KeyCode::Esc => {
                self.view.filter.clear();
                0
            }
            KeyCode::Char('r') => {
                self.due = Instant::now();
                chosen
            }
            KeyCode::Char('+') => {
                self.view.interval = (self.view.interval / 2).max(1);
                self.due = self.due.min(Instant::now() + Duration::from_secs(self.view.interval));
                chosen
            }
            KeyCode::Char('-') => {
                self.view.interval = (self.view.interval * 2).min(3600);
                chosen
            }
            KeyCode::Enter => {
                self.why(chosen);
                chosen
            }
            KeyCode::Up | KeyCode::Char('k') => chosen.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => (chosen + 1).min(last),
            KeyCode::PageUp => chosen.saturating_sub(10),
            KeyCode::PageDown => (chosen + 10).min(last),
            KeyCode::Home => 0,
            KeyCode::End => last,
            _ => chosen,
        };
        self.view.chosen = Some(to);
        Next::Stay
    }

    /// Opens the report of a run.
    fn why(&mut self, index: usize) {
        let runs = top::shown(&self.frame, &self.view);
        let Some(run) = runs.get(index) else { return };
        let target = Target::Run(run.entry.run_id.clone());
        let text = self
            .store
            .find(&target, Some(&run.cluster), Some(&run.user))
            .and_then(|found| {
                let subjects = super::why::subjects(&found)?;
                Ok(why::text(&found.run, &subjects, None, self.zone))
            })
            .unwrap_or_else(|e| e.to_string());
        let plain = anstream::adapter::strip_str(&text).to_string();
        let lines = plain.lines().map(crate::report::clean).collect();
        self.pane = Pane::Text(lines, 0);
    }
}

fn style(ink: Ink) -> Style {
    match ink {
        Ink::Plain => Style::new(),
        Ink::Soft => Style::new().dark_gray(),
        Ink::Head => Style::new().add_modifier(Modifier::BOLD),
        Ink::Good => Style::new().green(),
        Ink::Bad => Style::new().red().add_modifier(Modifier::BOLD),
        Ink::Busy => Style::new().cyan(),
        Ink::Chosen => Style::new().add_modifier(Modifier::REVERSED),
    }
}
