//! The contract of an executor.

use super::call::{Call, Priority, Submit, run_alone};
use super::callable::{BoxFuture, Callable};
use super::scheduler::GuestTask;
use super::source::Source;
use super::status::Status;
use crate::error::Result;
use crate::metrics::Metrics;
use crate::predict::Response;
use std::sync::Arc;

/// A named place that runs models.
pub trait Executor: Submit {
    fn name(&self) -> &str;

    /// The word for its kind in the manifest.
    fn kind(&self) -> &'static str;

    /// Makes a model ready to run here, or says why it cannot run here and what would. Called by loader
    /// threads; may block for seconds.
    fn load(&self, source: &Source) -> Result<Arc<dyn Callable>>;

    /// Lends a worker to work that will make a call here. Its place is that of a call. Gives the work back where
    /// there is no room, or are no workers. Never blocks.
    fn submit_guest(&self, _order: Priority, task: GuestTask) -> Result<(), GuestTask> {
        Err(task)
    }

    /// Runs one call outside of any queue, if it can: checks before a swap, `hostler predict`. For models that give
    /// exactly one response.
    fn run_alone(&self, call: Call) -> BoxFuture<'static, Result<Response>> {
        Box::pin(run_alone(call))
    }

    fn status(&self) -> Status;

    /// Whether the remote that it stands for is there; none if it runs models itself.
    fn is_connected(&self) -> Option<bool> {
        None
    }

    /// Returns once nothing runs here for which nobody waits any more. Asked when no request is to come.
    fn drained(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Ids of the calls that are running now, for a shutdown that names them.
    fn running(&self) -> Vec<String>;
}

/// Sets the gauges of an executor. Called when they are read, so that they cannot drift.
pub fn export_gauges(executor: &dyn Executor, metrics: &Metrics) {
    let (status, label) = (executor.status(), [executor.name()]);
    metrics.executors.workers.with_label_values(&label).set(status.workers as i64);
    metrics.executors.busy.with_label_values(&label).set(status.busy as i64);
    metrics.executors.inflight.with_label_values(&label).set(status.inflight as i64);
    metrics.executors.queue_length.with_label_values(&label).set(status.queue_length as i64);
    metrics.executors.queue_capacity.with_label_values(&label).set(status.queue_capacity as i64);
    if let Some(is_connected) = executor.is_connected() {
        metrics.executors.triton_connected.with_label_values(&label).set(i64::from(is_connected));
    }
}
