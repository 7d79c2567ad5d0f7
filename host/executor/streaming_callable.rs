//! The callable of a plugin with the role `streaming-model`. Its calls run concurrently in shared
//! instances, so they hold no worker of the executor.

use super::call::STREAM_BUFFER;
use super::callable::{BoxFuture, CallProfile, Callable};
use super::sink::Sink;
use super::streaming_calls::StreamingCalls;
use crate::error::Result;
use crate::plugin::{Permit, StreamingModel};
use crate::predict::{CallContext, Metadata, Tensor, channel};
use std::any::Any;
use std::sync::Arc;

pub struct StreamingCallable(StreamingCalls);

impl StreamingCallable {
    pub fn new(plugin: Arc<StreamingModel>, idempotent: bool) -> Self {
        StreamingCallable(StreamingCalls::new(plugin, idempotent))
    }

    /// Whether two callables are the same plugin, called in the same way.
    pub fn are_same(one: &dyn Callable, other: &dyn Callable) -> bool {
        let of = |callable: &dyn Callable| {
            callable.as_any().downcast_ref::<StreamingCallable>().map(|callable| callable.0.identity())
        };
        of(one).is_some_and(|one| of(other) == Some(one))
    }
}

/// Runs an admitted call. If the model has exactly one response, returns it; otherwise all
/// responses go to `sink`.
pub(super) async fn run(
    calls: &StreamingCalls,
    permit: Permit,
    context: &Arc<CallContext>,
    inputs: Vec<Tensor>,
    sink: &mut Sink,
) -> Result<Option<Vec<Tensor>>> {
    let (sender, mut responses) = channel(Arc::clone(context), STREAM_BUFFER);
    calls.start(permit, context, inputs, sender, Box::new(()));
    if !calls.metadata().streaming {
        return responses.one().await?.tensors().map(Some);
    }
    while let Some(response) = responses.next().await {
        sink.send(response?.tensors()?).await?;
    }
    Ok(None)
}

impl Callable for StreamingCallable {
    fn metadata(&self) -> &Metadata {
        self.0.metadata()
    }

    fn reads_request(&self) -> bool {
        true
    }

    fn profile(&self) -> CallProfile {
        CallProfile::Shared
    }

    fn streaming_model(&self) -> Option<&StreamingCalls> {
        Some(&self.0)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn ready(&self) -> Result<()> {
        self.0.refusal().map_or(Ok(()), Err)
    }

    fn call<'a>(
        &'a self,
        context: &'a Arc<CallContext>,
        inputs: Vec<Tensor>,
        sink: &'a mut Sink,
    ) -> BoxFuture<'a, Result<Option<Vec<Tensor>>>> {
        Box::pin(async move {
            let (permit, _slot) = self.0.admit(&context.tenant)?;
            run(&self.0, permit, context, inputs, sink).await
        })
    }
}
