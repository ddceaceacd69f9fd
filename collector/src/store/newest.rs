//! The runs in which something failed last.

use inquest_journal::Timestamp;

use super::read::{Found, Place, ReadError, Store};
use crate::runs::Member;

impl Store {
    /// The newest `count` runs with a job that failed, the one with the newest
    /// failure first, whole. Reads the state of as few runs as it takes; `unread`
    /// is told of those that cannot be read, which are left out.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn newest_failed(
        &self,
        cluster: Option<&str>,
        user: Option<&str>,
        count: usize,
        unread: &mut dyn FnMut(&str, ReadError),
    ) -> Result<Vec<Found>, ReadError> {
        let mut runs = self.runs(cluster, user)?;
        runs.retain(|(_, _, entry)| entry.n_failed > 0);
        runs.sort_by_key(|(_, _, entry)| std::cmp::Reverse(entry.updated_at));
        let mut newest: Vec<(Timestamp, Found)> = Vec::new();
        for (cluster, user, entry) in runs {
            // No failure of a run is newer than its newest event.
            if newest.len() >= count && newest.last().is_some_and(|(at, _)| *at >= entry.updated_at) {
                break;
            }
            let (dir, run) = match self.load(&Place { cluster, user }, &entry.run_id) {
                Ok(loaded) => loaded,
                Err(ReadError::NotFound(_)) => continue, // It was removed, or moved away.
                Err(e) => {
                    unread(&entry.run_id, e);
                    continue;
                }
            };
            let Some(at) = run.members.values().filter(|m| m.failed()).map(ended).max() else { continue };
            let members = run.members.keys().copied().collect();
            let place = newest.partition_point(|(other, _)| *other > at);
            newest.insert(place, (at, Found { dir, run, members, parts: None }));
            newest.truncate(count);
        }
        Ok(newest.into_iter().map(|(_, found)| found).collect())
    }
}

fn ended(member: &Member) -> Timestamp {
    member.last
}
