//! A job that has not ended: what its task shares with those who wait for its end.

use super::job::{Budgets, Job, Spec};
use crate::predict::JsonText;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// A job that has not ended, as this process runs it.
pub(super) struct Active {
    pub id: Arc<str>,
    pub spec: Arc<Spec>,
    pub input: JsonText,
    pub submitted: Instant,
    ended: watch::Sender<bool>,
}

impl Active {
    pub fn new(job: &Job, submitted: Instant) -> Self {
        Active {
            id: Arc::clone(&job.id),
            spec: Arc::clone(&job.spec),
            input: job.input.clone().expect("invariant: a new job has its input"),
            submitted,
            ended: watch::Sender::new(false),
        }
    }

    /// Signals that the store has recorded the end of the job.
    pub fn end(&self) {
        self.ended.send_replace(true);
    }

    /// Returns once the job has ended.
    pub async fn ended(&self) {
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }

    pub fn budgets(&self) -> &Budgets {
        &self.spec.budgets
    }

    pub fn deadline(&self) -> Instant {
        self.submitted + self.budgets().max_total_runtime
    }

    pub fn time_left(&self) -> Duration {
        self.deadline().saturating_duration_since(Instant::now())
    }
}
