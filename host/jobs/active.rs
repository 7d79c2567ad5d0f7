//! A job that this process runs: what its task shares with those who may stop it.

use super::job::{Budgets, Job, Spec};
use super::store::Lease;
use super::store_time::StoreTime;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

pub(super) struct Active {
    pub id: Arc<str>,
    pub spec: Arc<Spec>,
    pub lease: Lease,
    deadline: Instant,
    ended: watch::Sender<bool>,
}

impl Active {
    /// Creates the entry of a job that was claimed; `now` is the time of its store.
    pub fn new(job: &Job, now: StoreTime) -> Self {
        Active {
            id: Arc::clone(&job.id),
            spec: Arc::clone(&job.spec),
            lease: Lease { id: Arc::clone(&job.id), number: job.number, fence: job.fence },
            deadline: Instant::now() + now.until(job.status.deadline),
            ended: watch::Sender::new(false),
        }
    }

    /// Signals that the job has ended, or is not this process's any more.
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
        self.deadline
    }

    pub fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}
