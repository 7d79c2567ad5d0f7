//! How much room the disk has left, as far as that is known without asking the file system, which
//! may block.

use crate::lock::LockUnpoisoned;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How long a measurement counts.
const FRESH: Duration = Duration::from_millis(100);

#[derive(Default)]
pub(super) struct FreeSpace(Mutex<Option<Measured>>);

struct Measured {
    at: Instant,
    bytes: u64,
}

impl FreeSpace {
    /// Records how many bytes are free now.
    pub fn set(&self, bytes: u64) {
        *self.0.lock_unpoisoned() = Some(Measured { at: Instant::now(), bytes });
    }

    /// Takes bytes from what was free a moment ago. Returns false if less than `least` would be
    /// left, or if nothing recent is known: then the disk must be asked.
    pub fn take(&self, bytes: u64, least: u64) -> bool {
        let mut known = self.0.lock_unpoisoned();
        let Some(known) = known.as_mut().filter(|known| known.at.elapsed() < FRESH) else { return false };
        known.bytes = known.bytes.saturating_sub(bytes);
        known.bytes >= least
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_accepted_since_the_measurement_counts() {
        let space = FreeSpace::default();
        assert!(!space.take(0, 0), "nothing is known");
        space.set(100);
        assert!(space.take(40, 50));
        assert!(!space.take(40, 50));
    }
}
