//! Errors in the form of the Open Inference Protocol over HTTP.

use crate::error::{Error, Kind};
use crate::server::http::{self, Reply};
use bytes::Bytes;
use hyper::StatusCode;
use serde_json::{Value, json};

/// Maps an error kind to a status of the Open Inference Protocol, as its other servers do.
pub(in crate::server) fn status_of(error: &Error) -> StatusCode {
    match error.kind() {
        Kind::NotFound => StatusCode::NOT_FOUND,
        // The caller has sent too much, not all callers together.
        Kind::Overloaded if error.when_to_retry().is_some() => StatusCode::TOO_MANY_REQUESTS,
        Kind::Overloaded | Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => http::status_of(error),
    }
}

/// Returns the content of an error.
pub(super) fn error_json(error: &Error) -> Value {
    json!({"error": error.message()})
}

pub(in crate::server) fn error_reply(error: &Error) -> Reply {
    let mut reply = http::json_of(status_of(error), &error_json(error));
    http::add_hints(&mut reply, error);
    reply
}

/// Returns the reply to a request for an existing path with a method that it does not have.
pub(super) fn method_not_allowed(allow: &'static str) -> Reply {
    let text = json!({"error": format!("this path takes {allow} only")}).to_string();
    let mut reply = http::method_not_allowed(allow);
    *reply.body_mut() = Bytes::from(text).into();
    reply
}

/// Returns the reply to a request for a path that does not exist.
pub(in crate::server) fn no_such_path(path: &str) -> Reply {
    let path: String = path.chars().take(200).collect();
    error_reply(&Error::not_found(format!("no route {path}")))
}
