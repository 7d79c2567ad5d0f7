//! What HTTP/1.1 demands of a request's head and hyper does not check.

use crate::error::{Error, Result};
use crate::server::api::Api;
use crate::server::http::{Reply, RequestBody};
use hyper::header::{CONNECTION, HOST, HeaderValue, TRANSFER_ENCODING};
use hyper::{HeaderMap, Request, Version};

/// Returns the reply to a request whose head is not valid.
pub(super) fn refusal(request: &Request<RequestBody>) -> Option<Reply> {
    let error = check(request).err()?;
    let mut reply = Api::of(request.uri().path()).error_reply(&error);
    // The sender of such a head may not agree with the host about where it ends.
    reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    Some(reply)
}

fn check(request: &Request<RequestBody>) -> Result<()> {
    let headers = request.headers();
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), None) => {}
        (None, _) if request.version() == Version::HTTP_10 => {}
        (None, _) => {
            let message =
                "the request has no Host header, which HTTP/1.1 demands; send one, such as Host: localhost";
            return Err(Error::invalid(message).field("host"));
        }
        (Some(_), Some(_)) => {
            return Err(Error::invalid("the request has several Host headers; send one").field("host"));
        }
    }
    if headers.contains_key(TRANSFER_ENCODING) { check_transfer_encoding(headers) } else { Ok(()) }
}

/// Refuses a body that is encoded with anything but `chunked`, once. hyper has checked that it ends
/// with `chunked`.
fn check_transfer_encoding(headers: &HeaderMap) -> Result<()> {
    let values = headers.get_all(TRANSFER_ENCODING).iter();
    let values: Vec<&str> = values.map(|value| value.to_str().unwrap_or("?")).collect();
    let codings = values.iter().flat_map(|value| value.split(',')).map(str::trim);
    let mut others = codings.clone().filter(|coding| !coding.eq_ignore_ascii_case("chunked"));
    if let Some(other) = others.find(|coding| !coding.is_empty()) {
        let other: String = other.chars().take(40).collect();
        return Err(Error::unsupported(format!(
            "Transfer-Encoding has \"{other}\"; only chunked is known here. Compress a body with Content-Encoding: gzip"
        ))
        .field("transfer-encoding"));
    }
    if codings.filter(|coding| !coding.is_empty()).count() > 1 {
        let message = "Transfer-Encoding has chunked several times; send it once";
        return Err(Error::invalid(message).field("transfer-encoding"));
    }
    Ok(())
}
