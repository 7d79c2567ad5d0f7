//! A model that is loaded and ready to be called.

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
    /// A call blocks the thread that polls it until it returns: ONNX Runtime. It needs a worker.
    Blocking,
    /// A call computes and returns: a plugin that calls nothing else. It needs a worker.
    Computing,
    /// A call may wait for other models or for servers. It must not hold a worker while it waits.
    Suspending,
    /// Calls run concurrently in an instance of a streaming model. They need no worker.
    Shared,
    /// A call runs elsewhere, in a remote or as the steps of a pipeline. Its executor has no workers.
    Delegated,
}

/// A model ready to run: inputs to a stream of 0..n responses.
pub trait Callable: Send + Sync {
    fn metadata(&self) -> &Metadata;

    /// Whether it looks at the request's parameters and note, not only at the inputs. Calls of such a model
    /// share a run only if these are equal.
    fn reads_request(&self) -> bool {
        false
    }

    /// How its calls use threads. The same for the life of the callable.
    fn profile(&self) -> CallProfile;

    /// The streaming model, if its profile is [`CallProfile::Shared`].
    fn streaming_model(&self) -> Option<&StreamingCalls> {
        None
    }

    /// For executors that handle callables of their own kind in a special way.
    fn as_any(&self) -> &dyn Any;

    /// Whether it could run now. Asked by health checks; answers at once.
    fn ready(&self) -> Result<()> {
        Ok(())
    }

    /// Runs once. Returns the last response; earlier ones go to `sink`. A model that gives exactly one
    /// response returns it and never touches the sink. Polled on a worker; may block it. Ends early when
    /// the call is cancelled, as soon as it can.
    fn call<'a>(
        &'a self,
        context: &'a Arc<CallContext>,
        inputs: Vec<Tensor>,
        sink: &'a mut Sink,
    ) -> BoxFuture<'a, Result<Option<Vec<Tensor>>>>;
}

/// Runs the callable for one call that was just checked, and postprocesses what it gives.
pub(super) async fn run(sink: &mut Sink, callable: &dyn Callable, inputs: Vec<Tensor>) -> Result<Option<Response>> {
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
    // The model has run, whatever became of its outputs.
    if let Some(runs) = &sink.runs {
        runs.record(sink.service);
    }
    response
}
