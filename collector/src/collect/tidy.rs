/*!
Compresses closed runs and removes those that need not be kept, a little at a
time between two passes, so that nothing fresh waits for it.

The ledger is what makes that safe: a run is touched only when the ledger says
that it has ended and nothing of it is in memory. Compressing leaves the
committed length as it is. A run that is removed gets another name first, which
the collector takes for a run that somebody moved away; then the ledger and the
registry forget it; then its files go. A crash in between leaves one of these
steps to the next time.
*/

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use inquest_journal::{Lines, Stamp, Timestamp};
use serde::Deserialize;

use super::run::Head;
use super::{CollectError, Collector};
use crate::ledger::{Changes, RunName};
use crate::runs::RunStatus;
use crate::store::keep::{Act, Policy, Seen, plan};
use crate::store::pack::{Packing, WORTH};
use crate::store::{EVENTS, REGISTRY, ReadError, Store, StoreError, Tail, run_dir, user_dir};

/// Between two looks at everything.
const EVERY: Duration = Duration::from_secs(3600);

/// Bytes that are compressed between two passes.
const BYTES: u64 = 8 << 20;

/// Runs that are begun or removed between two passes.
const RUNS: usize = 64;

/// Compressed runs that wait for one sync of the file system.
const WAITING: usize = 256;

/// Begins the name of a run that is being removed.
const REMOVED: &str = ".removed-";

/// What was done, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tidied {
    /// Runs compressed.
    pub packed: u64,
    /// Bytes on disk that they took before.
    pub bytes_before: u64,
    /// Bytes on disk that they take now.
    pub bytes_after: u64,
    /// Runs removed.
    pub removed: u64,
    /// Bytes on disk that they took.
    pub bytes_removed: u64,
}

/// Where it is.
#[derive(Debug, Default)]
pub(super) struct Tidier {
    policy: Policy,
    state: State,
    /// In work.
    packing: Option<(RunName, u64, Packing)>,
    /// Compressed, not yet durable.
    packed: Vec<(RunName, u64, Packing)>,
    /// Users whose registry names runs that are gone.
    registries: BTreeSet<(String, String)>,
    done: Tidied,
}

#[derive(Debug, Default)]
enum State {
    /// Nothing to do until then; at once, when there is no time.
    #[default]
    Begin,
    Rest(Instant),
    Look(VecDeque<(String, String)>, Vec<Seen>),
    Act(VecDeque<(Seen, Act)>),
}

/// Every run of the store as its registry and its files show it.
///
/// # Errors
///
/// When the store cannot be listed. Users' directories that are closed to the
/// caller are left out.
pub fn look(store: &Store, cluster: Option<&str>, user: Option<&str>) -> Result<Vec<Seen>, ReadError> {
    let mut seen = Vec::new();
    for (cluster, user, entry) in store.runs(cluster, user)? {
        let name = (cluster, user, entry.run_id);
        let running = entry.status == RunStatus::Running;
        if let Ok(run) = seen_of(store.root(), name, entry.updated_at, running) {
            seen.push(run);
        }
    }
    Ok(seen)
}

fn seen_of(store: &Path, name: RunName, last: Timestamp, running: bool) -> io::Result<Seen> {
    let dir = store.join(run_dir(&name.0, &name.1, &name.2));
    let (mut bytes, mut plain) = (0, None);
    for entry in fs::read_dir(&dir)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        bytes += meta.blocks() * 512;
        if entry.file_name() == EVENTS {
            plain = Some(meta.len());
        }
    }
    Ok(Seen { name, last, running, bytes, packed: plain.is_none_or(|length| length < WORTH) })
}

impl Collector {
    /// Keeps to `policy` from now on.
    pub fn keep_to(&mut self, policy: Policy) {
        self.tidier = (!policy.is_nothing()).then(|| Tidier { policy, ..Tidier::default() });
    }

    /// Does everything that the policy says now; says what that was.
    ///
    /// # Errors
    ///
    /// When the store or the ledger fails.
    pub fn tidy_all(&mut self) -> Result<Tidied, CollectError> {
        while self.tidy(Stamp::now().wall)? {}
        Ok(self.tidier.as_mut().map_or_else(Tidied::default, |t| std::mem::take(&mut t.done)))
    }

    /// Does a little; says whether there is more to do.
    pub(super) fn tidy(&mut self, now: Timestamp) -> Result<bool, CollectError> {
        let Some(mut tidier) = self.tidier.take() else { return Ok(false) };
        let more = self.tidy_with(&mut tidier, now);
        self.tidier = Some(tidier);
        more
    }

    fn tidy_with(&mut self, tidier: &mut Tidier, now: Timestamp) -> Result<bool, CollectError> {
        let store = Store::open(&self.options.store)?;
        match std::mem::take(&mut tidier.state) {
            State::Rest(until) if Instant::now() < until => {
                tidier.state = State::Rest(until);
                Ok(false)
            }
            State::Begin | State::Rest(_) => {
                tidier.state = State::Look(store.users()?.into(), Vec::new());
                Ok(true)
            }
            State::Look(mut users, mut seen) => {
                match users.pop_front() {
                    Some((cluster, user)) => {
                        self.sweep(&cluster, &user);
                        match look(&store, Some(&cluster), Some(&user)) {
                            Ok(runs) => seen.extend(runs),
                            // Another time: it may be gone, or set aside.
                            Err(e) => {
                                tracing::warn!("runs of {user} on {cluster} are not looked through: {e}")
                            }
                        }
                        tidier.state = State::Look(users, seen);
                    }
                    None => {
                        let acts = plan(&seen, &tidier.policy, now);
                        let acts = acts.into_iter().map(|(at, act)| (seen[at].clone(), act));
                        tidier.state = State::Act(acts.collect());
                    }
                }
                Ok(true)
            }
            State::Act(mut acts) => {
                let mut packing = tidier.packing.take();
                let mut bytes = 0;
                for _ in 0..RUNS {
                    if bytes >= BYTES || (acts.is_empty() && packing.is_none()) {
                        break;
                    }
                    if let Some((name, before, mut one)) = packing.take() {
                        match one.go_on(BYTES) {
                            Ok(read) => bytes += read,
                            Err(e) => {
                                tracing::warn!(run = %name.2, "cannot be compressed: {e}");
                                one.abandon();
                                continue;
                            }
                        }
                        match one.done() {
                            true => tidier.packed.push((name, before, one)),
                            false => packing = Some((name, before, one)),
                        }
                        continue;
                    }
                    let Some((run, act)) = acts.pop_front() else { break };
                    match act {
                        Act::Pack => packing = self.begin_packing(&run)?,
                        _ => self.remove(tidier, &run)?,
                    }
                }
                let end = acts.is_empty() && packing.is_none();
                if tidier.packed.len() >= WAITING || end {
                    self.finish_packing(tidier)?;
                }
                if end {
                    for place in std::mem::take(&mut tidier.registries) {
                        self.shorten_registry(&place)?;
                    }
                    tidier.state = State::Rest(Instant::now() + EVERY);
                } else {
                    tidier.state = State::Act(acts);
                    tidier.packing = packing;
                }
                Ok(!end)
            }
        }
    }

    /// Length of the run's events, when it has ended and is not in use.
    fn closed(&self, run: &Seen) -> Result<Option<u64>, CollectError> {
        if self.run_names.contains_key(&run.name) || self.is_named_aside(&run.name) {
            return Ok(None);
        }
        let Some(row) = self.ledger.run_named(&run.name)? else { return Ok(None) };
        let head = serde_json::from_str::<Head>(&row.state);
        let ended = head.is_ok_and(|h| h.running == 0 && h.closing.is_none() && h.last == run.last);
        Ok((ended && !row.stale).then_some(row.length))
    }

    fn begin_packing(&self, run: &Seen) -> Result<Option<(RunName, u64, Packing)>, CollectError> {
        let Some(length) = self.closed(run)? else { return Ok(None) };
        let (cluster, user, id) = &run.name;
        let plain = self.options.store.join(run_dir(cluster, user, id)).join(EVENTS);
        match Packing::begin(&plain, length) {
            Ok(packing) => Ok(Some((run.name.clone(), run.bytes, packing))),
            Err(e) => {
                tracing::warn!(run = %id, "cannot be compressed: {e}");
                Ok(None)
            }
        }
    }

    /// Makes the compressed files durable, and takes the plain ones away.
    fn finish_packing(&mut self, tidier: &mut Tidier) -> Result<(), CollectError> {
        let all = std::mem::take(&mut tidier.packed);
        if all.is_empty() {
            return Ok(());
        }
        self.appender.sync_all()?;
        let mut put = Vec::new();
        for (name, before, packing) in all {
            // Something may have come since; nothing can between here and the end.
            let grown = self.run_names.contains_key(&name)
                || self.ledger.run_named(&name)?.is_none_or(|row| row.length != packing.length());
            if grown {
                packing.abandon();
                continue;
            }
            match packing.put() {
                Ok(()) => put.push((name, before, packing)),
                Err(e) => tracing::warn!(run = %name.2, "cannot be compressed: {e}"),
            }
        }
        self.appender.sync_all()?;
        for (name, before, packing) in put {
            let dir = self.options.store.join(run_dir(&name.0, &name.1, &name.2));
            let io = |source| StoreError::Io { path: dir.join(EVENTS), source };
            if let Err(e) = packing.drop_plain() {
                tracing::warn!("{}", io(e)); // Both are whole, and the next start takes one away.
                continue;
            }
            tidier.done.packed += 1;
            tidier.done.bytes_before += before;
            let now = seen_of(&self.options.store, name, Timestamp(0), false);
            tidier.done.bytes_after += now.map_or(0, |run| run.bytes);
        }
        Ok(())
    }

    fn remove(&mut self, tidier: &mut Tidier, run: &Seen) -> Result<(), CollectError> {
        let known = self.ledger.run_named(&run.name)?.is_some();
        if self.run_names.contains_key(&run.name) || known && self.closed(run)?.is_none() {
            return Ok(()); // It goes on, or has gone on since.
        }
        let (cluster, user, id) = &run.name;
        let dir = self.options.store.join(user_dir(cluster, user));
        let (from, to) = (dir.join(id), dir.join(format!("{REMOVED}{id}")));
        let io = |source| StoreError::Io { path: from.clone(), source };
        if let Err(e) = fs::rename(&from, &to) {
            // Somebody was quicker, or has made it theirs: the next look shows how it is then.
            tracing::warn!("{}; the run is not removed", io(e));
            return Ok(());
        }
        self.appender.forget_dirs();
        self.ledger.forget_run(&run.name)?;
        if let Err(e) = fs::remove_dir_all(&to) {
            tracing::warn!(path = %to.display(), "cannot be removed: {e}; the next look tries again");
        }
        if let Some(indexer) = &self.indexer {
            indexer.tell([(run.name.clone(), 0)]);
        }
        tidier.registries.insert((cluster.clone(), user.clone()));
        tidier.done.removed += 1;
        tidier.done.bytes_removed += run.bytes;
        Ok(())
    }

    /// Takes away what a crash left of runs that were being removed.
    fn sweep(&self, cluster: &str, user: &str) {
        let entries = fs::read_dir(self.options.store.join(user_dir(cluster, user))).into_iter().flatten();
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(REMOVED)
                && let Err(e) = fs::remove_dir_all(entry.path())
            {
                tracing::warn!(path = %entry.path().display(), "cannot be removed: {e}");
            }
        }
    }

    /// Writes a user's registry anew: one line per run that is there. The new
    /// file waits beside the old one until its length is committed; which of
    /// the two counts after a crash follows from that.
    pub(super) fn shorten_registry(
        &mut self,
        (cluster, user): &(String, String),
    ) -> Result<(), CollectError> {
        let name = user_dir(cluster, user).join(REGISTRY);
        let path = self.options.store.join(&name);
        let io = |source| StoreError::Io { path: path.clone(), source };
        if self.others.get(&name).is_some_and(Tail::waits) {
            return Ok(()); // Lines wait to be appended: another time.
        }
        #[derive(Deserialize)]
        struct Entry {
            run_id: String,
        }
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()), // It is gone with all the user's runs.
            Err(e) => {
                tracing::warn!("{}; it is not shortened", io(e));
                return Ok(());
            }
        };
        let (mut kept, mut met) = (Vec::new(), HashSet::new());
        let lines: Vec<&[u8]> = Lines::new(&text).map(|(_, line)| line).collect();
        for line in lines.into_iter().rev() {
            let Ok(entry) = serde_json::from_slice::<Entry>(line) else { continue };
            let there = path.parent().is_some_and(|runs| runs.join(&entry.run_id).is_dir());
            if there && met.insert(entry.run_id) {
                kept.push(line);
            }
        }
        let mut new = Vec::with_capacity(text.len());
        for line in kept.into_iter().rev() {
            new.extend_from_slice(line);
            new.push(b'\n');
        }
        self.appender.prepare_replacement(&name, &new)?;
        let length = new.len() as u64;
        let outputs = vec![(name.to_string_lossy().into_owned(), length)];
        self.ledger.put(&Changes { outputs, ..Changes::default() })?;
        self.ledger.commit()?;
        self.appender.finish_replacement(&name, length)?;
        self.others.insert(PathBuf::from(&name), Tail::new(length));
        Ok(())
    }
}
