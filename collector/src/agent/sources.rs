//! What the agent does when one of its sources has something to say.

use std::mem::MaybeUninit;

use inquest_journal::Stamp;
use rustix::event::epoll;

use super::kmsg::Got;
use super::netlink::Messages;
use super::oom::Record;
use super::steps::Key;
use super::{
    Agent, BATCH, FILES, FILES_US, NOTE_PAUSE_US, NOTES, STORM, STORM_PAUSE_US, execs, note, schedule,
    taskstats,
};

impl Agent {
    pub(super) fn step_began(&mut self, key: Key) {
        self.watch_step(key);
        let uid = self.node.steps().get(key).and_then(|step| step.uid);
        if let (Some(files), Some(uid)) = (&mut self.files, uid) {
            files.watch(uid);
            // It may have written before it was watched.
            self.files_us.get_or_insert(Stamp::now().mono_us + FILES_US);
        }
    }

    /// Reads files of notes and asks to be woken by the next one.
    pub(super) fn read_files(&mut self, now: Stamp) {
        self.files_us = None;
        let Some(files) = &mut self.files else { return };
        files.drain();
        let users: Vec<u32> = self.node.steps().files().filter(|f| f.3).map(|f| f.1).collect();
        users.into_iter().for_each(|uid| files.watch(uid));
        let once = epoll::EventFlags::IN | epoll::EventFlags::ONESHOT;
        let again = epoll::modify(&self.epoll, &*files, epoll::EventData::new_u64(FILES), once);
        self.node.read_files(files, None, now);
        if let Err(e) = again {
            eprintln!("inquest agent: no more files of notes: {e}");
            self.files = None;
        }
    }

    /// Takes a batch of beginnings.
    pub(super) fn read_execs(&mut self) {
        let Some(execs) = &self.execs else { return };
        let mut buffer = [MaybeUninit::uninit(); 1024];
        for _ in 0..BATCH {
            match execs.receive(&mut buffer) {
                Ok(Some(datagram)) => {
                    let now = Stamp::now();
                    Messages::new(datagram)
                        .filter_map(|m| execs::parse(&m))
                        .for_each(|pid| self.node.began(pid, now));
                }
                Ok(None) => return,
                // Some were dropped: their ends are told without a name.
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(e) => {
                    eprintln!("inquest agent: members of packed steps are no longer named: {e}");
                    self.execs = None;
                    return;
                }
            }
        }
    }

    /// Takes a batch of records. A storm of them may not keep the jobs of the node from running.
    pub(super) fn read_ends_for_a_while(&mut self) {
        self.full_batches = if self.read_ends() { self.full_batches + 1 } else { 0 };
        if self.full_batches >= STORM && schedule(libc::SCHED_OTHER) {
            self.full_batches = 0;
            self.quick_us = Some(Stamp::now().mono_us + STORM_PAUSE_US);
        }
    }

    /// Takes a batch of records; says whether there may be more.
    pub(super) fn read_ends(&mut self) -> bool {
        let Some(ends) = &self.ends else { return false };
        let mut buffer = [MaybeUninit::uninit(); 8192];
        // First find out about all of them, then write: a disk that takes its
        // time must not let parents slip away.
        let mut found = Vec::new();
        let mut more = true;
        for _ in 0..BATCH {
            match ends.receive(&mut buffer) {
                Ok(Some(datagram)) => {
                    let now = Stamp::now();
                    let messages = Messages::new(datagram);
                    for ended in messages.filter_map(|m| taskstats::parse(&m, ends.family()).ok()) {
                        let membership = self.node.find(&ended, now);
                        found.push((ended, membership, now));
                    }
                }
                Ok(None) => {
                    more = false;
                    break;
                }
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => {
                    let total = ends.drops();
                    let count = total.zip(self.drops).map(|(total, before)| total.saturating_sub(before));
                    self.drops = total;
                    self.node.dropped(count, Stamp::now());
                }
                Err(e) => {
                    eprintln!("inquest agent: no more process_died events: {e}");
                    self.ends = None;
                    more = false;
                    break;
                }
            }
        }
        for (ended, membership, stamp) in found {
            self.node.ended(ended, membership, stamp);
        }
        more
    }

    /// Reads what is new in the log and `wanted` by its number.
    pub(super) fn read_log(&mut self, wanted: impl Fn(u64) -> bool) {
        let Some(log) = &mut self.log else { return };
        let mut kills = false;
        loop {
            match log.read() {
                Ok(Got::Record(bytes)) => {
                    let Some(record) = Record::parse(bytes) else { continue };
                    if wanted(record.seq) {
                        kills |= self.node.log(&record, self.caught_up, Stamp::now());
                    }
                    self.node.kmsg_seq = Some(record.seq);
                }
                Ok(Got::Overwritten) => self.node.log_overwritten(Stamp::now()),
                Ok(Got::Nothing) => break,
                Err(e) => {
                    eprintln!("inquest agent: no more oom_kill events: {e}");
                    self.log = None;
                    break;
                }
            }
        }
        if kills && self.caught_up && !self.node.has_open_kills() {
            self.remember();
        }
    }

    /// Takes a batch of notes. Whoever sends more than is looked at finds the socket's queue full.
    pub(super) fn read_notes(&mut self) {
        for _ in 0..BATCH {
            let now = Stamp::now().mono_us;
            let discarding = self.notes.as_ref().is_some_and(note::Socket::is_discarding);
            if discarding || !self.note_rate.take(now) {
                self.notes_us = Some(now + NOTE_PAUSE_US);
                self.listen_to_notes(epoll::EventFlags::empty());
                return;
            }
            let Some(notes) = &mut self.notes else { return };
            match notes.receive() {
                Ok(Some(got)) => {
                    let words = self.node.note(&got, Stamp::now());
                    if let Some(from) = got.from {
                        notes.answer(&from, words);
                    }
                }
                Ok(None) => return,
                Err(e) => {
                    eprintln!("inquest agent: no more notes: {e}");
                    self.notes = None;
                    return;
                }
            }
        }
    }

    pub(super) fn listen_to_notes(&mut self, interest: epoll::EventFlags) {
        let Some(notes) = &self.notes else { return };
        if let Err(e) = epoll::modify(&self.epoll, notes, epoll::EventData::new_u64(NOTES), interest) {
            eprintln!("inquest agent: no more notes: {e}");
            self.notes = None;
        }
    }
}
