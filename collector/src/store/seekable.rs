/*!
Zstandard's seekable format: frames that know nothing of each other, and at the
end a table of their sizes in a frame that other readers skip. `zstd -dc` reads
such a file as it is; we read the frames that a question is about.

The table: magic 0x184D2A5E, its size, per frame the compressed and the plain
size, the number of frames, a descriptor byte (0: no checksums; the frames have
their own), magic 0x8F92EAB1; all little-endian, sizes in 32 bits. See
`contrib/seekable_format` of Zstandard.
*/

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

/// Plain bytes of a frame. Smaller ones are faster to look into, larger ones
/// compress better.
pub(super) const FRAME: usize = 256 << 10;

/// Speed against size: from here on, more time gains little on lines of JSON.
const LEVEL: i32 = 6;

const SKIPPABLE: u32 = 0x184D_2A5E;
const SEEKABLE: u32 = 0x8F92_EAB1;
const FOOTER: u64 = 9;
const ENTRY: u64 = 8;

/// Writes a seekable file.
pub(super) struct Encoder<W> {
    out: W,
    frame: zstd::bulk::Compressor<'static>,
    waiting: Vec<u8>,
    table: Vec<(u32, u32)>,
}

impl<W> std::fmt::Debug for Encoder<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("frames", &self.table.len()).finish_non_exhaustive()
    }
}

impl<W: Write> Encoder<W> {
    /// Writes to `out` from its beginning.
    ///
    /// # Errors
    ///
    /// When there is no memory.
    pub(super) fn new(out: W) -> io::Result<Encoder<W>> {
        let mut frame = zstd::bulk::Compressor::new(LEVEL)?;
        frame.include_checksum(true)?;
        Ok(Encoder { out, frame, waiting: Vec::with_capacity(FRAME), table: Vec::new() })
    }

    /// Takes in more plain bytes.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub(super) fn add(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (some, rest) = bytes.split_at(bytes.len().min(FRAME - self.waiting.len()));
            self.waiting.extend_from_slice(some);
            bytes = rest;
            if self.waiting.len() == FRAME {
                self.end_frame()?;
            }
        }
        Ok(())
    }

    fn end_frame(&mut self) -> io::Result<()> {
        let packed = self.frame.compress(&self.waiting)?;
        self.out.write_all(&packed)?;
        self.table.push((packed.len() as u32, self.waiting.len() as u32));
        self.waiting.clear();
        Ok(())
    }

    /// Writes what is left, and the table.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub(super) fn finish(mut self) -> io::Result<W> {
        if !self.waiting.is_empty() {
            self.end_frame()?;
        }
        let size = self.table.len() as u64 * ENTRY + FOOTER;
        let mut table = Vec::with_capacity(size as usize + 8);
        let size = u32::try_from(size).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let words = self.table.iter().flat_map(|(packed, plain)| [*packed, *plain]);
        let words = [SKIPPABLE, size].into_iter().chain(words).chain([self.table.len() as u32]);
        words.for_each(|word| table.extend_from_slice(&word.to_le_bytes()));
        table.push(0);
        table.extend_from_slice(&SEEKABLE.to_le_bytes());
        self.out.write_all(&table)?;
        Ok(self.out)
    }
}

/// Reads a seekable file anywhere.
#[derive(Debug)]
pub(super) struct Decoder {
    file: File,
    /// Where each frame begins: packed and plain; the last is the end.
    frames: Vec<(u64, u64)>,
    /// The frame that was read last.
    last: RefCell<Option<(usize, Vec<u8>)>>,
}

impl Decoder {
    /// Reads the table of a file.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or is no whole seekable file.
    pub(super) fn open(file: File) -> io::Result<Decoder> {
        let damaged = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let size = file.metadata()?.len();
        let mut footer = [0; FOOTER as usize];
        let at =
            size.checked_sub(FOOTER).ok_or_else(|| damaged("it is too short to be compressed events"))?;
        file.read_exact_at(&mut footer, at)?;
        let word = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        if word(&footer[5..]) != SEEKABLE {
            return Err(damaged("it has no table at its end: it is torn, or no seekable Zstandard file"));
        }
        // Checksums in the table, which we do not write, are passed over.
        let entry = if footer[4] & 0x80 == 0 { ENTRY } else { ENTRY + 4 };
        let count = u64::from(word(&footer));
        let at = at.checked_sub(count * entry + 8).ok_or_else(|| damaged("its table is damaged"))?;
        let mut table = vec![0; (count * entry + 8) as usize];
        file.read_exact_at(&mut table, at)?;
        if word(&table) != SKIPPABLE || u64::from(word(&table[4..])) != count * entry + FOOTER {
            return Err(damaged("its table is damaged"));
        }
        let mut frames = Vec::with_capacity(count as usize + 1);
        let (mut packed, mut plain) = (0, 0);
        frames.push((packed, plain));
        for sizes in table[8..].chunks_exact(entry as usize) {
            packed += u64::from(word(sizes));
            plain += u64::from(word(&sizes[4..]));
            frames.push((packed, plain));
        }
        if packed != at {
            return Err(damaged("its table does not fit its length"));
        }
        Ok(Decoder { file, frames, last: RefCell::new(None) })
    }

    /// Plain bytes.
    pub(super) fn len(&self) -> u64 {
        self.frames.last().map_or(0, |(_, plain)| *plain)
    }

    /// Fills `out` with the plain bytes at `at`.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, is damaged there, or ends before.
    pub(super) fn read_exact_at(&self, mut out: &mut [u8], mut at: u64) -> io::Result<()> {
        while !out.is_empty() {
            let frame = self.frames.partition_point(|(_, plain)| *plain <= at);
            if frame == 0 || frame >= self.frames.len() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let frame = frame - 1;
            let mut last = self.last.borrow_mut();
            if last.as_ref().is_none_or(|(known, _)| *known != frame) {
                *last = Some((frame, self.frame(frame)?));
            }
            let Some((_, plain)) = last.as_ref() else { return Err(io::ErrorKind::UnexpectedEof.into()) };
            let from = (at - self.frames[frame].1) as usize;
            let count = out.len().min(plain.len() - from);
            let (now, later) = out.split_at_mut(count);
            now.copy_from_slice(&plain[from..from + count]);
            out = later;
            at += count as u64;
        }
        Ok(())
    }

    fn frame(&self, number: usize) -> io::Result<Vec<u8>> {
        let ((from, start), (to, end)) = (self.frames[number], self.frames[number + 1]);
        let mut packed = vec![0; (to - from) as usize];
        self.file.read_exact_at(&mut packed, from)?;
        let plain = zstd::bulk::decompress(&packed, (end - start) as usize)?;
        if plain.len() as u64 != end - start {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a frame does not have the size of the table",
            ));
        }
        Ok(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packed(pieces: &[Vec<u8>]) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.zst");
        let mut encoder = Encoder::new(File::create(&path).unwrap()).unwrap();
        for piece in pieces {
            encoder.add(piece).unwrap();
        }
        encoder.finish().unwrap();
        (dir, path)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn any_part_is_read_as_it_was_written(
            pieces in proptest::collection::vec((any::<u8>(), 0usize..400_000), 0..6),
            at in any::<proptest::sample::Index>(), length in 0usize..700_000,
        ) {
            let pieces: Vec<Vec<u8>> =
                pieces.into_iter().map(|(seed, n)| (0..n).map(|i| seed.wrapping_mul(i as u8) ^ (i >> 9) as u8).collect()).collect();
            let whole = pieces.concat();
            let (_dir, path) = packed(&pieces);
            let decoder = Decoder::open(File::open(&path).unwrap()).unwrap();
            prop_assert_eq!(decoder.len(), whole.len() as u64);
            let at = if whole.is_empty() { 0 } else { at.index(whole.len()) };
            let mut part = vec![0; length];
            let there = decoder.read_exact_at(&mut part, at as u64).is_ok();
            prop_assert_eq!(there, at + length <= whole.len());
            if there {
                prop_assert_eq!(&part[..], &whole[at..at + length]);
            }
            // What everybody has installed reads it too.
            let mut plain = Vec::new();
            io::Read::read_to_end(&mut zstd::stream::read::Decoder::new(File::open(&path).unwrap()).unwrap(), &mut plain).unwrap();
            prop_assert_eq!(plain, whole);
        }

        #[test]
        fn a_damaged_file_is_refused_and_never_wrong(at in any::<proptest::sample::Index>(), flip in 1u8..) {
            let whole: Vec<u8> = (0..600_000u32).flat_map(|n| n.to_le_bytes()).collect();
            let (_dir, path) = packed(std::slice::from_ref(&whole));
            let mut bytes = std::fs::read(&path).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            std::fs::write(&path, &bytes).unwrap();
            if let Ok(decoder) = Decoder::open(File::open(&path).unwrap()) {
                let mut plain = vec![0; decoder.len().min(whole.len() as u64) as usize];
                if decoder.read_exact_at(&mut plain, 0).is_ok() {
                    prop_assert_eq!(&plain[..], &whole[..plain.len()]);
                }
            }
        }

        #[test]
        fn any_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("x");
            std::fs::write(&path, &bytes).unwrap();
            let _ = Decoder::open(File::open(&path).unwrap());
        }
    }
}
