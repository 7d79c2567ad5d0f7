//! `ModelInfer`. Its calls are framed here and not by tonic, so that contents are not copied and
//! every call is accounted for, including those whose message cannot be read.

use super::body::Body;
use super::encode::encode;
use super::frame;
use super::received::Message;
use super::state::Grpc;
use super::status;
use super::text::non_empty;
use super::timeout::timeout;
use crate::access::Verb;
use crate::error::{Error, Result};
use crate::router::{Authority, RequestScope};
use crate::server::http;
use crate::server::http2::call_body::CallBody;
use crate::server::oip::infer;
use crate::server::oip::phrases::unknown_model;
use crate::tenants::TenantGuard;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Request, Response};
use std::time::{Duration, Instant};

/// The number of the field of `ModelInferResponse` that has the contents.
const RAW_OUTPUT_CONTENTS: u32 = 6;

/// Answers one call, and signs and accounts for the reply.
pub(super) async fn unary(grpc: &Grpc, request: Request<CallBody>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let (started, requester) = (Instant::now(), grpc.requester(&parts.extensions));
    let (guard, received) = match grpc.router().admit(&requester) {
        Ok(guard) => {
            let received = receive(grpc, &parts.headers, body, started, guard.as_deref()).await;
            (guard, received)
        }
        Err(refused) => (None, Err(refused)),
    };
    let id = match &received {
        Ok((message, _)) => http::request_id_or(&parts.headers, message.id()),
        Err(_) => http::request_id(&parts.headers),
    };
    let authority = Authority::new(requester, Verb::Predict);
    let scope = grpc.router().begin(id, "grpc", authority, &http::header_lookup(&parts.headers));
    let mut scope = scope.since(started).admitted(guard);
    let outcome = match received {
        Ok((message, timeout)) => answer(&mut scope, &parts.headers, message, timeout).await,
        Err(error) => Err(error),
    };
    let (mut response, error) = match outcome {
        Ok(body) => {
            let mut response = Response::new(body);
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            (response, None)
        }
        Err(error) => (status::refusal(&error), Some(error)),
    };
    http::sign(&mut response, scope.id(), scope.generation());
    scope.end(status::counted(error.as_ref()), error.as_ref());
    response
}

/// Refuses a call that the access rules do not allow, and accounts for it.
pub(super) fn refused(grpc: &Grpc, headers: &HeaderMap, error: &Error) -> Response<Body> {
    if !grpc.has_begun() {
        return status::refusal(error);
    }
    let lookup = http::header_lookup(headers);
    let scope = grpc.router().begin(http::request_id(headers), "grpc", Authority::host(), &lookup);
    let mut response = status::refusal(error);
    http::sign(&mut response, scope.id(), scope.generation());
    scope.end(status::counted(Some(error)), Some(error));
    response
}

/// Returns the message of a call and its timeout.
async fn receive(
    grpc: &Grpc,
    headers: &HeaderMap,
    body: CallBody,
    started: Instant,
    tenant: Option<&TenantGuard>,
) -> Result<(Message, Option<Duration>)> {
    let timeout = timeout(headers)?;
    let deadline = timeout.and_then(|timeout| started.checked_add(timeout));
    let message = frame::read(body, frame::encoding(headers)?, &grpc.transfers, tenant, deadline).await?;
    // An unpacked message has more bytes than have arrived.
    tenant.map_or(Ok(()), |tenant| tenant.count_bytes(message.len()))?;
    Ok((Message::read(message, grpc.router().budget()).await?, timeout))
}

async fn answer(
    scope: &mut RequestScope,
    headers: &HeaderMap,
    message: Message,
    timeout: Option<Duration>,
) -> Result<Body> {
    let version = non_empty(message.version());
    let route = scope
        .resolve(message.model(), version, &http::header_lookup(headers))
        .map_err(|error| unknown_model(error, message.model(), version))?;
    let response = infer::infer(scope, &route, message.decode(timeout).await?).await?;
    let (head, contents) = encode(response);
    Body::message(&head, RAW_OUTPUT_CONTENTS, &contents)
}
