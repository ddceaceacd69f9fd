//! What daemons say, for the journal of systemd or for a person.

use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::config::LogLevel;
use crate::report::clean;

/// Lines on standard error from now on: message, then `key=value`.
pub(super) fn start(level: LogLevel) {
    let level = match level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
    };
    // Standard error is the journal's when systemd says so: it adds the time by
    // itself and takes the level from the number before the line.
    let form = Form { journal: std::env::var_os("JOURNAL_STREAM").is_some() };
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .event_format(form)
        .finish();
    // Set already: by whom it was, it goes there.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

struct Form {
    journal: bool,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>, N: for<'a> FormatFields<'a> + 'static> FormatEvent<S, N>
    for Form
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let (priority, name) = match *event.metadata().level() {
            Level::ERROR => (3, "error"),
            Level::WARN => (4, "warning"),
            Level::INFO => (6, "info"),
            _ => (7, "debug"),
        };
        if self.journal {
            write!(out, "<{priority}>")?;
        } else {
            write!(out, "{} {name}: ", jiff::Timestamp::now().strftime("%FT%TZ"))?;
        }
        let mut line = Line::default();
        event.record(&mut line);
        // Paths and names of others may hold anything.
        writeln!(out, "{}{}", clean(&line.message), clean(&line.fields))
    }
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn said(journal: bool) -> String {
        let sink = Sink::default();
        let to = sink.clone();
        let subscriber =
            tracing_subscriber::fmt().with_writer(move || to.clone()).event_format(Form { journal }).finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(node = %"n1\x1b[31m\nMESSAGE=x", events = 3, "odd\nthing");
        });
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_line_stays_one_line_whatever_it_holds() {
        assert_eq!(said(true), "<4>odd\\nthing node=n1\\u{1b}[31m\\nMESSAGE=x events=3\n");
        let plain = said(false);
        assert!(
            plain.ends_with("Z warning: odd\\nthing node=n1\\u{1b}[31m\\nMESSAGE=x events=3\n"),
            "{plain}"
        );
    }
}
