//! The interface `models`.

use super::callables::Callable;
use super::types::Error;
use crate::testing::with_host;

pub fn get(model: &str, version: Option<&str>) -> Result<Callable, Error> {
    with_host("models::get", |host| host.model(model, version)).map(Callable)
}
