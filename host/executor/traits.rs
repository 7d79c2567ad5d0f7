//! The trait [`Executor`], which all executors implement.

use super::call::{Call, Precedence, Submit, run_alone};
use super::callable::{BoxFuture, Callable};
use super::scheduler::GuestTask;
use super::source::Source;
use super::status::Status;
use crate::error::Result;
use crate::metrics::Metrics;
use crate::predict::Response;
use std::sync::Arc;

/// A named place that loads models and admits calls.
pub trait Executor: Submit {
    fn name(&self) -> &str;

    /// Returns the name of the executor's kind in the manifest.
    fn kind(&self) -> &'static str;

    /// Makes a model ready to run here. The error says why it cannot, and which executor could.
    /// Called by loader threads; may block for seconds.
    fn load(&self, source: &Source) -> Result<Arc<dyn Callable>>;

    /// Queues a guest task that will make a call here, so that a worker polls it. It takes the
    /// queue slot of a call. Returns the task if the queue is full or the executor has no workers.
    /// Never blocks.
    fn submit_guest(&self, _precedence: Precedence, task: GuestTask) -> Result<(), GuestTask> {
        Err(task)
    }

    /// Runs one call without a queue, if the executor can: for checks before a swap and for
    /// `hostler predict`. Only for models with exactly one response.
    fn run_alone(&self, call: Call) -> BoxFuture<'static, Result<Response>> {
        Box::pin(run_alone(call))
    }

    fn status(&self) -> Status;

    /// Returns whether the executor's remote is connected; `None` if it runs models itself.
    fn is_connected(&self) -> Option<bool> {
        None
    }

    /// Returns once no work runs here that no request waits for, such as detached steps of
    /// pipelines. Called when no new requests will arrive.
    fn drained(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Returns the ids of the calls that are running now, so that a shutdown can log them.
    fn running(&self) -> Vec<String>;
}

/// Sets the gauges of an executor. Called when metrics are read, so that the gauges cannot drift.
pub fn export_gauges(executor: &dyn Executor, metrics: &Metrics) {
    let (status, label) = (executor.status(), [executor.name()]);
    metrics.executors.workers.with_label_values(&label).set(status.workers as i64);
    metrics.executors.busy.with_label_values(&label).set(status.busy as i64);
    metrics.executors.inflight.with_label_values(&label).set(status.inflight as i64);
    metrics.executors.queue_length.with_label_values(&label).set(status.queue_length as i64);
    metrics.executors.queue_capacity.with_label_values(&label).set(status.queue_capacity as i64);
    metrics.executors.saturation.with_label_values(&label).set(status.saturation());
    if let Some(is_connected) = executor.is_connected() {
        metrics.executors.triton_connected.with_label_values(&label).set(i64::from(is_connected));
    }
}
