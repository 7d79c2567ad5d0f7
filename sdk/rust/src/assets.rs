//! The read-only files that the manifest gives this plugin under `[plugins.<name>.assets]`.

use crate::Error;
use crate::bindings::assets;

/// The whole asset. One that is not there is the operator's fault and not the caller's: `failed`.
pub fn read(name: &str) -> Result<Vec<u8>, Error> {
    assets::size(name).and_then(|size| assets::read(name, 0, size)).map_err(|error| failed(name, error))
}

/// A part of the asset: bytes from `offset`, fewer than `length` at its end.
pub fn read_range(name: &str, offset: u64, length: u64) -> Result<Vec<u8>, Error> {
    assets::read(name, offset, length).map_err(|error| failed(name, error))
}

/// The names that the manifest gives.
pub fn names() -> Vec<String> {
    assets::names()
}

fn failed(name: &str, error: Error) -> Error {
    Error::failed(format!("asset \"{name}\": {}", error.message))
}
