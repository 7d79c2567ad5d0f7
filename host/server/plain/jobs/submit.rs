//! Submits jobs: `POST /predict/async`, and the other forms of a submission.

use super::manage::check_owner;
use super::report::conflict;
use super::submit_body::submit_body;
use crate::access::Verb;
use crate::error::{Error, Result};
use crate::jobs::{Item, RequestedBudgets, Retried, Submitter};
use crate::offload;
use crate::predict::walk::Listed;
use crate::predict::{MemoryBudget, Payload, Priority};
use crate::router::RequestScope;
use crate::server::background::{self, BUDGETS, accepted, key, replayed};
use crate::server::http::{self, Reply, RequestBody};
use crate::server::plain::request::{self, BATCH_ITEMS_MAX, CallFields, Head, UNREADABLE, Version};
use crate::server::state::Public;
use bytes::Bytes;
use hyper::http::request::Parts;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

/// What the body of a submission is.
#[derive(Clone, Copy)]
pub(super) enum Form<'a> {
    Single,
    Batch,
    /// The input of this model, whose name is still percent-encoded.
    Body(&'a str),
}

/// Answers a submission. It is accounted for like any other request; its reply only promises a
/// result.
pub(super) async fn answer(public: &Public, head: &Parts, body: RequestBody, form: Form<'_>) -> Reply {
    let id = http::request_id(&head.headers);
    let mut scope = public.router.begin(
        id,
        "plain",
        public.authority(head, Verb::Jobs),
        &http::header_lookup(&head.headers),
    );
    let outcome = match public.read(&mut scope, head, body).await {
        Ok(body) => match form {
            Form::Single => submit(public, &mut scope, head, body).await,
            Form::Batch => submit_batch(public, &mut scope, head, body).await,
            Form::Body(model) => submit_body(public, &mut scope, head, body, model).await,
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

async fn submit(public: &Public, scope: &mut RequestScope, http_head: &Parts, body: Bytes) -> Result<Reply> {
    no_query(http_head)?;
    let owner = scope.requester().owner();
    let (length, key) = (body.len(), key(http_head, &body, false, &owner)?);
    if let Some(accepted) = replayed(&public.jobs, key.as_ref()).await? {
        return Ok(accepted.single());
    }
    let (head, budgets, webhook, data) = offload::run(length, move || {
        let request: Single<'_> = http::parse_object(&body, UNREADABLE)?;
        let budgets = budgets([
            request.timeout_ms,
            request.max_attempts,
            request.max_runtime_ms,
            request.max_total_runtime_ms,
            request.run_after_ms,
        ])?;
        let webhook = request.webhook.map(webhook).transpose()?;
        let fields =
            CallFields { parameters: request.parameters, timeout_ms: None, priority: request.priority };
        let head = Head::of(&body, request.model, request.version, &fields)?;
        Ok::<_, Error>((head, budgets, webhook, request::json_part(&body, request.data)))
    })
    .await?;
    let route = scope.resolve(&head.model, head.version(), &http::header_lookup(&http_head.headers))?;
    let priority = head.priority;
    let (checked, mut budget) = (Arc::clone(&route), public.router.budget());
    let item = offload::run(length, move || {
        let parameters = head.parameters(&mut budget)?;
        Item::checked(&checked, &Payload::Json(data), parameters, budget)
    })
    .await?;
    let (webhook, items) = (webhook.as_deref(), vec![item]);
    let tenant = scope.tenant();
    let submitter = Submitter { request_id: scope.id(), owner: &owner, tenant: &tenant, priority };
    scope.admit_rows(items.iter().map(|item| item.rows).sum())?;
    let submitted =
        public.jobs.submit_background(&route.name, items, budgets, webhook, submitter, key).await?;
    Ok(accepted(&public.jobs, submitted).await.single())
}

/// Submits a batch. Unlike the items of `/predict/batch`, all are admitted or none: the reply has
/// no results yet, and so no place for the error of a single item.
async fn submit_batch(
    public: &Public,
    scope: &mut RequestScope,
    http_head: &Parts,
    body: Bytes,
) -> Result<Reply> {
    no_query(http_head)?;
    let owner = scope.requester().owner();
    let (length, key) = (body.len(), key(http_head, &body, false, &owner)?);
    if let Some(accepted) = replayed(&public.jobs, key.as_ref()).await? {
        return Ok(accepted.list());
    }
    let (head, budgets, webhook, body, ranges) = offload::run(length, move || {
        let request: Batch<'_> = http::parse_object(&body, UNREADABLE)?;
        let budgets = budgets([
            request.timeout_ms,
            request.max_attempts,
            request.max_runtime_ms,
            request.max_total_runtime_ms,
            request.run_after_ms,
        ])?;
        let webhook = request.webhook.map(webhook).transpose()?;
        let fields =
            CallFields { parameters: request.parameters, timeout_ms: None, priority: request.priority };
        let head = Head::of(&body, request.model, request.version, &fields)?;
        let ranges = request::item_ranges(&body, &request.items)?;
        Ok::<_, Error>((head, budgets, webhook, body, ranges))
    })
    .await?;
    let route = scope.resolve(&head.model, head.version(), &http::header_lookup(&http_head.headers))?;
    let priority = head.priority;
    let (checked, mut budget) = (Arc::clone(&route), public.router.budget());
    let items = offload::run(length, move || {
        let shared = head.parameters(&mut budget)?;
        let item = |range: &Range<usize>, budget: &mut MemoryBudget| {
            let (data, parameters) = request::item(&body, range, &shared, budget)?;
            // The tensors of an item are dropped after the check, so their share of the budget is
            // free again: each item is checked with a copy of the budget.
            Item::checked(&checked, &Payload::Json(data), parameters, *budget)
        };
        let items = ranges.iter().enumerate().map(|(index, range)| {
            let at = format!("items[{index}]");
            item(range, &mut budget).map_err(|error| error.context(&at).field(at))
        });
        items.collect::<Result<Vec<Item>>>()
    })
    .await?;
    let webhook = webhook.as_deref();
    let tenant = scope.tenant();
    let submitter = Submitter { request_id: scope.id(), owner: &owner, tenant: &tenant, priority };
    scope.admit_rows(items.iter().map(|item| item.rows).sum())?;
    let submitted =
        public.jobs.submit_background(&route.name, items, budgets, webhook, submitter, key).await?;
    Ok(accepted(&public.jobs, submitted).await.list())
}

/// `POST /jobs/<id>/retry`: submits the input of a job that did not succeed once more.
pub(super) async fn retry(public: &Public, head: &Parts, id: &str, request_id: &Arc<str>) -> Result<Reply> {
    let requester = public.requester(head);
    let _guard = public.router.admit(&requester)?;
    check_owner(public, &requester, id).await?;
    let model = public.jobs.get(id).await?.spec.model.clone();
    requester.require(Verb::Jobs, Some((&model.name, Some(&model.version))))?;
    let owner = requester.owner();
    let key = key(head, b"", false, &owner)?;
    if let Some(accepted) = replayed(&public.jobs, key.as_ref()).await? {
        return Ok(accepted.single());
    }
    // The priority is that of the job.
    let (tenant, priority) = (public.router.tenant(&requester), Priority::default());
    let submitter = Submitter { request_id, owner: &owner, tenant: &tenant, priority };
    Ok(match public.jobs.retry(id, submitter, key).await? {
        Retried::Submitted(submitted) => accepted(&public.jobs, submitted).await.single(),
        Retried::Refused(state) if state.is_final() => conflict(id, state, "it has succeeded", request_id),
        Retried::Refused(state) => conflict(id, state, "it has not ended; cancel it first", request_id),
    })
}

/// Refuses a query, which this form of a submission does not read.
fn no_query(head: &Parts) -> Result<()> {
    let Some(query) = head.uri.query().filter(|query| !query.is_empty()) else { return Ok(()) };
    let name: String = query.split(['=', '&']).next().unwrap_or_default().chars().take(80).collect();
    Err(Error::invalid(format!(
        "the query \"{name}\" is not known; the options of this submission are keys of the JSON body"
    ))
    .field(name))
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
    priority: Option<&'a RawValue>,
    #[serde(borrow)]
    max_attempts: Option<&'a RawValue>,
    #[serde(borrow)]
    max_runtime_ms: Option<&'a RawValue>,
    #[serde(borrow)]
    max_total_runtime_ms: Option<&'a RawValue>,
    #[serde(borrow)]
    run_after_ms: Option<&'a RawValue>,
    #[serde(borrow)]
    webhook: Option<&'a RawValue>,
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
    priority: Option<&'a RawValue>,
    #[serde(borrow)]
    max_attempts: Option<&'a RawValue>,
    #[serde(borrow)]
    max_runtime_ms: Option<&'a RawValue>,
    #[serde(borrow)]
    max_total_runtime_ms: Option<&'a RawValue>,
    #[serde(borrow)]
    run_after_ms: Option<&'a RawValue>,
    #[serde(borrow)]
    webhook: Option<&'a RawValue>,
}

/// Reads the budgets in the order of `BUDGETS`.
fn budgets(values: [Option<&RawValue>; 5]) -> Result<RequestedBudgets> {
    let mut numbers = [None; 5];
    for ((field, value), number) in BUDGETS.into_iter().zip(values).zip(&mut numbers) {
        let Some(value) = value else { continue };
        let unit = if field == "max_attempts" { "" } else { " of milliseconds" };
        *number = Some(request::whole_number(field, value, unit)?);
    }
    background::budgets(numbers)
}

/// Reads the URL of a webhook. Whether it is allowed is checked at the submission.
fn webhook(value: &RawValue) -> Result<String> {
    serde_json::from_str(value.get()).map_err(|_| {
        Error::invalid("webhook must be a text: the URL that is called when the job ends").field("webhook")
    })
}
