//! `/ui/api/predict`: a prediction that shows how it came about.

use super::shown_steps::ShownSteps;
use crate::access::Verb;
use crate::error::{Error, Result};
use crate::offload;
use crate::policy::Route;
use crate::predict::{self, Payload, Response, StepObserver};
use crate::router::{CallOptions, RequestScope};
use crate::server::http::{self, ErrorBody, Reply, RequestBody};
use crate::server::plain::request::Request;
use crate::server::state::Public;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;
use hyper::http::request::Parts;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is shown besides the answer.
#[derive(Serialize)]
struct Details {
    elapsed_ms: f64,
    steps: Vec<Value>,
    /// Steps that are not shown.
    more_steps: usize,
}

#[derive(Serialize)]
struct Answer<'a> {
    model: &'a str,
    version: &'a str,
    id: &'a str,
    queue_ms: f64,
    result: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    #[serde(flatten)]
    details: Details,
}

#[derive(Serialize)]
struct Failure<'a> {
    #[serde(flatten)]
    error: ErrorBody<'a>,
    #[serde(flatten)]
    details: Details,
}

/// Answers as `POST /predict` does, and adds times and the steps of pipelines.
pub(super) async fn answer(public: &Public, head: &Parts, body: RequestBody) -> Reply {
    let began = Instant::now();
    let (id, authority) = (http::request_id(&head.headers), public.authority(head, Verb::Predict));
    let mut scope = public.router.begin(id, "plain", authority, &http::header_lookup(&head.headers));
    let steps = Arc::<ShownSteps>::default();
    let outcome = run(public, &mut scope, head, body, &steps).await;
    let (steps, more_steps) = steps.take();
    let details = Details { elapsed_ms: ms(began.elapsed()), steps, more_steps };
    let (mut reply, error) = match shown(&scope, outcome, details).await {
        Ok(reply) => (reply, None),
        Err((error, details)) => {
            let failure = Failure { error: ErrorBody::of(&error, scope.id()), details };
            let mut reply = http::json_of(http::status_of(&error), &failure);
            http::add_hints(&mut reply, &error);
            (reply, Some(error))
        }
    };
    http::sign(&mut reply, scope.id(), scope.generation());
    scope.end(reply.status().as_u16(), error.as_ref());
    reply
}

async fn run(
    public: &Public,
    scope: &mut RequestScope,
    head: &Parts,
    body: RequestBody,
    steps: &Arc<ShownSteps>,
) -> Result<(Arc<Route>, Response)> {
    let body = public.read(scope, head, body).await?;
    let request = Request::read(body).await?;
    let headers = http::header_lookup(&head.headers);
    let route = scope.resolve(&request.head.model, request.head.version(), &headers)?;
    let (options, input) = request.input(&route, public.router.budget()).await?;
    let steps: Arc<dyn StepObserver> = Arc::<ShownSteps>::clone(steps);
    let options = CallOptions { steps: Some(steps), ..options };
    let response = scope.predict(&route, options, input).await?;
    Ok((route, response))
}

/// Returns the reply to a prediction that succeeded, or what the reply to one that failed consists
/// of.
async fn shown(
    scope: &RequestScope,
    outcome: Result<(Arc<Route>, Response)>,
    details: Details,
) -> std::result::Result<Reply, (Error, Details)> {
    let (route, response) = match outcome {
        Ok(succeeded) => succeeded,
        Err(error) => return Err((error, details)),
    };
    let (queue_ms, payload) = (ms(response.queue_wait), response.payload);
    let (mut content_type, mut base64) = (None, None);
    let mut result = None;
    match &payload {
        Payload::Bytes { content_type: of, data } => {
            (content_type, base64) = (Some(&**of), Some(STANDARD.encode(data)));
        }
        _ => match encoded(payload.clone()).await {
            Ok(encoded) => result = Some(encoded),
            Err(error) => return Err((error, details)),
        },
    }
    let (model, version, id) = (&*route.name.name, &*route.name.version, &**scope.id());
    let answer = Answer { model, version, id, queue_ms, result, content_type, base64, details };
    Ok(http::json_of(StatusCode::OK, &answer))
}

async fn encoded(payload: Payload) -> Result<Box<RawValue>> {
    offload::run(payload.json_bytes(), move || {
        let mut text = Vec::new();
        predict::encode_result(&payload, &mut text)?;
        let text = String::from_utf8(text).ok().and_then(|text| RawValue::from_string(text).ok());
        text.ok_or_else(|| Error::failed("the result is not valid JSON"))
    })
    .await
}

fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
