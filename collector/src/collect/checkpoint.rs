/*!
Makes what was merged durable. Order is the whole point: run files are appended to and synced, and then
positions, seen events, file lengths and the state of jobs and runs are committed to the ledger in one
transaction.
*/

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::value::RawValue;

use super::run::Run;
use super::window::Window;
use super::{Changed, CollectError, Collector};
use crate::ledger::{Changes, FastHash, JobRow, MemberRow};
use crate::store::{EVENTS, REGISTRY, RUN, Tail};

/// Showing a large run takes time; at most this share of it is spent so while
/// its members go on (one part in so many).
const SHOW_SHARE: u32 = 10;

impl Collector {
    /// Makes everything merged so far durable. At the `end` of a pass runs are shown as they
    /// stand; inside of one, only those whose status changed, and the disk may
    /// take until the next checkpoint, so that it works while the next lines
    /// are read. With `last` nothing is put off.
    pub(super) fn checkpoint(&mut self, end: bool, last: bool) -> Result<(), CollectError> {
        // Nothing may be written over what the ledger has not committed.
        self.commit()?;
        let began = Instant::now();
        let show = self.runs_to_show(end, last);
        if show.is_empty() && !self.has_changes() {
            return Ok(());
        }
        for &id in &show {
            self.register(id)?;
        }
        let mut changes = Changes::default();
        self.flush(&mut changes)?;
        let members = self.take_changed(&mut changes);
        for &id in &show {
            self.show(id, members.get(&id).map_or(&[], Vec::as_slice))?;
        }
        changes.members = members.into_values().flatten().map(|(member, _)| member).collect();
        let mut written = std::mem::take(&mut self.touched);
        written.extend(show);
        for &id in &written {
            if let Some(run) = self.runs.get_mut(&id).filter(|r| r.dirty) {
                changes.runs.push(run.row());
                run.dirty = false;
                run.committed = true;
                run.fresh.clear();
            }
        }
        self.take_rest(&mut changes);
        self.ledger.put(&changes)?;
        self.put = Some(began.elapsed());
        if self.indexer.is_some() {
            let grown = written.iter().filter_map(|id| self.runs.get(id));
            self.grown.extend(grown.map(|run| (run.name.clone(), run.tail.flushed())));
        }
        if end {
            self.commit()?;
        }
        self.read = 0;
        for id in written {
            if let Some(run) = self.runs.get(&id)
                && run.users == 0
                && !run.stale
                && let Some(run) = self.runs.remove(&id)
            {
                self.run_names.remove(&run.name);
            }
        }
        Ok(())
    }

    /// Whether there is something that the ledger does not know.
    fn has_changes(&self) -> bool {
        !(self.moved.is_empty()
            && self.touched.is_empty()
            && self.streams.is_empty()
            && self.released.is_empty()
            && self.forgotten.is_empty())
    }

    /// Appends to every file what waits for it.
    fn flush(&mut self, changes: &mut Changes) -> Result<(), CollectError> {
        self.touched.sort_unstable();
        self.touched.dedup();
        for &id in &self.touched {
            let Some(run) = self.runs.get_mut(&id).filter(|r| r.tail.waits()) else { continue };
            let (dir, file) = (run.dir(), run.file(EVENTS));
            self.appender.flush(&dir, &file, &mut run.tail)?;
        }
        for (path, tail) in self.others.iter_mut().filter(|(_, t)| t.waits()) {
            let (dir, file) = (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default());
            self.appender.flush(dir, Path::new(file), tail)?;
            changes.outputs.push((path.to_string_lossy().into_owned(), tail.flushed()));
        }
        self.appender.clear();
        Ok(())
    }

    /// Takes down the jobs that changed, lets go of those that are settled, and gives the members they are, by run.
    fn take_changed(&mut self, changes: &mut Changes) -> HashMap<i64, Vec<Changed>, FastHash> {
        let mut members: HashMap<i64, Vec<Changed>, FastHash> = HashMap::default();
        for key in std::mem::take(&mut self.changed) {
            let Some(job) = self.jobs.get_mut(&key) else { continue };
            job.changed = false;
            job.story = None;
            changes.jobs.push(JobRow {
                key: (self.clusters[usize::from(key.0)].1.clone(), key.1),
                run: job.member.run,
                chunk: job.member.chunk,
                open: job.open,
                course: job.open.then(|| job.course.save()),
            });
            let verdict = job.verdict.take();
            members.entry(job.member.run).or_default().push((job.member.clone(), verdict));
            if !job.open {
                // What is settled and durable need not stay in memory.
                let run = job.member.run;
                self.jobs.remove(&key);
                self.drop_user(run);
            }
        }
        members
    }

    /// Takes down what is of no run: how far journals and streams are read, and lines that wait.
    fn take_rest(&mut self, changes: &mut Changes) {
        for (name, met) in std::mem::take(&mut self.moved) {
            if let Some(position) = self.positions.get(&name) {
                changes.journals.push((name, position.clone(), met));
            }
        }
        changes.gone = std::mem::take(&mut self.forgotten);
        changes.streams = std::mem::take(&mut self.streams);
        changes.cursor = self.news_since;
        changes.alike = self.alike.drain().collect();
        changes.released = std::mem::take(&mut self.released)
            .into_iter()
            .map(|key| (self.clusters[usize::from(key.0)].1.clone(), key.1))
            .collect();
        for held in self.held.values_mut().filter(|h| h.committed < h.rows.len()) {
            changes.held.extend_from_slice(&held.rows[held.committed..]);
            held.committed = held.rows.len();
        }
        changes.held.append(&mut self.aside.rows);
    }

    /// Commits the last checkpoint, if that is still to be done.
    pub(super) fn commit(&mut self) -> Result<(), CollectError> {
        if let Some(writing) = self.put.take() {
            let began = Instant::now();
            self.appender.sync()?;
            self.ledger.commit()?;
            if let Some(indexer) = &self.indexer {
                indexer.tell(self.grown.drain(..));
            }
            if let Some(watchman) = &mut self.watchman {
                watchman.committed(writing + began.elapsed());
            }
        }
        Ok(())
    }

    pub(super) fn drop_user(&mut self, run: i64) {
        if let Some(run) = self.runs.get_mut(&run) {
            run.users -= 1;
        }
    }

    /// Runs whose `run.json` and registry line are to be written now.
    fn runs_to_show(&self, end: bool, last: bool) -> Vec<i64> {
        let now = Instant::now();
        let due = |r: &&Run| {
            let all = end && (last || r.due.is_none_or(|due| now >= due));
            // Inside of a pass a run that goes on and on ends again and again: by then it must have doubled, or
            // all its members would be written at every checkpoint.
            let grown = r.head.count / 2 >= r.shown;
            r.stale && (all || r.turned && grown)
        };
        let mut ids: Vec<i64> = if end {
            self.runs.values().filter(due).map(|r| r.id).collect()
        } else {
            self.touched.iter().filter_map(|id| self.runs.get(id)).filter(due).map(|r| r.id).collect()
        };
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Appends the run's line to its user's registry.
    fn register(&mut self, id: i64) -> Result<(), CollectError> {
        let Some(run) = self.runs.get(&id) else { return Ok(()) };
        let mut line = serde_json::to_vec(&run.registry_entry()).unwrap_or_default();
        line.push(b'\n');
        let path = run.dir().join(REGISTRY);
        self.append_other(path, |out| out.extend_from_slice(&line))
    }

    /// Appends to a file that is no run's.
    pub(super) fn append_other(
        &mut self,
        path: PathBuf,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), CollectError> {
        if !self.others.contains_key(&path) {
            let committed = self.ledger.output(&path.to_string_lossy())?;
            self.others.insert(path.clone(), Tail::new(committed));
        }
        if let Some(tail) = self.others.get_mut(&path) {
            self.appender.append(tail, write);
        }
        Ok(())
    }

    /// Writes a run's `run.json`; `changed` are the members that the ledger
    /// does not know as they are, with the verdicts that are new.
    fn show(&mut self, id: i64, changed: &[Changed]) -> Result<(), CollectError> {
        let Some(run) = self.runs.get(&id) else { return Ok(()) };
        let began = Instant::now();
        let mut members: BTreeMap<u32, (MemberRow, Option<&RawValue>)> = BTreeMap::new();
        if run.committed {
            self.ledger.members(id, |m| {
                members.insert(m.chunk, (m, None));
            })?;
        }
        members.extend(changed.iter().map(|(m, text)| (m.chunk, (m.clone(), text.as_deref()))));
        // Verdicts of before stand in the file.
        let mut verdicts = Vec::new();
        let mut places = Vec::with_capacity(members.len());
        let mut window = None;
        for (m, text) in members.values() {
            let Some((at, length)) = m.verdict.filter(|_| text.is_none()) else {
                places.push(0..0);
                continue;
            };
            let window = match &mut window {
                Some(window) => window,
                None => window.insert(Window::open(&self.appender, &run.events())?),
            };
            let from = verdicts.len();
            verdicts.extend_from_slice(window.part(at..at + u64::from(length))?);
            places.push(from..verdicts.len());
        }
        let stored = |place| serde_json::from_slice::<&RawValue>(&verdicts[place]).ok();
        let each = members.values().zip(places);
        let text = run.json(each.map(|((m, text), place)| (m, text.or_else(|| stored(place)))));
        let (dir, file) = (run.dir(), run.file(RUN));
        self.appender.replace(&dir, &file, &text)?;
        if let Some(run) = self.runs.get_mut(&id) {
            run.stale = false;
            run.turned = false;
            run.shown = run.head.count;
            run.dirty = true;
            run.due = Some(Instant::now() + began.elapsed() * SHOW_SHARE);
        }
        Ok(())
    }
}
