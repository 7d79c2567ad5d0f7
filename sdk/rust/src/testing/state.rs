//! The state of a plugin: values with a bound, and counters.

use super::data::HostData;
use crate::bindings::types::copies;
use crate::{Error, Tensor};
use std::collections::BTreeMap;
use std::time::Duration;

/// What an entry costs besides its key and value.
const ENTRY_BYTES: usize = 128;
const KEY_BYTES_MAX: usize = 1024;
const COUNTERS_MAX: usize = 1000;
/// `state_kb` of a manifest that does not set it.
const KB_DEFAULT: usize = 1024;

pub(crate) enum StateValue {
    Bytes(Vec<u8>),
    Tensors(Vec<Tensor>),
}

impl StateValue {
    fn copy(&self) -> StateValue {
        match self {
            StateValue::Bytes(data) => StateValue::Bytes(data.clone()),
            StateValue::Tensors(tensors) => StateValue::Tensors(copies(tensors)),
        }
    }
}

struct Entry {
    value: StateValue,
    bytes: usize,
    expires: Option<Duration>,
    used: u64,
}

pub(crate) struct State {
    entries: BTreeMap<String, Entry>,
    counters: BTreeMap<String, i64>,
    pub bytes_max: usize,
    /// Counts uses, to find the entry that was used least recently.
    uses: u64,
}

impl Default for State {
    fn default() -> Self {
        State { entries: BTreeMap::new(), counters: BTreeMap::new(), bytes_max: KB_DEFAULT << 10, uses: 0 }
    }
}

impl HostData {
    pub fn state_value(&mut self, key: &str) -> Option<StateValue> {
        let now = self.timers.now;
        self.state.get(key, now)
    }

    pub fn set_state(&mut self, key: &str, value: StateValue, ttl: Option<Duration>) -> Result<(), Error> {
        let expires = ttl.map(|ttl| self.timers.now.saturating_add(ttl));
        self.state.set(key, value, expires)
    }
}

impl State {
    fn get(&mut self, key: &str, now: Duration) -> Option<StateValue> {
        self.uses += 1;
        let entry = self.entries.get_mut(key)?;
        if entry.expires.is_some_and(|expires| now >= expires) {
            self.entries.remove(key);
            return None;
        }
        entry.used = self.uses;
        Some(entry.value.copy())
    }

    fn set(&mut self, key: &str, value: StateValue, expires: Option<Duration>) -> Result<(), Error> {
        if key.len() > KEY_BYTES_MAX {
            let length = key.len();
            let message = format!("the key has {length} bytes; at most {KEY_BYTES_MAX} are allowed");
            return Err(Error::too_large(message));
        }
        let size = match &value {
            StateValue::Bytes(data) => data.len(),
            StateValue::Tensors(tensors) => {
                tensors.iter().map(|tensor| ENTRY_BYTES + tensor.name.len() + tensor.data.len()).sum()
            }
        };
        let bytes = ENTRY_BYTES + key.len() + size;
        if bytes > self.bytes_max {
            let kb = self.bytes_max >> 10;
            let message =
                format!("the value for \"{key}\" has {size} bytes and does not fit into state_kb = {kb}");
            return Err(Error::too_large(message));
        }
        self.entries.remove(key);
        while self.entries.values().map(|entry| entry.bytes).sum::<usize>() + bytes > self.bytes_max {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used);
            let oldest = oldest.map(|(key, _)| key.clone()).expect("invariant: an empty state has room");
            self.entries.remove(&oldest);
        }
        self.uses += 1;
        self.entries.insert(key.into(), Entry { value, bytes, expires, used: self.uses });
        Ok(())
    }

    pub fn delete(&mut self, key: &str) -> bool {
        self.entries.remove(key).is_some()
    }

    pub fn counter(&mut self, name: &str) -> &mut i64 {
        let length = name.len();
        assert!(
            length <= KEY_BYTES_MAX,
            "the name of a counter has {length} bytes; at most {KEY_BYTES_MAX} are allowed"
        );
        let is_full = self.counters.len() >= COUNTERS_MAX && !self.counters.contains_key(name);
        assert!(!is_full, "exceeded {COUNTERS_MAX} counters in its state");
        self.counters.entry(name.into()).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Host, current_time};

    #[test]
    fn the_clock_of_the_host_decides_what_has_expired() {
        let host = Host::new();
        crate::state::set("k", b"v", Some(Duration::from_millis(10))).unwrap();
        host.advance(Duration::from_millis(9));
        assert_eq!(crate::state::get("k"), Some(b"v".to_vec()));
        host.advance(Duration::from_millis(1));
        assert_eq!((crate::state::get("k"), current_time().as_millis()), (None, 10));
    }
}
