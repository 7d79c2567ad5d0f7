//! Requests on their way in.

use super::{Direction, Hold, Reason, SMALL_BYTES, Transfers};
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

/// For how long a request waits for room, and how often it looks for it.
const ROOM_TIMEOUT: Duration = Duration::from_secs(1);
const ROOM_RETRY: Duration = Duration::from_millis(50);

/// A request's body or one message of a call, while it arrives. One that arrives in one piece costs nothing.
pub struct Receiving<T> {
    transfers: T,
    hold: Option<Hold>,
}

impl<T: Borrow<Arc<Transfers>>> Receiving<T> {
    pub fn new(transfers: T) -> Self {
        Receiving { transfers, hold: None }
    }

    /// Counts what has come so far, in all; `length` is that of the whole, if it is known. Where the budget is used up
    /// it waits for a moment: it takes 250 ms until a client that has stopped counts as slow.
    ///
    /// # Errors
    /// `overloaded` where nothing slower can be aborted even then.
    pub async fn hold(&mut self, bytes: usize, length: Option<usize>) -> Result<()> {
        match self.try_hold(bytes, length) {
            Ok(()) => Ok(()),
            Err(refused) => Box::pin(self.wait_for_room(bytes, length, refused)).await,
        }
    }

    async fn wait_for_room(&mut self, bytes: usize, length: Option<usize>, mut refused: Error) -> Result<()> {
        let deadline = Instant::now() + ROOM_TIMEOUT;
        while Instant::now() < deadline {
            self.unless_aborted(task_timer::until(Instant::now() + ROOM_RETRY)).await?;
            // It waits for the host, not for its client.
            self.hold.iter().for_each(|hold| hold.transfer.moved(0));
            match self.try_hold(bytes, length) {
                Ok(()) => return Ok(()),
                Err(again) => refused = again,
            }
        }
        Err(refused)
    }

    /// The same without a wait.
    pub fn try_hold(&mut self, bytes: usize, length: Option<usize>) -> Result<()> {
        let hold = self.hold.get_or_insert_with(|| Hold {
            transfer: self.transfers.borrow().begin(Direction::Request, None, None),
            bytes: 0,
        });
        let total = length.unwrap_or(self.transfers.borrow().limits.max_body_bytes);
        hold.transfer.state.total.store(total as u64, Relaxed);
        hold.grow(bytes.saturating_sub(hold.bytes), length.unwrap_or(bytes) <= SMALL_BYTES)
    }

    /// Waits for a part, unless the transfer is aborted before it comes.
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

    /// The whole of what has come. Its bytes count until the last part of them is dropped.
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
    /// Counts what was made of a request, such as its unpacked body, until the last part of it is dropped.
    pub fn count(self: &Arc<Self>, bytes: Bytes) -> Result<Bytes> {
        if bytes.len() <= SMALL_BYTES {
            return Ok(bytes);
        }
        let mut receiving = Receiving::new(self);
        receiving.try_hold(bytes.len(), None)?;
        Ok(receiving.finish(bytes))
    }

    pub(super) fn error_for(&self, reason: Reason) -> Error {
        match reason {
            Reason::Slow | Reason::Stalled => {
                let min = self.limits.min_bytes_per_s;
                Error::deadline(format!(
                    "the request arrived at less than {min} bytes/s for 5 s; see min_bytes_per_s"
                ))
                .field("body")
            }
            Reason::Limit => {
                let mb = self.limits.max_buffered_bytes >> 20;
                Error::overloaded(format!(
                    "the host holds {mb} MB of requests and answers for its clients, which is the limit, and this \
                     request was the slowest to arrive; try again, or raise max_buffered_mb"
                ))
            }
        }
    }
}
