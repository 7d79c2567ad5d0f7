//! Converts what a caller sent to the input of a model: JSON, the bytes of a body, or tensors.

use super::route::Route;
use crate::error::{Error, Result};
use crate::predict::{self, JsonText, MemoryBudget, Payload, TensorSpec};
use bytes::Bytes;

/// Converts JSON to a model's input: unchanged for a transformer, as tensors without one.
pub fn json_input(route: &Route, text: JsonText, budget: &mut MemoryBudget) -> Result<Payload> {
    route.check_available()?;
    if route.transformer.is_some() {
        return Ok(Payload::Json(text));
    }
    let inputs = predict::decode_inputs(&text, route.callable.metadata(), budget);
    inputs.map(Payload::Tensors).map_err(|error| error.model(route.name.to_string()))
}

/// Returns the media type of a content type, in lower case and without parameters.
pub fn media_type(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn raw_input(route: &Route, spec: &TensorSpec, body: Bytes) -> Result<Payload> {
    // Without batching, the first dimension is not one of rows.
    let input = predict::raw_input(spec, route.batching.is_some(), body);
    input.map(|tensor| Payload::Tensors(vec![tensor])).map_err(|error| error.model(route.name.to_string()))
}

/// Converts an input that was kept: as JSON, as the body of a request, or as tensors.
pub fn stored_input(route: &Route, input: Payload, budget: &mut MemoryBudget) -> Result<Payload> {
    match input {
        Payload::Json(text) => json_input(route, text, budget),
        Payload::Bytes { content_type, data } => body_input(route, content_type, data),
        Payload::Tensors(tensors) => {
            route.check_available()?;
            predict::check_inputs(route.metadata(), &tensors)
                .map_err(|error| error.model(route.name.to_string()))?;
            Ok(Payload::Tensors(tensors))
        }
    }
}

/// Converts the bytes of a body to a model's input: unchanged for a transformer; for a model
/// without one, to the only tensor that it requires.
pub fn body_input(route: &Route, content_type: String, data: Bytes) -> Result<Payload> {
    route.check_available()?;
    if route.transformer.is_some() {
        return Ok(Payload::Bytes { content_type, data });
    }
    match route.metadata().only_input() {
        Some(spec) => raw_input(route, spec, data).map_err(|error| match &*media_type(&content_type) {
            "" | "application/octet-stream" => error,
            // The body is of some other type, such as a picture.
            _ => Error::unsupported(format!(
                "model \"{}\" has no transformer, so its input must be JSON (content-type: application/json) or the bytes \
                 of its only required input: {error}",
                route.name
            )),
        }),
        None => Err(Error::unsupported(format!(
            "model \"{}\" requires {} inputs, so they must be JSON (content-type: application/json)",
            route.name,
            route.metadata().inputs.iter().filter(|spec| !spec.optional).count()
        ))),
    }
}
