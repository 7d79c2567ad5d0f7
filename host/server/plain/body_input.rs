//! The body of `/predict/{model}` as the input of a model: a JPEG, a text, a JSON record, or the
//! bytes of a tensor.

use super::request::{self, UNREADABLE};
use crate::error::{Error, Result};
use crate::offload;
use crate::policy::Route;
use crate::predict::{Datatype, JsonText, MemoryBudget, Payload};
use crate::router;
use crate::server::http;
use bytes::Bytes;
use serde_json::value::RawValue;
use std::sync::Arc;

/// What a body is, by its content type and the model.
enum BodyKind {
    Json,
    /// JSON if it is a list or an object, else bytes.
    Untyped,
    Bytes,
}

/// Reads the input of a model, on another thread if the body is large.
pub(super) async fn read(
    route: &Arc<Route>,
    content_type: String,
    body: Bytes,
    mut budget: MemoryBudget,
) -> Result<Payload> {
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_json = media_type == "application/json" || media_type.ends_with("+json");
    if route.transformer.is_some() && !is_json {
        let content_type =
            if content_type.is_empty() { "application/octet-stream".to_owned() } else { content_type };
        return Ok(Payload::Bytes { content_type, data: body });
    }
    let is_bytes = matches!(&*media_type, "" | "application/octet-stream");
    let kind = if is_json { BodyKind::Json } else { kind(route, &media_type) };
    let route = Arc::clone(route);
    offload::run(body.len(), move || {
        let is_json = match kind {
            BodyKind::Json => true,
            BodyKind::Bytes => false,
            BodyKind::Untyped => is_list_or_object(&body),
        };
        if is_json {
            return router::input(&route, parse(&body)?, &mut budget);
        }
        match route.metadata().only_input() {
            Some(spec) => router::raw_input(&route, spec, body).map_err(|error| match is_bytes {
                true => error,
                false => other_type(&route, &error),
            }),
            None => Err(Error::unsupported(format!(
                "model \"{}\" requires {} inputs, so they must be JSON (content-type: application/json)",
                route.name,
                route.metadata().inputs.iter().filter(|spec| !spec.optional).count()
            ))),
        }
    })
    .await
}

/// Returns what a body of this type is for a model without a transformer. Types that programs set
/// by themselves do not say that the body is bytes.
fn kind(route: &Route, media_type: &str) -> BodyKind {
    let input = route.metadata().only_input();
    let is_text = input.is_some_and(|spec| spec.datatype == Datatype::Bytes);
    match media_type {
        "" if !is_text => BodyKind::Untyped,
        "application/x-www-form-urlencoded" | "text/plain" if !is_text => BodyKind::Json,
        _ => BodyKind::Bytes,
    }
}

/// Returns the error for a body of some other type, such as a picture, that is not a tensor.
fn other_type(route: &Route, error: &Error) -> Error {
    Error::unsupported(format!(
        "model \"{}\" has no transformer, so its input must be JSON (content-type: application/json) or the bytes of its \
         only required input: {error}",
        route.name
    ))
}

fn is_list_or_object(body: &Bytes) -> bool {
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    matches!(first, Some(b'[' | b'{')) && JsonText::parse(body.clone()).is_ok()
}

fn parse(body: &Bytes) -> Result<JsonText> {
    let value: &RawValue = http::parse_json(body, UNREADABLE)?;
    Ok(request::json_part(body, value))
}
