//! Routes of Triton's that are not offered here: they say so, to the verbs that they have there. Of shared memory there
//! is none, which is an answer.

use super::control::OTHER_REPOSITORY;
use super::{empty, error_reply, method_not_allowed};
use crate::error::{Error, Result};
use crate::server::http::{self, Reply};
use hyper::{Method, StatusCode};

/// None for a path that is not one of these.
pub(super) fn answer(method: &Method, segments: &[&str]) -> Option<Reply> {
    let refused = |what: &str| Err(Error::unsupported(what));
    let (verbs, outcome) = match segments {
        ["v2", "logging"] => (
            "GET, POST",
            refused("log settings over this protocol are not supported; see RUST_LOG and access_log"),
        ),
        ["v2", "trace", "setting"] | ["v2", "models", _, "trace", "setting"] => {
            ("GET, POST", refused("tracing is not supported; X-Request-Id finds a request in the logs"))
        }
        ["v2", "repository", _, "index"] | ["v2", "repository", _, "models", _, "load" | "unload"] => {
            ("POST", refused(OTHER_REPOSITORY))
        }
        ["v2", "systemsharedmemory", rest @ ..] => shared_memory("system", rest)?,
        ["v2", "cudasharedmemory", rest @ ..] => shared_memory("CUDA", rest)?,
        _ => return None,
    };
    let allowed = verbs.split(", ").any(|verb| verb == method.as_str());
    Some(match allowed || (method == Method::HEAD && verbs.starts_with("GET")) {
        true => outcome.unwrap_or_else(|error| error_reply(&error)),
        false => method_not_allowed(verbs),
    })
}

/// No region is ever registered: the list of them is empty, and to take some away is done at once.
fn shared_memory(kind: &str, rest: &[&str]) -> Option<(&'static str, Result<Reply>)> {
    Some(match rest {
        ["status"] => ("GET", Ok(http::json(StatusCode::OK, "[]"))),
        ["region", name, "status"] => ("GET", Err(no_region(kind, name))),
        ["unregister"] | ["region", _, "unregister"] => ("POST", Ok(empty(StatusCode::OK))),
        ["region", _, "register"] => (
            "POST",
            Err(Error::unsupported(format!(
                "{kind} shared memory is not supported; send and receive tensors in the message itself"
            ))),
        ),
        _ => return None,
    })
}

/// `kind` is `system` or `CUDA`.
pub(in crate::server) fn no_region(kind: &str, name: &str) -> Error {
    let name: String = name.chars().take(80).collect();
    let kind = kind.to_lowercase();
    Error::not_found(format!(
        "Unable to find {kind} shared memory region: '{name}'; shared memory is not supported"
    ))
}
