//! A webhook of a job, and the progress of its delivery.

use std::sync::Arc;

/// Where the end of a job is reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    pub url: Arc<str>,
    /// The scheme, host and port of the URL. Deliveries to one receiver share its limits.
    pub receiver: Arc<str>,
}

impl Webhook {
    pub fn bytes(&self) -> usize {
        self.url.len() + self.receiver.len()
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeliveryState {
    /// The job has not ended, or its receiver has not accepted the report yet.
    #[default]
    Pending,
    Delivered,
    /// The host makes no further attempt.
    Failed,
}

impl DeliveryState {
    pub const ALL: [DeliveryState; 3] =
        [DeliveryState::Pending, DeliveryState::Delivered, DeliveryState::Failed];

    pub fn as_str(self) -> &'static str {
        match self {
            DeliveryState::Pending => "pending",
            DeliveryState::Delivered => "delivered",
            DeliveryState::Failed => "failed",
        }
    }
}

/// The progress of a delivery, as its job shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeliveryStatus {
    pub state: DeliveryState,
    /// Attempts whose outcome is recorded.
    pub attempts: u32,
    pub last_error: Option<Arc<str>>,
}
