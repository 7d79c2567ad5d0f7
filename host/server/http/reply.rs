//! Replies: their content, and how they are made.

use super::request_id::REQUEST_ID;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{Response, StatusCode};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

pub type Reply = Response<ReplyContent>;

/// The content of a reply: whole, or parts that are sent as they come. Whole content needs no box.
#[derive(Default)]
pub enum ReplyContent {
    #[default]
    Empty,
    Whole(Bytes),
    Parts(Pin<Box<dyn Body<Data = Bytes, Error = Infallible> + Send>>),
}

impl From<Bytes> for ReplyContent {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() { ReplyContent::Empty } else { ReplyContent::Whole(bytes) }
    }
}

impl Body for ReplyContent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            ReplyContent::Empty => Poll::Ready(None),
            ReplyContent::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = ReplyContent::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            ReplyContent::Parts(body) => body.as_mut().poll_frame(task),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ReplyContent::Empty => true,
            ReplyContent::Whole(_) => false,
            ReplyContent::Parts(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ReplyContent::Empty => SizeHint::with_exact(0),
            ReplyContent::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            ReplyContent::Parts(body) => body.size_hint(),
        }
    }
}

const GENERATION: HeaderName = HeaderName::from_static("x-hostler-generation");

const JSON: HeaderValue = HeaderValue::from_static("application/json");

pub fn reply(status: StatusCode, content_type: HeaderValue, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(ReplyContent::from(body.into()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, content_type);
    reply
}

pub fn json(status: StatusCode, body: impl Into<Bytes>) -> Reply {
    reply(status, JSON, body)
}

pub fn json_of(status: StatusCode, value: &impl serde::Serialize) -> Reply {
    json(status, serde_json::to_vec(value).expect("invariant: answers have string keys"))
}

pub fn text(status: StatusCode, body: String) -> Reply {
    reply(status, HeaderValue::from_static("text/plain; charset=utf-8"), body)
}

/// Returns content that is not part of a page, such as what a plugin has returned.
pub fn sandboxed(content_type: HeaderValue, body: impl Into<Bytes>) -> Reply {
    let mut reply = reply(StatusCode::OK, content_type, body);
    sandbox(&mut reply);
    reply
}

/// Tells a browser that opens a reply alone to run nothing of it: it would run as a page of this
/// host.
pub fn sandbox(reply: &mut Reply) {
    let headers = reply.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

/// Returns the reply of a process that answers.
pub fn health() -> Reply {
    json(StatusCode::OK, &b"{\"status\":\"ok\"}"[..])
}

/// Returns the reply of a host that takes no requests, with the reason.
pub fn not_ready(why: &str) -> Reply {
    json_of(StatusCode::SERVICE_UNAVAILABLE, &serde_json::json!({"ready": false, "reason": why}))
}

/// Returns metrics in the text format of Prometheus.
pub fn metrics(text: impl Into<Bytes>) -> Reply {
    reply(StatusCode::OK, HeaderValue::from_static("text/plain; version=0.0.4"), text)
}

/// Returns a reply without content.
pub fn empty(status: StatusCode) -> Reply {
    let mut reply = Reply::default();
    *reply.status_mut() = status;
    reply
}

/// Adds the ids of the request and of the policy that a reply belongs to.
pub fn sign<B>(reply: &mut Response<B>, id: &str, generation: u64) {
    if let Ok(id) = HeaderValue::from_str(id) {
        reply.headers_mut().insert(REQUEST_ID, id);
    }
    reply.headers_mut().insert(GENERATION, generation.into());
}
