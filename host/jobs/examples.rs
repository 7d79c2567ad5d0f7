//! Jobs for tests.

use super::job::{Budgets, Job, Spec, Status};
use super::store_time::StoreTime;
use crate::policy::plan::parse_model_name;
use crate::predict::{JsonText, Payload, Priority};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub(in crate::jobs) const LONG: Duration = Duration::from_secs(3600);

pub(in crate::jobs) fn spec(model: &str) -> Spec {
    Spec {
        owner: "".into(),
        tenant: "".into(),
        priority: Priority::default(),
        model: parse_model_name(model).unwrap(),
        parameters: Vec::new(),
        budgets: Budgets { max_attempts: 1, max_runtime: None, max_total_runtime: LONG },
        created_at: SystemTime::UNIX_EPOCH,
        request_id: "request".into(),
        retry_of: None,
        reply: None,
        webhook: None,
    }
}

/// Returns a job that waits.
pub(in crate::jobs) fn job(number: u64) -> Job {
    Job {
        id: format!("{number:032x}").into(),
        number,
        revision: 1,
        fence: 0,
        spec: Arc::new(spec("m:1")),
        status: Status::new(StoreTime(1), StoreTime(2)),
        delivery: None,
        input_bytes: 0,
        result_bytes: 0,
        kept_bytes: 0,
    }
}

/// Returns JSON text of this length.
pub(in crate::jobs) fn json(bytes: usize) -> Payload {
    Payload::Json(JsonText::parse(format!("\"{}\"", "x".repeat(bytes - 2)).into()).unwrap())
}
