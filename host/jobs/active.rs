//! A job that this process runs: what its task shares with those who may stop it.

use super::job::{Budgets, Job, Spec};
use super::step_summary::StepSummary;
use super::steps::JobSteps;
use super::store::Lease;
use super::store_time::StoreTime;
use crate::lock::LockUnpoisoned;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;

pub(super) struct Active {
    pub id: Arc<str>,
    pub spec: Arc<Spec>,
    pub lease: Lease,
    deadline: Instant,
    ended: watch::Sender<bool>,
    /// The steps of the current attempt.
    steps: Mutex<Option<Arc<JobSteps>>>,
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
            steps: Mutex::default(),
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

    /// Sets what follows the steps of the attempt that begins.
    pub fn follow(&self, steps: Arc<JobSteps>) {
        *self.steps.lock_unpoisoned() = Some(steps);
    }

    /// Forgets the steps of the attempt before.
    pub fn forget_steps(&self) {
        *self.steps.lock_unpoisoned() = None;
    }

    /// Returns the steps of the current attempt. None run any more if it has ended.
    pub fn steps(&self, has_ended: bool) -> Vec<StepSummary> {
        let steps = self.steps.lock_unpoisoned().clone();
        steps.map(|steps| steps.summaries(has_ended)).unwrap_or_default()
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
