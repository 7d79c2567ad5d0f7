//! Limits how many comparisons run at the same time, over all instances. Each slot is a counter
//! that holds the latest time at which it becomes free, so the slot of an instance that was stopped
//! expires by itself.

use hostler_plugin::{random, state};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds that an instance may take in addition to the call itself.
const SLACK_MS: i64 = 1_000;

pub struct Lease {
    counter: String,
    until: i64,
}

impl Lease {
    /// Takes one of `places` slots, if one is free.
    pub fn take(places: u32, time: Duration) -> Option<Lease> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as i64);
        let until = now + time.as_millis() as i64 + SLACK_MS;
        // Start at a random slot, so that most find a free one immediately.
        let start = (random::fraction() * f64::from(places)) as u32;
        (0..places).map(|step| (start + step) % places).find_map(|place| {
            let counter = format!("place {place}");
            let taken = state::update(&counter, |other| (other <= now).then_some(until));
            taken.is_ok().then_some(Lease { counter, until })
        })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Fails if the lease has expired and another one has the slot, which is intended.
        let _ = state::compare_exchange(&self.counter, self.until, 0);
    }
}
