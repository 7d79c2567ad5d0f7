//! Routes of Triton's that are not offered here: they say so, to the verbs that they have there.

use super::control::OTHER_REPOSITORY;
use super::{error_reply, method_not_allowed};
use crate::error::Error;
use crate::server::http::Reply;
use hyper::Method;

/// None for a path that is not one of these.
pub(super) fn answer(method: &Method, segments: &[&str]) -> Option<Reply> {
    const SYSTEM: &str =
        "system shared memory is not supported; send and receive tensors in the message itself";
    const CUDA: &str = "CUDA shared memory is not supported; send and receive tensors in the message itself";
    let (verbs, what) = match segments {
        ["v2", "logging"] => {
            ("GET, POST", "log settings over this protocol are not supported; see RUST_LOG and access_log")
        }
        ["v2", "trace", "setting"] | ["v2", "models", _, "trace", "setting"] => {
            ("GET, POST", "tracing is not supported; X-Request-Id finds a request in the logs")
        }
        ["v2", "repository", _, "index"] | ["v2", "repository", _, "models", _, "load" | "unload"] => {
            ("POST", OTHER_REPOSITORY)
        }
        ["v2", kind @ ("systemsharedmemory" | "cudasharedmemory"), rest @ ..] => {
            let what = if *kind == "cudasharedmemory" { CUDA } else { SYSTEM };
            match rest {
                ["status"] | ["region", _, "status"] => ("GET", what),
                ["unregister"] | ["region", _, "register" | "unregister"] => ("POST", what),
                _ => return None,
            }
        }
        _ => return None,
    };
    let allowed = verbs.split(", ").any(|verb| verb == method.as_str());
    Some(match allowed || (method == Method::HEAD && verbs.starts_with("GET")) {
        true => error_reply(&Error::unsupported(what)),
        false => method_not_allowed(verbs),
    })
}
