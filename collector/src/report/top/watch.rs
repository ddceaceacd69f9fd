//! Reading what is new in a store.

use std::collections::HashMap;

use super::{Frame, Indices, RECENT, Run, Seen, WATCHED};
use crate::report::tail::Tail;
use crate::store::{ReadError, Registries, Store, run_dir};

/// Bytes of the end of a run's events that are read at first, and again when
/// more has come than can be shown.
const END: u64 = 256 << 10;

/// Blocks of one run that are read at a look.
const BLOCKS: usize = 4;

type Key = (String, String, String);

/// A store that is looked at again and again.
#[derive(Debug)]
pub struct Watch {
    store: Store,
    registries: Registries,
    only: Option<String>,
    events: HashMap<Key, (Tail, Seen, Indices)>,
    frame: Frame,
}

impl Watch {
    /// Watches the runs of one cluster and user, or of all that the caller may
    /// see; of one run only, when it is named.
    pub fn new(store: Store, cluster: Option<String>, user: Option<String>, only: Option<String>) -> Watch {
        let registries = Registries::new(cluster, user);
        Watch { store, registries, only, events: HashMap::new(), frame: Frame::default() }
    }

    /// Reads what is new and gives all that is known.
    ///
    /// # Errors
    ///
    /// When the store cannot be listed.
    pub fn look(&mut self) -> Result<&Frame, ReadError> {
        self.registries.refresh(&self.store)?;
        let mut runs: Vec<Run> = self
            .registries
            .entries()
            .filter(|(_, _, e)| self.only.as_ref().is_none_or(|only| *only == e.run_id))
            .map(|(cluster, user, entry)| Run {
                cluster: cluster.to_owned(),
                user: user.to_owned(),
                entry: entry.clone(),
                seen: Seen::default(),
            })
            .collect();
        runs.sort_by(|a, b| {
            b.running()
                .cmp(&a.running())
                .then(b.entry.updated_at.cmp(&a.entry.updated_at))
                .then(b.entry.run_id.cmp(&a.entry.run_id))
        });
        let mut recent = std::mem::take(&mut self.frame.recent);
        let mut before = std::mem::take(&mut self.events);
        for run in runs.iter_mut().take(WATCHED) {
            let key = (run.cluster.clone(), run.user.clone(), run.entry.run_id.clone());
            let dir = self.store.root().join(run_dir(&run.cluster, &run.user, &run.entry.run_id));
            let known = before.remove(&key);
            // A run that cannot be read is shown with what the registry says.
            let at_end = || Tail::at_end(&dir, END).ok();
            let anew = || Some((at_end()?, Seen::default(), Indices::of(&dir)));
            let Some((mut tail, mut seen, mut indices)) = known.or_else(anew) else {
                continue;
            };
            let mut blocks = 0;
            while let Ok(true) = tail.read(|line, raw| recent.extend(seen.add(&mut indices, &line, raw))) {
                blocks += 1;
                if blocks == BLOCKS {
                    if let Some(end) = at_end() {
                        tail = end;
                    }
                    break;
                }
            }
            run.seen = seen.clone();
            self.events.insert(key, (tail, seen, indices));
        }
        recent.make_contiguous().sort_by_key(|e| e.utc);
        let old = recent.len().saturating_sub(RECENT);
        recent.drain(..old);
        self.frame = Frame { runs, recent };
        Ok(&self.frame)
    }
}
