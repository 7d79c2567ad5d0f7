//! Nested pipelines: a step whose model is a pipeline runs it as part of the outer request, without
//! an admission of its own.

use super::account::RequestAccount;
use super::model::PipelineModel;
use crate::error::{Error, Result};
use crate::executor::callable::{BoxFuture, Callable};
use crate::predict::{CallContext, Tensor};
use std::sync::Arc;

/// The number of nested pipelines that one task runs.
pub(super) const NESTED_MAX: usize = 4;

/// Runs a nested pipeline. Steps receive this function from the driver of their request, because
/// the driver depends on steps, not the other way around.
pub(super) type RunNested = for<'r> fn(
    &'r PipelineModel,
    &'r Arc<CallContext>,
    Vec<Tensor>,
    &'r Arc<RequestAccount>,
) -> NestedRun<'r>;

pub(super) type NestedRun<'r> = BoxFuture<'r, Result<Option<Vec<Tensor>>>>;

/// Runs a nested pipeline as a separate task, so that deep nesting does not overflow the stack of a
/// thread.
pub(super) fn run_in_task(
    run: RunNested,
    callable: Arc<dyn Callable>,
    context: Arc<CallContext>,
    inputs: Vec<Tensor>,
    account: Arc<RequestAccount>,
) -> NestedRun<'static> {
    Box::pin(spawn_and_wait(run, callable, context, inputs, account))
}

async fn spawn_and_wait(
    run: RunNested,
    callable: Arc<dyn Callable>,
    context: Arc<CallContext>,
    inputs: Vec<Tensor>,
    account: Arc<RequestAccount>,
) -> Result<Option<Vec<Tensor>>> {
    /// Aborts the task when the step that waits for it is dropped.
    struct AbortOnDrop(tokio::task::AbortHandle);
    impl Drop for AbortOnDrop {
        fn drop(&mut self) {
            self.0.abort();
        }
    }
    let task = tokio::spawn(async move {
        let pipeline = PipelineModel::of(&*callable).expect("invariant: asked of a pipeline");
        run(pipeline, &context, inputs, &account).await
    });
    let _abort = AbortOnDrop(task.abort_handle());
    task.await.unwrap_or_else(|_| Err(Error::failed("the nested pipeline ended without an answer")))
}
