//! A bound on how many comparisons run at once, over all instances. A place is a counter that holds when
//! it will be free at the latest, so one whose instance was stopped comes back by itself.

use hostler_plugin::{random, state};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds that an instance may take beside the call itself.
const SLACK_MS: i64 = 1_000;

pub struct Lease {
    counter: String,
    until: i64,
}

impl Lease {
    /// One of `places`, if one is free.
    pub fn take(places: u32, time: Duration) -> Option<Lease> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as i64);
        let until = now + time.as_millis() as i64 + SLACK_MS;
        // Each begins somewhere else, so most find a place at once.
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
        // Unless it ran out and is another's by now.
        let _ = state::compare_exchange(&self.counter, self.until, 0);
    }
}
