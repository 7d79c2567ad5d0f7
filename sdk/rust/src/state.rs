//! Data that a plugin keeps across requests, instances, traps and swaps of its file. Each plugin of
//! the manifest has one map and one set of counters, in the host's memory, bounded by `state_kb`.

use crate::bindings::state;
use crate::{Error, Tensor};
use std::time::Duration;

pub fn get(key: &str) -> Option<Vec<u8>> {
    state::get(key)
}

/// Sets a key, replacing its value. Evicts the least recently used entries if space is needed;
/// `too-large` if the value cannot fit at all. The entry expires after `ttl`, if given.
pub fn set(key: &str, value: &[u8], ttl: Option<Duration>) -> Result<(), Error> {
    state::set(key, value, ttl.map(millis))
}

/// Returns the tensors that [`set_tensors`] stored. Nothing is copied.
pub fn get_tensors(key: &str) -> Option<Vec<Tensor>> {
    state::get_tensors(key)
}

pub fn set_tensors(key: &str, tensors: &[Tensor], ttl: Option<Duration>) -> Result<(), Error> {
    let tensors: Vec<_> = tensors.iter().collect();
    state::set_tensors(key, &tensors, ttl.map(millis))
}

/// Removes a key and returns whether it existed.
pub fn delete(key: &str) -> bool {
    state::delete(key)
}

/// Adds to a counter and returns its new value, which saturates at the limits of its range.
/// Counters start at 0, are separate from the keys above and are never evicted. There are at most
/// 1,000 counters; one more traps.
pub fn add(counter: &str, delta: i64) -> i64 {
    state::add(counter, delta)
}

/// Returns the value of a counter.
pub fn read(counter: &str) -> i64 {
    state::add(counter, 0)
}

/// Sets a counter to `new` if its value is `expected`; otherwise returns its current value.
pub fn compare_exchange(counter: &str, expected: i64, new: i64) -> Result<(), i64> {
    state::compare_exchange(counter, expected, new)
}

/// Changes a counter atomically, also if several instances do so at the same time. `change` returns
/// the new value for the one that it is given, and may be called again. Returns the new value, or
/// the old one as the error if `change` returned `None`.
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
