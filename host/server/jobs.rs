//! Jobs over HTTP: submit under `/predict/async`, watch, fetch, cancel and forget under `/jobs`.

use super::http::{self, Reply};
use super::plain::{Public, RequestHead};
use super::request::{self, BATCH_ITEMS_MAX, Head, UNREADABLE, Version};
use crate::error::{Error, Result, did_you_mean};
use crate::jobs::{Attempt, Filter, Item, Job, RequestedBudgets, Settled, State};
use crate::offload;
use crate::predict::walk::Listed;
use crate::predict::{JsonText, MemoryBudget};
use crate::router::RequestScope;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{HeaderValue, LOCATION};
use hyper::{Method, Request, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The longest that one request may wait for a job: shorter than the patience of most proxies.
const WAIT_MAX: Duration = Duration::from_secs(60);

const PAGE_DEFAULT: usize = 100;
const PAGE_MAX: usize = 1000;

pub(super) fn takes(path: &str) -> bool {
    matches!(path, "/predict/async" | "/predict/async/batch" | "/jobs") || path.starts_with("/jobs/")
}

pub(super) async fn answer(public: &Public, request: Request<Incoming>, path: &str) -> Reply {
    let method = request.method().clone();
    let (get, post) = (method == Method::GET || method == Method::HEAD, method == Method::POST);
    match path {
        "/predict/async" | "/predict/async/batch" if post => {
            return submitted(public, request, path == "/predict/async/batch").await;
        }
        "/predict/async" | "/predict/async/batch" => return http::method_not_allowed("POST"),
        _ => {}
    }
    let id = http::request_id(request.headers());
    let query = request.uri().query();
    let segments: Vec<&str> = path.split('/').skip(2).collect();
    let outcome = match (segments.as_slice(), method) {
        ([], _) if get => list(public, query).await,
        ([], _) => return http::method_not_allowed("GET"),
        ([""] | ["", ..], method) => return http::no_such_path(&method, path),
        ([job], _) if get => read(public, job, query).await,
        ([job], Method::DELETE) => delete(public, job, &id).await,
        ([_], _) => return http::method_not_allowed("GET, DELETE"),
        ([job, "cancel"], _) if post => cancel(public, job, &id).await,
        ([_, "cancel"], _) => return http::method_not_allowed("POST"),
        (_, method) => return http::no_such_path(&method, path),
    };
    let mut reply = outcome.unwrap_or_else(|error| http::error_reply(&error, &id));
    http::sign(&mut reply, &id, public.router.policy().generation);
    reply
}

/// A submission is a request like any other, but for its answer, which is only a promise.
async fn submitted(public: &Public, request: Request<Incoming>, batch: bool) -> Reply {
    let (parts, body) = request.into_parts();
    let http_head = RequestHead { headers: &parts.headers, query: parts.uri.query() };
    let mut scope = public.router.begin(http::request_id(&parts.headers), "plain", &http_head.header());
    let outcome = match http::read_body(body, &public.transfers).await {
        Ok(body) if batch => submit_batch(public, &mut scope, &http_head, body).await,
        Ok(body) => submit(public, &mut scope, &http_head, body).await,
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

async fn submit(
    public: &Public,
    scope: &mut RequestScope,
    http_head: &RequestHead<'_>,
    body: Bytes,
) -> Result<Reply> {
    let length = body.len();
    let (head, budgets, data) = offload::run(length, move || {
        let request: Single<'_> = http::parse_object(&body, UNREADABLE)?;
        let budgets = budgets([
            request.timeout_ms,
            request.max_attempts,
            request.max_runtime_ms,
            request.max_total_runtime_ms,
        ])?;
        let head = Head::of(&body, request.model, request.version, request.parameters, None);
        Ok::<_, Error>((head, budgets, request::part(&body, request.data)))
    })
    .await?;
    let route = scope.resolve(&head.model, head.version(), &http_head.header())?;
    let (checked, mut budget) = (Arc::clone(&route), public.router.budget());
    let item = offload::run(length, move || {
        let parameters = head.parameters(&mut budget)?;
        Item::checked(&checked, copied(&data), parameters, budget)
    })
    .await?;
    let jobs = public.jobs.submit_background(&route.name, vec![item], budgets, scope.id()).await?;
    let job = jobs.first().expect("invariant: a job for each item");
    let mut reply = http::json_of(StatusCode::ACCEPTED, &promise(job));
    if let Ok(location) = HeaderValue::from_str(&url(job)) {
        reply.headers_mut().insert(LOCATION, location);
    }
    Ok(reply)
}

/// Unlike the items of a batch that is waited for, these are all admitted or none: there is no answer yet that
/// could tell one from the other.
async fn submit_batch(
    public: &Public,
    scope: &mut RequestScope,
    http_head: &RequestHead<'_>,
    body: Bytes,
) -> Result<Reply> {
    let length = body.len();
    let (head, budgets, body, places) = offload::run(length, move || {
        let request: Batch<'_> = http::parse_object(&body, UNREADABLE)?;
        let budgets = budgets([
            request.timeout_ms,
            request.max_attempts,
            request.max_runtime_ms,
            request.max_total_runtime_ms,
        ])?;
        let head = Head::of(&body, request.model, request.version, request.parameters, None);
        let places = request::places(&body, &request.items)?;
        Ok::<_, Error>((head, budgets, body, places))
    })
    .await?;
    let route = scope.resolve(&head.model, head.version(), &http_head.header())?;
    let (checked, mut budget) = (Arc::clone(&route), public.router.budget());
    let items = offload::run(length, move || {
        let shared = head.parameters(&mut budget)?;
        let item = |place: &Range<usize>, budget: &mut MemoryBudget| {
            let (data, parameters) = request::item(&body, place, &shared, budget)?;
            // Its tensors are let go once they were checked, and so is their share of the budget.
            Item::checked(&checked, copied(&data), parameters, *budget)
        };
        let items = places.iter().enumerate().map(|(index, place)| {
            let at = format!("items[{index}]");
            item(place, &mut budget).map_err(|error| error.context(&at).field(at))
        });
        items.collect::<Result<Vec<Item>>>()
    })
    .await?;
    let jobs = public.jobs.submit_background(&route.name, items, budgets, scope.id()).await?;
    let promises: Vec<Value> = jobs.iter().map(promise).collect();
    Ok(http::json_of(StatusCode::ACCEPTED, &json!({"jobs": promises})))
}

async fn read(public: &Public, id: &str, query: Option<&str>) -> Result<Reply> {
    let mut wait = Duration::ZERO;
    for (name, value) in pairs(query)? {
        match name.as_str() {
            "wait_ms" => {
                let ms: u64 = value.parse().map_err(|_| {
                    Error::invalid(format!(
                        "wait_ms is \"{}\"; it must be a whole number of milliseconds",
                        cut(&value)
                    ))
                    .field("wait_ms")
                })?;
                wait = Duration::from_millis(ms).min(WAIT_MAX);
            }
            other => return Err(unknown_query(other, &["wait_ms"])),
        }
    }
    let job = public.jobs.wait(id, wait).await?;
    Ok(http::json(StatusCode::OK, full(&job)))
}

async fn cancel(public: &Public, id: &str, request_id: &str) -> Result<Reply> {
    Ok(match public.jobs.cancel(id).await? {
        Settled::Now(job) => http::json(StatusCode::OK, full(&job)),
        Settled::Refused(state) => conflict(id, state, "it has ended already", request_id),
    })
}

async fn delete(public: &Public, id: &str, request_id: &str) -> Result<Reply> {
    Ok(match public.jobs.delete(id).await? {
        Settled::Now(_) => {
            let mut reply = Reply::default();
            *reply.status_mut() = StatusCode::NO_CONTENT;
            reply
        }
        Settled::Refused(state) => conflict(id, state, "it has not ended; cancel it first", request_id),
    })
}

async fn list(public: &Public, query: Option<&str>) -> Result<Reply> {
    let mut filter = Filter { limit: PAGE_DEFAULT, ..Filter::default() };
    for (name, value) in pairs(query)? {
        let invalid = |what: &str| {
            Err(Error::invalid(format!("{name} is \"{}\"; it must be {what}", cut(&value))).field(&name))
        };
        match name.as_str() {
            "state" => filter.state = Some(State::parse(&value)?),
            "model" => filter.model = Some(value),
            "limit" => match value.parse() {
                Ok(limit) if (1..=PAGE_MAX).contains(&limit) => filter.limit = limit,
                _ => return invalid(&format!("a whole number from 1 to {PAGE_MAX}")),
            },
            "after" => match value.parse() {
                Ok(after) => filter.after = Some(after),
                Err(_) => return invalid("the `next` of a page"),
            },
            other => return Err(unknown_query(other, &["state", "model", "limit", "after"])),
        }
    }
    let page = public.jobs.list(&filter).await?;
    let jobs: Vec<Value> = page.jobs.iter().map(summary).collect();
    // As text: a cursor is to be given back, not to be counted with.
    let next = page.next.map(|next| next.to_string());
    Ok(http::json_of(StatusCode::OK, &json!({"jobs": jobs, "next": next})))
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
}

/// `timeout_ms` is what `/predict` calls the time of one attempt.
const BUDGETS: [&str; 4] = ["timeout_ms", "max_attempts", "max_runtime_ms", "max_total_runtime_ms"];

fn budgets(http_head: [Option<&RawValue>; 4]) -> Result<RequestedBudgets> {
    let mut numbers = [None; 4];
    for ((field, value), number) in BUDGETS.into_iter().zip(http_head).zip(&mut numbers) {
        let Some(value) = value else { continue };
        let unit = if field == "max_attempts" { "" } else { " of milliseconds" };
        *number = Some(request::whole_number(field, value, unit)?);
    }
    let [timeout, max_attempts, max_runtime, max_total_runtime] = numbers;
    if timeout.is_some() && max_runtime.is_some() {
        let message = "timeout_ms and max_runtime_ms are two names of one limit; send one of them";
        return Err(Error::invalid(message).field("timeout_ms"));
    }
    Ok(RequestedBudgets {
        max_attempts,
        max_runtime: max_runtime.or(timeout).map(Duration::from_millis),
        max_total_runtime: max_total_runtime.map(Duration::from_millis),
    })
}

/// The input alone: a job must not keep the whole body in memory.
fn copied(data: &JsonText) -> JsonText {
    JsonText::from_checked(Bytes::copy_from_slice(data.as_bytes()))
}

fn url(job: &Job) -> String {
    format!("/jobs/{}", job.id)
}

fn promise(job: &Job) -> Value {
    json!({"job_id": &*job.id, "state": job.status.state.as_str(), "url": url(job)})
}

fn summary(job: &Job) -> Value {
    let status = &job.status;
    json!({
        "job_id": &*job.id,
        "state": status.state.as_str(),
        "model": &*job.spec.model.name,
        "version": &*job.spec.model.version,
        "attempts": status.attempts.len(),
        "created_at": unix(job.spec.created_at),
        "started_at": status.started_at.map(unix),
        "ended_at": status.ended_at.map(unix),
        "expires_at": status.expires_at.map(unix),
        "url": url(job),
    })
}

/// Everything of a job, as JSON text: its result is text already.
fn full(job: &Job) -> Vec<u8> {
    let (spec, status) = (&job.spec, &job.status);
    let mut value = summary(job);
    let more = json!({
        "request_id": &*spec.request_id,
        "generation": status.attempts.last().map(|attempt| attempt.generation),
        "max_attempts": spec.budgets.max_attempts,
        "max_runtime_ms": spec.budgets.max_runtime.map(|time| time.as_millis() as u64),
        "max_total_runtime_ms": spec.budgets.max_total_runtime.as_millis() as u64,
        "history": status.attempts.iter().enumerate().map(history).collect::<Vec<_>>(),
        "refusals": status.refusals,
        "last_refusal": status.last_refusal.as_ref().map(Error::message),
        "error": status.error.as_ref().map(fault),
    });
    let (Value::Object(into), Value::Object(more)) = (&mut value, more) else {
        unreachable!("invariant: both are objects")
    };
    into.extend(more);
    let mut body = serde_json::to_vec(&value).expect("invariant: answers have string keys");
    if let Some(result) = &status.result {
        body.pop();
        body.extend_from_slice(b",\"result\":");
        body.extend_from_slice(result);
        body.push(b'}');
    }
    body
}

fn history((index, attempt): (usize, &Attempt)) -> Value {
    json!({
        "attempt": index + 1,
        "generation": attempt.generation,
        "started_at": unix(attempt.started_at),
        "ended_at": attempt.ended_at.map(unix),
        "outcome": attempt.outcome.map(crate::jobs::AttemptOutcome::as_str),
        "error": attempt.error.as_ref().map(fault),
    })
}

fn fault(error: &Error) -> Value {
    let mut fault = json!({"kind": error.kind().as_str(), "message": error.message()});
    for (key, value) in [
        ("field", error.field_name()),
        ("model", error.model_name()),
        ("plugin", error.plugin_name()),
        ("step", error.step_name()),
    ] {
        if let Some(value) = value {
            fault[key] = value.into();
        }
    }
    fault
}

/// The job is not in a state for that; 409 says which it is in.
fn conflict(id: &str, state: State, why: &str, request_id: &str) -> Reply {
    let message = format!("the job is {}: {why}", state.as_str());
    let error =
        json!({"kind": "invalid_input", "message": message, "field": "state", "request_id": request_id});
    http::json_of(StatusCode::CONFLICT, &json!({"error": error, "job_id": id, "state": state.as_str()}))
}

/// Seconds since 1970, to the microsecond.
fn unix(time: SystemTime) -> f64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    (since.as_secs_f64() * 1e6).round() / 1e6
}

fn pairs(query: Option<&str>) -> Result<Vec<(String, String)>> {
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((http::decode_segment(name)?, http::decode_segment(&value.replace('+', " "))?))
        })
        .collect()
}

fn unknown_query(name: &str, known: &[&str]) -> Error {
    let name = cut(name);
    let hint = did_you_mean(&name, known.iter().copied());
    Error::invalid(format!("the query \"{name}\" is not known{hint}; known here: {}", known.join(", ")))
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}
