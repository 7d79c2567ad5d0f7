//! Replies of the plain interface: an envelope that names the model and the request, with one
//! result or those of a batch.

use crate::error::{Error, Result};
use crate::offload;
use crate::policy::Route;
use crate::predict::{self, Payload};
use crate::router::RequestScope;
use crate::server::http::{self, Reply};
use hyper::StatusCode;

/// Returns `{"model", "version", "id", "result"}`.
pub(super) async fn single_reply(scope: &RequestScope, route: &Route, payload: Payload) -> Result<Reply> {
    let mut body = open_envelope(scope, route);
    body.extend_from_slice(b",\"result\":");
    let body = offload::run(payload.json_bytes(), move || {
        predict::encode_result(&payload, &mut body).map(|()| {
            body.push(b'}');
            body
        })
    });
    Ok(http::json(StatusCode::OK, body.await?))
}

fn open_envelope(scope: &RequestScope, route: &Route) -> Vec<u8> {
    let mut body = Vec::with_capacity(256);
    for (before, value) in [
        (&b"{\"model\":"[..], &*route.name.name),
        (b",\"version\":", &route.name.version),
        (b",\"id\":", scope.id()),
    ] {
        body.extend_from_slice(before);
        serde_json::to_writer(&mut body, value).expect("invariant: writing to memory");
    }
    body
}

/// Returns the results in the order of the items, `null` for an item with an error, and the errors.
pub(super) async fn batch_reply(scope: &RequestScope, route: &Route, answers: Vec<Result<Payload>>) -> Reply {
    let body = open_envelope(scope, route);
    let bytes = answers.iter().flatten().map(Payload::json_bytes).sum();
    let (body, errors) = offload::run(bytes, move || encode_batch(body, answers)).await;
    errors.iter().for_each(|error| scope.count_error(error));
    http::json(StatusCode::OK, body)
}

/// Appends results and errors to `body`, and returns the errors, which the caller counts.
fn encode_batch(mut body: Vec<u8>, answers: Vec<Result<Payload>>) -> (Vec<u8>, Vec<Error>) {
    let (mut entries, mut errors) = (Vec::new(), Vec::new());
    body.extend_from_slice(b",\"results\":[");
    for (index, answer) in answers.into_iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        let start = body.len();
        let Err(error) = answer.and_then(|payload| predict::encode_result(&payload, &mut body)) else {
            continue;
        };
        // Removes the part of the result that was written before encoding failed.
        body.truncate(start);
        body.extend_from_slice(b"null");
        let mut entry = serde_json::json!({
            "index": index,
            "kind": error.kind().as_str(),
            "message": error.message(),
        });
        if let Some(step) = error.step_name() {
            entry["step"] = step.into();
        }
        if let Some(field) = error.field_name() {
            entry["field"] = field.into();
        }
        entries.push(entry);
        errors.push(error);
    }
    body.extend_from_slice(b"],\"errors\":");
    serde_json::to_writer(&mut body, &entries).expect("invariant: writing to memory");
    body.push(b'}');
    (body, errors)
}
