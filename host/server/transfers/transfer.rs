//! One request or answer that is being transferred, and the bytes that it holds.

use super::abort::Abort;
use super::budget::Transfers;
use super::reason::Direction;
use super::state::TransferState;
use crate::error::Result;
use hyper::header::HeaderValue;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

/// One request or answer that is being transferred. It is in the table until this is dropped.
pub(in crate::server) struct Transfer {
    transfers: Arc<Transfers>,
    key: usize,
    pub(super) state: Arc<TransferState>,
}

impl Transfer {
    pub(super) fn begin(
        transfers: &Arc<Transfers>,
        direction: Direction,
        on_abort: Option<Arc<dyn Abort>>,
        request_id: Option<HeaderValue>,
    ) -> Arc<Self> {
        let (key, state) = transfers.insert(direction, on_abort, request_id);
        Arc::new(Transfer { transfers: Arc::clone(transfers), key, state })
    }

    /// Begins an answer, or several answers on one call. `on_abort` ends what sends it.
    pub fn answer(
        transfers: &Arc<Transfers>,
        on_abort: Arc<dyn Abort>,
        request_id: Option<HeaderValue>,
    ) -> Arc<Self> {
        Self::begin(transfers, Direction::Answer, Some(on_abort), request_id)
    }

    /// Counts bytes of an answer. They are in memory already, so they count even beyond the budget.
    pub fn hold(self: &Arc<Self>, bytes: usize) -> Hold {
        let Transfer { transfers, state, .. } = &**self;
        transfers.used.fetch_add(bytes, Relaxed);
        transfers.metrics.transfers.buffered_bytes.add(bytes as i64);
        state.total.fetch_add(bytes as u64, Relaxed);
        if state.held.fetch_add(bytes, Relaxed) == 0 {
            // The times of earlier answers on the same call do not apply to this one.
            let now_ms = transfers.ms(Instant::now());
            state.holds_since.store(now_ms, Relaxed);
            state.moved_at.store(now_ms, Relaxed);
        }
        transfers.abort_excess();
        Hold { transfer: Arc::clone(self), bytes }
    }

    /// Notes that the client has sent or read bytes.
    pub fn moved(&self, bytes: usize) {
        self.state.moved.fetch_add(bytes as u64, Relaxed);
        self.state.moved_at.store(self.transfers.ms(Instant::now()), Relaxed);
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.transfers.remove(self.key);
    }
}

/// Bytes that count against the budget until this is dropped.
pub(in crate::server) struct Hold {
    pub(super) transfer: Arc<Transfer>,
    pub(super) bytes: usize,
}

impl Hold {
    /// Notes that the client has read all of them.
    pub fn moved(&self) {
        self.transfer.moved(self.bytes);
    }

    /// Begins to count the bytes of a request.
    pub(super) fn request(transfers: &Arc<Transfers>) -> Self {
        Hold { transfer: Transfer::begin(transfers, Direction::Request, None, None), bytes: 0 }
    }

    /// Counts more bytes of a request.
    ///
    /// # Errors
    /// `overloaded` if the budget is used up and no transfer is slow, and the error of the abort if
    /// this one was aborted.
    pub(super) fn grow(&mut self, bytes: usize, is_small: bool) -> Result<()> {
        let Transfer { transfers, state, .. } = &*self.transfer;
        transfers.reserve(bytes, is_small)?;
        if let Some(reason) = state.aborted() {
            transfers.release(bytes);
            return Err(transfers.error_for(reason));
        }
        state.held.fetch_add(bytes, Relaxed);
        self.transfer.moved(bytes);
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let Transfer { transfers, state, .. } = &*self.transfer;
        // An aborted transfer has released its bytes already.
        let less = |held: usize| Some(held.saturating_sub(self.bytes));
        let held = state.held.fetch_update(Relaxed, Relaxed, less).unwrap_or_default();
        transfers.release(held.min(self.bytes));
    }
}
