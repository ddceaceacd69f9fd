//! Which events of one stream were seen.

use std::fmt::Write;
use std::ops::Range;

/// Numbers of a stream that were seen: all below `next` but the missing ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamState {
    next: u64,
    /// Sorted, disjoint, not empty, all below `next`.
    missing: Vec<Range<u64>>,
}

/// Whether an event is seen for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It is.
    New,
    /// It was merged before; this line is a copy of it.
    Before,
}

impl StreamState {
    /// Notes that event `seq` is here.
    pub fn see(&mut self, seq: u64) -> Seen {
        if seq >= self.next {
            if seq > self.next {
                self.missing.push(self.next..seq);
            }
            self.next = seq.saturating_add(1);
            return Seen::New;
        }
        // A late one, out of order or from a copy that holds more.
        let Some(at) = self.missing.iter().position(|gap| gap.contains(&seq)) else { return Seen::Before };
        let gap = self.missing[at].clone();
        let rest = [gap.start..seq, seq + 1..gap.end];
        self.missing.splice(at..=at, rest.into_iter().filter(|r| !r.is_empty()));
        Seen::New
    }

    /// Events that have a number but were never seen.
    pub fn lost(&self) -> u64 {
        self.missing.iter().fold(0, |n, gap| n.saturating_add(gap.end - gap.start))
    }

    /// Text form for the ledger: next number, and gaps as `2-4,9-9`.
    pub fn save(&self) -> (u64, String) {
        let mut text = String::new();
        for gap in &self.missing {
            let comma = if text.is_empty() { "" } else { "," };
            let _ = write!(text, "{comma}{}-{}", gap.start, gap.end - 1);
        }
        (self.next, text)
    }

    /// Reads the text form back.
    pub fn restore(next: u64, missing: &str) -> StreamState {
        let gaps = missing.split(',').filter_map(|gap| {
            let (first, last) = gap.split_once('-')?;
            Some(first.parse().ok()?..last.parse::<u64>().ok()?.checked_add(1)?)
        });
        StreamState { next, missing: gaps.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    proptest! {
        // A set of all numbers ever seen is the model.
        #[test]
        fn every_number_is_new_exactly_once(seqs in proptest::collection::vec(0u64..40, 0..120)) {
            let (mut state, mut model) = (StreamState::default(), HashSet::new());
            for &seq in &seqs {
                let new = state.see(seq) == Seen::New;
                prop_assert_eq!(new, model.insert(seq));
                let (next, text) = state.save();
                prop_assert_eq!(&StreamState::restore(next, &text), &state);
            }
            let highest = seqs.iter().max().map_or(0, |m| m + 1);
            prop_assert_eq!(state.lost(), highest - model.len() as u64);
        }
    }
}
