//! Data that a plugin keeps across requests, instances, traps and swaps of its file. Each plugin of
//! the manifest has one map and one set of counters, in the host's memory, bounded by `state_kb`.

use crate::bindings::state;
use crate::{Error, Tensor};
use std::time::Duration;

/// Returns the bytes that [`set`] stored under a key. `None` if there are none, they have expired
/// or were evicted, or the key holds tensors.
///
/// ```
/// use hostler_plugin::{Error, state};
/// use std::time::Duration;
///
/// /// Returns what `compute` has returned in the last minute.
/// fn cached(key: &str, compute: impl Fn() -> Vec<u8>) -> Result<Vec<u8>, Error> {
///     if let Some(known) = state::get(key) {
///         return Ok(known);
///     }
///     let value = compute();
///     state::set(key, &value, Some(Duration::from_secs(60)))?;
///     Ok(value)
/// }
///
/// # let host = hostler_plugin::testing::Host::new();
/// assert_eq!(cached("k", || b"new".to_vec()).unwrap(), b"new");
/// assert_eq!(cached("k", || unreachable!()).unwrap(), b"new");
/// ```
pub fn get(key: &str) -> Option<Vec<u8>> {
    state::get(key)
}

/// Sets a key of at most 1024 bytes, replacing its value. Evicts the least recently used entries if
/// space is needed. The entry expires after `ttl`, if given, rounded down to milliseconds.
///
/// The error is `too-large` if the key is too long or the value cannot fit at all: an entry counts
/// its key, its value and 128 bytes.
pub fn set(key: &str, value: &[u8], ttl: Option<Duration>) -> Result<(), Error> {
    state::set(key, value, ttl.map(millis))
}

/// Returns the tensors that [`set_tensors`] stored under a key, or `None` as [`get`] does. Nothing
/// is copied.
pub fn get_tensors(key: &str) -> Option<Vec<Tensor>> {
    state::get_tensors(key)
}

/// Sets a key to tensors, which remain yours; nothing is copied. Otherwise like [`set`]; each
/// tensor adds its name and 128 bytes.
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
