//! The state that the two ends of a stream of responses share.

use super::response::Response;
use super::unread::Budget;
use crate::error::Result;
use crate::lock::LockUnpoisoned;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

pub(super) struct Shared {
    pub capacity: usize,
    pub state: Mutex<State>,
}

/// `first` is used before `rest`: a single response needs no further allocation.
#[derive(Default)]
pub(super) struct State {
    pub first: Option<Result<Response>>,
    pub rest: VecDeque<Result<Response>>,
    /// No more responses follow.
    pub ended: bool,
    /// The work has dropped its sender, so nothing works on this call any more.
    pub released: bool,
    pub receiver_dropped: bool,
    pub receiver: Option<Waker>,
    pub sender: Option<Waker>,
    pub budget: Option<Arc<dyn Budget>>,
}

/// Returns the bytes of memory that a queued response keeps alive.
fn bytes_of(item: &Result<Response>) -> usize {
    item.as_ref().map_or(0, |response| response.payload.bytes_kept())
}

impl State {
    pub fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }

    /// If there is a budget and it is exceeded, the stream ends with that error instead.
    pub fn push(&mut self, mut item: Result<Response>) {
        if self.receiver_dropped {
            return;
        }
        if let Some(budget) = &self.budget
            && let Err(error) = budget.charge(bytes_of(&item))
        {
            item = Err(error);
            self.ended = true;
        }
        if self.first.is_none() && self.rest.is_empty() {
            self.first = Some(item);
        } else {
            self.rest.push_back(item);
        }
    }

    pub fn pop(&mut self) -> Option<Result<Response>> {
        let item = self.first.take().or_else(|| self.rest.pop_front())?;
        if let Some(budget) = &self.budget {
            budget.release(bytes_of(&item));
        }
        Some(item)
    }
}

impl Shared {
    pub async fn released(&self) {
        poll_fn(|context| {
            let mut state = self.state.lock_unpoisoned();
            if state.released {
                return Poll::Ready(());
            }
            state.receiver = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Changes the state, and then wakes the receiver without the lock.
    pub fn update(&self, change: impl FnOnce(&mut State)) {
        let waker = {
            let mut state = self.state.lock_unpoisoned();
            change(&mut state);
            state.receiver.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
