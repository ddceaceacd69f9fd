use std::io::{BufRead, Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use clap::Args;

use super::GOOD;
use crate::config::help;
use crate::mcp::{ANSWER, Said, answer};

const EXAMPLES: &str = "\
Examples:
  inquest mcp
  {\"mcpServers\": {\"inquest\": {\"command\": \"inquest\", \"args\": [\"mcp\"]}}}

The second is what the settings of an assistant want. Tools: why, why_last,
runs, errors, events, compare. Each only reads, with the permissions of whoever
started it, answers what the command of its name prints with --json, and never
more than 200 kB.";

/// A request that is longer is no question to us.
const LINE: u64 = 1 << 20;

/// Answer assistants over standard input (Model Context Protocol).
///
/// Reads JSON-RPC requests, one per line, and writes the answers to standard
/// output until there are no more.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[arg(long, env = "INQUEST_STORE", value_name = "DIR", help = help("", "store"))]
    store: Option<PathBuf>,
}

pub(super) fn main(arguments: &Arguments) -> anyhow::Result<u8> {
    let own = std::env::current_exe()?;
    let mut ask = |line: &[String]| {
        let mut command = Command::new(&own);
        command.args(line).stdin(Stdio::null()).env_remove("COLUMNS");
        if let Some(store) = &arguments.store {
            command.env("INQUEST_STORE", store);
        }
        run(&mut command)
            .unwrap_or_else(|e| Said { text: format!("{} cannot be run: {e}", own.display()), well: false })
    };
    let mut stdin = std::io::stdin().lock();
    let mut stdout = std::io::stdout().lock();
    loop {
        let mut line = Vec::new();
        if (&mut stdin).take(LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(GOOD);
        }
        if line.len() as u64 == LINE && !line.ends_with(b"\n") {
            anyhow::bail!("a request has more than {LINE} bytes; ask for one job at a time");
        }
        let text = String::from_utf8_lossy(&line);
        if text.trim().is_empty() {
            continue;
        }
        if let Some(answer) = answer(&text, &mut ask) {
            writeln!(stdout, "{answer}")?;
            stdout.flush()?;
        }
    }
}

/// Its output, no more of it than is answered; its errors when it cannot answer.
fn run(command: &mut Command) -> std::io::Result<Said> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut errors = child.stderr.take();
    // Beside the output: who writes much to one of two pipes must not wait for the reader of the other.
    let errors = std::thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(errors) = &mut errors {
            let _ = errors.take(4096).read_to_end(&mut text);
            let _ = std::io::copy(errors, &mut std::io::sink());
        }
        text
    });
    let mut text = Vec::new();
    if let Some(output) = child.stdout.take() {
        // One more, so that it shows that there was more. The pipe is closed then, which is no error to it.
        output.take(ANSWER as u64 + 1).read_to_end(&mut text)?;
    }
    let status = child.wait()?;
    let errors = errors.join().unwrap_or_default();
    let well = matches!(status.code(), Some(0 | 1));
    let words = if well { &text } else { &errors };
    Ok(Said { text: String::from_utf8_lossy(words).trim_end().to_owned(), well })
}
