/*!
Events of closed runs, compressed: `events.jsonl.zst` in place of
`events.jsonl`, in a form that can be read anywhere in it and that `zstd -dc`
reads as it is.

What is committed of a run is the length of its plain lines, so packing and
unpacking change nothing that the ledger knows. Both make the new file whole
and durable under another name, give it its own, and only then take the old one
away. When a crash leaves both, they hold the same, and the plain one counts.
*/

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::seekable::{Decoder, Encoder, FRAME};

/// Shorter ones gain nothing: a file takes a block of the disk anyway.
pub const WORTH: u64 = 4096;

/// A run's events on the way to their compressed form. Dropped before it is
/// [`Packing::done`], it leaves a file that the next attempt replaces.
pub struct Packing {
    plain: PathBuf,
    file: File,
    at: u64,
    length: u64,
    out: Option<Encoder<BufWriter<File>>>,
}

impl std::fmt::Debug for Packing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packing").field("plain", &self.plain).field("at", &self.at).finish_non_exhaustive()
    }
}

fn beside(plain: &Path, suffix: &str) -> PathBuf {
    let mut name = plain.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn packed(plain: &Path) -> PathBuf {
    beside(plain, ".zst")
}

fn create(path: &Path) -> io::Result<File> {
    fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(path)
}

impl Packing {
    /// Begins with the first `length` bytes of the file `plain`.
    ///
    /// # Errors
    ///
    /// When a file cannot be opened.
    pub fn begin(plain: &Path, length: u64) -> io::Result<Packing> {
        let file = File::open(plain)?;
        let out = Encoder::new(BufWriter::new(create(&beside(plain, ".zst.new"))?))?;
        Ok(Packing { plain: plain.to_owned(), file, at: 0, length, out: Some(out) })
    }

    /// Goes on with about `budget` plain bytes; says how many they were.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or written, or is shorter than it was.
    pub fn go_on(&mut self, budget: u64) -> io::Result<u64> {
        use std::os::unix::fs::FileExt;
        let Some(out) = &mut self.out else { return Ok(0) };
        let mut buffer = vec![0; FRAME];
        let from = self.at;
        while self.at < self.length && self.at - from < budget {
            let some = FRAME.min((self.length - self.at) as usize);
            self.file.read_exact_at(&mut buffer[..some], self.at)?;
            out.add(&buffer[..some])?;
            self.at += some as u64;
        }
        if self.at == self.length
            && let Some(out) = self.out.take()
        {
            out.finish()?.flush()?;
        }
        Ok(self.at - from)
    }

    /// Whether the compressed file is whole; it is not yet durable.
    pub fn done(&self) -> bool {
        self.out.is_none()
    }

    /// Plain bytes of it all.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Puts the compressed file, which is durable by now, beside the plain
    /// one.
    ///
    /// # Errors
    ///
    /// When it cannot be renamed.
    pub fn put(&self) -> io::Result<()> {
        fs::rename(beside(&self.plain, ".zst.new"), packed(&self.plain))
    }

    /// Takes the plain file away; the compressed one has its durable name.
    ///
    /// # Errors
    ///
    /// When it cannot be removed.
    pub fn drop_plain(&self) -> io::Result<()> {
        fs::remove_file(&self.plain)
    }

    /// Gives up.
    pub fn abandon(self) {
        let _ = fs::remove_file(beside(&self.plain, ".zst.new")); // The next attempt replaces it.
    }
}

/// Length of the plain lines of the compressed form of `plain`, when there is
/// one.
pub(super) fn packed_length(plain: &Path) -> io::Result<Option<u64>> {
    match File::open(packed(plain)) {
        Ok(file) => Ok(Some(Decoder::open(file)?.len())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Takes away the compressed form of a file that is there.
pub(super) fn drop_packed(plain: &Path) -> io::Result<()> {
    match fs::remove_file(packed(plain)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Makes the plain file again, for more lines to be appended. Says `false`
/// when there is no compressed one.
pub(super) fn unpack(plain: &Path) -> io::Result<bool> {
    let decoder = match File::open(packed(plain)) {
        Ok(file) => Decoder::open(file)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e),
    };
    let new = beside(plain, ".new");
    let mut out = create(&new)?;
    let mut buffer = vec![0; FRAME];
    let mut at = 0;
    while at < decoder.len() {
        let some = FRAME.min((decoder.len() - at) as usize);
        decoder.read_exact_at(&mut buffer[..some], at)?;
        out.write_all(&buffer[..some])?;
        at += some as u64;
    }
    out.sync_all()?;
    fs::rename(&new, plain)?;
    if let Some(dir) = plain.parent() {
        File::open(dir)?.sync_all()?;
    }
    drop_packed(plain)?;
    Ok(true)
}
