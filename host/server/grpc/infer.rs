//! `ModelInfer`, and what it shares with the stream: messages to the protocol's request and back.

use super::Grpc;
use super::frame::{self, Body};
use super::message::ModelInferRequest;
use super::received::Message;
use super::{contents, status};
use crate::error::{Error, Result};
use crate::predict::{MemoryBudget, Parameter, Parameters};
use crate::proto::inference::infer_parameter::ParameterChoice;
use crate::proto::inference::model_infer_response::InferOutputTensor;
use crate::proto::inference::{InferParameter, ModelInferResponse};
use crate::router::RequestScope;
use crate::server::http;
use crate::server::oip::infer::{self, InferRequest, InferResponse, RequestedOutput};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Request, Response};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The field of `ModelInferResponse` that has the contents.
const RAW_OUTPUT_CONTENTS: u32 = 6;

/// `ModelInfer`. It is framed here and not by tonic, so that contents are not copied and every call is
/// accounted for, those whose message cannot be read as well.
pub(super) async fn unary(grpc: &Grpc, request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let started = Instant::now();
    let message = receive(grpc, &parts.headers, body).await;
    let id = match &message {
        Ok(message) => request_id(&parts.headers, message.id()),
        Err(_) => http::request_id(&parts.headers),
    };
    let mut scope = grpc.router.begin(id, "grpc", &|name| http::header(&parts.headers, name));
    let outcome = match message {
        Ok(message) => answer(&mut scope, &parts.headers, message, started).await,
        Err(error) => Err(error),
    };
    let (mut response, error) = match outcome {
        Ok(body) => {
            let mut response = Response::new(body);
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            (response, None)
        }
        Err(error) => (status::refusal(&error), Some(error)),
    };
    http::sign(&mut response, scope.id(), scope.generation());
    scope.end(status::counted(error.as_ref()), error.as_ref());
    response
}

async fn receive(grpc: &Grpc, headers: &HeaderMap, body: Incoming) -> Result<Message> {
    timeout(headers)?;
    let message = frame::read(body, frame::encoding(headers)?, &grpc.transfers).await?;
    Message::read(message, grpc.router.budget()).await
}

async fn answer(
    scope: &mut RequestScope,
    headers: &HeaderMap,
    message: Message,
    started: Instant,
) -> Result<Body> {
    let timeout = timeout(headers)?;
    let version = version(message.version());
    let route = scope
        .resolve(message.model(), version, &|name| http::header(headers, name))
        .map_err(|error| infer::unknown_model(error, version))?;
    let left = || timeout.map(|timeout| timeout.saturating_sub(started.elapsed()));
    let response = infer::infer(scope, &route, message.decode(left).await?).await?;
    let (head, contents) = encode(response);
    Body::message(&head, RAW_OUTPUT_CONTENTS, &contents)
}

/// An empty version is none.
pub(super) fn version(version: &str) -> Option<&str> {
    Some(version).filter(|version| !version.is_empty())
}

/// The header's, or what the message says, if it can go into a log.
pub(super) fn request_id(headers: &HeaderMap, message: &str) -> Arc<str> {
    if headers.contains_key(http::REQUEST_ID) || !http::usable_as_id(message) {
        return http::request_id(headers);
    }
    message.into()
}

/// What `grpc-timeout` says: up to eight digits and a unit. A caller whose deadline cannot be read would wait for
/// longer than it knows, so it is refused.
pub(super) fn timeout(headers: &HeaderMap) -> Result<Option<Duration>> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    let timeout = value.to_str().ok().and_then(read_timeout);
    timeout.map(Some).ok_or_else(|| {
        let shown: String = String::from_utf8_lossy(value.as_bytes()).chars().take(40).collect();
        Error::invalid(format!(
            "grpc-timeout is \"{shown}\"; it is up to eight digits and a unit, one of H, M, S, m, u, n"
        ))
        .field("grpc-timeout")
    })
}

fn read_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let is_number = (1..=8).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit());
    let number: u64 = digits.parse().ok().filter(|_| is_number)?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// What the caller wants, in the protocol's terms.
pub(super) fn decode(message: ModelInferRequest, budget: &mut MemoryBudget) -> Result<InferRequest> {
    let mut request = InferRequest {
        id: Some(message.id).filter(|id| !id.is_empty()),
        parameters: parameters(message.parameters)?,
        inputs: Vec::new(),
        outputs: Vec::with_capacity(message.outputs.len()),
    };
    for input in &message.inputs {
        for name in input.parameters.keys() {
            infer::check_tensor_parameter(format_args!("input \"{}\"", input.name), name)?;
        }
    }
    request.inputs =
        contents::decode(&message.model_name, message.inputs, message.raw_input_contents, budget)?;
    for output in message.outputs {
        let parameters = parameters(output.parameters)?;
        request.outputs.push(RequestedOutput { name: output.name, parameters });
    }
    Ok(request)
}

/// The deadline of the call bounds the `timeout` that the message may have, where 0 is none.
pub(super) fn limit(parameters: &mut Parameters, left: Duration) -> Result<()> {
    let us = i64::try_from(left.as_micros()).unwrap_or(i64::MAX);
    if us == 0 {
        return Err(Error::deadline("the call's deadline passed before its message was read"));
    }
    match parameters.iter_mut().find(|(name, _)| name == "timeout") {
        Some((_, Parameter::Integer(timeout_us))) if *timeout_us == 0 || *timeout_us > us => *timeout_us = us,
        Some(_) => {}
        None => parameters.push(("timeout".into(), Parameter::Integer(us))),
    }
    Ok(())
}

fn parameters(fields: BTreeMap<String, InferParameter>) -> Result<Parameters> {
    let one = |(name, parameter): (String, InferParameter)| {
        let value = match parameter.parameter_choice {
            Some(ParameterChoice::BoolParam(value)) => Parameter::Boolean(value),
            Some(ParameterChoice::Int64Param(value)) => Parameter::Integer(value),
            Some(ParameterChoice::StringParam(value)) => Parameter::Text(value),
            Some(ParameterChoice::DoubleParam(value)) => Parameter::Number(value),
            Some(ParameterChoice::Uint64Param(value)) => {
                Parameter::Integer(value.try_into().map_err(|_| {
                    let message =
                        format!("parameter \"{name}\" is {value}; at most {} can be held", i64::MAX);
                    Error::invalid(message).field(format!("parameters.{name}"))
                })?)
            }
            None => {
                let message = format!("parameter \"{name}\" has no value");
                return Err(Error::invalid(message).field(format!("parameters.{name}")));
            }
        };
        Ok((name, value))
    };
    fields.into_iter().map(one).collect()
}

/// A response's message without its contents, and those, one for each output.
pub(super) fn encode(response: InferResponse) -> (ModelInferResponse, Vec<Bytes>) {
    let contents = response.outputs.iter().map(|tensor| tensor.data().clone()).collect();
    let output = |tensor: &crate::predict::Tensor| InferOutputTensor {
        name: tensor.name().into(),
        datatype: tensor.datatype().as_str().into(),
        shape: tensor.shape().to_vec(),
        ..Default::default()
    };
    let head = ModelInferResponse {
        model_name: response.route.name.name.to_string(),
        model_version: response.route.name.version.to_string(),
        id: response.id.unwrap_or_default(),
        parameters: response.parameters.into_iter().map(|(name, value)| (name, parameter(value))).collect(),
        outputs: response.outputs.iter().map(output).collect(),
        raw_output_contents: Vec::new(),
    };
    (head, contents)
}

pub(super) fn parameter(value: Parameter) -> InferParameter {
    let choice = match value {
        Parameter::Boolean(value) => ParameterChoice::BoolParam(value),
        Parameter::Integer(value) => ParameterChoice::Int64Param(value),
        Parameter::Number(value) => ParameterChoice::DoubleParam(value),
        Parameter::Text(value) => ParameterChoice::StringParam(value),
    };
    InferParameter { parameter_choice: Some(choice) }
}
