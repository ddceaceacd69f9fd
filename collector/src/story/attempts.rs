//! Which attempt of its job an event is about.
//!
//! Slurm numbers the attempts, but tells that number only to the steps of srun that get their script's
//! environment, and to the prolog: the step of a script knows it at its end, the extern step not at all, and in
//! an epilog it may be the next one's. So what has no number is placed by who wrote it and by time, and it does
//! not matter which node's journal is read first.

use std::collections::BTreeSet;

use inquest_journal::{Body, Head, Source, StepId, Timestamp, Via};

use super::{Attempt, Moment, Name, StepNode, Story};

/// Clocks of nodes may differ by so much; attempts are minutes apart.
const SKEW_US: i64 = 1_000_000;

impl Story {
    /// The attempt that an event is about, and whether it is a new one.
    pub(super) fn attempt_for(&mut self, head: &Head<'_>, body: &Body) -> (usize, bool) {
        let said = restart(body);
        if self.attempts.is_empty() {
            self.insert(0, said);
            return (0, true);
        }
        let newest = self.attempts.len() - 1;
        if let Some(n) = said {
            // The end of a script is that of the attempt in which it began.
            if let (Body::JobEnded(_), Some(at)) = (body, self.of_writer(head)) {
                self.call(at, n);
                return (at, false);
            }
            if !self.began_before(n, head, body) {
                return self.numbered(n, head, body);
            }
        }
        match body {
            Body::StepStarted(_) | Body::JobStarted(_) => match head.step {
                Some(step @ (StepId::Batch | StepId::Interactive)) => self.of_script(step, head),
                Some(step) => self.of_time(step, head),
                None => (newest, false),
            },
            _ if newest == 0 => (0, false),
            Body::JobEnded(_) if head.step.is_none() => (self.of_end(head).unwrap_or(newest), false),
            _ => (self.of_writer(head).unwrap_or(newest), false),
        }
    }

    /// The step began here in that attempt before: a job that was submitted by a restarted one is told that
    /// one's number, until it is restarted itself.
    fn began_before(&self, n: u32, head: &Head<'_>, body: &Body) -> bool {
        let (Body::StepStarted(_), Some(step)) = (body, head.step) else { return false };
        self.attempts.iter().filter(|a| a.restart == n).any(|a| {
            let part = a.steps.get(&step).and_then(|s| s.nodes.get(head.node.as_ref()));
            let before = |s: &Moment| *s.event.stream != *head.stream && head.timestamp.since(s.wall) > 0;
            part.and_then(|p| p.started.as_ref()).is_some_and(before)
        })
    }

    /// The attempt of this number.
    fn numbered(&mut self, n: u32, head: &Head<'_>, body: &Body) -> (usize, bool) {
        if let Some(at) = self.attempts.iter().rposition(|a| a.restart == n) {
            self.attempts[at].counted = true;
            return (at, false);
        }
        let before = self.attempts.iter().rposition(|a| a.restart < n);
        let begins = matches!(body, Body::StepStarted(_) | Body::JobStarted(_));
        let over = |a: &Attempt| {
            begins && a.ended.as_ref().is_some_and(|e| head.timestamp.since(e.at.wall) > SKEW_US)
        };
        match before {
            // Only steps without a number were seen of it so far.
            Some(at)
                if at + 1 == self.attempts.len()
                    && !self.attempts[at].counted
                    && !over(&self.attempts[at]) =>
            {
                (self.attempts[at].restart, self.attempts[at].counted) = (n, true);
                (at, false)
            }
            _ => {
                let at = before.map_or(0, |at| at + 1);
                self.insert(at, Some(n));
                (at, true)
            }
        }
    }

    /// A job's script begins once in each attempt, on whichever node.
    fn of_script(&mut self, step: StepId, head: &Head<'_>) -> (usize, bool) {
        let begun = |a: &Attempt| {
            let parts = a.steps.get(&step).into_iter().flat_map(|s| s.nodes.values());
            parts.filter_map(|p| p.started.clone()).next()
        };
        let others = self.attempts.iter().map(begun).collect::<Vec<_>>();
        if let Some(at) =
            others.iter().rposition(|b| b.as_ref().is_some_and(|b| *b.event.stream == *head.stream))
        {
            return (at, false);
        }
        let later = |b: &Moment| b.wall.since(head.timestamp) > 0;
        // Behind the newest script that began before this one.
        let before = others.iter().rposition(|b| b.as_ref().is_some_and(|b| !later(b)));
        let at = before.map_or(0, |at| at + 1);
        match others.get(at) {
            Some(None) => (at, false),
            _ => {
                self.insert(at, None);
                (at, true)
            }
        }
    }

    /// Another step without a number: extern, or one of srun whose environment was taken away, which begins
    /// after its attempt.
    fn of_time(&mut self, step: StepId, head: &Head<'_>) -> (usize, bool) {
        let newest = self.attempts.len() - 1;
        let now = &self.attempts[newest];
        let here = now.steps.get(&step).and_then(|s| s.nodes.get(head.node.as_ref()));
        let again = here.is_some_and(|part| {
            let after = |s: &Moment| *s.event.stream != *head.stream && head.timestamp.since(s.wall) > 0;
            part.started.as_ref().is_some_and(after)
        });
        let after = now.ended.as_ref().is_some_and(|e| head.timestamp.since(e.at.wall) > SKEW_US);
        if again || after && step == StepId::Extern {
            self.insert(newest + 1, None);
            return (newest + 1, true);
        }
        if matches!(step, StepId::Number(_)) {
            return (self.attempts.iter().rposition(|a| a.had_begun(head)).unwrap_or(0), false);
        }
        let until = |a: &Attempt| a.last.as_ref().is_some_and(|l| head.timestamp.since(l.wall) <= SKEW_US);
        (self.attempts.iter().position(until).unwrap_or(newest), false)
    }

    /// An epilog runs before the next attempt begins.
    fn of_end(&self, head: &Head<'_>) -> Option<usize> {
        let begun = |a: &Attempt| {
            a.started.as_ref().is_some_and(|began| head.timestamp.since(began.wall) >= -SKEW_US)
        };
        self.attempts.iter().rposition(begun)
    }

    /// The attempt in which the step began that this event is of.
    fn of_writer(&self, head: &Head<'_>) -> Option<usize> {
        let step = head.step?;
        self.attempts.iter().rposition(|a| {
            let part = a.steps.get(&step).and_then(|s| s.nodes.get(head.node.as_ref()));
            part.and_then(|p| p.started.as_ref()).is_some_and(|began| match head.source {
                Source::Plugin => *began.event.stream == *head.stream,
                _ => head.timestamp.since(began.wall) >= -SKEW_US,
            })
        })
    }

    /// An attempt that is there is said to be of this number.
    fn call(&mut self, at: usize, n: u32) {
        let (before, rest) = self.attempts.split_at_mut(at);
        // Not where it contradicts the others; those that were only counted behind it make room.
        if rest[0].counted || before.last().is_some_and(|a| a.restart >= n) {
            return;
        }
        if rest[1..].iter().any(|a| a.counted && a.restart <= n) {
            return;
        }
        (rest[0].restart, rest[0].counted) = (n, true);
        self.make_room(at + 1);
    }

    /// Numbers that were only counted are raised above those before them.
    fn make_room(&mut self, from: usize) {
        for at in from..self.attempts.len() {
            let least = self.attempts[at - 1].restart + 1;
            let attempt = &mut self.attempts[at];
            attempt.restart = attempt.restart.max(least);
        }
    }

    fn insert(&mut self, at: usize, said: Option<u32>) {
        let next = at.checked_sub(1).map_or(0, |before| self.attempts[before].restart + 1);
        let attempt =
            Attempt { restart: said.unwrap_or(next), counted: said.is_some(), ..Attempt::default() };
        self.attempts.insert(at, attempt);
        self.make_room(at + 1);
    }

    /// Puts extern steps where they belong: they begin when their job gets its nodes, just before its script.
    /// Until the scripts of two attempts were seen, nothing told them apart.
    pub(super) fn sort_externs(&mut self) {
        let anchors: Vec<Option<Timestamp>> = self.attempts.iter().map(Attempt::script_began).collect();
        let nearest = |at: Timestamp| {
            let far = |a: &Option<Timestamp>| a.map(|a| a.since(at).unsigned_abs());
            (0..anchors.len()).filter(|&n| anchors[n].is_some()).min_by_key(|&n| far(&anchors[n]))
        };
        for from in (0..anchors.len()).filter(|&n| anchors[n].is_some()) {
            let Some(step) = self.attempts[from].steps.get(&StepId::Extern) else { continue };
            let to = |part: &StepNode| nearest(part.started.as_ref()?.wall).filter(|&to| to != from);
            let wrong = step.nodes.iter().filter_map(|(node, part)| Some((node.clone(), to(part)?)));
            let wrong: Vec<(Name, usize)> = wrong.collect();
            for (node, to) in wrong {
                self.move_extern(&node, from, to);
            }
        }
    }

    fn move_extern(&mut self, node: &str, from: usize, to: usize) {
        let there = self.attempts[to].steps.get(&StepId::Extern);
        if there.is_some_and(|step| step.nodes.contains_key(node)) {
            return;
        }
        let source = &mut self.attempts[from];
        let Some(step) = source.steps.get_mut(&StepId::Extern) else { return };
        let Some(part) = step.nodes.remove(node) else { return };
        if step.nodes.is_empty() {
            source.steps.remove(&StepId::Extern);
        }
        source.look_again();
        let target = &mut self.attempts[to];
        target.steps.entry(StepId::Extern).or_default().nodes.insert(node.into(), part);
        target.look_again();
    }
}

impl Attempt {
    /// Something of it happened before this event. On one node that is exact, however soon after one
    /// attempt the next one begins.
    fn had_begun(&self, head: &Head<'_>) -> bool {
        self.started.as_ref().is_some_and(|began| {
            match *began.node == *head.node && *began.boot == *head.boot {
                true => head.mono_us >= began.mono_us,
                false => head.timestamp.since(began.wall) >= -SKEW_US,
            }
        })
    }

    fn script_began(&self) -> Option<Timestamp> {
        let scripts = [StepId::Batch, StepId::Interactive].into_iter().filter_map(|s| self.steps.get(&s));
        scripts.flat_map(|s| s.nodes.values()).filter_map(|p| Some(p.started.as_ref()?.wall)).min()
    }

    /// Where and when it began and was heard of last, after a step was put into it or taken out.
    fn look_again(&mut self) {
        let parts = || self.steps.values().flat_map(|s| &s.nodes);
        let moments = || parts().flat_map(|(_, p)| p.started.iter().chain(&p.ended));
        let nodes: BTreeSet<Name> = parts().map(|(node, _)| node.clone()).collect();
        let began = moments().min_by_key(|m| m.wall).cloned();
        let exits = self.steps.values().flat_map(|s| s.tasks.values()).filter_map(|t| t.exit.as_ref());
        let ends = exits.map(|e| &e.at).chain(self.ended.as_ref().map(|e| &e.at));
        let last = moments().chain(ends).max_by_key(|m| m.wall).cloned();
        (self.nodes, self.started, self.last) = (nodes, began, last);
    }
}

fn restart(body: &Body) -> Option<u32> {
    match body {
        Body::JobStarted(b) => b.restart,
        // In an epilog, Slurm may already mean the next one.
        Body::JobEnded(b) => b.restart.filter(|_| b.via != Some(Via::Epilog)),
        Body::StepStarted(b) => b.restart,
        _ => None,
    }
}
