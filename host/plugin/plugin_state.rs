//! The state that a plugin keeps across requests, instances, traps and reloads, through the
//! interface `state`.
//!
//! Each plugin of the manifest has one state, shared by all its instances and generations. Values
//! are bounded in bytes, and the least recently used are evicted first. Counters are few and are
//! never evicted.

use crate::error::{Error, Kind};
use crate::lock::{LockUnpoisoned, ReadWriteUnpoisoned};
use crate::predict::Tensor;
use bytes::Bytes;
use lru::LruCache;
use prometheus::IntGauge;
use std::collections::HashMap;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

pub(super) const COUNTERS_MAX: usize = 1000;

/// What an entry costs besides its key and value.
const ENTRY_BYTES: usize = 128;

pub(super) const KEY_BYTES_MAX: usize = 1024;

pub struct PluginState {
    values: Mutex<Values>,
    counters: RwLock<HashMap<Box<str>, Arc<AtomicI64>>>,
}

struct Values {
    entries: LruCache<Box<str>, StateEntry>,
    bytes: usize,
    bytes_max: usize,
    gauge: IntGauge,
}

struct StateEntry {
    value: StateValue,
    bytes: usize,
    expires: Option<Instant>,
}

#[derive(Clone)]
pub(super) enum StateValue {
    Bytes(Bytes),
    Tensors(Vec<Tensor>),
}

impl PluginState {
    /// Creates an empty state with a limit of 0 bytes. `gauge` shows the bytes of its values.
    pub fn new(gauge: IntGauge) -> Self {
        let values = Values { entries: LruCache::unbounded(), bytes: 0, bytes_max: 0, gauge };
        PluginState { values: Mutex::new(values), counters: RwLock::default() }
    }

    /// Sets the limit. Values that exceed it are evicted immediately.
    pub fn set_bound(&self, bytes_max: usize) {
        let mut values = self.values();
        values.bytes_max = bytes_max;
        values.make_room(0);
    }

    fn values(&self) -> std::sync::MutexGuard<'_, Values> {
        self.values.lock_unpoisoned()
    }

    pub(super) fn get(&self, key: &str) -> Option<StateValue> {
        let mut values = self.values();
        let entry = values.entries.get(key)?;
        if entry.expires.is_some_and(|expires| Instant::now() >= expires) {
            values.delete(key);
            return None;
        }
        Some(entry.value.clone())
    }

    pub(super) fn set(&self, key: String, value: StateValue, ttl: Option<Duration>) -> Result<(), Error> {
        if key.len() > KEY_BYTES_MAX {
            let length = key.len();
            let message = format!("the key has {length} bytes; at most {KEY_BYTES_MAX} are allowed");
            return Err(Error::new(Kind::TooLarge, message));
        }
        let size = match &value {
            StateValue::Bytes(data) => data.len(),
            StateValue::Tensors(tensors) => {
                let bytes = |tensor: &Tensor| ENTRY_BYTES + tensor.name().len() + tensor.allocation().bytes;
                tensors.iter().map(bytes).sum()
            }
        };
        let bytes = ENTRY_BYTES + key.len() + size;
        let mut values = self.values();
        if bytes > values.bytes_max {
            let kb = values.bytes_max >> 10;
            let message =
                format!("the value for \"{key}\" has {size} bytes and does not fit into state_kb = {kb}");
            return Err(Error::new(Kind::TooLarge, message));
        }
        values.delete(&key);
        values.make_room(bytes);
        values.change(bytes as isize);
        let expires = ttl.map(|ttl| Instant::now() + ttl);
        values.entries.put(key.into(), StateEntry { value, bytes, expires });
        Ok(())
    }

    pub(super) fn delete(&self, key: &str) -> bool {
        self.values().delete(key)
    }

    /// Returns a counter, and creates it if needed. `None` if there are too many already.
    pub(super) fn counter(&self, name: &str) -> Option<Arc<AtomicI64>> {
        let known = |counters: &HashMap<Box<str>, Arc<AtomicI64>>| counters.get(name).map(Arc::clone);
        if let Some(counter) = known(&self.counters.read_unpoisoned()) {
            return Some(counter);
        }
        let mut counters = self.counters.write_unpoisoned();
        if let Some(counter) = known(&counters) {
            return Some(counter);
        }
        (counters.len() < COUNTERS_MAX).then(|| Arc::clone(counters.entry(name.into()).or_default()))
    }
}

impl Values {
    fn delete(&mut self, key: &str) -> bool {
        let entry = self.entries.pop(key);
        self.change(-(entry.as_ref().map_or(0, |entry| entry.bytes) as isize));
        entry.is_some()
    }

    fn change(&mut self, bytes: isize) {
        self.bytes = self.bytes.saturating_add_signed(bytes);
        self.gauge.set(self.bytes as i64);
    }

    /// Evicts the least recently used values until `bytes` more fit.
    fn make_room(&mut self, bytes: usize) {
        while self.bytes + bytes > self.bytes_max
            && let Some((_, entry)) = self.entries.pop_lru()
        {
            self.change(-(entry.bytes as isize));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predict::{Allocation, Datatype};
    use smallvec::smallvec;
    use std::sync::atomic::Ordering;

    fn state() -> PluginState {
        PluginState::new(IntGauge::new("state_bytes", "For a test.").unwrap())
    }

    fn bytes(length: usize) -> StateValue {
        StateValue::Bytes(vec![0; length].into())
    }

    #[test]
    fn values_are_bounded_and_the_longest_unused_goes_first() {
        let state = state();
        state.set_bound(4096);
        for key in ["a", "b", "c"] {
            state.set(key.into(), bytes(1000), None).unwrap();
        }
        assert!(state.get("a").is_some(), "used again");
        state.set("d".into(), bytes(1000), None).unwrap();
        assert!(state.get("b").is_none() && state.get("a").is_some() && state.get("d").is_some());
        assert_eq!(state.set("e".into(), bytes(5000), None).unwrap_err().kind(), Kind::TooLarge);
        assert!(state.delete("a") && !state.delete("a"));
        state.set_bound(0);
        let values = state.values();
        assert_eq!((values.bytes, values.entries.len(), values.gauge.get()), (0, 0, 0));
    }

    #[test]
    fn tensors_count_with_all_that_they_keep_alive_and_with_their_names() {
        let state = state();
        state.set_bound(1 << 20);
        let body = Bytes::from(vec![0; 400 << 10]);
        let part = |name: &str| {
            let tensor = Tensor::new(name, Datatype::Int8, smallvec![5], body.slice(..5)).unwrap();
            StateValue::Tensors(vec![tensor.part_of(Allocation::of(&body))])
        };
        for key in ["a", "b", "c"] {
            state.set(key.into(), part("x"), None).unwrap();
        }
        assert!(state.get("a").is_none() && state.get("c").is_some(), "two bodies of 400 KiB fit in 1 MiB");
        let error = state.set("d".into(), part(&"x".repeat(1 << 20)), None).unwrap_err();
        assert_eq!(error.kind(), Kind::TooLarge);
    }

    #[test]
    fn values_expire() {
        let state = state();
        state.set_bound(4096);
        state.set("now".into(), bytes(1), Some(Duration::ZERO)).unwrap();
        state.set("later".into(), bytes(1), Some(Duration::from_secs(1000))).unwrap();
        assert!(state.get("now").is_none() && state.get("later").is_some());
    }

    #[test]
    fn counters_are_shared_and_bounded() {
        let state = state();
        state.counter("a").unwrap().fetch_add(3, Ordering::Relaxed);
        assert_eq!(state.counter("a").unwrap().load(Ordering::Relaxed), 3);
        assert!((1..COUNTERS_MAX).all(|index| state.counter(&index.to_string()).is_some()));
        assert!(state.counter("one too many").is_none());
    }
}
