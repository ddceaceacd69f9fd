//! Which memory cgroups the agent watches, and what it does when one wakes it.

use inquest_journal::{JobId, Level, Stamp, StepId};
use rustix::event::epoll;

use super::Agent;
use super::memory::{LOOK_US, Seen, Watch};
use super::steps::Key;

impl Agent {
    pub(super) fn watch_step(&mut self, key: Key) {
        self.watches.retain(|_, watch| watch.key != key);
        let step = self.node.steps().get(key).filter(|step| !step.is_high);
        let watch = step.and_then(|step| Watch::new(key, step, self.node.mounts()));
        watch.into_iter().for_each(|watch| self.add_watch(watch));
        self.watch_job(key.0);
    }

    /// Watches a job of several steps as a whole, until it was told of.
    pub(super) fn watch_job(&mut self, job: JobId) {
        let watched = |w: &Watch| w.level == Level::Job && w.key.0 == job;
        if self.node.steps().is_high_job(job) || self.watches.values().any(watched) {
            return;
        }
        let steps = self.node.steps();
        let several = |key: &Key| key.0 == job && key.1 != StepId::Extern;
        let live: Vec<Key> = steps.live().filter(several).take(2).collect();
        let &[key, _] = &live[..] else { return };
        let watch = steps.get(key).and_then(|step| Watch::of_job(key, step, self.node.mounts()));
        watch.into_iter().for_each(|watch| self.add_watch(watch));
    }

    fn add_watch(&mut self, watch: Watch) {
        let key = watch.key;
        let token = self.next_watch;
        self.next_watch += 1;
        if let Some(event) = &watch.event {
            let data = epoll::EventData::new_u64(token);
            if let Err(e) = epoll::add(&self.epoll, event, data, epoll::EventFlags::IN) {
                eprintln!("inquest agent: cannot watch step {}.{}: {e}", key.0, key.1);
                return;
            }
        }
        self.watches.insert(token, watch);
        self.look_at(token);
    }

    /// Looks at a step that woke us, or whose time has come.
    pub(super) fn look_at(&mut self, token: u64) {
        let Some(watch) = self.watches.get_mut(&token) else { return };
        let woke = watch.event.as_ref().is_some_and(|event| rustix::io::read(event, &mut [0; 8]).is_ok());
        let mut seen = watch.look();
        if let (Some(job), Seen::High(_)) =
            (self.watches.get(&token).filter(|w| w.level == Level::Job), &seen)
            && self
                .watches
                .values()
                .any(|w| w.level == Level::Step && w.key.0 == job.key.0 && w.is_most_of(job))
        {
            // That step will say so itself, or end.
            seen = Seen::Low;
        }
        let Some(watch) = self.watches.get_mut(&token) else { return };
        match seen {
            Seen::Low => {
                // The charge is past the threshold, and that was all cache:
                // the kernel will not wake us a second time.
                if woke {
                    watch.event = None;
                }
                if watch.event.is_none() {
                    self.look_us.get_or_insert(Stamp::now().mono_us + LOOK_US);
                }
            }
            seen => {
                let key = watch.key;
                self.watches.remove(&token);
                if matches!(seen, Seen::High(_)) {
                    self.watches.retain(|_, w| w.level != Level::Job || w.key.0 != key.0);
                }
                self.node.high(key, seen, Stamp::now());
            }
        }
    }

    /// Looks at those whose kernel does not wake us.
    pub(super) fn look_at_polled(&mut self, now: Stamp) {
        let polled = self.watches.iter().filter(|(_, w)| w.event.is_none()).map(|(t, _)| *t);
        let polled: Vec<u64> = polled.collect();
        self.look_us = (!polled.is_empty()).then_some(now.mono_us + LOOK_US);
        polled.into_iter().for_each(|token| self.look_at(token));
    }
}
