//! Errors in the form of the plain interface, and replies to requests that no route takes.

use super::reply::{Reply, empty, json, json_of};
use crate::error::{Error, Kind, Quota};
use hyper::header::{ACCEPT_ENCODING, ALLOW, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Method, StatusCode};
use std::time::Duration;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The field of an error about a body that did not arrive.
pub(super) const BODY: &str = "body";

/// The field of an error about a body that is encoded in a way that the host does not know.
pub(super) const ENCODED: &str = "content-encoding";

/// Maps an error kind to a status of the plain interface. This is the only place that does.
pub fn status_of(error: &Error) -> StatusCode {
    match error.kind() {
        Kind::InvalidInput => StatusCode::BAD_REQUEST,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Unsupported if error.field_name() == Some(ENCODED) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Kind::Unsupported => StatusCode::NOT_IMPLEMENTED,
        Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Kind::Overloaded => StatusCode::TOO_MANY_REQUESTS,
        Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        // The client was late, not the work.
        Kind::Deadline if error.field_name() == Some(BODY) => StatusCode::REQUEST_TIMEOUT,
        Kind::Deadline => StatusCode::GATEWAY_TIMEOUT,
        Kind::Cancelled => StatusCode::from_u16(499).expect("invariant: a three-digit code"),
        Kind::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        Kind::Conflict => StatusCode::CONFLICT,
        Kind::Forbidden => StatusCode::FORBIDDEN,
        Kind::Unauthenticated => StatusCode::UNAUTHORIZED,
    }
}

/// The body of an error in the form of the plain interface.
#[derive(serde::Serialize)]
pub struct ErrorBody<'a> {
    error: Fields<'a>,
}

#[derive(serde::Serialize)]
struct Fields<'a> {
    kind: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plugin: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<&'a str>,
    request_id: &'a str,
}

impl<'a> ErrorBody<'a> {
    /// `id` is the request id, empty if there is none.
    pub fn of(error: &'a Error, id: &'a str) -> Self {
        ErrorBody {
            error: Fields {
                kind: error.kind().as_str(),
                message: error.message(),
                field: error.field_name(),
                model: error.model_name(),
                plugin: error.plugin_name(),
                step: error.step_name(),
                request_id: id,
            },
        }
    }
}

/// Returns an error in the form of the plain interface. `id` is the request id, empty if there is
/// none.
pub fn error_reply(error: &Error, id: &str) -> Reply {
    let mut reply = json_of(status_of(error), &ErrorBody::of(error, id));
    add_hints(&mut reply, error);
    reply
}

/// Adds the headers that say what a client can do about an error: `Retry-After` for an overload,
/// which passes, `WWW-Authenticate` for a caller who has to show a key or token, and
/// `Accept-Encoding` for an encoding that is not known. One second is the shortest time that
/// `Retry-After` can express.
pub fn add_hints(reply: &mut Reply, error: &Error) {
    if error.kind() == Kind::Overloaded {
        let seconds = error.when_to_retry().map_or(1, whole_seconds);
        reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        if let Some(quota) = error.used_up() {
            add_quota(reply, quota, seconds);
        }
    } else if error.kind() == Kind::Unauthenticated {
        reply.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    } else if reply.status() == StatusCode::UNSUPPORTED_MEDIA_TYPE {
        reply.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip, deflate"));
    }
}

/// Adds the quota that is used up, in the headers of the IETF's draft
/// `draft-ietf-httpapi-ratelimit-headers`.
fn add_quota(reply: &mut Reply, quota: Quota, seconds: u64) {
    let Quota { name, limit, per } = quota;
    let policy = format!("\"{name}\";q={};w={}", limit.ceil(), whole_seconds(per));
    let left = format!("\"{name}\";r=0;t={seconds}");
    for (name, value) in [(RATE_LIMIT_POLICY, policy), (RATE_LIMIT, left)] {
        reply.headers_mut().extend(HeaderValue::try_from(value).ok().map(|value| (name, value)));
    }
}

/// Returns the seconds of a duration, rounded up: at least 1.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0)).max(1)
}

/// Returns the reply to a request for an existing path with a method that it does not have.
pub fn method_not_allowed(allow: &'static str) -> Reply {
    let body =
        format!("{{\"error\":{{\"kind\":\"unsupported\",\"message\":\"this path takes {allow} only\"}}}}");
    let mut reply = json(StatusCode::METHOD_NOT_ALLOWED, body);
    // HEAD works on every path that has GET.
    let all = HeaderValue::try_from(allow.replacen("GET", "GET, HEAD", 1));
    reply.headers_mut().insert(ALLOW, all.expect("invariant: names of methods"));
    reply
}

/// Returns the reply to a question for the methods of the host as a whole.
pub fn methods(allow: &'static str) -> Reply {
    let mut reply = empty(StatusCode::NO_CONTENT);
    reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    reply
}

/// Returns the reply to a request for a path that does not exist.
pub fn no_such_path(method: &Method, path: &str) -> Reply {
    let path: String = path.chars().take(200).collect();
    let is_for_operators = ["/admin", "/ui"].iter().any(|prefix| path.starts_with(prefix));
    let hint = match is_for_operators {
        true => "administration and the page are on the admin listener, [server] admin",
        false => "see GET /models, POST /predict, GET /v2",
    };
    error_reply(&Error::not_found(format!("no route {method} {path}; {hint}")), "")
}
