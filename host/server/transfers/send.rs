//! Answers on their way out.

use super::{Hold, Transfer};
use bytes::Bytes;
use futures_util::task::AtomicWaker;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

/// Large data is handed out in pieces of this size, so that it shows whether its client takes it. Data up to this size
/// of a connection that sends one answer at a time is not counted.
pub const PIECE_BYTES: usize = 64 << 10;

/// Data of one answer, which counts until the last piece of it was sent.
pub(in crate::server) struct Outgoing {
    shared: Arc<Shared>,
    /// Size of the whole answer.
    bytes: usize,
    left: Bytes,
}

struct Shared {
    hold: Hold,
    /// Bytes that were handed out and are not sent.
    unsent: AtomicUsize,
    sent: AtomicWaker,
}

/// A part of an answer, dropped when it was sent.
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
    /// `bytes` are those of the whole answer; `data` is what is there of it now.
    pub fn new(transfer: &Arc<Transfer>, bytes: usize, data: Bytes) -> Self {
        let hold = transfer.hold(bytes);
        let shared = Arc::new(Shared { hold, unsent: AtomicUsize::new(0), sent: AtomicWaker::new() });
        Outgoing { shared, bytes, left: data }
    }

    /// Size of the whole answer.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// More data of the same answer. All before it was handed out.
    pub fn push(&mut self, data: Bytes) {
        self.left = data;
    }

    pub fn left(&self) -> usize {
        self.left.len()
    }

    /// The next piece, none once all data was handed out.
    pub fn next(&mut self) -> Option<Bytes> {
        let bytes = self.left.split_to(self.left.len().min(PIECE_BYTES));
        if bytes.is_empty() {
            return None;
        }
        self.shared.unsent.fetch_add(bytes.len(), Ordering::Relaxed);
        Some(Bytes::from_owner(Piece { bytes, shared: Arc::clone(&self.shared) }))
    }

    /// Ready once all that was handed out is sent.
    pub fn poll_sent(&self, context: &mut Context<'_>) -> Poll<()> {
        self.shared.sent.register(context.waker());
        match self.shared.unsent.load(Ordering::Acquire) {
            0 => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }
}
