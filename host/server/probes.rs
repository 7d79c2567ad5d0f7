//! What a listener answers on connections beyond its limit: health checks and metrics. Everything else is refused
//! with 503, and the connection is closed.

use super::Service;
use super::http::{self, Reply};
use super::oip;
use crate::error::Error;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, StatusCode};

/// Paths that programs ask to know how the host is.
const PATHS: [&str; 5] = ["/health", "/ready", "/metrics", "/v2/health/live", "/v2/health/ready"];

/// Whether a path tells how the host is and nothing else.
pub(super) fn is_probe(path: &str) -> bool {
    PATHS.contains(&path)
}

pub(super) async fn answer<S: Service>(
    service: &S,
    request: Request<Incoming>,
    connections_max: usize,
) -> Reply {
    let (get, path) = ([Method::GET, Method::HEAD].contains(request.method()), request.uri().path());
    let mut reply = match get && is_probe(path) {
        true => service.answer(request).await,
        false => refusal(path, connections_max),
    };
    reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    reply
}

fn refusal(path: &str, connections_max: usize) -> Reply {
    let error = Error::overloaded(message(connections_max));
    let mut reply = match oip::is_path(path) {
        true => oip::error_reply(&error),
        false => http::error_reply(&error, ""),
    };
    // No queue is full, as 429 would say: the host as a whole takes no more.
    *reply.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    reply
}

pub(super) fn message(connections_max: usize) -> String {
    format!("all {connections_max} connections of this host are in use")
}
