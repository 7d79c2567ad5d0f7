//! Jobs as JSON.

use crate::error::Error;
use crate::jobs::{Attempt, AttemptOutcome, DeliveryState, Job, Jobs, State, StepSummary, Webhook};
use crate::predict::Payload;
use crate::server::background::{self, url};
use crate::server::http::{self, Reply};
use hyper::StatusCode;
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};

/// A job as an entry of a list.
pub(super) fn summary(jobs: &Jobs, job: &Job) -> Value {
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
        "expires_at": jobs.expires_at(job).map(unix),
        "webhook_state": webhook_state(job),
        "url": url(&job.id),
    })
}

/// Returns the state of the webhook of a job that has ended.
fn webhook_state(job: &Job) -> Option<&'static str> {
    job.spec.webhook.as_ref().filter(|_| job.status.state.is_final())?;
    Some(job.delivery.as_ref().map_or(DeliveryState::Pending, |delivery| delivery.state).as_str())
}

/// Everything about a job. Returns JSON text, because the result is stored as text.
pub(super) fn full(jobs: &Jobs, job: &Job, result: Option<&Payload>) -> Vec<u8> {
    let (spec, status) = (&job.spec, &job.status);
    let mut value = summary(jobs, job);
    let more = json!({
        "request_id": &*spec.request_id,
        "generation": status.attempts.last().map(|attempt| attempt.generation),
        "max_attempts": spec.budgets.max_attempts,
        "max_runtime_ms": spec.budgets.max_runtime.map(|time| time.as_millis() as u64),
        "max_total_runtime_ms": spec.budgets.max_total_runtime.as_millis() as u64,
        "history": status.attempts.iter().enumerate().map(history).collect::<Vec<_>>(),
        "interruptions": status.interruptions,
        "retry_of": spec.retry_of.as_deref(),
        "webhook": spec.webhook.as_ref().map(|webhook| delivery(job, webhook)),
        "refusals": status.refusals,
        "last_refusal": status.last_refusal.as_ref().map(Error::message),
        "error": status.error.as_ref().map(fault),
    });
    let (Value::Object(into), Value::Object(more)) = (&mut value, more) else {
        unreachable!("invariant: both are objects")
    };
    into.extend(more);
    let steps = jobs.steps(job);
    if !steps.is_empty() {
        value["steps"] = steps.iter().map(step).collect();
    }
    if let Some(Payload::Bytes { content_type, data }) = result {
        value["result_content_type"] = background::content_type(content_type).into();
        value["result_bytes"] = data.len().into();
    }
    let mut body = serde_json::to_vec(&value).expect("invariant: answers have string keys");
    if let Some(Payload::Json(result)) = result {
        body.pop();
        body.extend_from_slice(b",\"result\":");
        body.extend_from_slice(result.as_bytes());
        body.push(b'}');
    }
    body
}

/// A webhook and the progress of its delivery.
fn delivery(job: &Job, webhook: &Webhook) -> Value {
    let status = job.delivery.as_deref().cloned().unwrap_or_default();
    json!({
        "url": &*webhook.url,
        "state": status.state.as_str(),
        "attempts": status.attempts,
        "last_error": status.last_error.as_deref(),
    })
}

fn history((index, attempt): (usize, &Attempt)) -> Value {
    json!({
        "attempt": index + 1,
        "generation": attempt.generation,
        "policy": &*attempt.policy,
        "started_at": unix(attempt.started_at),
        "ended_at": attempt.ended_at.map(unix),
        "outcome": attempt.outcome.map(AttemptOutcome::as_str),
        "error": attempt.error.as_ref().map(fault),
    })
}

fn step(summary: &StepSummary) -> Value {
    let StepSummary { step, state, runs, reused, time, queue } = summary;
    let ms = |time: &Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
    json!({
        "step": step,
        "state": state.as_str(),
        "runs": runs,
        "reused": reused,
        "time_ms": ms(time),
        "queue_ms": ms(queue),
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

/// Returns 409 for a job whose state does not allow the request.
pub(super) fn conflict(id: &str, state: State, why: &str, request_id: &str) -> Reply {
    let message = format!("the job is {}: {why}", state.as_str());
    let error =
        json!({"kind": "invalid_input", "message": message, "field": "state", "request_id": request_id});
    http::json_of(StatusCode::CONFLICT, &json!({"error": error, "job_id": id, "state": state.as_str()}))
}

/// Returns seconds since 1970, to the microsecond.
fn unix(time: SystemTime) -> f64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_micros() as f64 / 1e6
}
