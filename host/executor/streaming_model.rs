//! Plugins in the role `streaming-model`, as callables: their calls wait side by side in instances that they
//! share, so they hold no worker of the executor.

use super::worker_pool::STREAM_BUFFER;
use super::{BoxFuture, Callable, Sink};
use crate::error::Result;
use crate::plugin::{EventLoopGuards, Permit, StreamingModel};
use crate::predict::{CallContext, Metadata, Sender, Tensor, channel};
use std::sync::Arc;
use std::time::Instant;

pub struct SharedCallable {
    plugin: Arc<StreamingModel>,
    idempotent: bool,
}

impl SharedCallable {
    pub fn new(plugin: Arc<StreamingModel>, idempotent: bool) -> Self {
        SharedCallable { plugin, idempotent }
    }

    pub(super) fn admit(&self) -> Result<Permit> {
        self.plugin.admit()
    }

    /// The same for work that has begun at `since`, which waits.
    pub(super) async fn admit_started(&self, since: Instant) -> Result<Permit> {
        self.plugin.admit_started(since).await
    }

    /// See [`StreamingModel::helms`].
    pub(super) fn guards(&self) -> EventLoopGuards {
        self.plugin.event_loop_guards()
    }

    /// Begins an admitted call; `held` is dropped when it has ended.
    pub(super) fn start(
        &self,
        permit: Permit,
        context: &Arc<CallContext>,
        inputs: Vec<Tensor>,
        sender: Sender,
        held: Box<dyn Send>,
    ) {
        permit.start(Arc::clone(context), inputs, sender, self.idempotent, held);
    }

    /// Runs an admitted call; all responses go to `sink`, except the only one of a model that has one.
    pub(super) async fn run(
        &self,
        permit: Permit,
        context: &Arc<CallContext>,
        inputs: Vec<Tensor>,
        sink: &mut Sink,
    ) -> Result<Option<Vec<Tensor>>> {
        let (sender, mut responses) = channel(Arc::clone(context), STREAM_BUFFER);
        self.start(permit, context, inputs, sender, Box::new(()));
        if !self.plugin.metadata().streaming {
            return responses.one().await?.tensors().map(Some);
        }
        while let Some(response) = responses.next().await {
            sink.send(response?.tensors()?).await?;
        }
        Ok(None)
    }
}

impl Callable for SharedCallable {
    fn metadata(&self) -> &Metadata {
        self.plugin.metadata()
    }

    fn reads_request(&self) -> bool {
        true
    }

    fn shared(&self) -> Option<&SharedCallable> {
        Some(self)
    }

    fn ready(&self) -> Result<()> {
        self.plugin.refusal().map_or(Ok(()), Err)
    }

    fn call<'a>(
        &'a self,
        context: &'a Arc<CallContext>,
        inputs: Vec<Tensor>,
        sink: &'a mut Sink,
    ) -> BoxFuture<'a, Result<Option<Vec<Tensor>>>> {
        Box::pin(async move { self.run(self.admit()?, context, inputs, sink).await })
    }
}
