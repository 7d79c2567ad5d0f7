//! Records the steps of a pipeline during one request, for `hostler predict --steps`.

use super::tensor::Tensor;
use crate::lock::LockUnpoisoned;
use std::sync::Mutex;
use std::time::Duration;

/// A step that has ended.
#[derive(Clone, Debug)]
pub struct StepRecord {
    /// The pipeline and the step, such as `scoring.big`, with the row or item.
    pub step: String,
    pub model: String,
    /// `ok`, `error`, `skipped` or `cancelled`.
    pub outcome: &'static str,
    /// Why the step did not run, or how it failed.
    pub why: Option<String>,
    pub inputs: Vec<Tensor>,
    pub outputs: Vec<Tensor>,
    /// The time from the decision to run the step to its end, without `queue`.
    pub time: Duration,
    /// The time that the step waited for a slot.
    pub queue: Duration,
}

/// Steps in the order in which they ended.
#[derive(Debug, Default)]
pub struct StepLog(Mutex<Vec<StepRecord>>);

impl StepLog {
    pub fn add(&self, record: StepRecord) {
        self.0.lock_unpoisoned().push(record);
    }

    pub fn take(&self) -> Vec<StepRecord> {
        std::mem::take(&mut *self.0.lock_unpoisoned())
    }
}
