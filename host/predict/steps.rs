//! Who is told about the steps of a pipeline during one request: `hostler predict --steps`, and a
//! job that shows its progress and keeps what has ended.

use super::tensor::Tensor;
use crate::error::Result;
use crate::lock::LockUnpoisoned;
use std::pin::Pin;
use std::sync::Mutex;
use std::time::Duration;

/// Is told about the steps of the pipelines of one request. A step has a path: the pipeline and the
/// step, such as `scoring.big`.
pub trait StepObserver: Send + Sync {
    /// The step belongs to the request, and may run.
    fn expected(&self, path: &str);

    /// The step begins to run. A step with several rows or items begins for each.
    fn begun(&self, path: &str);

    /// The step has ended, or was skipped.
    fn ended(&self, path: &str, record: StepRecord);

    /// Whether records have the inputs and the outputs of steps.
    fn wants_tensors(&self) -> bool;

    /// Where outputs are kept of steps that have ended, if they are.
    fn checkpoints(&self) -> Option<&dyn Checkpoints> {
        None
    }
}

/// Identifies what a step has computed: equal keys mean equal models, inputs and parameters.
pub type StepKey = [u8; 32];

pub type CheckpointFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// Keeps the outputs of steps for a later attempt at the same request.
pub trait Checkpoints: Send + Sync {
    /// Returns the outputs of a step that has ended in an earlier attempt.
    fn find(&self, key: StepKey) -> CheckpointFuture<'_, Option<Vec<Tensor>>>;

    /// Keeps the outputs of a step. Returns once they are as safe as the store can make them.
    fn keep(&self, key: StepKey, outputs: Vec<Tensor>) -> CheckpointFuture<'_, ()>;
}

/// A step that has ended.
#[derive(Clone, Debug)]
pub struct StepRecord {
    /// The path of the step, with the row or item.
    pub step: String,
    pub model: String,
    /// `ok`, `error`, `skipped`, `cancelled`, or `reused` if its outputs were kept from an earlier
    /// attempt.
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
    pub fn take(&self) -> Vec<StepRecord> {
        std::mem::take(&mut *self.0.lock_unpoisoned())
    }
}

impl StepObserver for StepLog {
    fn expected(&self, _: &str) {}

    fn begun(&self, _: &str) {}

    fn ended(&self, _: &str, record: StepRecord) {
        self.0.lock_unpoisoned().push(record);
    }

    fn wants_tensors(&self) -> bool {
        true
    }
}
