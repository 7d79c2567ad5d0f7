//! Admission to a streaming model, and the start of its calls.

use crate::error::{Error, Result};
use crate::plugin::{EventLoopGuards, Permit, StreamingModel};
use crate::predict::{CallContext, Metadata, Sender, Tensor};
use crate::tenants::{SHARE_TIME, SharedSlots, TenantShare, TenantSlot};
use std::sync::Arc;
use std::time::Instant;

pub struct StreamingCalls {
    plugin: Arc<StreamingModel>,
    idempotent: bool,
    /// The calls in flight, by tenant.
    shares: Arc<SharedSlots>,
}

impl StreamingCalls {
    pub fn new(plugin: Arc<StreamingModel>, idempotent: bool) -> Self {
        StreamingCalls { plugin, idempotent, shares: Arc::default() }
    }

    /// Returns what tells plugins and ways to call them apart.
    pub fn identity(&self) -> (usize, bool) {
        (Arc::as_ptr(&self.plugin).addr(), self.idempotent)
    }

    /// Returns why no replica takes calls; `None` if one does.
    pub fn refusal(&self) -> Option<Error> {
        self.plugin.refusal()
    }

    pub fn metadata(&self) -> &Metadata {
        self.plugin.metadata()
    }

    /// Admits a call of this tenant, within its share of the calls in flight.
    pub(super) fn admit(&self, tenant: &TenantShare) -> Result<(Permit, TenantSlot)> {
        let permit = self.plugin.admit()?;
        let (slots, free) = self.plugin.slots();
        // The permit has one of them.
        let slot = self.shares.take(tenant, slots, free + 1, Instant::now()).ok_or_else(|| {
            let name = tenant.name().unwrap_or_default();
            Error::overloaded(format!(
                "plugin \"{}\": tenant \"{name}\" has its share of {slots} calls in flight",
                self.plugin.name()
            ))
            .plugin(&**self.plugin.name())
            .retry_after(SHARE_TIME)
        })?;
        Ok((permit, slot))
    }

    /// Like `admit`, for a call of work that started at `since`: it waits instead of being refused.
    pub(super) async fn admit_started(
        &self,
        tenant: &TenantShare,
        since: Instant,
    ) -> Result<(Permit, TenantSlot)> {
        let permit = self.plugin.admit_started(since).await?;
        Ok((permit, self.shares.take_started(tenant, Instant::now())))
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
