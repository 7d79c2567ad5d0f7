//! The interface `state`: what a plugin keeps across requests, instances, traps and reloads.

use crate::plugin::bindings::{state, types};
use crate::plugin::plugin_state::{COUNTERS_MAX, KEY_BYTES_MAX, StateValue};
use crate::plugin::store_data::StoreData;
use crate::predict::{Origin, Tensor};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use wasmtime::component::Resource;

type Trappable<T> = wasmtime::Result<T>;

/// Converts a time to live. It is capped at one year, which is as good as forever here.
fn ttl(ms: Option<u64>) -> Option<Duration> {
    ms.map(|ms| Duration::from_millis(ms.min(365 * 24 * 3600 * 1000)))
}

impl StoreData {
    fn state_counter(&self, name: &str) -> Trappable<Arc<AtomicI64>> {
        if name.len() > KEY_BYTES_MAX {
            wasmtime::bail!(
                "the name of a counter has {} bytes; at most {KEY_BYTES_MAX} are allowed",
                name.len()
            );
        }
        let state = &self.spec.state;
        state
            .counter(name)
            .ok_or_else(|| wasmtime::format_err!("exceeded {COUNTERS_MAX} counters in its state"))
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
        Ok(set.map_err(|error| self.give_error(error)))
    }

    fn get_tensors(&mut self, key: String) -> Trappable<Option<Vec<Resource<Tensor>>>> {
        let Some(StateValue::Tensors(tensors)) = self.spec.state.get(&key) else { return Ok(None) };
        // The tensors come from another request, not from this caller. What a model has made is
        // still the model's.
        let origin = self.origin();
        let own = |tensor: Tensor| match tensor.origin() {
            Origin::Model => tensor,
            _ => tensor.made_by(origin.clone()),
        };
        let tensors = tensors.into_iter().map(own).collect();
        // The contract has no error here, so a guest that would hold too much is stopped.
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
        // A stored tensor must not keep alive the request body that it is a part of.
        let tensors = tensors.into_iter().map(|tensor| tensor.detached().unwrap_or(tensor)).collect();
        let set = self.spec.state.set(key, StateValue::Tensors(tensors), ttl(ttl_ms));
        Ok(set.map_err(|error| self.give_error(error)))
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
