//! Replies on connections beyond the limit: health checks and metrics are answered, everything else
//! is refused with 503, and the connection is closed.

use super::connections::in_use;
use super::endpoint::Endpoint;
use super::http::{self, Reply, RequestBody};
use super::service::Service;
use crate::error::Error;
use hyper::header::{CONNECTION, HeaderValue, RETRY_AFTER};
use hyper::{Request, StatusCode};

pub(super) async fn answer<S: Service>(
    service: &S,
    request: Request<RequestBody>,
    connections_max: usize,
) -> Reply {
    let endpoint = Endpoint::parse(request.uri().path());
    let mut reply = match http::is_get(request.method()) && endpoint.is_probe() {
        true => service.answer(request).await,
        false => refusal(endpoint, connections_max),
    };
    reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    reply
}

fn refusal(endpoint: Endpoint<'_>, connections_max: usize) -> Reply {
    let mut reply = endpoint.api().error_reply(&Error::overloaded(in_use(connections_max)));
    // 503 and not the 429 of a full queue: the host as a whole takes no more connections.
    *reply.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    reply
}
