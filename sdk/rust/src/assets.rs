//! The read-only files that the manifest lists for this plugin under `[plugins.<name>.assets]`.

use crate::bindings::assets;
use crate::{Error, faults};
use std::panic::Location;

/// Reads the whole asset. A missing asset is the operator's fault, not the caller's, so the error
/// is `failed`.
#[track_caller]
pub fn read(name: &str) -> Result<Vec<u8>, Error> {
    let place = Location::caller();
    assets::size(name)
        .and_then(|size| assets::read(name, 0, size))
        .map_err(|error| failed(name, place, error))
}

/// Reads `length` bytes from `offset`, or fewer if the asset ends before.
#[track_caller]
pub fn read_range(name: &str, offset: u64, length: u64) -> Result<Vec<u8>, Error> {
    let place = Location::caller();
    assets::read(name, offset, length).map_err(|error| failed(name, place, error))
}

/// Returns the names of the assets in the manifest.
pub fn names() -> Vec<String> {
    assets::names()
}

fn failed(name: &str, place: &'static Location<'static>, error: Error) -> Error {
    faults::at(place, Error::failed(format!("asset \"{name}\": {}", error.message)))
}
