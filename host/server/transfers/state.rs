//! The state of one transfer, which the table and the transfer's own task share.

use super::abort::Abort;
use super::reason::{Direction, Reason};
use futures_util::task::AtomicWaker;
use hyper::header::HeaderValue;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

pub(super) struct TransferState {
    pub direction: Direction,
    pub began: Instant,
    /// When it began to hold bytes, in ms since the host started.
    pub holds_since: AtomicU64,
    /// Bytes that count against the budget.
    pub held: AtomicUsize,
    /// Bytes that will have moved at the end, as far as that is known.
    pub total: AtomicU64,
    /// Bytes that have been received or sent.
    pub moved: AtomicU64,
    /// When bytes last moved, in ms since the host started.
    pub moved_at: AtomicU64,
    /// The request has arrived whole. Its bytes are held until it is answered, which does not
    /// depend on the client.
    pub is_whole: AtomicBool,
    /// One more than the index of the `Reason`, or 0.
    pub aborted: AtomicU8,
    pub reader: AtomicWaker,
    /// `None` for a request, whose reader checks `aborted`.
    pub on_abort: Option<Arc<dyn Abort>>,
    pub request_id: Option<HeaderValue>,
}

impl TransferState {
    pub fn aborted(&self) -> Option<Reason> {
        let index = self.aborted.load(Relaxed).checked_sub(1)?;
        Reason::ALL.get(usize::from(index)).copied()
    }

    pub fn can_be_aborted(&self) -> bool {
        !self.is_whole.load(Relaxed) && self.held.load(Relaxed) > 0 && self.aborted.load(Relaxed) == 0
    }
}
