//! The Open Inference Protocol over HTTP: health, metadata, and inference in JSON.

mod config;
pub(super) mod control;
mod statistics;

use super::http::{self, Reply};
use super::plain::Public;
use crate::error::{Error, Kind, Result};
use crate::policy::Route;
use crate::predict::{
    self, Datatype, JsonLimits, Metadata, Parameters, Payload, Shape, Tensor, TensorSpec, encode_tensor,
};
use crate::router::{Ask, Journey};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::{Method, Request, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

/// What runs models, as the protocol wants a name for it.
const PLATFORM: &str = "hostler";

/// `/v2…`
pub(super) async fn answer(public: &Public, request: Request<Incoming>, path: &str) -> Reply {
    let (parts, body) = request.into_parts();
    let get = parts.method == Method::GET || parts.method == Method::HEAD;
    let post = parts.method == Method::POST;
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let (model, version, action) = match segments.as_slice() {
        ["v2"] if get => return http::json_of(StatusCode::OK, &server_metadata()),
        ["v2", "health", "live"] if get => return empty(StatusCode::OK),
        ["v2", "health", "ready"] if get => {
            let ready = public.readiness.refusal().is_none();
            return empty(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE });
        }
        ["v2"] | ["v2", "health", "live" | "ready"] => return method_not_allowed("GET"),
        ["v2", "models", "stats"] if get => return answered(control::answer_statistics(public, None, None)),
        ["v2", "repository", "index"] if post => return answered(control::answer_index(public, body).await),
        ["v2", "repository", "models", model, action @ ("load" | "unload")] if post => {
            return answered(match (http::decode_segment(model), *action) {
                (Ok(model), "load") => control::answer_load(public, body, &model).await,
                (Ok(model), _) => control::answer_unload(public, body, &model).await,
                (Err(error), _) => Err(error),
            });
        }
        ["v2", "models", "stats"] => return method_not_allowed("GET"),
        ["v2", "repository", "index"] | ["v2", "repository", "models", _, "load" | "unload"] => {
            return method_not_allowed("POST");
        }
        ["v2", "models", model] => (*model, None, ""),
        ["v2", "models", model, "versions", version] => (*model, Some(*version), ""),
        ["v2", "models", model, action @ ("ready" | "infer" | "config" | "stats")] => (*model, None, *action),
        ["v2", "models", model, "versions", version, action @ ("ready" | "infer" | "config" | "stats")] => {
            (*model, Some(*version), *action)
        }
        _ => return error_reply(&Error::not_found(format!("no route {path}"))),
    };
    match action {
        "infer" if parts.method == Method::POST => infer(public, &parts.headers, body, model, version).await,
        "infer" => method_not_allowed("POST"),
        _ if !get => method_not_allowed("GET"),
        "config" | "stats" => answered(names(model, version).and_then(|(model, version)| match action {
            "config" => control::answer_config(public, &parts.headers, &model, version.as_deref()),
            _ => control::answer_statistics(public, Some(&model), version.as_deref()),
        })),
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
    let Metadata { inputs, outputs } = route.metadata();
    json!({
        "name": &*route.name.name,
        "versions": versions,
        "platform": PLATFORM,
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
    journey: &mut Journey<'_>,
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
    let request: InferRequest<'_> = http::parse_object(&body, "the body is not an inference request")?;
    let limits = JsonLimits { tensor_bytes_max: public.router.limits().max_body_bytes.saturating_mul(4) };
    let mut inputs = Vec::with_capacity(request.inputs.len());
    for input in &request.inputs {
        inputs.push(input.decode(limits)?);
    }
    predict::check_inputs(route.metadata(), &inputs)?;
    let wanted = request.wanted(route.metadata())?;
    let (parameters, timeout) = split_parameters(request.parameters.as_ref())?;
    let response = journey.predict(&route, Ask { parameters, timeout }, Payload::Tensors(inputs)).await?;
    let outputs = outputs(response.payload, &wanted)?;
    let mut out = Vec::with_capacity(256);
    write_response(&route, request.id.as_deref(), &outputs, &mut out)?;
    Ok(http::json(StatusCode::OK, out))
}

#[derive(Deserialize)]
struct InferRequest<'a> {
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    parameters: Option<serde_json::Map<String, Value>>,
    #[serde(borrow)]
    inputs: Vec<InferInput<'a>>,
    #[serde(borrow)]
    outputs: Option<Vec<InferOutput<'a>>>,
}

#[derive(Deserialize)]
struct InferInput<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    datatype: Cow<'a, str>,
    shape: Shape,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct InferOutput<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

impl InferInput<'_> {
    fn decode(&self, limits: JsonLimits) -> Result<Tensor> {
        let name = &*self.name;
        let fault = |message: String| Error::invalid(format!("input \"{name}\": {message}")).field(name);
        let datatype = Datatype::parse(&self.datatype).ok_or_else(|| {
            let known = Datatype::ALL.map(Datatype::as_str);
            let hint = crate::error::did_you_mean(&self.datatype, known);
            fault(format!("no datatype \"{}\"{hint}", self.datatype))
        })?;
        let data = self.data.ok_or_else(|| fault("it has no data".into()))?;
        let spec = TensorSpec { name: name.into(), datatype, shape: self.shape.clone(), optional: false };
        predict::decode_tensor(&spec, data.get(), Some(&self.shape), limits)
    }
}

impl InferRequest<'_> {
    /// The names of the outputs that the caller wants; all if it names none.
    fn wanted(&self, metadata: &Metadata) -> Result<Vec<String>> {
        let wanted = self.outputs.iter().flatten().map(|output| output.name.clone().into_owned());
        let wanted: Vec<String> = wanted.collect();
        for name in &wanted {
            if !metadata.outputs.iter().any(|spec| *spec.name == **name) {
                let hint = crate::error::did_you_mean(name, metadata.outputs.iter().map(|spec| &*spec.name));
                return Err(Error::invalid(format!("no output \"{name}\"{hint}")).field(name));
            }
        }
        Ok(wanted)
    }
}

/// `timeout` (microseconds) is the protocol's own; the rest is for the plugin.
fn split_parameters(
    fields: Option<&serde_json::Map<String, Value>>,
) -> Result<(Parameters, Option<Duration>)> {
    let mut parameters = Parameters::new();
    let mut timeout = None;
    for (name, value) in fields.into_iter().flatten() {
        if name == "timeout" {
            let us = value.as_u64().filter(|us| *us > 0).ok_or_else(|| {
                Error::invalid(format!("parameter \"timeout\" is {value}; it is a number of microseconds"))
            })?;
            timeout = Some(Duration::from_micros(us));
        } else {
            parameters.push((name.clone(), predict::parameter(name, value)?));
        }
    }
    Ok((parameters, timeout))
}

/// A transformer that answers with JSON or bytes gives them as one BYTES output.
fn outputs(payload: Payload, wanted: &[String]) -> Result<Vec<Tensor>> {
    let one =
        |element: &[u8]| Tensor::from_elements("result", Shape::from_slice(&[1]), [element]).map(|t| vec![t]);
    match payload {
        Payload::Tensors(mut tensors) => {
            if !wanted.is_empty() {
                tensors.retain(|tensor| wanted.iter().any(|name| name == tensor.name()));
            }
            Ok(tensors)
        }
        Payload::Json(text) => one(text.as_bytes()),
        Payload::Bytes { data, .. } => one(&data),
    }
}

fn write_response(route: &Route, id: Option<&str>, outputs: &[Tensor], out: &mut Vec<u8>) -> Result<()> {
    fn text(out: &mut Vec<u8>, before: &[u8], value: &str) {
        out.extend_from_slice(before);
        serde_json::to_writer(out, value).expect("invariant: writing to memory");
    }
    text(out, b"{\"model_name\":", &route.name.name);
    text(out, b",\"model_version\":", &route.name.version);
    if let Some(id) = id {
        text(out, b",\"id\":", id);
    }
    out.extend_from_slice(b",\"outputs\":[");
    for (index, tensor) in outputs.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        text(out, b"{\"name\":", tensor.name());
        text(out, b",\"datatype\":", tensor.datatype().as_str());
        out.extend_from_slice(b",\"shape\":");
        serde_json::to_writer(&mut *out, tensor.shape()).expect("invariant: writing to memory");
        out.extend_from_slice(b",\"data\":");
        encode_tensor(tensor, true, out)?;
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    Ok(())
}

fn answered(answer: Result<Reply>) -> Reply {
    answer.unwrap_or_else(|error| error_reply(&error))
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
