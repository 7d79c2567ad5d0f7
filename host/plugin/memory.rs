//! Counts the linear memory of a plugin's instances.

use crate::lock::LockUnpoisoned;
use prometheus::IntGauge;
use std::sync::Mutex;

/// Held while the gauge of a largest memory is raised. Policies that serve side by side share their
/// gauges, and a gauge is raised rarely.
static RAISING: Mutex<()> = Mutex::new(());

pub(super) struct PluginMemory {
    /// The memory of all instances that are alive.
    total: IntGauge,
    /// The most memory that one instance has had.
    largest: IntGauge,
}

impl PluginMemory {
    pub fn new(total: IntGauge, largest: IntGauge) -> Self {
        PluginMemory { total, largest }
    }

    /// Notes that the memory of an instance has changed from `before` to `now` bytes.
    pub fn resize(&self, before: usize, now: usize) {
        self.total.add(now as i64 - before as i64);
        if self.largest.get() < now as i64 {
            let _raising = RAISING.lock_unpoisoned();
            self.largest.set(self.largest.get().max(now as i64));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_and_the_largest_are_known_across_policies() {
        let gauge = || IntGauge::new("g", "g").unwrap();
        let (total, largest) = (gauge(), gauge());
        let memory = PluginMemory::new(total.clone(), largest.clone());
        memory.resize(0, 100);
        memory.resize(0, 300);
        memory.resize(300, 0);
        assert_eq!((total.get(), largest.get()), (100, 300));
        PluginMemory::new(total.clone(), largest.clone()).resize(0, 50);
        assert_eq!((total.get(), largest.get()), (150, 300));
    }
}
