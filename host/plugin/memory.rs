//! Counts the linear memory of a plugin's instances.

use prometheus::IntGauge;
use std::sync::atomic::{AtomicUsize, Ordering};

pub(super) struct PluginMemory {
    /// Of all instances that are alive.
    total: IntGauge,
    /// The most that one instance has had.
    largest: IntGauge,
    largest_bytes: AtomicUsize,
}

impl PluginMemory {
    pub fn new(total: IntGauge, largest: IntGauge) -> Self {
        PluginMemory { total, largest, largest_bytes: AtomicUsize::new(0) }
    }

    /// Notes that the memory of an instance has changed from `before` to `now` bytes.
    pub fn resize(&self, before: usize, now: usize) {
        self.total.add(now as i64 - before as i64);
        if self.largest_bytes.fetch_max(now, Ordering::Relaxed) < now {
            let largest = self.largest_bytes.load(Ordering::Relaxed);
            self.largest.set(largest as i64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_and_the_largest_are_known() {
        let gauge = || IntGauge::new("g", "g").unwrap();
        let (total, largest) = (gauge(), gauge());
        let memory = PluginMemory::new(total.clone(), largest.clone());
        memory.resize(0, 100);
        memory.resize(0, 300);
        memory.resize(300, 0);
        assert_eq!((total.get(), largest.get()), (100, 300));
    }
}
