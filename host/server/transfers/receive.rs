//! Requests while they are received.

use super::budget::{SMALL_BYTES, Transfers};
use super::transfer::Hold;
use crate::error::{Error, Result};
use crate::task_timer;
use bytes::Bytes;
use std::borrow::Borrow;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// How long a request waits for free bytes of the budget, and how often it tries again.
const BUDGET_TIMEOUT: Duration = Duration::from_secs(1);
const BUDGET_RETRY: Duration = Duration::from_millis(50);

/// A request's body or one message of a call, while it is received. If it arrives in one piece,
/// nothing is counted.
pub struct Receiving<T> {
    transfers: T,
    hold: Option<Hold>,
}

impl<T: Borrow<Arc<Transfers>>> Receiving<T> {
    pub fn new(transfers: T) -> Self {
        Receiving { transfers, hold: None }
    }

    /// Counts the bytes received so far, in total; `length` is that of the whole, if it is known.
    /// If the budget is used up, this waits for up to a second: it takes 250 ms until a client that
    /// has stopped counts as slow.
    ///
    /// # Errors
    /// `overloaded` if no slower transfer can be aborted in that time.
    pub async fn hold(&mut self, bytes: usize, length: Option<usize>) -> Result<()> {
        match self.try_hold(bytes, length) {
            Ok(()) => Ok(()),
            Err(refused) => Box::pin(self.wait_for_budget(bytes, length, refused)).await,
        }
    }

    async fn wait_for_budget(
        &mut self,
        bytes: usize,
        length: Option<usize>,
        mut refused: Error,
    ) -> Result<()> {
        let deadline = Instant::now() + BUDGET_TIMEOUT;
        while Instant::now() < deadline {
            self.unless_aborted(task_timer::until(Instant::now() + BUDGET_RETRY)).await?;
            // The transfer waits for the host, not for its client, so it must not count as idle.
            self.hold.iter().for_each(|hold| hold.transfer.moved(0));
            match self.try_hold(bytes, length) {
                Ok(()) => return Ok(()),
                Err(again) => refused = again,
            }
        }
        Err(refused)
    }

    /// Counts bytes like `hold`, without waiting.
    pub fn try_hold(&mut self, bytes: usize, length: Option<usize>) -> Result<()> {
        let hold = self.hold.get_or_insert_with(|| Hold::request(self.transfers.borrow()));
        let total = length.unwrap_or(self.transfers.borrow().limits.max_body_bytes);
        hold.transfer.state.total.store(total as u64, Relaxed);
        hold.grow(bytes.saturating_sub(hold.bytes), length.unwrap_or(bytes) <= SMALL_BYTES)
    }

    /// Waits for a part.
    ///
    /// # Errors
    /// The error of the abort, if the transfer is aborted first.
    pub async fn unless_aborted<P>(&self, part: impl Future<Output = P>) -> Result<P> {
        let mut part = pin!(part);
        poll_fn(|context| match part.as_mut().poll(context) {
            Poll::Ready(part) => Poll::Ready(Ok(part)),
            Poll::Pending => self.poll_aborted(context).map(Err),
        })
        .await
    }

    /// Ready once the transfer is aborted.
    pub fn poll_aborted(&self, context: &mut Context<'_>) -> Poll<Error> {
        let Some(hold) = &self.hold else { return Poll::Pending };
        let state = &hold.transfer.state;
        state.reader.register(context.waker());
        state.aborted().map_or(Poll::Pending, |reason| Poll::Ready(self.transfers.borrow().error_for(reason)))
    }

    /// Returns the whole `body`. Its bytes count until the last slice of them is dropped.
    pub fn finish(self, body: Bytes) -> Bytes {
        match self.hold {
            Some(hold) => counted(body, hold),
            None => body,
        }
    }
}

fn counted(bytes: Bytes, hold: Hold) -> Bytes {
    struct Counted {
        bytes: Bytes,
        _hold: Hold,
    }

    impl AsRef<[u8]> for Counted {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }

    hold.transfer.state.is_whole.store(true, Relaxed);
    Bytes::from_owner(Counted { bytes, _hold: hold })
}

impl Transfers {
    /// Counts bytes that were made of a request, such as its unpacked body, until the last slice of
    /// them is dropped.
    pub fn count(self: &Arc<Self>, bytes: Bytes) -> Result<Bytes> {
        if bytes.len() <= SMALL_BYTES {
            return Ok(bytes);
        }
        let mut receiving = Receiving::new(self);
        receiving.try_hold(bytes.len(), None)?;
        Ok(receiving.finish(bytes))
    }
}
