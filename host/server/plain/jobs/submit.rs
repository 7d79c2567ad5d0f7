//! Submits jobs: `POST /predict/async` and `POST /predict/async/batch`.

use super::idempotency::key;
use super::report::{conflict, promise, url};
use crate::error::{Error, Result};
use crate::jobs::{Item, RequestedBudgets, Retried, State, Submitted};
use crate::offload;
use crate::predict::walk::Listed;
use crate::predict::{JsonText, MemoryBudget};
use crate::router::RequestScope;
use crate::server::http::{self, Reply, RequestBody};
use crate::server::plain::request::{self, BATCH_ITEMS_MAX, Head, UNREADABLE, Version};
use crate::server::state::Public;
use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{HeaderValue, LOCATION};
use hyper::http::request::Parts;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// Answers a submission. It is accounted for like any other request; its reply only promises a
/// result.
pub(super) async fn answer(public: &Public, head: &Parts, body: RequestBody, batch: bool) -> Reply {
    let id = http::request_id(&head.headers);
    let mut scope = public.router.begin(id, "plain", &http::header_lookup(&head.headers));
    let outcome = match http::read_body(&head.headers, body, 0, &public.transfers).await {
        Ok(body) if batch => submit_batch(public, &mut scope, head, body).await,
        Ok(body) => submit(public, &mut scope, head, body).await,
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

async fn submit(public: &Public, scope: &mut RequestScope, http_head: &Parts, body: Bytes) -> Result<Reply> {
    let (length, key) = (body.len(), key(http_head, &body)?);
    let (head, budgets, data) = offload::run(length, move || {
        let request: Single<'_> = http::parse_object(&body, UNREADABLE)?;
        let budgets = budgets([
            request.timeout_ms,
            request.max_attempts,
            request.max_runtime_ms,
            request.max_total_runtime_ms,
            request.run_after_ms,
        ])?;
        let head = Head::of(&body, request.model, request.version, request.parameters, None);
        Ok::<_, Error>((head, budgets, request::json_part(&body, request.data)))
    })
    .await?;
    let route = scope.resolve(&head.model, head.version(), &http::header_lookup(&http_head.headers))?;
    let (checked, mut budget) = (Arc::clone(&route), public.router.budget());
    let item = offload::run(length, move || {
        let parameters = head.parameters(&mut budget)?;
        Item::checked(&checked, copied(&data), parameters, budget)
    })
    .await?;
    let submitted = public.jobs.submit_background(&route.name, vec![item], budgets, scope.id(), key).await?;
    let submitted = jobs_of(public, submitted).await;
    let (id, state) = submitted.jobs.first().expect("invariant: a job for each item");
    let mut reply = http::json_of(StatusCode::ACCEPTED, &promise(id, *state));
    locate(&mut reply, id);
    submitted.mark(&mut reply);
    Ok(reply)
}

/// Submits a batch. Unlike the items of `/predict/batch`, all are admitted or none: the reply has
/// no results yet, and so no place for the error of a single item.
async fn submit_batch(
    public: &Public,
    scope: &mut RequestScope,
    http_head: &Parts,
    body: Bytes,
) -> Result<Reply> {
    let (length, key) = (body.len(), key(http_head, &body)?);
    let (head, budgets, body, ranges) = offload::run(length, move || {
        let request: Batch<'_> = http::parse_object(&body, UNREADABLE)?;
        let budgets = budgets([
            request.timeout_ms,
            request.max_attempts,
            request.max_runtime_ms,
            request.max_total_runtime_ms,
            request.run_after_ms,
        ])?;
        let head = Head::of(&body, request.model, request.version, request.parameters, None);
        let ranges = request::item_ranges(&body, &request.items)?;
        Ok::<_, Error>((head, budgets, body, ranges))
    })
    .await?;
    let route = scope.resolve(&head.model, head.version(), &http::header_lookup(&http_head.headers))?;
    let (checked, mut budget) = (Arc::clone(&route), public.router.budget());
    let items = offload::run(length, move || {
        let shared = head.parameters(&mut budget)?;
        let item = |range: &Range<usize>, budget: &mut MemoryBudget| {
            let (data, parameters) = request::item(&body, range, &shared, budget)?;
            // The tensors of an item are dropped after the check, so their share of the budget is
            // free again: each item is checked with a copy of the budget.
            Item::checked(&checked, copied(&data), parameters, *budget)
        };
        let items = ranges.iter().enumerate().map(|(index, range)| {
            let at = format!("items[{index}]");
            item(range, &mut budget).map_err(|error| error.context(&at).field(at))
        });
        items.collect::<Result<Vec<Item>>>()
    })
    .await?;
    let submitted = public.jobs.submit_background(&route.name, items, budgets, scope.id(), key).await?;
    let submitted = jobs_of(public, submitted).await;
    let promises: Vec<Value> = submitted.jobs.iter().map(|(id, state)| promise(id, *state)).collect();
    let mut reply = http::json_of(StatusCode::ACCEPTED, &json!({"jobs": promises}));
    submitted.mark(&mut reply);
    Ok(reply)
}

/// `POST /jobs/<id>/retry`: submits the input of a job that did not succeed once more.
pub(super) async fn retry(public: &Public, id: &str, request_id: &Arc<str>) -> Result<Reply> {
    Ok(match public.jobs.retry(id, request_id).await? {
        Retried::New(job) => {
            let mut reply = http::json_of(StatusCode::ACCEPTED, &promise(&job.id, Some(job.status.state)));
            locate(&mut reply, &job.id);
            reply
        }
        Retried::Refused(state) if state.is_final() => conflict(id, state, "it has succeeded", request_id),
        Retried::Refused(state) => conflict(id, state, "it has not ended; cancel it first", request_id),
    })
}

fn locate(reply: &mut Reply, id: &str) {
    if let Ok(location) = HeaderValue::from_str(&url(id)) {
        reply.headers_mut().insert(LOCATION, location);
    }
}

/// The jobs of a submission, with their states; `None` for one that is not in the store any more.
struct SubmittedJobs {
    jobs: Vec<(Arc<str>, Option<State>)>,
    /// An earlier submission has created them.
    is_replay: bool,
}

impl SubmittedJobs {
    fn mark(&self, reply: &mut Reply) {
        if self.is_replay {
            reply.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
        }
    }
}

async fn jobs_of(public: &Public, submitted: Submitted) -> SubmittedJobs {
    match submitted {
        Submitted::New(jobs) => {
            let jobs = jobs.into_iter().map(|job| (job.id, Some(job.status.state))).collect();
            SubmittedJobs { jobs, is_replay: false }
        }
        Submitted::Existing(ids) => {
            let mut jobs = Vec::with_capacity(ids.len());
            for id in ids {
                let state = public.jobs.get(&id).await.ok().map(|job| job.status.state);
                jobs.push((id, state));
            }
            SubmittedJobs { jobs, is_replay: true }
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Single<'a> {
    #[serde(borrow)]
    model: Cow<'a, str>,
    #[serde(borrow)]
    version: Option<Version<'a>>,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(borrow)]
    parameters: Option<&'a RawValue>,
    #[serde(borrow)]
    timeout_ms: Option<&'a RawValue>,
    #[serde(borrow)]
    max_attempts: Option<&'a RawValue>,
    #[serde(borrow)]
    max_runtime_ms: Option<&'a RawValue>,
    #[serde(borrow)]
    max_total_runtime_ms: Option<&'a RawValue>,
    #[serde(borrow)]
    run_after_ms: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch<'a> {
    #[serde(borrow)]
    model: Cow<'a, str>,
    #[serde(borrow)]
    version: Option<Version<'a>>,
    #[serde(borrow)]
    items: Listed<'a, BATCH_ITEMS_MAX>,
    #[serde(borrow)]
    parameters: Option<&'a RawValue>,
    #[serde(borrow)]
    timeout_ms: Option<&'a RawValue>,
    #[serde(borrow)]
    max_attempts: Option<&'a RawValue>,
    #[serde(borrow)]
    max_runtime_ms: Option<&'a RawValue>,
    #[serde(borrow)]
    max_total_runtime_ms: Option<&'a RawValue>,
    #[serde(borrow)]
    run_after_ms: Option<&'a RawValue>,
}

/// The fields of `budgets`, in order. `timeout_ms` is the name that `/predict` has for
/// `max_runtime_ms`, the time of one attempt.
const BUDGETS: [&str; 5] =
    ["timeout_ms", "max_attempts", "max_runtime_ms", "max_total_runtime_ms", "run_after_ms"];

fn budgets(values: [Option<&RawValue>; 5]) -> Result<RequestedBudgets> {
    let mut numbers = [None; 5];
    for ((field, value), number) in BUDGETS.into_iter().zip(values).zip(&mut numbers) {
        let Some(value) = value else { continue };
        let unit = if field == "max_attempts" { "" } else { " of milliseconds" };
        *number = Some(request::whole_number(field, value, unit)?);
    }
    let [timeout, max_attempts, max_runtime, max_total_runtime, run_after] = numbers;
    if timeout.is_some() && max_runtime.is_some() {
        let message = "timeout_ms and max_runtime_ms are two names of one limit; send one of them";
        return Err(Error::invalid(message).field("timeout_ms"));
    }
    Ok(RequestedBudgets {
        max_attempts,
        max_runtime: max_runtime.or(timeout).map(Duration::from_millis),
        max_total_runtime: max_total_runtime.map(Duration::from_millis),
        run_after: run_after.map(Duration::from_millis).unwrap_or_default(),
    })
}

/// Copies the input out of the body: a job must not keep the whole body in memory.
fn copied(data: &JsonText) -> JsonText {
    JsonText::from_checked(Bytes::copy_from_slice(data.as_bytes()))
}
