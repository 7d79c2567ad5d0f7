//! What the steps of a pipeline did for one request, for `hostler predict --steps`.

use super::Tensor;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// One step, as it was over.
#[derive(Clone, Debug)]
pub struct StepRecord {
    /// The pipeline and the step, such as `scoring.big`, and which row or item it was.
    pub step: String,
    pub model: String,
    /// `ok`, `error`, `skipped` or `cancelled`.
    pub outcome: &'static str,
    /// Why it did not run, or how it failed.
    pub why: Option<String>,
    pub inputs: Vec<Tensor>,
    pub outputs: Vec<Tensor>,
    /// From its decision to its end, without `queue`.
    pub time: Duration,
    /// In which it waited for a place.
    pub queue: Duration,
}

/// Steps in the order in which they were over.
#[derive(Debug, Default)]
pub struct StepLog(Mutex<Vec<StepRecord>>);

impl StepLog {
    pub fn add(&self, record: StepRecord) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(record);
    }

    pub fn take(&self) -> Vec<StepRecord> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
