use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::{GOOD, NOT_FOUND};
use crate::agent::note::{self, Kind, send};

const EXAMPLES: &str = "\
Examples:
  inquest note --kind stage 'training'
  inquest note --percent 40 'epoch 4 of 10'
  inquest note --kind error 'input 17 is empty, skipped'

Where the site has turned it on, a job can also append lines to a file, in any
language:
  echo '{\"kind\":\"stage\",\"text\":\"training\"}' >> \"$INQUEST_NOTE\"
  echo 'plain words' >> \"$INQUEST_NOTE\"";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// What kind of note it is; progress when a percentage is given.
    #[arg(long, value_enum, value_name = "KIND")]
    kind: Option<Kind>,
    /// How far the work is.
    #[arg(long, value_name = "N", value_parser = percent)]
    percent: Option<f64>,
    /// Fail when the note cannot be delivered. Without it that is only said:
    /// a script that stops at errors must not die of a note.
    #[arg(long)]
    strict: bool,
    /// Socket of the node's agent.
    #[arg(long, env = "INQUEST_NOTE_SOCKET", default_value = note::SOCKET, value_name = "PATH")]
    socket: PathBuf,
    /// The words; the first 1024 bytes are kept.
    #[arg(value_name = "TEXT", required_unless_present = "percent", allow_hyphen_values = true)]
    text: Vec<OsString>,
}

fn percent(text: &str) -> Result<f64, String> {
    let n: f64 = text.trim_end_matches('%').parse().map_err(|_| "not a number")?;
    if (0.0..=100.0).contains(&n) { Ok(n) } else { Err("not between 0 and 100".into()) }
}

pub(super) fn main(arguments: &Arguments) -> u8 {
    let words: Vec<_> = arguments.text.iter().map(|t| t.to_string_lossy()).collect();
    match send(&arguments.socket, arguments.kind, arguments.percent, &words.join(" ")) {
        Ok(()) => GOOD,
        Err(e) => {
            eprintln!("inquest note: {}", crate::report::clean(&e.to_string()));
            if arguments.strict { NOT_FOUND } else { GOOD }
        }
    }
}
