//! Records of deliveries as bytes, in the form of those of jobs.

use super::record::{
    StoredWebhook, damaged, micros, stored_webhook, time, webhook, with_version, without_version,
};
use crate::error::Result;
use crate::jobs::job::State;
use crate::jobs::store_time::StoreTime;
use crate::jobs::webhooks::Delivery;
use crate::policy::plan::ModelName;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct DeliveryRecord {
    job: String,
    webhook: StoredWebhook,
    state: String,
    model: String,
    version: String,
    ended_us: u64,
    created: u64,
    due: u64,
    #[serde(default)]
    attempts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
}

pub(super) fn encode_delivery(delivery: &Delivery) -> Vec<u8> {
    let Delivery {
        number: _,
        job,
        webhook,
        state,
        model,
        ended_at,
        created,
        due,
        attempts,
        last_error,
        // Claims end with the process.
        fence: _,
    } = delivery;
    with_version(&DeliveryRecord {
        job: job.to_string(),
        webhook: stored_webhook(webhook),
        state: state.as_str().to_owned(),
        model: model.name.to_string(),
        version: model.version.to_string(),
        ended_us: micros(*ended_at),
        created: created.0,
        due: due.0,
        attempts: *attempts,
        last_error: last_error.as_ref().map(ToString::to_string),
    })
}

/// # Errors
/// `failed` if the bytes are not a record.
pub(super) fn decode_delivery(number: u64, bytes: &[u8]) -> Result<Delivery> {
    let stored: DeliveryRecord = without_version(bytes)?;
    Ok(Delivery {
        number,
        job: stored.job.into(),
        webhook: webhook(stored.webhook),
        state: State::parse(&stored.state).map_err(|_| damaged())?,
        model: ModelName { name: stored.model.into(), version: stored.version.into() },
        ended_at: time(stored.ended_us),
        created: StoreTime(stored.created),
        due: StoreTime(stored.due),
        attempts: stored.attempts,
        last_error: stored.last_error.map(Into::into),
        fence: 0,
    })
}
