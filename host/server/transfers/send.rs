//! Answers while they are sent.

use super::transfer::{Hold, Transfer};
use bytes::Bytes;
use futures_util::task::AtomicWaker;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

/// Large data is handed out in pieces of this size, which shows whether the client reads it. On a
/// connection that sends one answer at a time, data up to this size is not counted.
pub const PIECE_BYTES: usize = 64 << 10;

/// Data of one answer, which counts until its last piece was sent.
pub(in crate::server) struct Outgoing {
    shared: Arc<Shared>,
    /// Size of the whole answer.
    bytes: usize,
    rest: Bytes,
}

struct Shared {
    hold: Hold,
    /// Bytes that were handed out and are not sent yet.
    unsent: AtomicUsize,
    sent: AtomicWaker,
}

/// A part of an answer, which is dropped when it was sent.
struct Piece {
    bytes: Bytes,
    shared: Arc<Shared>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let Shared { hold, unsent, sent } = &*self.shared;
        hold.transfer.moved(self.bytes.len());
        unsent.fetch_sub(self.bytes.len(), Ordering::Release);
        sent.wake();
    }
}

impl Outgoing {
    /// Begins an answer of `bytes` in total. `data` is the part of it that is there already.
    pub fn new(transfer: &Arc<Transfer>, bytes: usize, data: Bytes) -> Self {
        let hold = transfer.hold(bytes);
        let shared = Arc::new(Shared { hold, unsent: AtomicUsize::new(0), sent: AtomicWaker::new() });
        Outgoing { shared, bytes, rest: data }
    }

    /// Returns the size of the whole answer.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds data of the same answer. All earlier data must have been handed out.
    pub fn push(&mut self, data: Bytes) {
        self.rest = data;
    }

    /// Returns the number of bytes that were not handed out yet.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Returns the next piece; `None` once all data was handed out.
    pub fn next(&mut self) -> Option<Bytes> {
        let bytes = self.rest.split_to(self.rest.len().min(PIECE_BYTES));
        if bytes.is_empty() {
            return None;
        }
        self.shared.unsent.fetch_add(bytes.len(), Ordering::Relaxed);
        Some(Bytes::from_owner(Piece { bytes, shared: Arc::clone(&self.shared) }))
    }

    /// Ready once all data that was handed out is sent.
    pub fn poll_sent(&self, context: &mut Context<'_>) -> Poll<()> {
        self.shared.sent.register(context.waker());
        match self.shared.unsent.load(Ordering::Acquire) {
            0 => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }
}
