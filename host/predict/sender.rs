//! The end of a stream of responses that the work holds.

use super::response::Response;
use super::response_channel::Shared;
use crate::error::{Error, Result};
use crate::lock::LockUnpoisoned;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

/// The work's end of a stream.
pub struct Sender {
    pub(super) shared: Arc<Shared>,
}

impl Sender {
    /// Sends a response that is not the last one. Waits while the stream is full. The last response
    /// is passed to `finish`.
    pub async fn send(&mut self, response: Response) -> Result<()> {
        let mut response = Some(response);
        poll_fn(|context| {
            let mut state = self.shared.state.lock_unpoisoned();
            if state.receiver_dropped || state.ended {
                return Poll::Ready(Err(Error::cancelled("cancelled by the caller during the stream")));
            }
            if state.len() >= self.shared.capacity {
                state.sender = Some(context.waker().clone());
                return Poll::Pending;
            }
            state.push(Ok(response.take().expect("invariant: sent once")));
            let waker = state.receiver.take();
            drop(state);
            if let Some(waker) = waker {
                waker.wake();
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Ends the stream with an error while the work still holds its worker. Dropping the sender
    /// marks the release.
    pub fn fail(&mut self, error: Error) {
        self.shared.update(|state| {
            if !state.ended {
                state.push(Err(error));
                state.ended = true;
            }
        });
    }

    /// Ends the stream: with its last response, without another one, or with an error.
    pub fn finish(self, last: Result<Option<Response>>) {
        self.shared.update(|state| {
            if let Some(item) = last.transpose().filter(|_| !state.ended) {
                state.push(item);
            }
            state.ended = true;
            state.released = true;
        });
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let released = self.shared.state.lock_unpoisoned().released;
        if !released {
            self.shared.update(|state| {
                if !state.ended {
                    state.push(Err(Error::failed("the worker ended before it answered")));
                }
                state.ended = true;
                state.released = true;
            });
        }
    }
}
