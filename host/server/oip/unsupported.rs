//! Routes of Triton that this host does not offer. They reply so, to the methods that they have in
//! Triton. No shared memory is ever registered, which makes the replies to some of its requests
//! known.

use super::control::OTHER_REPOSITORY;
use super::endpoint::UnsupportedEndpoint;
use super::errors::{error_reply, method_not_allowed};
use crate::error::{Error, Result};
use crate::server::http::{self, Reply};
use hyper::{Method, StatusCode};

pub(super) fn answer(method: &Method, endpoint: UnsupportedEndpoint<'_>) -> Reply {
    let (methods, outcome) = outcome(endpoint);
    let allowed = methods.split(", ").any(|name| name == method.as_str());
    match allowed || (method == Method::HEAD && methods.starts_with("GET")) {
        true => outcome.unwrap_or_else(|error| error_reply(&error)),
        false => method_not_allowed(methods),
    }
}

/// Returns the methods of an endpoint, and its reply.
fn outcome(endpoint: UnsupportedEndpoint<'_>) -> (&'static str, Result<Reply>) {
    let refused = |what: &str| Err(Error::unsupported(what));
    match endpoint {
        UnsupportedEndpoint::LogSettings => (
            "GET, POST",
            refused("log settings over this protocol are not supported; see HOSTLER_LOG and access_log"),
        ),
        UnsupportedEndpoint::TraceSettings => {
            ("GET, POST", refused("tracing is not supported; X-Request-Id finds a request in the logs"))
        }
        UnsupportedEndpoint::OtherRepository => ("POST", refused(OTHER_REPOSITORY)),
        UnsupportedEndpoint::SharedMemoryStatus => ("GET", Ok(http::json(StatusCode::OK, "[]"))),
        UnsupportedEndpoint::RegionStatus { kind, region } => ("GET", Err(no_region(kind, region))),
        UnsupportedEndpoint::Unregister => ("POST", Ok(http::empty(StatusCode::OK))),
        UnsupportedEndpoint::Register { kind } => (
            "POST",
            Err(Error::unsupported(format!(
                "{kind} shared memory is not supported; send and receive tensors in the message itself"
            ))),
        ),
    }
}

/// Returns the error for a region of shared memory. `kind` is `system` or `CUDA`.
pub(in crate::server) fn no_region(kind: &str, name: &str) -> Error {
    let name: String = name.chars().take(80).collect();
    let kind = kind.to_lowercase();
    Error::not_found(format!(
        "Unable to find {kind} shared memory region: '{name}'; shared memory is not supported"
    ))
}
