//! The results of jobs that are bytes.

use crate::server::http::{self, Reply};
use bytes::Bytes;
use hyper::header::{HeaderName, HeaderValue};

/// Separates the content type of a result from the length of the JSON at its start.
const HEAD_LENGTH: &str = "; inference-header-content-length=";

/// Returns the content type of a result that begins with JSON of this length, followed by tensors.
pub fn with_head_length(content_type: &str, length: usize) -> String {
    format!("{content_type}{HEAD_LENGTH}{length}")
}

/// Returns the content type without the length of its JSON.
pub fn content_type(stored: &str) -> &str {
    stored.split_once(HEAD_LENGTH).map_or(stored, |(content_type, _)| content_type)
}

/// Replies with a result that is bytes.
pub fn bytes_reply(content_type: &str, data: Bytes) -> Reply {
    let (content_type, head_length) = match content_type.split_once(HEAD_LENGTH) {
        Some((content_type, length)) => (content_type, length.parse::<usize>().ok()),
        None => (content_type, None),
    };
    let value = HeaderValue::from_str(content_type);
    let content_type = value.unwrap_or(HeaderValue::from_static("application/octet-stream"));
    let mut reply = http::sandboxed(content_type, data);
    if let Some(length) = head_length {
        let name = HeaderName::from_static("inference-header-content-length");
        reply.headers_mut().insert(name, length.into());
    }
    reply
}
