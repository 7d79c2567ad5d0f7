//! The body of `/predict/{model}` as the input of a model: a JPEG, a text, a JSON record, or the
//! bytes of a tensor.

use super::request::{self, UNREADABLE};
use crate::error::Result;
use crate::offload;
use crate::policy::{Route, route_input};
use crate::predict::{Datatype, JsonText, MemoryBudget, Payload};
use crate::server::http;
use bytes::Bytes;
use serde_json::value::RawValue;
use std::sync::Arc;

/// What a body is, by its content type and the model.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BodyKind {
    Json,
    /// JSON if it is a list or an object, else bytes.
    Untyped,
    Bytes,
}

/// Returns the model and the version that a segment of a path names: `name` or `name:version`.
pub(super) fn model(segment: &str) -> Result<(String, Option<String>)> {
    let name = http::decode_segment(segment)?;
    Ok(match name.split_once(':') {
        Some((model, version)) => (model.to_owned(), Some(version.to_owned())),
        None => (name, None),
    })
}

/// Reads the input of a model, on another thread if the body is large.
pub(super) async fn read(
    route: &Arc<Route>,
    content_type: String,
    body: Bytes,
    mut budget: MemoryBudget,
) -> Result<Payload> {
    let kind = BodyKind::of(route, &content_type);
    if route.transformer.is_some() && kind == BodyKind::Bytes {
        return route_input::body_input(route, named(content_type), body);
    }
    let route = Arc::clone(route);
    offload::run(body.len(), move || {
        route_input::stored_input(&route, payload(kind, content_type, body)?, &mut budget)
    })
    .await
}

/// Reads a body as it is kept for a job: as JSON text or as bytes.
pub(super) async fn read_unconverted(route: &Route, content_type: String, body: Bytes) -> Result<Payload> {
    let kind = BodyKind::of(route, &content_type);
    offload::run(body.len(), move || payload(kind, content_type, body)).await
}

fn payload(kind: BodyKind, content_type: String, body: Bytes) -> Result<Payload> {
    let is_json = match kind {
        BodyKind::Json => true,
        BodyKind::Bytes => false,
        BodyKind::Untyped => is_list_or_object(&body),
    };
    match is_json {
        true => parse(&body).map(Payload::Json),
        false => Ok(Payload::Bytes { content_type: named(content_type), data: body }),
    }
}

/// Returns the content type, or that of bytes if the client has sent none.
fn named(content_type: String) -> String {
    if content_type.is_empty() { "application/octet-stream".to_owned() } else { content_type }
}

impl BodyKind {
    /// Returns what a body of this type is for a model. For a model without a transformer, types
    /// that programs set by themselves do not say that the body is bytes.
    fn of(route: &Route, content_type: &str) -> BodyKind {
        let media_type = route_input::media_type(content_type);
        if media_type == "application/json" || media_type.ends_with("+json") {
            return BodyKind::Json;
        }
        let input = route.metadata().only_input();
        let is_text = input.is_some_and(|spec| spec.datatype == Datatype::Bytes);
        match &*media_type {
            _ if route.transformer.is_some() => BodyKind::Bytes,
            "" if !is_text => BodyKind::Untyped,
            "application/x-www-form-urlencoded" | "text/plain" if !is_text => BodyKind::Json,
            _ => BodyKind::Bytes,
        }
    }
}

fn is_list_or_object(body: &Bytes) -> bool {
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    matches!(first, Some(b'[' | b'{')) && JsonText::parse(body.clone()).is_ok()
}

fn parse(body: &Bytes) -> Result<JsonText> {
    let value: &RawValue = http::parse_json(body, UNREADABLE)?;
    Ok(request::json_part(body, value))
}
