//! Registries that are read again and again: only what is new.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;

use inquest_journal::Lines;

use super::read::{Place, ReadError, RegistryEntry, Store};
use super::{REGISTRY, user_dir};

/// The runs of some users, kept up to date.
#[derive(Debug)]
pub struct Registries {
    cluster: Option<String>,
    user: Option<String>,
    files: BTreeMap<Place, Known>,
}

/// What is known of one registry.
#[derive(Debug, Default)]
struct Known {
    inode: u64,
    read: u64,
    entries: BTreeMap<String, RegistryEntry>,
}

impl Registries {
    /// Of one cluster and user, or of all that the caller may see.
    pub fn new(cluster: Option<String>, user: Option<String>) -> Registries {
        Registries { cluster, user, files: BTreeMap::new() }
    }

    /// Reads what was added since the last time.
    ///
    /// # Errors
    ///
    /// When the store cannot be listed. Registries that are closed to the
    /// caller are left out.
    pub fn refresh(&mut self, store: &Store) -> Result<(), ReadError> {
        let places = store.places(self.cluster.as_deref(), self.user.as_deref())?;
        self.files.retain(|place, _| places.contains(place));
        for place in places {
            let path = store.root().join(user_dir(&place.cluster, &place.user)).join(REGISTRY);
            let known = self.files.entry(place).or_default();
            // A file that is gone or closed keeps what was known of it.
            let Ok(mut file) = File::open(&path) else { continue };
            let Ok(meta) = file.metadata() else { continue };
            // Written anew: read it from the beginning.
            if meta.ino() != known.inode || meta.len() < known.read {
                *known = Known { inode: meta.ino(), ..Known::default() };
            }
            if meta.len() == known.read {
                continue;
            }
            let mut bytes = Vec::new();
            let new = file.seek(SeekFrom::Start(known.read)).and_then(|_| file.read_to_end(&mut bytes));
            if new.is_err() {
                continue;
            }
            let whole = memchr::memrchr(b'\n', &bytes).map_or(0, |at| at + 1);
            for (_, line) in Lines::new(&bytes[..whole]) {
                if let Ok(entry) = serde_json::from_slice::<RegistryEntry>(line) {
                    known.entries.insert(entry.run_id.clone(), entry);
                }
            }
            known.read += whole as u64;
        }
        Ok(())
    }

    /// All runs with cluster and user.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &str, &RegistryEntry)> {
        self.files.iter().flat_map(|(place, known)| {
            known.entries.values().map(|e| (place.cluster.as_str(), place.user.as_str(), e))
        })
    }
}
