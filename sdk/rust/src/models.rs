//! Access to models other than the requested one, from every role except `streaming-model`, which
//! has `concurrent::model`.

use crate::bindings::executor::models;
use crate::{Callable, Error, faults};
use std::panic::Location;

/// Returns the model as the policy of this request has it. Without a version, returns the only
/// version or the one that the routing rule chooses for this request. `not-found` if it has no such
/// model.
#[track_caller]
pub fn get(model: &str, version: Option<&str>) -> Result<Callable, Error> {
    let place = Location::caller();
    models::get(model, version).map(Callable::new).map_err(|error| faults::at(place, error))
}
