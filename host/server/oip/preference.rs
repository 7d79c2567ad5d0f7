//! The header `Prefer: respond-async`.

use hyper::HeaderMap;
use hyper::header::HeaderName;

const PREFER: HeaderName = HeaderName::from_static("prefer");
pub(super) const RESPOND_ASYNC: &str = "respond-async";

/// Whether the client prefers a job to waiting for the response.
pub(super) fn is_async(headers: &HeaderMap) -> bool {
    let values = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    let mut preferences = values.flat_map(|value| value.split([',', ';']));
    preferences.any(|preference| preference.trim().eq_ignore_ascii_case(RESPOND_ASYNC))
}
