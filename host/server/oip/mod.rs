//! The Open Inference Protocol over HTTP, with the extensions that Triton has: which path is what, and what the
//! server and its models are. What an inference means is in `infer`, which other protocols share.

mod binary;
mod classification;
pub(in crate::server) mod config;
pub(in crate::server) mod control;
mod fields;
mod generate;
pub(in crate::server) mod infer;
mod inference;
mod json;
pub(in crate::server) mod statistics;
pub(in crate::server) mod unsupported;

use super::http::{self, Reply};
use super::plain::Public;
use crate::error::{Error, Kind, Result};
use crate::policy::Route;
use crate::predict::Metadata;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use inference::ModelRequest;
use serde_json::{Value, json};
use std::sync::Arc;

/// What runs models, as the protocol wants a name for it.
pub(in crate::server) const PLATFORM: &str = "hostler";

/// Who the server says it is. Programs written for Triton, its public examples among them, end if it is another.
pub(in crate::server) const SERVER_NAME: &str = "triton";

/// The extensions of the protocol that are offered, by Triton's names.
pub(in crate::server) const EXTENSIONS: [&str; 8] = [
    "binary_tensor_data",
    "classification",
    "generate",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "parameters",
    "statistics",
];

/// Whether a path is one of this protocol's.
pub(super) fn is_path(path: &str) -> bool {
    path == "/v2" || path.starts_with("/v2/")
}

/// Whether a path is one of those that change which models are served.
pub(super) fn is_control(path: &str) -> bool {
    path == "/v2/repository" || path.starts_with("/v2/repository/")
}

/// Whether a path runs a model or says whether one is ready.
pub(super) fn is_open(path: &str) -> bool {
    let last = path.strip_prefix("/v2/models/").and_then(|rest| rest.rsplit_once('/'));
    last.is_some_and(|(_, action)| is_action(action))
}

/// `/v2…`
pub(super) async fn answer(public: &Public, request: Request<Incoming>, path: &str) -> Reply {
    let (parts, body) = request.into_parts();
    let get = parts.method == Method::GET || parts.method == Method::HEAD;
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    if let Some(request) = control::ControlRequest::of(&segments) {
        return control::answer(public, request, &parts, body).await;
    }
    let (model, version, action) = match segments.as_slice() {
        ["v2"] if get => return http::json_of(StatusCode::OK, &server_metadata()),
        ["v2", "health", "live"] if get => return empty(StatusCode::OK),
        ["v2", "health", "ready"] if get => {
            let ready =
                public.readiness.refusal().is_none() && public.router.policy().content.unready().is_none();
            return empty(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE });
        }
        ["v2"] | ["v2", "health", "live" | "ready"] => return method_not_allowed("GET"),
        ["v2", "models", model] => (*model, None, ""),
        ["v2", "models", model, "versions", version] => (*model, Some(*version), ""),
        ["v2", "models", model, action] if is_action(action) => (*model, None, *action),
        ["v2", "models", model, "versions", version, action] if is_action(action) => {
            (*model, Some(*version), *action)
        }
        segments => {
            return unsupported::answer(&parts.method, segments).unwrap_or_else(|| no_such_path(path));
        }
    };
    let model_request = ModelRequest { public, headers: &parts.headers, model, version };
    match action {
        "infer" | "generate" | "generate_stream" if parts.method != Method::POST => {
            method_not_allowed("POST")
        }
        "infer" => model_request.infer(body).await,
        "generate" => model_request.generate(body).await,
        "generate_stream" => model_request.generate_stream(body).await,
        _ if !get => method_not_allowed("GET"),
        _ => {
            let id: Arc<str> = http::request_id(&parts.headers);
            let policy = public.router.policy();
            let header = |name: &str| http::header(&parts.headers, name);
            let caller = crate::policy::RouteQuery { request_id: &id, header: &header };
            let found = names(model, version).and_then(|(model, version)| {
                let route = policy.content.resolve(&model, version.as_deref(), &caller);
                route.map(Arc::clone).map_err(|error| infer::unknown_model(error, version.as_deref()))
            });
            match (found, action) {
                (Ok(_), "ready") if public.readiness.refusal().is_some() => {
                    empty(StatusCode::SERVICE_UNAVAILABLE)
                }
                (Ok(route), "ready") if route.callable.ready().is_err() => {
                    empty(StatusCode::SERVICE_UNAVAILABLE)
                }
                (Ok(_), "ready") => empty(StatusCode::OK),
                (Err(_), "ready") => empty(StatusCode::NOT_FOUND),
                (Ok(route), _) => {
                    let versions = policy.content.models().find(|(name, _)| **name == route.name.name);
                    let versions =
                        versions.map(|(_, model)| model.versions.keys().map(|v| v.to_string()).collect());
                    http::json_of(StatusCode::OK, &model_metadata(&route, versions.unwrap_or_default()))
                }
                (Err(error), _) => error_reply(&error),
            }
        }
    }
}

fn is_action(name: &str) -> bool {
    matches!(name, "ready" | "infer" | "generate" | "generate_stream")
}

fn names(model: &str, version: Option<&str>) -> Result<(String, Option<String>)> {
    Ok((http::decode_segment(model)?, version.map(http::decode_segment).transpose()?))
}

fn server_metadata() -> Value {
    json!({"name": SERVER_NAME, "version": env!("CARGO_PKG_VERSION"), "extensions": EXTENSIONS})
}

fn model_metadata(route: &Route, versions: Vec<String>) -> Value {
    let Metadata { inputs, outputs, .. } = route.metadata();
    json!({
        "name": &*route.name.name,
        "versions": versions,
        "platform": PLATFORM,
        "inputs": http::tensor_specs(inputs),
        "outputs": http::tensor_specs(outputs),
    })
}

fn empty(status: StatusCode) -> Reply {
    let mut reply = Reply::default();
    *reply.status_mut() = status;
    reply
}

/// Error kind to status of the Open Inference Protocol, as its other servers have it.
pub(in crate::server) fn status_of(error: &Error) -> StatusCode {
    match error.kind() {
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Overloaded | Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => http::status_of(error),
    }
}

/// The plain interface's answer, with the error in this protocol's form.
fn method_not_allowed(allow: &'static str) -> Reply {
    let text = json!({"error": format!("this path takes {allow} only")}).to_string();
    let mut reply = http::method_not_allowed(allow);
    *reply.body_mut() = Bytes::from(text).into();
    reply
}

pub(super) fn no_such_path(path: &str) -> Reply {
    let path: String = path.chars().take(200).collect();
    error_reply(&Error::not_found(format!("no route {path}")))
}

/// Reads a body. Of one that is no JSON, the message has the words and the place that clients of the protocol know.
fn parse_object<'a, T: serde::Deserialize<'a>>(text: &'a [u8], otherwise: &str) -> Result<T> {
    parse_with(text, otherwise, std::marker::PhantomData)
}

/// The same, with what reads it.
fn parse_with<'a, S: serde::de::DeserializeSeed<'a>>(
    text: &'a [u8],
    otherwise: &str,
    seed: S,
) -> Result<S::Value> {
    http::parse_with(text, otherwise, seed).map_err(|error| match not_json(text) {
        Some(place) => {
            let message = error.message();
            Error::invalid(format!(
                "{message}: failed to parse the request JSON buffer: Invalid value. at {place}"
            ))
        }
        None => error,
    })
}

/// The byte at which a text stops being JSON; None for one that is JSON, and for an empty one.
fn not_json(text: &[u8]) -> Option<usize> {
    if text.iter().all(u8::is_ascii_whitespace) {
        return None;
    }
    let error = serde_json::from_slice::<serde::de::IgnoredAny>(text).err()?;
    if error.is_eof() {
        return Some(text.len());
    }
    let lines = text.split_inclusive(|&byte| byte == b'\n').take(error.line().saturating_sub(1));
    Some(lines.map(<[u8]>::len).sum::<usize>() + error.column().saturating_sub(1))
}

fn error_json(error: &Error) -> Value {
    json!({"error": error.message()})
}

pub(super) fn error_reply(error: &Error) -> Reply {
    let mut reply = http::json_of(status_of(error), &error_json(error));
    http::retry_after(&mut reply, error);
    reply
}
