//! Rates, enforced by token buckets.

use std::time::{Duration, Instant};

/// How many units a second, and how many at once after a pause.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    pub per_s: f64,
    pub burst: f64,
}

/// What is left of a rate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    /// Returns a full bucket.
    pub fn full(now: Instant) -> Self {
        Bucket { tokens: f64::INFINITY, filled: now }
    }

    /// Takes `cost` units. A cost beyond the burst is taken from a full bucket, which is then empty
    /// for longer.
    ///
    /// # Errors
    /// How long to wait if too few are left.
    pub fn take(&mut self, cost: f64, rate: Rate, now: Instant) -> Result<(), Duration> {
        self.fill(rate, now);
        let needed = cost.min(rate.burst);
        if self.tokens >= needed {
            self.tokens -= cost;
            return Ok(());
        }
        let seconds = (needed - self.tokens) / rate.per_s;
        Err(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
    }

    /// Returns how long it takes until a unit is left.
    pub fn next_unit(&mut self, rate: Rate, now: Instant) -> Duration {
        self.fill(rate, now);
        Duration::try_from_secs_f64(((1.0 - self.tokens) / rate.per_s).max(0.0)).unwrap_or(Duration::MAX)
    }

    pub fn is_full(&mut self, rate: Rate, now: Instant) -> bool {
        self.fill(rate, now);
        self.tokens >= rate.burst
    }

    fn fill(&mut self, rate: Rate, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + elapsed * rate.per_s).min(rate.burst);
        // Another thread may have looked at the clock later, and been here earlier.
        self.filled = self.filled.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_refills_with_time_and_costs_beyond_it_are_owed() {
        let (start, rate) = (Instant::now(), Rate { per_s: 10.0, burst: 5.0 });
        let at = |ms| start + Duration::from_millis(ms);
        let mut bucket = Bucket::full(start);
        assert_eq!(bucket.take(5.0, rate, start), Ok(()));
        let wait = bucket.take(1.0, rate, start).unwrap_err();
        assert_eq!(wait, Duration::from_millis(100));
        assert_eq!(bucket.take(1.0, rate, at(100)), Ok(()));
        assert!(bucket.take(0.5, rate, at(100)).is_err());
        assert_eq!(bucket.next_unit(rate, at(10_000)), Duration::ZERO);
        assert!(bucket.is_full(rate, at(10_000)));
        assert_eq!(bucket.take(25.0, rate, at(10_000)), Ok(()), "a full bucket takes any cost");
        let wait = bucket.take(1.0, rate, at(10_000)).unwrap_err();
        assert_eq!(wait, Duration::from_millis(2100), "20 are owed");
        assert!(!bucket.is_full(rate, at(12_000)));
        assert!(bucket.is_full(rate, at(12_500)));
        // What is owed is paid at the new rate.
        let faster = Rate { per_s: 1000.0, burst: 5.0 };
        assert_eq!(bucket.take(26.0, faster, at(20_000)), Ok(()));
        assert_eq!(bucket.take(1.0, faster, at(20_000)), Err(Duration::from_millis(22)));
    }
}
