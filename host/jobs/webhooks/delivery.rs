//! An entry of the outbox: the report that a job has ended, until its receiver has accepted it.
//!
//! A store writes it in the change that ends the job. It has all that is sent, so that it outlives
//! the job.

use super::webhook::Webhook;
use crate::jobs::job::{Job, State};
use crate::jobs::store_time::StoreTime;
use crate::policy::plan::ModelName;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Bytes that a delivery takes besides its texts.
const OVERHEAD_BYTES: usize = 512;

#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// The number of its job.
    pub number: u64,
    pub job: Arc<str>,
    pub webhook: Webhook,
    /// How the job has ended.
    pub state: State,
    pub model: ModelName,
    /// The time of the wall clock, which is only reported.
    pub ended_at: SystemTime,
    /// When the job has ended; the age counts from here.
    pub created: StoreTime,
    /// When the next attempt may be made.
    pub due: StoreTime,
    pub attempts: u32,
    pub last_error: Option<Arc<str>>,
    /// Identifies the claim of the delivery; 0 if it was not claimed. Not written.
    pub fence: u64,
}

impl Delivery {
    /// Returns the delivery of a job that ends now; `None` if the job has no webhook.
    pub fn of(job: &Job, now: StoreTime) -> Option<Self> {
        Some(Delivery {
            number: job.number,
            job: Arc::clone(&job.id),
            webhook: job.spec.webhook.clone()?,
            state: job.status.state,
            model: job.spec.model.clone(),
            ended_at: job.status.ended_at.unwrap_or(job.spec.created_at),
            created: now,
            due: now,
            attempts: 0,
            last_error: None,
            fence: 0,
        })
    }

    /// Returns the bytes that the delivery takes in a store.
    pub fn bytes(&self) -> usize {
        let error = self.last_error.as_ref().map_or(0, |error| error.len());
        OVERHEAD_BYTES + self.job.len() + self.webhook.bytes() + error
    }
}

/// How many deliveries to a receiver may begin now.
pub type ReceiverCapacity = Arc<dyn Fn(&str) -> usize + Send + Sync>;

/// What a host can deliver now.
#[derive(Clone)]
pub struct DeliveryClaim {
    pub limit: usize,
    /// How long the claim holds. A delivery that is not settled by then is due again.
    pub lease: Duration,
    pub capacity: ReceiverCapacity,
}

/// The outcome of a delivery that was claimed.
#[derive(Clone, Debug)]
pub struct Settlement {
    pub number: u64,
    pub fence: u64,
    /// All attempts so far.
    pub attempts: u32,
    pub outcome: DeliveryOutcome,
}

#[derive(Clone, Debug)]
pub enum DeliveryOutcome {
    Delivered,
    /// A further attempt may be made at `due`.
    Retry {
        error: Arc<str>,
        due: StoreTime,
    },
    /// No further attempt is made.
    Failed {
        error: Arc<str>,
    },
}
