//! So many requests of one person within a minute.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// People that are remembered; the others begin anew.
const PEOPLE: usize = 10_000;

/// A bucket for each person that fills at an even rate.
#[derive(Debug)]
pub struct Limiter {
    per_minute: f64,
    buckets: HashMap<String, (f64, Instant)>,
}

impl Limiter {
    /// So many within a minute; as many at once.
    pub fn new(per_minute: u64) -> Limiter {
        Limiter { per_minute: per_minute as f64, buckets: HashMap::new() }
    }

    /// Takes one request of `who`, or says when there will be room again.
    ///
    /// # Errors
    ///
    /// How long to wait.
    pub fn take(&mut self, who: &str, now: Instant) -> Result<(), Duration> {
        if self.buckets.len() >= PEOPLE {
            // Full buckets say nothing.
            let rate = self.per_minute / 60.0;
            let full = |(left, at): &(f64, Instant)| {
                left + now.duration_since(*at).as_secs_f64() * rate >= self.per_minute
            };
            self.buckets.retain(|_, bucket| !full(bucket));
            if self.buckets.len() >= PEOPLE {
                self.buckets.clear();
            }
        }
        let (left, at) = self.buckets.entry(who.to_owned()).or_insert((self.per_minute, now));
        let rate = self.per_minute / 60.0;
        *left = (*left + now.duration_since(*at).as_secs_f64() * rate).min(self.per_minute);
        *at = now;
        if *left < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - *left) / rate));
        }
        *left -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_person_does_not_use_up_anothers() {
        let mut limiter = Limiter::new(60);
        let start = Instant::now();
        for _ in 0..60 {
            limiter.take("ann", start).unwrap();
        }
        let wait = limiter.take("ann", start).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1), "{wait:?}");
        limiter.take("bob", start).unwrap();
        limiter.take("ann", start + Duration::from_secs(2)).unwrap();
        limiter.take("ann", start + Duration::from_secs(2)).unwrap();
        assert!(limiter.take("ann", start + Duration::from_secs(2)).is_err());
    }

    #[test]
    fn it_forgets_when_there_are_too_many() {
        let mut limiter = Limiter::new(60);
        let now = Instant::now();
        for n in 0..PEOPLE * 2 {
            limiter.take(&n.to_string(), now).unwrap();
        }
        assert!(limiter.buckets.len() <= PEOPLE);
    }
}
