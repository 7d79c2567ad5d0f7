//! The admission of one call to a replica.

use super::replica::{CallSlot, QueuedCall, Replica};
use crate::predict::{CallContext, Sender, Tensor};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio::sync::mpsc::UnboundedSender;

/// Retries of one call: a call that loses its instance twice is likely to be the cause.
const RETRIES_MAX: u8 = 1;

/// A slot in a replica, reserved until it is dropped.
pub struct Permit {
    pub(super) replica: Arc<Replica>,
    pub(super) queue: UnboundedSender<QueuedCall>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.replica.release();
    }
}

impl Permit {
    /// Starts the call; its responses go to `sender`. `held` is dropped with the call, before its
    /// client sees the end.
    pub fn start(
        self,
        context: Arc<CallContext>,
        inputs: Vec<Tensor>,
        sender: Sender,
        idempotent: bool,
        held: Box<dyn Send>,
    ) {
        // The queued call occupies a slot of its own; this permit releases its slot when dropped.
        self.replica.in_flight.fetch_add(1, Ordering::AcqRel);
        let call = QueuedCall {
            context,
            inputs,
            sender: Some(sender),
            admitted: Instant::now(),
            idempotent,
            retries_left: RETRIES_MAX,
            _held: (CallSlot(Arc::clone(&self.replica)), held),
        };
        // If the thread is gone, the call is dropped with its sender, which reports that.
        let _ = self.queue.send(call);
    }
}
