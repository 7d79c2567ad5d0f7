//! A pipeline as a callable: starts a run for each call, and waits for its detached steps.

use super::account::RequestAccount;
use super::model::PipelineModel;
use super::reusability::Reuse;
use super::run::run_pipeline;
use crate::error::Result;
use crate::executor::callable::{BoxFuture, CallProfile, Callable};
use crate::executor::sink::Sink;
use crate::predict::{CallContext, Metadata, Tensor};
use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

impl Callable for PipelineModel {
    fn metadata(&self) -> &Metadata {
        &self.program.metadata
    }

    fn reads_request(&self) -> bool {
        true
    }

    fn profile(&self) -> CallProfile {
        CallProfile::Delegated
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn ready(&self) -> Result<()> {
        if let Some(why) = self.why_unavailable() {
            return Err(why.clone());
        }
        self.leaves.iter().try_for_each(|leaf| leaf.ready())
    }

    fn call<'a>(
        &'a self,
        context: &'a Arc<CallContext>,
        inputs: Vec<Tensor>,
        sink: &'a mut Sink,
    ) -> BoxFuture<'a, Result<Option<Vec<Tensor>>>> {
        let mut account = RequestAccount::new(&self.program.graph, Instant::now(), sink.runs.is_some(), true);
        // What a plugin asks for may differ from one attempt to the next.
        let has_checkpoints = context.steps.as_ref().is_some_and(|steps| steps.checkpoints().is_some());
        if has_checkpoints && context.is_outermost() {
            account.reuse = Reuse::Possible;
        }
        let account = Arc::new(account);
        Box::pin(async move {
            let outcome = run_pipeline(self, context, inputs, &account, sink).await;
            if account.is_released() {
                return outcome;
            }
            // Calls of the request are still running. The client gets the response without waiting
            // for them.
            let outcome = match outcome {
                Ok(Some(outputs)) => {
                    Sink::answer(sink, Ok(outputs)).await;
                    Ok(None)
                }
                Err(error) => {
                    Sink::fail(sink, &error);
                    Err(error)
                }
                Ok(None) => Ok(None),
            };
            account.released().await;
            outcome
        })
    }
}
