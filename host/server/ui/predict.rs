//! `/ui/api/predict`: a prediction that shows how it came about.

use super::shown_steps::ShownSteps;
use crate::access::Verb;
use crate::error::{Error, Result};
use crate::offload;
use crate::policy::Route;
use crate::predict::{Payload, Response, StepObserver};
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

/// The most responses of a streaming model that are shown, and the most bytes of them.
const RESPONSES_MAX: usize = 100;
const RESPONSE_BYTES_MAX: usize = 8 << 20;

/// The largest result that is shown: the admin listener has no budget for what its clients do not
/// read.
const RESULT_BYTES_MAX: usize = 16 << 20;

/// A prediction that succeeded.
struct Responded {
    route: Arc<Route>,
    queue_wait: Duration,
    payloads: Vec<Payload>,
    /// The model made more responses than are shown.
    is_cut: bool,
}

/// What is shown besides the answer.
#[derive(Serialize)]
struct PredictDetails {
    elapsed_ms: f64,
    steps: Vec<Value>,
    /// Steps that are not shown.
    more_steps: usize,
}

#[derive(Serialize)]
struct PredictAnswer<'a> {
    model: &'a str,
    version: &'a str,
    id: &'a str,
    queue_ms: f64,
    /// A list, for a streaming model.
    result: Option<Box<RawValue>>,
    /// How many responses a streaming model has made that are in the list.
    #[serde(skip_serializing_if = "Option::is_none")]
    responses: Option<usize>,
    /// Whether it was stopped because it made more than are shown.
    is_cut: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    #[serde(flatten)]
    details: PredictDetails,
}

#[derive(Serialize)]
struct PredictFailure<'a> {
    #[serde(flatten)]
    error: ErrorBody<'a>,
    #[serde(flatten)]
    details: PredictDetails,
}

/// Answers as `POST /predict` does, and adds times and the steps of pipelines.
pub(super) async fn answer(public: &Public, head: &Parts, body: RequestBody) -> Reply {
    let began = Instant::now();
    let (id, authority) = (http::request_id(&head.headers), public.authority(head, Verb::Predict));
    let mut scope = public.router.begin(id, "plain", authority, &http::header_lookup(&head.headers));
    let steps = Arc::<ShownSteps>::default();
    let outcome = run(public, &mut scope, head, body, &steps).await;
    let (steps, more_steps) = steps.take();
    let details = PredictDetails { elapsed_ms: ms(began.elapsed()), steps, more_steps };
    let (mut reply, error) = match shown(&scope, outcome, details).await {
        Ok(reply) => (reply, None),
        Err((error, details)) => {
            let failure = PredictFailure { error: ErrorBody::of(&error, scope.id()), details };
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
) -> Result<Responded> {
    let body = public.read(scope, head, body).await?;
    let request = Request::read(body).await?;
    let headers = http::header_lookup(&head.headers);
    let route = scope.resolve(&request.head.model, request.head.version(), &headers)?;
    let (options, input) = request.input(&route, public.router.budget()).await?;
    let steps: Arc<dyn StepObserver> = Arc::<ShownSteps>::clone(steps);
    let options = CallOptions { steps: Some(steps), ..options };
    if !route.is_streaming() {
        let Response { payload, queue_wait, .. } = scope.predict(&route, options, input).await?;
        return Ok(Responded { route, queue_wait, payloads: vec![payload], is_cut: false });
    }
    let mut responses = scope.stream(&route, options, input)?;
    let mut responded = Responded { route, queue_wait: Duration::ZERO, payloads: Vec::new(), is_cut: false };
    let mut bytes = 0;
    while let Some(response) = scope.next(&responded.route, &mut responses).await {
        let Response { payload, queue_wait, .. } = response?;
        bytes += payload.bytes_kept();
        if responded.payloads.len() == RESPONSES_MAX || bytes > RESPONSE_BYTES_MAX {
            responded.is_cut = true;
            break;
        }
        responded.queue_wait = queue_wait;
        responded.payloads.push(payload);
    }
    Ok(responded)
}

/// Returns the reply to a prediction that succeeded, or what the reply to one that failed consists
/// of.
async fn shown(
    scope: &RequestScope,
    outcome: Result<Responded>,
    details: PredictDetails,
) -> std::result::Result<Reply, (Error, PredictDetails)> {
    let Responded { route, queue_wait, payloads, is_cut } = match outcome {
        Ok(responded) => responded,
        Err(error) => return Err((error, details)),
    };
    let responses = route.is_streaming().then_some(payloads.len());
    let (mut content_type, mut base64, mut result) = (None, None, None);
    if let [Payload::Bytes { content_type: of, data }] = &payloads[..] {
        if let Err(error) = check_size(data.len()) {
            return Err((error, details));
        }
        let data = data.clone();
        let text = offload::run(data.len(), move || STANDARD.encode(&data)).await;
        (content_type, base64) = (Some(of.clone()), Some(text));
    } else {
        match encoded(&route, payloads).await {
            Ok(encoded) => result = Some(encoded),
            Err(error) => return Err((error, details)),
        }
    }
    let answer = PredictAnswer {
        model: &route.name.name,
        version: &route.name.version,
        id: scope.id(),
        queue_ms: ms(queue_wait),
        result,
        responses,
        is_cut,
        content_type,
        base64,
        details,
    };
    Ok(http::json_of(StatusCode::OK, &answer))
}

/// Returns the result, or a list of them for a streaming model.
async fn encoded(route: &Arc<Route>, payloads: Vec<Payload>) -> Result<Box<RawValue>> {
    let (route, bytes) = (Arc::clone(route), payloads.iter().map(Payload::json_bytes).sum());
    offload::run(bytes, move || {
        let text = route.result_of(&payloads)?;
        check_size(text.len())?;
        let text = String::from_utf8(text).ok();
        let value = text.and_then(|text| RawValue::from_string(text).ok());
        value.ok_or_else(|| Error::failed("the result is not valid JSON"))
    })
    .await
}

/// Refuses a result that the page does not show.
fn check_size(bytes: usize) -> Result<()> {
    if bytes <= RESULT_BYTES_MAX {
        return Ok(());
    }
    let (mb, max_mb) = (bytes.div_ceil(1 << 20), RESULT_BYTES_MAX >> 20);
    Err(Error::too_large(format!(
        "the result has {mb} MB, and the page shows up to {max_mb} MB; send the request to /predict"
    )))
}

fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
