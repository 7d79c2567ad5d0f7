//! Calling other models than the one that was asked for, from any role but `streaming-model`, which has
//! `concurrent::model`.

use crate::bindings::executor::models;
use crate::{Callable, Error};

/// The model as the policy of this request has it; without a version the only one, or what the routing
/// rule gives this request. `not-found` if there is none.
pub fn get(model: &str, version: Option<&str>) -> Result<Callable, Error> {
    models::get(model, version).map(Callable::new)
}
