//! Records of jobs as bytes: a version, then JSON.
//!
//! JSON, because a later version can read what an earlier one has written: a missing key has a
//! default, and an unknown key is ignored.

use crate::error::{Error, Kind, Result};
use crate::jobs::job::{Attempt, AttemptOutcome, Budgets, Job, Spec, State, Status};
use crate::jobs::step_summary::{StepState, StepSummary};
use crate::jobs::store::StoredKey;
use crate::jobs::store_time::StoreTime;
use crate::jobs::webhooks::{DeliveryState, DeliveryStatus, Webhook};
use crate::policy::plan::ModelName;
use crate::predict::{Parameter, Priority};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

const VERSION: u8 = 1;

/// Most records are smaller.
const RECORD_BYTES: usize = 768;

#[derive(Serialize, Deserialize)]
struct StoredJob<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    revision: u64,
    fence: u64,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    owner: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    tenant: Cow<'a, str>,
    /// 0 for the default.
    #[serde(default, skip_serializing_if = "is_zero_u8")]
    priority: u8,
    #[serde(borrow)]
    model: Cow<'a, str>,
    #[serde(borrow)]
    version: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    parameters: Vec<(String, StoredParameter)>,
    max_attempts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_runtime_ms: Option<u64>,
    max_total_runtime_ms: u64,
    created_us: u64,
    #[serde(borrow)]
    request_id: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_of: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reply: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    webhook: Option<StoredWebhook>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    delivery: Option<StoredDelivery>,
    #[serde(borrow)]
    state: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    started_us: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended_us: Option<u64>,
    run_at: u64,
    deadline: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    attempts: Vec<StoredAttempt>,
    #[serde(default, skip_serializing_if = "is_zero")]
    refusals: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_refusal: Option<StoredError>,
    #[serde(default, skip_serializing_if = "is_zero_u32")]
    interruptions: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<StoredError>,
    #[serde(default)]
    input_bytes: usize,
    #[serde(default)]
    result_bytes: usize,
    #[serde(default, skip_serializing_if = "is_zero_usize")]
    kept_bytes: usize,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    steps: Vec<StoredStep>,
}

#[derive(Serialize, Deserialize)]
struct StoredStep {
    step: String,
    state: String,
    #[serde(default)]
    runs: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    reused: u64,
    #[serde(default)]
    time_us: u64,
    #[serde(default)]
    queue_us: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct StoredWebhook {
    url: String,
    receiver: String,
}

#[derive(Serialize, Deserialize)]
struct StoredDelivery {
    state: String,
    attempts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum StoredParameter {
    Boolean(bool),
    Integer(i64),
    Number(f64),
    Text(String),
}

#[derive(Serialize, Deserialize)]
pub(super) struct StoredAttempt {
    generation: u64,
    policy: String,
    started_us: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended_us: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    outcome: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<StoredError>,
}

#[derive(Serialize, Deserialize)]
struct StoredError {
    kind: String,
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    plugin: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    step: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct KeyRecord {
    request: [u8; 32],
    jobs: Vec<String>,
    expires: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero_u8(number: &u8) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
fn is_zero_u32(number: &u32) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero_usize(number: &usize) -> bool {
    *number == 0
}

pub(super) fn encode_job(job: &Job) -> Vec<u8> {
    let (spec, status) = (&*job.spec, &job.status);
    let parameter = |(name, value): &(String, Parameter)| {
        let value = match value {
            Parameter::Boolean(value) => StoredParameter::Boolean(*value),
            Parameter::Integer(value) => StoredParameter::Integer(*value),
            Parameter::Number(value) => StoredParameter::Number(*value),
            Parameter::Text(value) => StoredParameter::Text(value.clone()),
        };
        (name.clone(), value)
    };
    let Job {
        id,
        number: _,
        revision,
        fence,
        spec: _,
        status: _,
        delivery,
        input_bytes,
        result_bytes,
        kept_bytes,
    } = job;
    let Spec {
        owner,
        tenant,
        priority,
        model,
        parameters,
        budgets,
        created_at,
        request_id,
        retry_of,
        reply,
        webhook,
    } = spec;
    let Status {
        state,
        started_at,
        ended_at,
        run_at,
        deadline,
        expires,
        attempts,
        refusals,
        last_refusal,
        interruptions,
        error,
        steps,
    } = status;
    let stored = StoredJob {
        id: Cow::Borrowed(id),
        revision: *revision,
        fence: *fence,
        owner: Cow::Borrowed(owner),
        tenant: Cow::Borrowed(tenant),
        priority: if *priority == Priority::default() { 0 } else { priority.number() },
        model: Cow::Borrowed(&model.name),
        version: Cow::Borrowed(&model.version),
        parameters: parameters.iter().map(parameter).collect(),
        max_attempts: budgets.max_attempts,
        max_runtime_ms: budgets.max_runtime.map(millis),
        max_total_runtime_ms: millis(budgets.max_total_runtime),
        created_us: micros(*created_at),
        request_id: Cow::Borrowed(request_id),
        retry_of: retry_of.as_ref().map(ToString::to_string),
        reply: reply.as_ref().map(ToString::to_string),
        webhook: webhook.as_ref().map(stored_webhook),
        delivery: delivery.as_deref().map(stored_delivery),
        state: Cow::Borrowed(state.as_str()),
        started_us: started_at.map(micros),
        ended_us: ended_at.map(micros),
        run_at: run_at.0,
        deadline: deadline.0,
        expires: expires.map(|at| at.0),
        attempts: attempts.iter().map(stored_attempt).collect(),
        refusals: *refusals,
        last_refusal: last_refusal.as_ref().map(stored_error),
        interruptions: *interruptions,
        error: error.as_ref().map(stored_error),
        input_bytes: *input_bytes,
        result_bytes: *result_bytes,
        kept_bytes: *kept_bytes,
        steps: steps.iter().map(stored_step).collect(),
    };
    with_version(&stored)
}

/// # Errors
/// `failed` if the bytes are not a record.
pub(super) fn decode_job(number: u64, bytes: &[u8]) -> Result<Job> {
    let stored: StoredJob<'_> = without_version(bytes)?;
    let name = |text: Cow<'_, str>| -> Arc<str> { text.into_owned().into() };
    let parameter = |(name, value)| {
        let value = match value {
            StoredParameter::Boolean(value) => Parameter::Boolean(value),
            StoredParameter::Integer(value) => Parameter::Integer(value),
            StoredParameter::Number(value) => Parameter::Number(value),
            StoredParameter::Text(value) => Parameter::Text(value),
        };
        (name, value)
    };
    let spec = Spec {
        owner: name(stored.owner),
        tenant: name(stored.tenant),
        priority: Priority::asked(u64::from(stored.priority)),
        model: ModelName { name: name(stored.model), version: name(stored.version) },
        parameters: stored.parameters.into_iter().map(parameter).collect(),
        budgets: Budgets {
            max_attempts: stored.max_attempts,
            max_runtime: stored.max_runtime_ms.map(Duration::from_millis),
            max_total_runtime: Duration::from_millis(stored.max_total_runtime_ms),
        },
        created_at: time(stored.created_us),
        request_id: name(stored.request_id),
        retry_of: stored.retry_of.map(Into::into),
        reply: stored.reply.map(Into::into),
        webhook: stored.webhook.map(webhook),
    };
    let status = Status {
        state: State::parse(&stored.state).map_err(|_| damaged())?,
        started_at: stored.started_us.map(time),
        ended_at: stored.ended_us.map(time),
        run_at: StoreTime(stored.run_at),
        deadline: StoreTime(stored.deadline),
        expires: stored.expires.map(StoreTime),
        attempts: stored.attempts.into_iter().map(attempt).collect::<Result<_>>()?,
        refusals: stored.refusals,
        last_refusal: stored.last_refusal.map(error).transpose()?,
        interruptions: stored.interruptions,
        error: stored.error.map(error).transpose()?,
        steps: stored.steps.into_iter().map(step).collect::<Result<_>>()?,
    };
    Ok(Job {
        id: name(stored.id),
        number,
        revision: stored.revision,
        fence: stored.fence,
        spec: Arc::new(spec),
        status,
        delivery: stored.delivery.map(delivery).transpose()?.map(Box::new),
        input_bytes: stored.input_bytes,
        result_bytes: stored.result_bytes,
        kept_bytes: stored.kept_bytes,
    })
}

pub(super) fn stored_attempt(attempt: &Attempt) -> StoredAttempt {
    let Attempt { generation, policy, started_at, ended_at, outcome, error } = attempt;
    StoredAttempt {
        generation: *generation,
        policy: policy.to_string(),
        started_us: micros(*started_at),
        ended_us: ended_at.map(micros),
        outcome: outcome.map(|outcome| outcome.as_str().to_owned()),
        error: error.as_ref().map(stored_error),
    }
}

pub(super) fn attempt(stored: StoredAttempt) -> Result<Attempt> {
    let outcome = |text: String| {
        AttemptOutcome::ALL.into_iter().find(|outcome| outcome.as_str() == text).ok_or_else(damaged)
    };
    Ok(Attempt {
        generation: stored.generation,
        policy: stored.policy.into(),
        started_at: time(stored.started_us),
        ended_at: stored.ended_us.map(time),
        outcome: stored.outcome.map(outcome).transpose()?,
        error: stored.error.map(error).transpose()?,
    })
}

fn stored_step(summary: &StepSummary) -> StoredStep {
    let StepSummary { step, state, runs, reused, time, queue } = summary;
    StoredStep {
        step: step.clone(),
        state: state.as_str().to_owned(),
        runs: *runs,
        reused: *reused,
        time_us: u64::try_from(time.as_micros()).unwrap_or(u64::MAX),
        queue_us: u64::try_from(queue.as_micros()).unwrap_or(u64::MAX),
    }
}

fn step(stored: StoredStep) -> Result<StepSummary> {
    let StoredStep { step, state, runs, reused, time_us, queue_us } = stored;
    let known = StepState::ALL.into_iter().find(|known| known.as_str() == state);
    let (time, queue) = (Duration::from_micros(time_us), Duration::from_micros(queue_us));
    Ok(StepSummary { step, state: known.ok_or_else(damaged)?, runs, reused, time, queue })
}

pub(super) fn stored_webhook(webhook: &Webhook) -> StoredWebhook {
    StoredWebhook { url: webhook.url.to_string(), receiver: webhook.receiver.to_string() }
}

pub(super) fn webhook(stored: StoredWebhook) -> Webhook {
    Webhook { url: stored.url.into(), receiver: stored.receiver.into() }
}

fn stored_delivery(delivery: &DeliveryStatus) -> StoredDelivery {
    let DeliveryStatus { state, attempts, last_error } = delivery;
    StoredDelivery {
        state: state.as_str().to_owned(),
        attempts: *attempts,
        last_error: last_error.as_ref().map(ToString::to_string),
    }
}

fn delivery(stored: StoredDelivery) -> Result<DeliveryStatus> {
    let StoredDelivery { state, attempts, last_error } = stored;
    let state = DeliveryState::ALL.into_iter().find(|known| known.as_str() == state).ok_or_else(damaged)?;
    Ok(DeliveryStatus { state, attempts, last_error: last_error.map(Into::into) })
}

fn stored_error(error: &Error) -> StoredError {
    StoredError {
        kind: error.kind().as_str().to_owned(),
        message: error.message().to_owned(),
        field: error.field_name().map(ToOwned::to_owned),
        model: error.model_name().map(ToOwned::to_owned),
        plugin: error.plugin_name().map(ToOwned::to_owned),
        step: error.step_name().map(ToOwned::to_owned),
    }
}

fn error(stored: StoredError) -> Result<Error> {
    let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == stored.kind).ok_or_else(damaged)?;
    let mut error = Error::new(kind, stored.message);
    if let Some(field) = stored.field {
        error = error.field(field);
    }
    if let Some(model) = stored.model {
        error = error.model(model);
    }
    if let Some(plugin) = stored.plugin {
        error = error.plugin(plugin);
    }
    if let Some(step) = stored.step {
        error = error.step(&step);
    }
    Ok(error)
}

pub(super) fn encode_key(key: &StoredKey) -> Vec<u8> {
    let jobs = key.jobs.iter().map(ToString::to_string).collect();
    with_version(&KeyRecord { request: key.request, jobs, expires: key.expires.0 })
}

pub(super) fn decode_key(bytes: &[u8]) -> Result<StoredKey> {
    let KeyRecord { request, jobs, expires } = without_version(bytes)?;
    Ok(StoredKey { request, jobs: jobs.into_iter().map(Into::into).collect(), expires: StoreTime(expires) })
}

pub(super) fn with_version(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(RECORD_BYTES);
    bytes.push(VERSION);
    serde_json::to_writer(&mut bytes, value).expect("invariant: records have string keys");
    bytes
}

pub(super) fn without_version<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T> {
    match bytes.split_first() {
        Some((&VERSION, json)) => serde_json::from_slice(json).map_err(|_| damaged()),
        _ => Err(damaged()),
    }
}

pub(super) fn damaged() -> Error {
    Error::failed("the record is damaged")
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn micros(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

pub(super) fn time(micros: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(micros)
}
