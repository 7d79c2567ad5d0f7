//! Callables: models that are loaded and ready to be called.

use super::sink::Sink;
use super::streaming_calls::StreamingCalls;
use crate::error::Result;
use crate::predict::{CallContext, Makers, Metadata, Response, Tensor};
use std::any::Any;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How calls of a model use threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallProfile {
    /// A call blocks the thread that polls it until it returns, as ONNX Runtime does. It needs a
    /// worker.
    Blocking,
    /// A call computes and returns: a plugin that calls no model and no server. It needs a worker.
    Computing,
    /// A call may wait for other models or for servers. It must not hold a worker while it waits.
    Suspending,
    /// Calls run concurrently in an instance of a streaming model. They need no worker.
    Shared,
    /// A call runs elsewhere: in a remote, or as the steps of a pipeline. Its executor has no
    /// workers.
    Delegated,
}

/// A loaded model, which turns inputs into a stream of 0..n responses.
pub trait Callable: Send + Sync {
    fn metadata(&self) -> &Metadata;

    /// Returns true if the model reads the request's parameters and note, not only the inputs.
    /// Calls of such a model share a run only if these are equal.
    fn reads_request(&self) -> bool {
        false
    }

    /// Returns how the model's calls use threads. Never changes.
    fn profile(&self) -> CallProfile;

    /// Returns the streaming model if the profile is [`CallProfile::Shared`].
    fn streaming_model(&self) -> Option<&StreamingCalls> {
        None
    }

    /// Lets executors recognize callables of their own kind.
    fn as_any(&self) -> &dyn Any;

    /// Fails if the model cannot run now. Called by health checks; returns immediately.
    fn ready(&self) -> Result<()> {
        Ok(())
    }

    /// Runs the model once. Returns the last response; earlier ones go to `sink`. A model with
    /// exactly one response returns it and never uses the sink. The future is polled on a worker
    /// and may block it. When the call is cancelled, it ends as soon as it can.
    fn call<'a>(
        &'a self,
        context: &'a Arc<CallContext>,
        inputs: Vec<Tensor>,
        sink: &'a mut Sink,
    ) -> BoxFuture<'a, Result<Option<Vec<Tensor>>>>;
}

/// Runs the callable for one call that was just checked, and postprocesses its outputs.
pub(super) async fn run(
    sink: &mut Sink,
    callable: &dyn Callable,
    inputs: Vec<Tensor>,
) -> Result<Option<Response>> {
    let context = Arc::clone(&sink.context);
    let makers = Makers::of(&inputs);
    let outputs = callable.call(&context, inputs, sink).await;
    let response = match outputs.map_err(|error| makers.explain(error))? {
        Some(outputs) => {
            let now = Instant::now();
            match context.check_at(now) {
                Ok(()) => sink.respond_at(now, outputs).await.map(Some),
                Err(reason) => Err(reason),
            }
        }
        None => Ok(None),
    };
    // The model has run, even if its outputs are not delivered.
    if let Some(runs) = &sink.runs {
        runs.record(sink.service);
    }
    response
}
