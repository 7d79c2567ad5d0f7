//! What a caller submits: inputs and budgets, checked.

use super::job::Budgets;
use crate::error::{Error, Result};
use crate::policy::Route;
use crate::policy::plan::JobsPlan;
use crate::predict::{JsonText, MemoryBudget, Parameters, Payload, Priority};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// Who submits jobs, and with which request.
#[derive(Clone, Copy)]
pub struct Submitter<'a> {
    pub request_id: &'a Arc<str>,
    /// Who may see the jobs. Empty without access rules.
    pub owner: &'a Arc<str>,
    /// On whose account the jobs run. Empty where callers are not told apart.
    pub tenant: &'a Arc<str>,
    pub priority: Priority,
}

/// One input of a submission, checked like the input of a request.
pub struct Item {
    pub(super) input: Payload,
    pub(super) parameters: Parameters,
    /// Rows of the input, as limits of tenants count them.
    pub rows: usize,
    pub(super) reply: Option<Arc<str>>,
}

impl Item {
    /// Checks an input against the current model. A reload may change the model before the job
    /// runs. The item keeps a copy of the input, because a job must not keep the body of its
    /// request in memory.
    pub fn checked(
        route: &Route,
        input: &Payload,
        parameters: Parameters,
        mut budget: MemoryBudget,
    ) -> Result<Self> {
        crate::router::refuse_streaming(route)?;
        let decoded = crate::policy::route_input::stored_input(route, input.clone(), &mut budget)?;
        let rows = crate::router::rows(route, &decoded);
        let input = match input {
            Payload::Json(text) => {
                Payload::Json(JsonText::from_checked(Bytes::copy_from_slice(text.as_bytes())))
            }
            Payload::Bytes { content_type, data } => {
                Payload::Bytes { content_type: content_type.clone(), data: Bytes::copy_from_slice(data) }
            }
            Payload::Tensors(tensors) => Payload::Tensors(
                tensors.iter().map(|tensor| tensor.detached().unwrap_or_else(|| tensor.clone())).collect(),
            ),
        };
        Ok(Item { input, parameters, rows, reply: None })
    }

    /// Sets how the interface of the submission encodes the result.
    pub fn with_reply(self, reply: String) -> Self {
        Item { reply: Some(reply.into()), ..self }
    }
}

/// The budgets that a caller requests for each job.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestedBudgets {
    pub max_attempts: Option<u64>,
    pub max_runtime: Option<Duration>,
    pub max_total_runtime: Option<Duration>,
    /// How long after the submission the job may first run.
    pub run_after: Duration,
}

pub(super) fn budgets(requested: RequestedBudgets, limits: &JobsPlan) -> Result<Budgets> {
    let max_attempts = requested.max_attempts.unwrap_or(1);
    if max_attempts > u64::from(limits.max_attempts) {
        let message =
            format!("max_attempts is {max_attempts}; this host makes at most {}", limits.max_attempts);
        return Err(Error::invalid(message).field("max_attempts"));
    }
    let max_total_runtime = requested.max_total_runtime.unwrap_or(limits.total_runtime);
    if max_total_runtime > limits.max_total_runtime {
        let message = format!(
            "max_total_runtime_ms is {}; this host allows at most {}",
            max_total_runtime.as_millis(),
            limits.max_total_runtime.as_millis()
        );
        return Err(Error::invalid(message).field("max_total_runtime_ms"));
    }
    if requested.run_after >= max_total_runtime {
        let message = format!(
            "run_after_ms is {}, but the job ends {} ms after its submission; raise max_total_runtime_ms",
            requested.run_after.as_millis(),
            max_total_runtime.as_millis()
        );
        return Err(Error::invalid(message).field("run_after_ms"));
    }
    Ok(Budgets { max_attempts: max_attempts as u32, max_runtime: requested.max_runtime, max_total_runtime })
}
