//! Lookups in the head of a request.

use hyper::header::ACCEPT;
use hyper::{HeaderMap, Method};

/// Returns a header's value, if it is text.
pub fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// Returns `header` as a function of the name, in the form in which routing rules look up headers.
pub fn header_lookup(headers: &HeaderMap) -> impl Fn(&str) -> Option<String> {
    move |name| header(headers, name)
}

/// Whether the value of a header is this media type, which is compared without case and without
/// parameters.
pub fn is_media_type(value: &str, wanted: &str) -> bool {
    value.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(wanted))
}

/// Whether the client names this media type as one that it accepts.
pub fn accepts(headers: &HeaderMap, wanted: &str) -> bool {
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|kind| is_media_type(kind, wanted))
}

/// Whether a request only reads: `GET` or `HEAD`.
pub fn is_get(method: &Method) -> bool {
    method == Method::GET || method == Method::HEAD
}
