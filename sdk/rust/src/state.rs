//! What a plugin remembers across requests, instances, traps and swaps of its file: one map and one set of
//! counters for each plugin of the manifest, in the host's memory, bounded by `state_kb`.

use crate::bindings::state;
use crate::{Error, Tensor};
use std::time::Duration;

pub fn get(key: &str) -> Option<Vec<u8>> {
    state::get(key)
}

/// Replaces what was there. Makes room by forgetting what was used longest ago; `too-large` if it cannot
/// fit at all. Forgotten after `ttl`, if given.
pub fn set(key: &str, value: &[u8], ttl: Option<Duration>) -> Result<(), Error> {
    state::set(key, value, ttl.map(millis))
}

/// What [`set_tensors`] has kept; nothing is copied.
pub fn get_tensors(key: &str) -> Option<Vec<Tensor>> {
    state::get_tensors(key)
}

pub fn set_tensors(key: &str, tensors: &[Tensor], ttl: Option<Duration>) -> Result<(), Error> {
    let tensors: Vec<_> = tensors.iter().collect();
    state::set_tensors(key, &tensors, ttl.map(millis))
}

/// Whether there was something.
pub fn delete(key: &str) -> bool {
    state::delete(key)
}

/// Adds to a counter and gives its new value; at the ends of its range it stays. Counters begin at 0, are
/// apart from the keys above and are never forgotten; there are 1,000 at most, more trap.
pub fn add(counter: &str, delta: i64) -> i64 {
    state::add(counter, delta)
}

/// The value of a counter.
pub fn read(counter: &str) -> i64 {
    state::add(counter, 0)
}

/// Sets a counter if its value is `expected`; gives the value that it has if not.
pub fn compare_exchange(counter: &str, expected: i64, new: i64) -> Result<(), i64> {
    state::compare_exchange(counter, expected, new)
}

/// Changes a counter in one step, however many instances do so at once: `change` gives the new value of
/// the one that it gets, and may be called again. The new value; the old one if `change` gave none.
pub fn update(counter: &str, change: impl Fn(i64) -> Option<i64>) -> Result<i64, i64> {
    let mut value = read(counter);
    loop {
        let Some(new) = change(value) else { return Err(value) };
        match compare_exchange(counter, value, new) {
            Ok(()) => return Ok(new),
            Err(now) => value = now,
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
