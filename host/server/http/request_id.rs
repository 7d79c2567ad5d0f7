//! Request ids: a client's own, or a new one.

use hyper::HeaderMap;
use hyper::header::HeaderName;
use std::sync::Arc;

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Returns the request id that the client sent, if it can go into a log; otherwise a new one.
pub fn request_id(headers: &HeaderMap) -> Arc<str> {
    request_id_or(headers, "")
}

/// Returns the same, but `other` instead of a new id if the client sent no header and `other` can
/// go into a log.
pub fn request_id_or(headers: &HeaderMap, other: &str) -> Arc<str> {
    let id = match headers.get(REQUEST_ID) {
        Some(id) => id.to_str().ok(),
        None => Some(other),
    };
    match id.filter(|id| is_usable(id)) {
        Some(id) => id.into(),
        None => new_id(),
    }
}

/// Returns 128 random bits in hexadecimal.
fn new_id() -> Arc<str> {
    let mut id = [0; 32];
    for half in id.chunks_exact_mut(16) {
        let mut bits = fastrand::u64(..);
        for digit in half {
            bits = bits.rotate_left(4);
            *digit = b"0123456789abcdef"[bits as usize & 15];
        }
    }
    std::str::from_utf8(&id).expect("invariant: digits are ASCII").into()
}

/// Whether a text can go into a log and a header unchanged.
fn is_usable(id: &str) -> bool {
    (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
}
