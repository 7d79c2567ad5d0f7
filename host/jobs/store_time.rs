//! The clock of a store.

use std::time::{Duration, Instant};

/// Milliseconds for which a store has been open, over all processes that had it open. It never goes
/// back, and steps of the wall clock do not change it. Deadlines, leases and expiry are in this
/// time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreTime(pub u64);

impl StoreTime {
    pub fn after(self, time: Duration) -> Self {
        StoreTime(self.0.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)))
    }

    pub fn until(self, later: StoreTime) -> Duration {
        Duration::from_millis(later.0.saturating_sub(self.0))
    }
}

/// Counts the time of a store in this process.
#[derive(Debug)]
pub struct StoreClock {
    start: StoreTime,
    opened: Instant,
}

impl StoreClock {
    /// Continues from the last time that the store has recorded.
    pub fn from(start: StoreTime) -> Self {
        StoreClock { start, opened: Instant::now() }
    }

    pub fn now(&self) -> StoreTime {
        self.start.after(self.opened.elapsed())
    }
}
