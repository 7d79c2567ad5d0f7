//! The interface `state`.

use super::types::{Error, Tensor, copies};
use crate::testing::{StateValue, with_host};
use std::time::Duration;

pub fn get(key: &str) -> Option<Vec<u8>> {
    match with_host("state", |host| host.state_value(key))? {
        StateValue::Bytes(data) => Some(data),
        StateValue::Tensors(_) => None,
    }
}

pub fn set(key: &str, value: &[u8], ttl_ms: Option<u64>) -> Result<(), Error> {
    let value = StateValue::Bytes(value.to_vec());
    with_host("state", |host| host.set_state(key, value, ttl_ms.map(Duration::from_millis)))
}

pub fn get_tensors(key: &str) -> Option<Vec<Tensor>> {
    match with_host("state", |host| host.state_value(key))? {
        StateValue::Tensors(tensors) => Some(tensors),
        StateValue::Bytes(_) => None,
    }
}

pub fn set_tensors(key: &str, tensors: &[&Tensor], ttl_ms: Option<u64>) -> Result<(), Error> {
    let value = StateValue::Tensors(copies(tensors.iter().copied()));
    with_host("state", |host| host.set_state(key, value, ttl_ms.map(Duration::from_millis)))
}

pub fn delete(key: &str) -> bool {
    with_host("state", |host| host.state.delete(key))
}

pub fn add(counter: &str, delta: i64) -> i64 {
    with_host("state", |host| {
        let value = host.state.counter(counter);
        *value = value.saturating_add(delta);
        *value
    })
}

pub fn compare_exchange(counter: &str, expected: i64, new: i64) -> Result<(), i64> {
    with_host("state", |host| {
        let value = host.state.counter(counter);
        if *value != expected {
            return Err(*value);
        }
        *value = new;
        Ok(())
    })
}
