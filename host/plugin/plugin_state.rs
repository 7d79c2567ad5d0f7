//! What a plugin remembers across requests, instances, traps and swaps: the interface `state`.
//!
//! One memory for each plugin of the manifest, shared by all its instances and generations. Values are
//! bounded in bytes and forgotten in the order of their last use; counters are few and stay.

use super::bindings::{state, types};
use super::store_data::StoreData;
use crate::error::{Error, Kind};
use crate::predict::Tensor;
use bytes::Bytes;
use lru::LruCache;
use prometheus::IntGauge;
use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};
use wasmtime::component::Resource;

const COUNTERS_MAX: usize = 1000;

/// What an entry costs besides its key and value.
const ENTRY_BYTES: usize = 128;

const KEY_BYTES_MAX: usize = 1024;

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
enum StateValue {
    Bytes(Bytes),
    Tensors(Vec<Tensor>),
}

impl PluginState {
    /// An empty one with room for nothing; `gauge` shows how many bytes its values have.
    pub fn new(gauge: IntGauge) -> Self {
        let values = Values { entries: LruCache::unbounded(), bytes: 0, bytes_max: 0, gauge };
        PluginState { values: Mutex::new(values), counters: RwLock::default() }
    }

    /// Values over a smaller bound are forgotten at once.
    pub fn set_bound(&self, bytes_max: usize) {
        let mut values = self.values();
        values.bytes_max = bytes_max;
        values.make_room(0);
    }

    fn values(&self) -> std::sync::MutexGuard<'_, Values> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, key: &str) -> Option<StateValue> {
        let mut values = self.values();
        let entry = values.entries.get(key)?;
        if entry.expires.is_some_and(|expires| Instant::now() >= expires) {
            values.delete(key);
            return None;
        }
        Some(entry.value.clone())
    }

    fn set(&self, key: String, value: StateValue, ttl: Option<Duration>) -> Result<(), Error> {
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
            let message = format!("the value for \"{key}\" has {size} bytes and state_kb is {kb}");
            return Err(Error::new(Kind::TooLarge, message));
        }
        values.delete(&key);
        values.make_room(bytes);
        values.change(bytes as isize);
        let expires = ttl.map(|ttl| Instant::now() + ttl);
        values.entries.put(key.into(), StateEntry { value, bytes, expires });
        Ok(())
    }

    fn delete(&self, key: &str) -> bool {
        self.values().delete(key)
    }

    /// None if there are too many already.
    fn counter(&self, name: &str) -> Option<Arc<AtomicI64>> {
        let known = |counters: &HashMap<Box<str>, Arc<AtomicI64>>| counters.get(name).map(Arc::clone);
        if let Some(counter) = known(&self.counters.read().unwrap_or_else(PoisonError::into_inner)) {
            return Some(counter);
        }
        let mut counters = self.counters.write().unwrap_or_else(PoisonError::into_inner);
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

    /// Forgets what was used longest ago until `bytes` more fit.
    fn make_room(&mut self, bytes: usize) {
        while self.bytes + bytes > self.bytes_max
            && let Some((_, entry)) = self.entries.pop_lru()
        {
            self.change(-(entry.bytes as isize));
        }
    }
}

type Trappable<T> = wasmtime::Result<T>;

/// A year is for ever here.
fn ttl(ms: Option<u64>) -> Option<Duration> {
    ms.map(|ms| Duration::from_millis(ms.min(365 * 24 * 3600 * 1000)))
}

impl StoreData {
    fn state_counter(&self, name: &str) -> Trappable<Arc<AtomicI64>> {
        if name.len() > KEY_BYTES_MAX {
            wasmtime::bail!("named a counter with {} bytes; at most {KEY_BYTES_MAX} are allowed", name.len());
        }
        let state = &self.spec.state;
        state
            .counter(name)
            .ok_or_else(|| wasmtime::format_err!("wanted more than {COUNTERS_MAX} counters in its state"))
    }
}

impl state::Host for StoreData {
    fn get(&mut self, key: String) -> Trappable<Option<Vec<u8>>> {
        Ok(match self.spec.state.get(&key) {
            Some(StateValue::Bytes(data)) => Some(data.to_vec()),
            _ => None,
        })
    }

    fn set(
        &mut self,
        key: String,
        value: Vec<u8>,
        ttl_ms: Option<u64>,
    ) -> Trappable<Result<(), types::Error>> {
        self.spend(key.len() + value.len())?;
        let set = self.spec.state.set(key, StateValue::Bytes(value.into()), ttl(ttl_ms));
        Ok(set.map_err(|error| self.hand(error)))
    }

    fn get_tensors(&mut self, key: String) -> Trappable<Option<Vec<Resource<Tensor>>>> {
        let Some(StateValue::Tensors(tensors)) = self.spec.state.get(&key) else { return Ok(None) };
        // They are of another request: not what this caller has sent.
        let origin = self.origin();
        let tensors = tensors.into_iter().map(|tensor| tensor.made_by(origin.clone())).collect();
        // There is no word for an error here: a guest that would hold too much is stopped.
        Ok(Some(self.handles.push_all(tensors)??))
    }

    fn set_tensors(
        &mut self,
        key: String,
        tensors: Vec<Resource<Tensor>>,
        ttl_ms: Option<u64>,
    ) -> Trappable<Result<(), types::Error>> {
        self.spend(key.len())?;
        let tensors = self.borrowed(&tensors)?;
        // What is kept must not keep the body of a request that it is a part of.
        let tensors = tensors.into_iter().map(|tensor| tensor.detached().unwrap_or(tensor)).collect();
        let set = self.spec.state.set(key, StateValue::Tensors(tensors), ttl(ttl_ms));
        Ok(set.map_err(|error| self.hand(error)))
    }

    fn delete(&mut self, key: String) -> Trappable<bool> {
        Ok(self.spec.state.delete(&key))
    }

    fn add(&mut self, counter: String, delta: i64) -> Trappable<i64> {
        let counter = self.state_counter(&counter)?;
        let add = |value: i64| Some(value.saturating_add(delta));
        let before = counter
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, add)
            .expect("invariant: the update always gives a value");
        Ok(before.saturating_add(delta))
    }

    fn compare_exchange(&mut self, counter: String, expected: i64, new: i64) -> Trappable<Result<(), i64>> {
        let counter = self.state_counter(&counter)?;
        Ok(counter.compare_exchange(expected, new, Ordering::AcqRel, Ordering::Acquire).map(drop))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predict::{Allocation, Datatype};
    use smallvec::smallvec;

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
