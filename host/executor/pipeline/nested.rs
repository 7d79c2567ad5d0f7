//! Pipelines within pipelines: they run in the place of the outer one.

use super::super::{BoxFuture, Callable};
use super::account::RequestAccount;
use super::model::{PipelineModel, ResponseSink};
use crate::error::{Error, Result};
use crate::predict::{CallContext, Tensor};
use std::sync::Arc;

/// Pipelines within one another that one task runs.
pub(super) const NESTED_MAX: usize = 4;

/// Runs a pipeline within another one.
pub(super) fn nested<'r>(
    pipeline: &'r PipelineModel,
    context: &'r Arc<CallContext>,
    inputs: Vec<Tensor>,
    account: &'r Arc<RequestAccount>,
) -> BoxFuture<'r, Result<Option<Vec<Tensor>>>> {
    Box::pin(async move { pipeline.run(context, inputs, account, &mut OneAnswer).await })
}

/// The same as a task of its own, so that pipelines that are nested deeply do not use up the stack of a thread.
pub(super) fn apart(
    callable: Arc<dyn Callable>,
    context: Arc<CallContext>,
    inputs: Vec<Tensor>,
    account: Arc<RequestAccount>,
) -> BoxFuture<'static, Result<Option<Vec<Tensor>>>> {
    Box::pin(run_apart(callable, context, inputs, account))
}

async fn run_apart(
    callable: Arc<dyn Callable>,
    context: Arc<CallContext>,
    inputs: Vec<Tensor>,
    account: Arc<RequestAccount>,
) -> Result<Option<Vec<Tensor>>> {
    /// The task ends with the step that waits for it.
    struct Ends(tokio::task::AbortHandle);
    impl Drop for Ends {
        fn drop(&mut self) {
            self.0.abort();
        }
    }
    let task = tokio::spawn(async move {
        let pipeline = PipelineModel::of(&*callable).expect("invariant: asked of a pipeline");
        nested(pipeline, &context, inputs, &account).await
    });
    let _ends = Ends(task.abort_handle());
    task.await.unwrap_or_else(|_| Err(Error::failed("the pipeline within ended without an answer")))
}

/// For a pipeline within another one, which answers once.
struct OneAnswer;

impl ResponseSink for OneAnswer {
    fn send(&mut self, _: Vec<Tensor>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Err(Error::failed("a step that answers once gave several responses")) })
    }

    fn answers_early(&self) -> bool {
        false
    }

    fn fail(&mut self, _: &Error) {}

    fn answer(&mut self, _: Vec<Tensor>) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}
