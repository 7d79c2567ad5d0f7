//! A counter that is read by other code than Prometheus: one relaxed increment, without labels or a
//! lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counts things, or nanoseconds.
#[derive(Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn add(&self, value: u64) {
        self.0.fetch_add(value, Ordering::Relaxed);
    }

    /// Adds a duration in nanoseconds; 64 bits hold 584 years.
    pub fn add_time(&self, duration: Duration) {
        self.add(duration.as_nanos() as u64);
    }

    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub fn time(&self) -> Duration {
        Duration::from_nanos(self.get())
    }
}
