//! The interface `assets`.

use super::types::Error;
use crate::testing::with_host;

pub fn names() -> Vec<String> {
    with_host("assets", |host| host.assets.keys().cloned().collect())
}

pub fn size(name: &str) -> Result<u64, Error> {
    with_host("assets", |host| host.asset(name).map(|data| data.len() as u64))
}

pub fn read(name: &str, offset: u64, length: u64) -> Result<Vec<u8>, Error> {
    with_host("assets", |host| host.asset(name).map(|data| range(data, offset, length)))
}

/// Returns `length` bytes from `offset`, or as many as there are.
pub(super) fn range(data: &[u8], offset: u64, length: u64) -> Vec<u8> {
    let end = data.len() as u64;
    let from = offset.min(end);
    let to = from.saturating_add(length).min(end);
    data[from as usize..to as usize].to_vec()
}
