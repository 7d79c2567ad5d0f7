//! Admission to a streaming model, and the start of its calls.

use crate::error::{Error, Result};
use crate::plugin::{EventLoopGuards, Permit, StreamingModel};
use crate::predict::{CallContext, Metadata, Sender, Tensor};
use std::sync::Arc;
use std::time::Instant;

pub struct StreamingCalls {
    plugin: Arc<StreamingModel>,
    idempotent: bool,
}

impl StreamingCalls {
    pub fn new(plugin: Arc<StreamingModel>, idempotent: bool) -> Self {
        StreamingCalls { plugin, idempotent }
    }

    /// Returns why no replica takes calls; `None` if one does.
    pub fn refusal(&self) -> Option<Error> {
        self.plugin.refusal()
    }

    pub fn metadata(&self) -> &Metadata {
        self.plugin.metadata()
    }

    pub(super) fn admit(&self) -> Result<Permit> {
        self.plugin.admit()
    }

    /// Like `admit`, for a call of work that started at `since`: it waits instead of being refused.
    pub(super) async fn admit_started(&self, since: Instant) -> Result<Permit> {
        self.plugin.admit_started(since).await
    }

    /// See [`StreamingModel::event_loop_guards`].
    pub(super) fn guards(&self) -> EventLoopGuards {
        self.plugin.event_loop_guards()
    }

    /// Starts an admitted call. `held` is dropped when the call has ended.
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
}
