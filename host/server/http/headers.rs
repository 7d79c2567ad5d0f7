//! Lookups in the head of a request.

use hyper::{HeaderMap, Method};

/// Returns a header's value, if it is text.
pub fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// Returns `header` as a function of the name, in the form in which routing rules look up headers.
pub fn header_lookup(headers: &HeaderMap) -> impl Fn(&str) -> Option<String> {
    move |name| header(headers, name)
}

/// Whether a request only reads: `GET` or `HEAD`.
pub fn is_get(method: &Method) -> bool {
    method == Method::GET || method == Method::HEAD
}
