//! A token bucket: so many at once, so many over time, the rest is counted.

/// How much may pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// At once, after a quiet time.
    pub(super) burst: u32,
    /// Microseconds in which one more may pass.
    pub(super) refill_us: u64,
}

/// What has passed, and what has not since it was last told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    rate: Rate,
    tokens: u32,
    filled_us: u64,
    held_back: u64,
}

impl Bucket {
    /// A full bucket.
    pub(super) fn new(rate: Rate) -> Bucket {
        Bucket { rate, tokens: rate.burst, filled_us: 0, held_back: 0 }
    }

    /// Whether one more may pass at `now_us`; counts it if not.
    pub(super) fn take(&mut self, now_us: u64) -> bool {
        let earned = now_us.saturating_sub(self.filled_us) / self.rate.refill_us;
        if earned > 0 {
            let tokens = u64::from(self.tokens).saturating_add(earned).min(u64::from(self.rate.burst));
            self.tokens = u32::try_from(tokens).unwrap_or(self.rate.burst);
            self.filled_us += earned * self.rate.refill_us;
        }
        match self.tokens.checked_sub(1) {
            Some(left) => {
                self.tokens = left;
                true
            }
            None => {
                self.held_back += 1;
                false
            }
        }
    }

    /// How many did not pass since this was last asked.
    pub(super) fn take_held_back(&mut self) -> u64 {
        std::mem::take(&mut self.held_back)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_burst_passes_and_then_a_trickle() {
        let mut bucket = Bucket::new(Rate { burst: 3, refill_us: 1_000 });
        let start = 5_000_000;
        let passed = (0..10).filter(|_| bucket.take(start)).count();
        assert_eq!((passed, bucket.take_held_back()), (3, 7));
        assert!(!bucket.take(start + 999));
        assert!(bucket.take(start + 1_000));
        assert!(!bucket.take(start + 1_001));
        assert_eq!((0..10).filter(|_| bucket.take(start + 1_000_000)).count(), 3);
    }

    proptest! {
        #[test]
        fn never_more_than_burst_and_refill(steps in proptest::collection::vec(0u64..5_000, 1..200)) {
            let mut bucket = Bucket::new(Rate { burst: 5, refill_us: 1_000 });
            let (mut now, mut passed, start) = (77_777, 0u64, 77_777);
            for step in &steps {
                now += step;
                passed += u64::from(bucket.take(now));
            }
            prop_assert!(passed <= 5 + (now - start) / 1_000 + 1);
            prop_assert_eq!(passed + bucket.take_held_back(), steps.len() as u64);
        }
    }
}
