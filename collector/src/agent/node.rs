/*!
What the agent knows of its node, and what it makes of what it sees: records in,
events out.
*/

use std::collections::VecDeque;

use inquest_journal::{
    Body, JobId, Level, Lost, NodeBooted, ProcessDied, Severity, Source, Stamp, StepId, Timestamp, Writer,
};

use crate::follow::Event;

use super::cgroup::{Mounts, StepPath, step_path};
use super::deaths::{Deaths, Waiting};
use super::files::{Files, Piece};
use super::keys::{self, Keys, Processes};
use super::members::{Look, Members, Membership};
use super::memory::Seen;
use super::note;
use super::oom::{self, Kill, Pairs, Record};
use super::proc::{look, read_cgroups};
use super::rate::{Bucket, Rate};
use super::state::State;
use super::steps::{Change, Key, Place, Steps};
use super::taskstats::Ended;

/// Kills whose victim's step is not known yet wait this long for the record
/// of its end, which knows the parent.
const KILL_PATIENCE_US: u64 = 2_000_000;
/// Kills that may wait.
const MOST_KILLS: usize = 256;
/// Beginnings of programs that are looked at, all steps of the node together.
/// A storm of them costs a bounded share of a CPU, and its members go unnamed.
const EXECS: Rate = Rate { burst: 4000, refill_us: 2_000 };
/// What was held back is told this often.
const TELL_US: u64 = 10_000_000;
/// Kills that are remembered as told by an earlier life.
const MOST_TOLD: usize = 4096;
/// The kernel's clock of log records is not adjusted and strays from ours.
const CLOCK_STRAY_US: u64 = 600_000_000;

/// Everything the agent holds in memory.
#[derive(Debug)]
pub(super) struct Node {
    writer: Writer,
    mounts: Mounts,
    steps: Steps,
    members: Members,
    processes: Processes,
    execs: Bucket,
    deaths: Deaths,
    pairs: Pairs,
    kills: VecDeque<(Kill, Stamp)>,
    told: Told,
    /// Last record of the log that was read.
    pub(super) kmsg_seq: Option<u64>,
    /// Something is to be told at this time.
    tell_us: Option<u64>,
    dropped: Option<Option<u64>>,
    unknown: u64,
}

/// What an earlier life has told, as the journal has it.
#[derive(Debug, Default)]
struct Told {
    kills: VecDeque<(u32, u64)>,
    booted: bool,
}

impl Node {
    pub(super) fn new(writer: Writer, mounts: Mounts) -> Node {
        let steps = Steps::new(writer.identity().node());
        Node {
            writer,
            mounts,
            steps,
            members: Members::default(),
            processes: Processes::default(),
            execs: Bucket::new(EXECS),
            deaths: Deaths::default(),
            pairs: Pairs::default(),
            kills: VecDeque::new(),
            told: Told::default(),
            kmsg_seq: None,
            tell_us: None,
            dropped: None,
            unknown: 0,
        }
    }

    pub(super) fn steps(&self) -> &Steps {
        &self.steps
    }

    pub(super) fn mounts(&self) -> &Mounts {
        &self.mounts
    }

    /// Short boot id of this kernel.
    pub(super) fn boot(&self) -> &str {
        self.writer.identity().boot()
    }

    /// Learns from a line of this node's journal.
    pub(super) fn line(&mut self, line: &[u8], now: Stamp) -> Option<Change> {
        // Behind a line that found no more room on the disk stands another one's.
        let Event { head, line, .. } = Event::parse(line).or_else(|| Event::salvage(line))?;
        let ours = head.boot == self.boot() && head.node == self.writer.identity().node();
        if !ours || head.source == Source::Collector {
            return None;
        }
        let wanted = match head.event_type.as_ref() {
            "step_started" | "step_ended" | "task_started" | "task_exited" => head.source == Source::Plugin,
            "note" => head.source == Source::User && head.stream != self.writer.identity().stream(),
            "process_died" | "oom_kill" | "memory_high" | "node_booted" => head.source == Source::Agent,
            _ => false,
        };
        if !wanted {
            return None;
        }
        let body = Body::parse(&head.event_type, line)?.ok()?;
        match &body {
            Body::OomKill(b) if head.stream != self.writer.identity().stream() => {
                for pid in b.victims.iter().filter_map(|v| v.pid) {
                    self.told.kills.push_back((pid, head.mono_us));
                }
                let old = self.told.kills.len().saturating_sub(MOST_TOLD);
                self.told.kills.drain(..old);
                None
            }
            Body::MemoryHigh(_) => {
                self.steps.told_high(head.job_id?, head.step);
                None
            }
            Body::NodeBooted(_) => {
                self.told.booted = true;
                None
            }
            _ => self.steps.apply(&head, &body, now.mono_us),
        }
    }

    /// A further life begins: tells of a new boot, once, or of what nobody
    /// watched in between; `watched` says that the kernel kept it for us.
    pub(super) fn begins_again(&mut self, last: &State, watched: bool, now: Stamp) {
        if last.boot == self.boot() {
            if !watched && self.steps.live().next().is_some() {
                let reason = "process_died while no agent was running";
                let body = Lost { count: None, reason: Some(reason.into()) };
                self.emit(now, Severity::Warn, Source::Agent, None, None, body);
            }
            return;
        }
        if self.told.booted {
            return;
        }
        let up = i64::try_from(now.mono_us).unwrap_or(i64::MAX);
        let booted_at = Some(Timestamp(now.wall.0.saturating_sub(up)));
        let body = NodeBooted { previous_boot: Some(last.boot.clone()), booted_at };
        self.emit(now, Severity::Warn, Source::Agent, None, None, body);
    }

    /// A process began to run a program.
    pub(super) fn began(&mut self, pid: u32, now: Stamp) {
        if !self.execs.take(now.mono_us) {
            // Most processes need no name; one that dies unnamed may have one.
            return;
        }
        if let Look::In(place) = look(pid, &self.steps, &self.mounts) {
            self.members.put(pid, Some(place), now.mono_us);
            self.processes.put(pid, place.key, keys::read(pid));
        }
    }

    /// Which member of a run a process of this step was.
    fn keys_of(&self, ended: &Ended, place: Place, now_us: u64) -> Keys {
        let known = [ended.pid, ended.ppid].into_iter().find_map(|pid| self.processes.get(pid, place.key));
        if let Some(keys) = known {
            return keys.clone();
        }
        // Its beginning was not seen. A parent that still lives has what it
        // passed on, unless it is slurmstepd.
        let of_step = |pid| match look(pid, &self.steps, &self.mounts) {
            Look::In(parent) => parent.key == place.key,
            _ => false,
        };
        if self.steps.of_task(ended.pid, Some(ended.uid), now_us).is_none()
            && ended.ppid > 1
            && of_step(ended.ppid)
        {
            return keys::read(ended.ppid);
        }
        Keys::new()
    }

    /// Whose process it was that ended. To be asked at once: the parent, who
    /// knows, may be about to end too.
    pub(super) fn find(&mut self, ended: &Ended, now: Stamp) -> Membership {
        let (steps, mounts) = (&self.steps, &self.mounts);
        let look = |pid| look(pid, steps, mounts);
        self.members.find(ended, steps, now.mono_us, look)
    }

    /// A process ended abnormally.
    pub(super) fn ended(&mut self, ended: Ended, membership: Membership, stamp: Stamp) {
        match membership {
            Membership::Of(place) => self.died(place, &ended, stamp),
            Membership::None => {}
            Membership::Unknown => {
                if let Some(out) = self.deaths.wait(ended, stamp) {
                    self.give_up(&out, stamp.mono_us);
                }
            }
        }
    }

    fn died(&mut self, place: Place, ended: &Ended, stamp: Stamp) {
        self.members.put(ended.pid, Some(place), stamp.mono_us);
        if let Some(at) = self.kills.iter().position(|(kill, _)| kill.killed.pid == ended.pid)
            && let Some((kill, at)) = self.kills.remove(at)
        {
            self.killed(&kill, Some(place), at);
        }
        for child in self.deaths.take_family(ended.pid) {
            self.write_death(place, &child.ended, child.stamp);
        }
        self.write_death(place, ended, stamp);
    }

    fn write_death(&mut self, place: Place, ended: &Ended, stamp: Stamp) {
        if is_placeholder(place, ended) {
            return;
        }
        let step = self.steps.step(place.key, stamp.mono_us);
        let bucket = if ended.signal.is_some() { &mut step.signals } else { &mut step.exits };
        if !bucket.take(stamp.mono_us) {
            self.tell_later(stamp.mono_us);
            return;
        }
        let first = !std::mem::replace(&mut step.has_died, true);
        let env = self.keys_of(ended, place, stamp.mono_us);
        let body = ProcessDied {
            pid: Some(ended.pid),
            ppid: Some(ended.ppid).filter(|&p| p != 0),
            command: Some(ended.command.clone()),
            exit_code: ended.exit_code,
            signal: ended.signal,
            core: ended.core,
            peak_rss_bytes: Some(ended.peak_rss_bytes),
            uid: Some(ended.uid),
            first,
            env,
        };
        // Scripts live by exit codes; a signal is seldom meant.
        let severity = if ended.signal.is_some() { Severity::Error } else { Severity::Warn };
        self.emit(stamp, severity, Source::Agent, Some(place.key), place.task, body);
    }

    fn give_up(&mut self, waiting: &Waiting, now: u64) {
        // Processes of nobody's job end abnormally all day long.
        if waiting.ended.uid != 0 && self.steps.has_user(waiting.ended.uid) {
            self.unknown += 1;
            self.tell_later(now);
        }
    }

    /// The kernel dropped records; `count` where it says how many so far.
    pub(super) fn dropped(&mut self, count: Option<u64>, now: Stamp) {
        let sum = match self.dropped {
            Some(before) => before.zip(count).map(|(before, more)| before + more),
            None => count,
        };
        self.dropped = Some(sum);
        self.tell_later(now.mono_us);
    }

    /// A record of the kernel's log. `live` says that it was written just now.
    /// Says whether it was about a kill.
    pub(super) fn log(&mut self, record: &Record<'_>, live: bool, now: Stamp) -> bool {
        let Some(line) = oom::parse(record.text).filter(|_| record.of_kernel) else { return false };
        let Some(kill) = self.pairs.push(line) else { return false };
        let stamp = if live { now } else { past(record.us, now) };
        let told =
            |&(pid, at): &(u32, u64)| pid == kill.killed.pid && at.abs_diff(stamp.mono_us) < CLOCK_STRAY_US;
        if kill.is_elsewhere() && self.place_of(&kill, now).is_none()
            || !live && self.told.kills.iter().any(told)
        {
            return true;
        }
        match self.place_of(&kill, now) {
            Some(place) => {
                self.members.put(kill.killed.pid, Some(place), stamp.mono_us);
                self.killed(&kill, Some(place), stamp);
            }
            // Where the victim lived is known, and it is no step of this node.
            None if kill.victim_in().is_some() => {
                if kill.level() == Some(Level::Host) {
                    self.killed(&kill, None, stamp);
                }
            }
            None => {
                if self.kills.len() >= MOST_KILLS
                    && let Some((kill, at)) = self.kills.pop_front()
                {
                    self.killed(&kill, None, at);
                }
                self.kills.push_back((kill, stamp));
            }
        }
        true
    }

    fn place_of(&self, kill: &Kill, now: Stamp) -> Option<Place> {
        match kill.victim_in() {
            Some(path) => self.steps.of_path(path, |dir| self.mounts.is_roots(dir)),
            None => {
                self.steps.of_task(kill.killed.pid, kill.killed.uid, now.mono_us).or_else(|| {
                    match look(kill.killed.pid, &self.steps, &self.mounts) {
                        Look::In(place) => Some(place),
                        _ => None,
                    }
                })
            }
        }
    }

    fn killed(&mut self, kill: &Kill, place: Option<Place>, stamp: Stamp) {
        let body = kill.event(&self.mounts);
        let (key, task) = (place.map(|p| p.key), place.and_then(|p| p.task));
        self.emit(stamp, Severity::Error, Source::Agent, key, task, body);
    }

    /// Kills that were read and not yet told.
    pub(super) fn has_open_kills(&self) -> bool {
        !self.kills.is_empty()
    }

    /// The kernel's log was overwritten before it was read.
    pub(super) fn log_overwritten(&mut self, now: Stamp) {
        let reason = Some("the kernel's log was overwritten before it was read".into());
        let body = Lost { count: None, reason };
        self.emit(now, Severity::Error, Source::Agent, None, None, body);
    }

    /// A datagram of a job; the answer for its sender.
    pub(super) fn note(&mut self, got: &note::Received<'_>, now: Stamp) -> &'static str {
        let mut buffer = [0; 8192];
        let Some(path) = read_cgroups(got.pid, &mut buffer).and_then(step_path) else {
            return "it does not come from a job step";
        };
        let Some(place) = self.steps.of_path(path, |dir| self.mounts.is_roots(dir)) else {
            return "it does not come from a job step of this node";
        };
        let owner = self.steps.get(place.key).and_then(|s| s.uid);
        let owner = owner.or_else(|| StepPath::parse(path)?.uid);
        if got.uid != 0 && owner.is_some_and(|owner| owner != got.uid) {
            return "the job belongs to somebody else";
        }
        let Some((body, severity)) = note::parse(got.bytes, got.pid) else {
            return "it is no note";
        };
        if !self.steps.step(place.key, now.mono_us).notes.take(now.mono_us) {
            self.tell_later(now.mono_us);
            return "too many notes";
        }
        if self.emit(now, severity, Source::User, Some(place.key), place.task, body) {
            note::WRITTEN
        } else {
            "the journal cannot be written"
        }
    }

    /// Reads what is new in the files of notes of all live steps, or of one that has ended.
    pub(super) fn read_files(&mut self, files: &Files, ended: Option<Key>, now: Stamp) {
        let wanted: Vec<_> = self.steps.files().filter(|f| ended.map_or(f.3, |key| key == f.0)).collect();
        for (key, uid, name, _) in wanted {
            let (mut notes, mut left_out) = (Vec::new(), false);
            let step = self.steps.step(key, now.mono_us);
            let (skipped, bucket) = (&mut step.file_skipped, &mut step.notes);
            let read = files.read(uid, &name, step.file, ended.is_some(), |piece| match piece {
                // There may be very many of them: what does not pass is not looked at.
                Piece::Line(line, end) if bucket.take(now.mono_us) => {
                    notes.extend(note::parse_line(line, end));
                }
                Piece::Line(..) => left_out = true,
                Piece::Skipped => {
                    *skipped += 1;
                    left_out = true;
                }
            });
            if left_out {
                self.tell_later(now.mono_us);
            }
            for (body, severity) in notes {
                self.emit(now, severity, Source::User, Some(key), None, body);
            }
            if let Some(read) = read {
                self.steps.step(key, now.mono_us).file = read.done(&name);
            }
        }
    }

    /// Reads what is left in the files of steps that ended while nobody watched.
    pub(super) fn read_old_files(&mut self, files: &Files, now: Stamp) {
        let ended: Vec<Key> = self.steps.files().filter(|f| !f.3).map(|f| f.0).collect();
        ended.into_iter().for_each(|key| self.read_files(files, Some(key), now));
    }

    /// A step, or its job, passed 90 % of its limit.
    pub(super) fn high(&mut self, key: Key, seen: Seen, now: Stamp) {
        let Seen::High(body) = seen else { return };
        let of_job = body.level == Some(Level::Job);
        self.steps.told_high(key.0, Some(key.1).filter(|_| !of_job));
        if of_job {
            // Of all its steps, and so of none.
            self.writer.set_source(Source::Agent);
            self.writer.write_at(now, Severity::Warn, Some(key.0), None, None, &body.into());
        } else {
            self.emit(now, Severity::Warn, Source::Agent, Some(key), None, body);
        }
    }

    /// Does what is due; says when something is again, on the boot clock.
    pub(super) fn due(&mut self, now: Stamp) -> Option<u64> {
        for waiting in self.deaths.take_expired(now.mono_us) {
            self.give_up(&waiting, now.mono_us);
        }
        while self.kills.front().is_some_and(|(_, at)| at.mono_us + KILL_PATIENCE_US <= now.mono_us)
            && let Some((kill, at)) = self.kills.pop_front()
        {
            self.killed(&kill, None, at);
        }
        if self.tell_us.is_some_and(|at| at <= now.mono_us) {
            self.tell(now);
        }
        let kill = self.kills.front().map(|(_, at)| at.mono_us + KILL_PATIENCE_US);
        [self.deaths.deadline(), kill, self.tell_us].into_iter().flatten().min()
    }

    /// Says what is left to say at the end of this life.
    pub(super) fn finish(&mut self, now: Stamp) {
        for waiting in self.deaths.take_expired(u64::MAX) {
            self.give_up(&waiting, now.mono_us);
        }
        self.tell(now);
    }

    fn tell_later(&mut self, now_us: u64) {
        self.tell_us.get_or_insert(now_us + TELL_US);
    }

    /// Says what was held back or lost since it was last said.
    fn tell(&mut self, now: Stamp) {
        self.tell_us = None;
        let mut lost: Vec<(Option<Key>, Severity, Option<u64>, &str)> = Vec::new();
        for (key, step) in self.steps.iter_mut() {
            let deaths = step.signals.take_held_back() + step.exits.take_held_back();
            let notes = step.notes.take_held_back();
            let skipped = std::mem::take(&mut step.file_skipped);
            for (n, what) in [
                (deaths, "process_died above the rate limit"),
                (notes, "note above the rate limit"),
                (skipped, "note too long, or more of them than can wait"),
            ] {
                if n > 0 {
                    lost.push((Some(key), Severity::Warn, Some(n), what));
                }
            }
        }
        if let Some(count) = self.dropped.take() {
            lost.push((None, Severity::Error, count, "kernel dropped messages about processes that ended"));
        }
        if self.unknown > 0 {
            let n = std::mem::take(&mut self.unknown);
            let what =
                "process_died of a user with a job here, but its parent was gone before it could be asked";
            lost.push((None, Severity::Warn, Some(n), what));
        }
        for (key, severity, count, reason) in lost {
            let body = Lost { count, reason: Some(reason.into()) };
            self.emit(now, severity, Source::Agent, key, None, body);
        }
    }

    fn emit(
        &mut self,
        stamp: Stamp,
        severity: Severity,
        source: Source,
        key: Option<Key>,
        task: Option<u32>,
        body: impl Into<Body>,
    ) -> bool {
        let (job_id, step): (Option<JobId>, Option<StepId>) = key.unzip();
        self.writer.set_source(source);
        self.writer.write_at(stamp, severity, job_id, step, task, &body.into())
    }
}

/// The extern step is a `sleep` of slurmstepd that Slurm kills at the end of
/// every job.
fn is_placeholder(place: Place, ended: &Ended) -> bool {
    place.key.1 == StepId::Extern && ended.command == "sleep" && matches!(ended.signal, Some(9 | 15))
}

/// Both clocks at a time of the kernel's log.
fn past(log_us: u64, now: Stamp) -> Stamp {
    let mono_us = log_us.min(now.mono_us);
    let ago = i64::try_from(now.mono_us - mono_us).unwrap_or(i64::MAX);
    Stamp { wall: Timestamp(now.wall.0.saturating_sub(ago)), mono_us }
}

#[cfg(test)]
mod tests {
    use super::*;
    use inquest_journal::{Identity, StepStarted};

    #[test]
    fn the_sleep_of_the_extern_step_dies_every_time() {
        let place = |step| Place { key: (JobId(7), step), task: None };
        let sleep = |signal| Ended {
            pid: 9,
            ppid: 8,
            uid: 0,
            command: "sleep".into(),
            exit_code: None,
            signal: Some(signal),
            core: false,
            peak_rss_bytes: 0,
        };
        assert!(is_placeholder(place(StepId::Extern), &sleep(15)));
        assert!(!is_placeholder(place(StepId::Extern), &sleep(11)));
        assert!(!is_placeholder(place(StepId::Batch), &sleep(15)));
    }

    fn node(dir: &std::path::Path) -> Node {
        let identity = Identity::of_this_process("lab", "n1");
        let (writer, failed) = Writer::open(dir, identity, Source::Agent).unwrap();
        assert!(failed.is_none());
        Node::new(writer, Mounts::default())
    }

    /// A line as a plugin on this node and in this boot writes it.
    fn line(node: &Node, source: Source, job: u32, step: Option<u32>, body: impl Into<Body>) -> String {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::new("lab", "n1", node.boot(), 7, 1);
        let (mut writer, _) = Writer::open(dir.path(), identity, source).unwrap();
        let step = step.map(StepId::Number);
        assert!(writer.write(Severity::Info, Some(JobId(job)), step, None, &body.into()));
        let file = std::fs::read_dir(dir.path().join("n1")).unwrap().next().unwrap().unwrap();
        std::fs::read_to_string(file.path()).unwrap().trim_end().to_owned()
    }

    fn started() -> StepStarted {
        let uid = Some(rustix::process::geteuid().as_raw());
        StepStarted { uid, stepd_pid: Some(42), ..StepStarted::default() }
    }

    #[test]
    fn notes_above_the_rate_are_counted_and_not_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let mut node = node(dir.path());
        let files = Files::open(&dir.path().join("notes")).unwrap();
        let began = line(&node, Source::Plugin, 7, Some(0), started());
        assert!(node.line(began.as_bytes(), Stamp::now()).is_some());
        let user = dir.path().join("notes").join(rustix::process::geteuid().as_raw().to_string());
        std::fs::create_dir(&user).unwrap();
        std::fs::write(user.join("7.0.42"), "a\n".repeat(1 << 19)).unwrap();
        note::PARSED.set(0);
        node.read_files(&files, None, Stamp::now());
        assert_eq!(note::PARSED.get(), 100);
        let held_back = node.steps.step((JobId(7), StepId::Number(0)), 0).notes.take_held_back();
        assert_eq!(held_back, (1 << 19) - 100);
    }

    #[test]
    fn a_line_glued_behind_a_torn_one_counts() {
        let dir = tempfile::tempdir().unwrap();
        let mut node = node(dir.path());
        let torn = line(&node, Source::Plugin, 6, Some(0), started());
        let whole = line(&node, Source::Plugin, 7, Some(0), started());
        let glued = format!("{}{whole}", &torn[..torn.len() / 2]);
        let change = node.line(glued.as_bytes(), Stamp::now());
        assert_eq!(change, Some(Change::Started((JobId(7), StepId::Number(0)))));
    }

    #[test]
    fn a_sum_of_drops_with_one_unknown_is_unknown() {
        let dir = tempfile::tempdir().unwrap();
        for counts in [[Some(3), None], [None, Some(3)]] {
            let mut node = node(dir.path());
            counts.into_iter().for_each(|count| node.dropped(count, Stamp::now()));
            assert_eq!(node.dropped, Some(None));
        }
        let mut node = node(dir.path());
        [3, 4].into_iter().for_each(|count| node.dropped(Some(count), Stamp::now()));
        assert_eq!(node.dropped, Some(Some(7)));
    }

    #[test]
    fn times_of_the_log_are_never_in_the_future() {
        let now = Stamp { wall: Timestamp(1_000_000_000), mono_us: 500 };
        assert_eq!(past(200, now), Stamp { wall: Timestamp(999_999_700), mono_us: 200 });
        assert_eq!(past(9_000, now), now);
    }
}
