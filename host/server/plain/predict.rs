//! Predictions over the plain interface: `/predict`, `/predict/batch` and `/predict/<model>`.

use super::body_input;
use super::envelope::{batch_reply, single_reply};
use super::request::{self, BatchRequest};
use crate::access::Verb;
use crate::error::{Error, Result};
use crate::predict::{self, Payload};
use crate::router::{CallOptions, RequestScope};
use crate::server::background;
use crate::server::endpoint::PredictEndpoint;
use crate::server::http::{self, Reply, RequestBody};
use crate::server::state::Public;
use bytes::Bytes;
use hyper::header::HeaderValue;
use hyper::http::request::Parts;
use serde_json::Value;
use std::time::Duration;

/// Answers a prediction, and signs and accounts for the reply.
pub(in crate::server) async fn answer(
    public: &Public,
    head: &Parts,
    body: RequestBody,
    endpoint: PredictEndpoint<'_>,
) -> Reply {
    let id = http::request_id(&head.headers);
    let mut scope = public.router.begin(
        id,
        "plain",
        public.authority(head, Verb::Predict),
        &http::header_lookup(&head.headers),
    );
    let outcome = match public.read(&mut scope, head, body).await {
        Ok(body) => match endpoint {
            PredictEndpoint::Single => single(public, &mut scope, head, body).await,
            PredictEndpoint::Batch => Box::pin(batch(public, &mut scope, head, body)).await,
            PredictEndpoint::Model(name) => predict_body(public, &mut scope, head, body, name).await,
        },
        Err(error) => Err(error),
    };
    let (mut reply, error) = match outcome {
        Ok(reply) => (reply, None),
        Err(error) => (http::error_reply(&error, scope.id()), Some(error)),
    };
    http::sign(&mut reply, scope.id(), scope.generation());
    scope.end(reply.status().as_u16(), error.as_ref());
    reply
}

async fn single(public: &Public, scope: &mut RequestScope, head: &Parts, body: Bytes) -> Result<Reply> {
    let request = request::Request::read(body).await?;
    let route =
        scope.resolve(&request.head.model, request.head.version(), &http::header_lookup(&head.headers))?;
    let (options, input) = request.input(&route, public.router.budget()).await?;
    let response = scope.predict(&route, options, input).await?;
    single_reply(scope, &route, response.payload).await
}

async fn batch(public: &Public, scope: &mut RequestScope, head: &Parts, body: Bytes) -> Result<Reply> {
    let request = BatchRequest::read(body).await?;
    let route =
        scope.resolve(&request.head.model, request.head.version(), &http::header_lookup(&head.headers))?;
    let items = request.inputs(&route, public.router.budget()).await?;
    let mut answers: Vec<Option<Result<Payload>>> = items.iter().map(|_| None).collect();
    let mut runnable = Vec::new();
    let mut indices = Vec::new();
    for (index, item) in items.into_iter().enumerate() {
        match item {
            Ok(item) => {
                runnable.push(item);
                indices.push(index);
            }
            Err(error) => answers[index] = Some(Err(error)),
        }
    }
    if !runnable.is_empty() {
        for (index, answer) in indices.into_iter().zip(scope.predict_batch(&route, runnable).await?) {
            answers[index] = Some(answer.map(|response| response.payload));
        }
    }
    let answers = answers.into_iter().map(|answer| answer.expect("invariant: every item was answered"));
    Ok(batch_reply(scope, &route, answers.collect()).await)
}

/// Runs a model whose input is the body: a JPEG, a text, a JSON record.
async fn predict_body(
    public: &Public,
    scope: &mut RequestScope,
    head: &Parts,
    body: Bytes,
    name: &str,
) -> Result<Reply> {
    let (model, version) = body_input::model(name)?;
    let route = scope.resolve(&model, version.as_deref(), &http::header_lookup(&head.headers))?;
    let content_type = http::header(&head.headers, "content-type").unwrap_or_default();
    let input = body_input::read(&route, content_type, body, public.router.budget()).await?;
    let response = scope.predict(&route, call_options(head.uri.query())?, input).await?;
    match response.payload {
        Payload::Bytes { content_type, data } => {
            let content_type = HeaderValue::from_str(&content_type).map_err(|_| {
                Error::failed(format!(
                    "the plugin returned the content type {content_type:?}, which is not valid"
                ))
            })?;
            Ok(http::sandboxed(content_type, data))
        }
        payload => single_reply(scope, &route, payload).await,
    }
}

/// Reads parameters and timeout from the query, for a request whose body is the input.
fn call_options(query: Option<&str>) -> Result<CallOptions> {
    let mut options = CallOptions::default();
    for pair in http::query_pairs(query, "true") {
        let (name, value) = pair?;
        let text = value.clone();
        let typed = http::query_value(value);
        if name == "timeout_ms" {
            options.timeout = Some(timeout(&typed)?);
        } else if name == "priority" {
            options.priority = background::query_priority(&text)?;
        } else {
            let parameter = predict::parameter(&name, &typed)?;
            options.parameters.push((name, parameter));
        }
    }
    Ok(options)
}

/// Reads `timeout_ms` of a query.
fn timeout(value: &Value) -> Result<Duration> {
    match value.as_u64() {
        Some(ms) if ms > 0 => Ok(Duration::from_millis(ms)),
        _ => {
            let message =
                format!("timeout_ms is {value}; it must be a whole number of milliseconds, at least 1");
            Err(Error::invalid(message).field("timeout_ms"))
        }
    }
}
