//! `Idempotency-Key`: a client that does not know whether its submission has arrived sends it again
//! with the same key, and gets the same jobs.

use crate::error::{Error, Result};
use crate::jobs::{IDEMPOTENCY_TIME, IdempotencyKey};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use sha2::{Digest, Sha256};

const HEADER: &str = "idempotency-key";

const KEY_BYTES_MAX: usize = 255;

/// Reads the header. The request that the key stands for is its path, its query and its body, byte
/// for byte, and the headers that say what the body is.
///
/// Keys of different owners are different keys.
pub fn key(head: &Parts, body: &[u8], body_is_input: bool, owner: &str) -> Result<Option<IdempotencyKey>> {
    let mut values = head.headers.get_all(HEADER).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let invalid = |why: &str| {
        Err(Error::invalid(format!(
            "the header Idempotency-Key {why}; send one key of 1 to {KEY_BYTES_MAX} printable ASCII characters, such as a \
             UUID"
        ))
        .field("Idempotency-Key"))
    };
    if values.next().is_some() {
        return invalid("was sent more than once");
    }
    let Ok(name) = value.to_str() else { return invalid("has other characters than printable ASCII") };
    if name.is_empty() || name.len() > KEY_BYTES_MAX {
        return invalid(&format!("has {} characters", name.len()));
    }
    // For the other routes, it does not decide what the body is.
    let content_type = head.headers.get(CONTENT_TYPE).filter(|_| body_is_input);
    let mut hash = Sha256::new().chain_update(head.uri.path());
    for (mark, part) in [
        ("?", head.uri.query().map(str::as_bytes)),
        ("#", head.headers.get("inference-header-content-length").map(HeaderValue::as_bytes)),
        ("$", content_type.map(HeaderValue::as_bytes)),
    ] {
        if let Some(part) = part {
            hash = hash.chain_update(mark).chain_update(part);
        }
    }
    let request = hash.chain_update([0]).chain_update(body).finalize();
    let name = if owner.is_empty() { name.into() } else { format!("{owner}\n{name}").into() };
    Ok(Some(IdempotencyKey { name, request: request.into(), time: IDEMPOTENCY_TIME }))
}
