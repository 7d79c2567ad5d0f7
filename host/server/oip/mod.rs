//! The Open Inference Protocol over HTTP: health, metadata, and inference in JSON. What an inference means is in
//! `infer`, which other protocols share.

pub(in crate::server) mod infer;
mod json;

use super::http::{self, Reply};
use super::plain::Public;
use crate::error::{Error, Kind, Result};
use crate::policy::Route;
use crate::predict::{JsonLimits, Metadata};
use crate::router::Journey;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::{Method, Request, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;

/// `/v2…`
pub(super) async fn answer(public: &Public, request: Request<Incoming>, path: &str) -> Reply {
    let (parts, body) = request.into_parts();
    let get = parts.method == Method::GET || parts.method == Method::HEAD;
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let (model, version, action) = match segments.as_slice() {
        ["v2"] if get => return http::json_of(StatusCode::OK, &server_metadata()),
        ["v2", "health", "live"] if get => return empty(StatusCode::OK),
        ["v2", "health", "ready"] if get => {
            let ready = public.readiness.refusal().is_none();
            return empty(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE });
        }
        ["v2"] | ["v2", "health", "live" | "ready"] => return method_not_allowed("GET"),
        ["v2", "models", model] => (*model, None, ""),
        ["v2", "models", model, "versions", version] => (*model, Some(*version), ""),
        ["v2", "models", model, action @ ("ready" | "infer")] => (*model, None, *action),
        ["v2", "models", model, "versions", version, action @ ("ready" | "infer")] => {
            (*model, Some(*version), *action)
        }
        _ => return error_reply(&Error::not_found(format!("no route {path}"))),
    };
    match action {
        "infer" if parts.method == Method::POST => infer(public, &parts.headers, body, model, version).await,
        "infer" => method_not_allowed("POST"),
        _ if !get => method_not_allowed("GET"),
        _ => {
            let id: Arc<str> = http::request_id(&parts.headers);
            let policy = public.router.policy();
            let header = |name: &str| http::header(&parts.headers, name);
            let caller = crate::policy::Caller { request_id: &id, header: &header };
            let found = names(model, version).and_then(|(model, version)| {
                let route = policy.content.resolve(&model, version.as_deref(), &caller)?;
                Ok(Arc::clone(route))
            });
            match (found, action) {
                (Ok(_), "ready") if public.readiness.refusal().is_some() => {
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

fn names(model: &str, version: Option<&str>) -> Result<(String, Option<String>)> {
    Ok((http::decode_segment(model)?, version.map(http::decode_segment).transpose()?))
}

fn server_metadata() -> Value {
    json!({"name": "hostler", "version": env!("CARGO_PKG_VERSION"), "extensions": []})
}

fn model_metadata(route: &Route, versions: Vec<String>) -> Value {
    let Metadata { inputs, outputs, .. } = route.metadata();
    json!({
        "name": &*route.name.name,
        "versions": versions,
        "platform": "hostler",
        "inputs": http::tensor_specs(inputs),
        "outputs": http::tensor_specs(outputs),
    })
}

async fn infer(
    public: &Public,
    headers: &HeaderMap,
    body: Incoming,
    model: &str,
    version: Option<&str>,
) -> Reply {
    let mut journey = {
        let header = |name: &str| http::header(headers, name);
        public.router.begin(http::request_id(headers), "oip", &header)
    };
    let outcome = match http::read_body(body, public.router.limits()).await {
        Ok(body) => infer_body(public, &mut journey, headers, body, model, version).await,
        Err(error) => Err(error),
    };
    let (mut reply, error) = match outcome {
        Ok(reply) => (reply, None),
        Err(error) => (error_reply(&error), Some(error)),
    };
    http::sign(&mut reply, journey.id(), journey.generation());
    journey.end(reply.status().as_u16(), error.as_ref());
    reply
}

async fn infer_body(
    public: &Public,
    journey: &mut Journey,
    headers: &HeaderMap,
    body: Bytes,
    model: &str,
    version: Option<&str>,
) -> Result<Reply> {
    let (model, version) = names(model, version)?;
    let route = journey.resolve(&model, version.as_deref(), &|name| http::header(headers, name))?;
    if headers.contains_key("inference-header-content-length") {
        return Err(Error::unsupported(
            "the binary tensor extension is not offered; send the tensors as JSON",
        ));
    }
    let limits = JsonLimits { tensor_bytes_max: public.router.limits().max_body_bytes.saturating_mul(4) };
    let response = infer::infer(journey, &route, json::decode(&body, limits)?).await?;
    Ok(http::json(StatusCode::OK, json::encode(&response)?))
}

fn empty(status: StatusCode) -> Reply {
    let mut reply = Reply::default();
    *reply.status_mut() = status;
    reply
}

/// Error kind to status of the Open Inference Protocol, as its other servers have it.
fn status_of(error: &Error) -> StatusCode {
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

fn error_reply(error: &Error) -> Reply {
    let mut reply = http::json_of(status_of(error), &json!({"error": error.message()}));
    http::retry_after(&mut reply, error);
    reply
}
