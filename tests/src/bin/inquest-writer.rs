//! Appends events to a journal as fast as it can, and says of each on standard output, after
//! `write(2)` has returned, that it is there. It ends by being killed: `tests/writer_kill.rs` does.
//!
//! Standard output is binary: the stream's name and a newline, then the number of every event that
//! was acknowledged, eight bytes each, little endian.

use std::fs::File;
use std::io::{self, Write as _};
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use inquest_journal::{Identity, JobId, Note, Severity, Source, Writer};
use inquest_tests::random::Random;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [journal, node, job, seed] = &words[..] else {
        bail!("usage: inquest-writer JOURNAL NODE JOB SEED");
    };
    let job = JobId(job.parse().context("JOB is no number")?);
    let mut random = Random::new(seed.parse().context("SEED is no number")?);
    let identity = Identity::of_this_process("lab", node);
    let (mut writer, failed) = Writer::open(Path::new(journal), identity, Source::Plugin)?;
    if let Some(e) = failed {
        bail!("{e}");
    }
    // The descriptor itself: a buffer would hold back what must be told at once.
    // SAFETY: descriptor 1 is open for the whole life of the process and is never closed here.
    let mut told = ManuallyDrop::new(unsafe { File::from_raw_fd(1) });
    told.write_all(format!("{}\n", writer.identity().stream()).as_bytes())?;
    loop {
        // Short ones, and now and then one that is cut to a whole page.
        let length = random.spread(1, 6000) as usize;
        let text = Some("x".repeat(length));
        let seq = writer.next_seq();
        let note = Note { text, ..Note::default() };
        if !writer.write(Severity::Info, Some(job), None, None, &note.into()) {
            bail!("event {seq} could not be written: {}", io::Error::last_os_error());
        }
        told.write_all(&seq.to_le_bytes())?;
    }
}
