//! A run's events file, read in pieces: of a large run, all of it would count as the collector's memory.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::{Mmap, MmapOptions};

use crate::store::{Appender, StoreError};

/// Bytes that are mapped at once; a part that is longer is mapped by itself.
const LENGTH: u64 = 4 << 20;

/// The part of a file that is mapped.
pub(super) struct Window {
    file: File,
    path: PathBuf,
    length: u64,
    map: Option<(u64, Mmap)>,
}

impl Window {
    /// Opens the file `name` of the store.
    pub(super) fn open(appender: &Appender, name: &Path) -> Result<Window, StoreError> {
        let file = appender.open_read(name)?;
        let in_file = |source| StoreError::Io { path: name.to_owned(), source };
        let length = file.metadata().map_err(in_file)?.len();
        Ok(Window { file, path: name.to_owned(), length, map: None })
    }

    /// `range` of the file, as much of it as is there.
    pub(super) fn part(&mut self, range: Range<u64>) -> Result<&[u8], StoreError> {
        let range = range.start.min(self.length)..range.end.min(self.length);
        let has = |(from, map): &(u64, Mmap)| *from <= range.start && range.end <= from + map.len() as u64;
        if !self.map.as_ref().is_some_and(has) {
            let to = range.end.max(range.start + LENGTH).min(self.length);
            self.map = None; // Before the next one, so that there is never more than one.
            let mut options = MmapOptions::new();
            // SAFETY: the file is the collector's own and only ever grows while it
            // runs; the map is read before the next line is written.
            let map = unsafe { options.offset(range.start).len((to - range.start) as usize).map(&self.file) };
            let map = map.map_err(|source| StoreError::Io { path: self.path.clone(), source })?;
            self.map = Some((range.start, map));
        }
        let (from, map) = self.map.as_ref().map_or((range.start, &[][..]), |(from, map)| (*from, &map[..]));
        Ok(map.get((range.start - from) as usize..(range.end - from) as usize).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        // The whole file in memory is the model.
        #[test]
        fn a_part_is_what_the_file_has_there(
            length in 0u64..3 * LENGTH,
            parts in proptest::collection::vec((0u64..4 * LENGTH, 0u64..5_000), 1..20),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let bytes: Vec<u8> = (0..length).map(|n| (n * 31 / 7) as u8).collect();
            std::fs::write(dir.path().join("events.jsonl"), &bytes).unwrap();
            let appender = Appender::open(dir.path()).unwrap();
            let mut window = Window::open(&appender, Path::new("events.jsonl")).unwrap();
            for (at, count) in parts {
                let end = (at + count).min(length);
                let wanted = bytes.get(at.min(length) as usize..end as usize).unwrap_or_default();
                prop_assert_eq!(window.part(at..at + count).unwrap(), wanted);
            }
        }
    }
}
