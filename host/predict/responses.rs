//! The responses of a call: a bounded stream of 0..n responses from the work to its caller.
//!
//! Dropping the receiver cancels the work. If the sender is dropped before the stream has ended,
//! the stream ends with an error, so that no caller waits for ever. The end of the stream and the
//! end of the work differ: at a deadline the caller gets its error immediately, while the work may
//! hold its worker for longer (`Responses::released`).

use super::call_state::CallState;
use super::response::Response;
use super::response_channel::Shared;
use super::sender::Sender;
use super::unread::Budget;
use crate::error::{Error, Result};
use crate::lock::LockUnpoisoned;
use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Instant;

/// Creates both ends of a stream. At most `capacity` responses are queued between them.
pub fn channel<C: CallState + 'static>(call: Arc<C>, capacity: usize) -> (Sender, Responses) {
    let shared = Arc::new(Shared { capacity: capacity.max(1), state: Mutex::default() });
    (Sender { shared: Arc::clone(&shared) }, Responses { shared, call })
}

/// The caller's end of a stream.
pub struct Responses {
    shared: Arc<Shared>,
    call: Arc<dyn CallState>,
}

/// Waits for the end of the work after its responses were dropped.
pub struct Release(Arc<Shared>);

impl Release {
    pub fn is_released(&self) -> bool {
        self.0.state.lock_unpoisoned().released
    }

    /// Returns once the work has released the call. Must not be polled while the responses are.
    pub async fn wait(self) {
        self.0.released().await;
    }
}

/// The responses of a batch. When they are dropped, the last call is cancelled first: a call that
/// has not started must not start because an earlier one has just freed its worker.
pub struct BatchResponses(pub Vec<Responses>);

impl Drop for BatchResponses {
    fn drop(&mut self) {
        while self.0.pop().is_some() {}
    }
}

impl Responses {
    /// Returns the next response; `None` after the last one. At the deadline of the call, returns
    /// an error and cancels the work, even if the work does not stop.
    pub async fn next(&mut self) -> Option<Result<Response>> {
        let Some(deadline) = self.call.deadline() else {
            return self.receive().await;
        };
        match crate::task_timer::by(deadline, self.receive()).await {
            Some(item) => item,
            None => {
                self.call.cancellation().expire();
                self.shared.update(|state| state.ended = true);
                self.call.stopped().map(Err)
            }
        }
    }

    /// Returns the single response of a unary call.
    pub async fn one(&mut self) -> Result<Response> {
        match self.next().await {
            Some(response) => response,
            None => Err(Error::failed("the model returned no response")),
        }
    }

    /// Returns when the call must be answered.
    pub fn deadline(&self) -> Option<Instant> {
        self.call.deadline()
    }

    /// Returns true if the work has begun, false if the call still waits in a queue.
    pub fn has_begun(&self) -> bool {
        self.call.has_begun()
    }

    /// Charges a budget for the responses that are queued here, including those that are already
    /// queued.
    pub fn charge(&self, budget: Arc<dyn Budget>) {
        let mut state = self.shared.state.lock_unpoisoned();
        let (first, rest) = (state.first.take(), std::mem::take(&mut state.rest));
        let ended = state.ended;
        state.budget = Some(budget);
        for item in first.into_iter().chain(rest) {
            state.push(item);
        }
        state.ended |= ended;
    }

    /// Tells the work to stop, but keeps this end so that `released` can be awaited.
    pub fn cancel(&self) {
        self.call.cancellation().cancel();
    }

    /// Returns true if the work has released this call: it holds no worker and will not take one.
    pub fn is_released(&self) -> bool {
        self.shared.state.lock_unpoisoned().released
    }

    /// Returns once the work has released this call. That may be long after the deadline: ONNX
    /// Runtime stops only at the next node of its graph. Must not be polled concurrently with
    /// `next`.
    pub async fn released(&self) {
        self.shared.released().await;
    }

    /// Returns a handle to wait for the end of the work after this end is dropped.
    pub fn release(&self) -> Release {
        Release(Arc::clone(&self.shared))
    }

    async fn receive(&self) -> Option<Result<Response>> {
        poll_fn(|context| {
            let mut state = self.shared.state.lock_unpoisoned();
            if let Some(item) = state.pop() {
                let waker = state.sender.take();
                drop(state);
                if let Some(waker) = waker {
                    waker.wake();
                }
                return Poll::Ready(Some(item));
            }
            if state.ended {
                return Poll::Ready(None);
            }
            state.receiver = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

impl Drop for Responses {
    fn drop(&mut self) {
        let (ended, sender) = {
            let mut state = self.shared.state.lock_unpoisoned();
            state.receiver_dropped = true;
            // A `Release` may keep the state for longer, so the responses are dropped here.
            while state.pop().is_some() {}
            (state.ended, state.sender.take())
        };
        if !ended {
            self.call.cancellation().cancel();
        }
        if let Some(waker) = sender {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::context::CallContext;
    use super::super::payload::Payload;
    use super::super::response::Service;
    use super::*;
    use crate::error::{Error, Kind};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    fn context(deadline: Option<Duration>) -> Arc<CallContext> {
        let name: Arc<str> = "m".into();
        let deadline = deadline.map(|left| Instant::now() + left);
        Arc::new(CallContext::new("id".into(), name.clone(), name, deadline))
    }

    fn response() -> Response {
        response_of(Payload::Tensors(Vec::new()))
    }

    fn response_of(payload: Payload) -> Response {
        Response { payload, queue_wait: Duration::ZERO, service: Service::default() }
    }

    fn response_with(bytes: usize) -> Response {
        response_of(Payload::Bytes { content_type: String::new(), data: vec![0; bytes].into() })
    }

    /// A budget of ten bytes.
    #[derive(Default)]
    struct Ten(AtomicUsize);

    impl Budget for Ten {
        fn charge(&self, bytes: usize) -> Result<()> {
            if self.0.load(Ordering::Relaxed) + bytes > 10 {
                return Err(Error::too_large("more than ten"));
            }
            self.0.fetch_add(bytes, Ordering::Relaxed);
            Ok(())
        }

        fn release(&self, bytes: usize) {
            self.0.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn what_waits_to_be_read_is_paid_for_until_it_is_read_or_nobody_will_read_it() {
        let ten = Arc::new(Ten::default());
        let held = || ten.0.load(Ordering::Relaxed);
        let (mut sender, mut responses) = channel(context(None), 8);
        sender.send(response_with(4)).await.unwrap();
        responses.charge(ten.clone());
        assert_eq!(held(), 4, "what was there before");
        sender.send(response_with(5)).await.unwrap();
        assert_eq!(held(), 9);
        responses.next().await.unwrap().unwrap();
        assert_eq!(held(), 5);
        sender.send(response_with(6)).await.unwrap();
        assert!(sender.send(response_with(1)).await.is_err(), "the stream has ended");
        responses.next().await.unwrap().unwrap();
        assert_eq!(responses.next().await.unwrap().unwrap_err().kind(), Kind::TooLarge);
        assert!(responses.next().await.is_none());
        assert_eq!(held(), 0);

        let (mut sender, responses) = channel(context(None), 8);
        responses.charge(ten.clone());
        sender.send(response_with(7)).await.unwrap();
        let release = responses.release();
        drop(responses);
        assert_eq!(held(), 0, "though its release is kept");
        drop((sender, release));
    }

    #[tokio::test]
    async fn a_stream_is_bounded_and_ends() {
        let (mut sender, mut responses) = channel(context(None), 2);
        let work = tokio::spawn(async move {
            for _ in 0..5 {
                sender.send(response()).await.unwrap();
            }
            sender.finish(Ok(Some(response())));
        });
        tokio::task::yield_now().await;
        assert!(!work.is_finished(), "the third send waits for the receiver");
        let mut count = 0;
        while let Some(item) = responses.next().await {
            item.unwrap();
            count += 1;
        }
        assert_eq!(count, 6);
    }

    #[tokio::test]
    async fn dropping_either_end_tells_the_other() {
        let (sender, mut responses) = channel(context(None), 1);
        drop(sender);
        assert_eq!(responses.one().await.unwrap_err().kind(), Kind::Failed);

        let context = context(None);
        let (mut sender, responses) = channel(Arc::clone(&context), 1);
        drop(responses);
        assert!(context.cancellation.is_cancelled());
        assert_eq!(sender.send(response()).await.unwrap_err().kind(), Kind::Cancelled);
    }

    #[tokio::test]
    async fn a_batch_is_cancelled_from_its_end() {
        let contexts: Vec<_> = (0..3).map(|_| context(None)).collect();
        let (senders, responses): (Vec<_>, Vec<_>) =
            contexts.iter().map(|context| channel(Arc::clone(context), 1)).unzip();
        let later: Vec<_> = contexts[1..].to_vec();
        let _hook = contexts[0].cancellation.on_cancel(move || {
            assert!(later.iter().all(|context| context.cancellation.is_cancelled()), "the first is the last");
        });
        drop(BatchResponses(responses));
        assert!(contexts[0].cancellation.is_cancelled());
        drop(senders);
    }

    #[tokio::test]
    async fn the_deadline_answers_even_if_the_work_does_not() {
        let context = context(Some(Duration::from_millis(5)));
        let (_sender, mut responses) = channel(Arc::clone(&context), 1);
        assert_eq!(responses.one().await.unwrap_err().kind(), Kind::Deadline);
        assert!(context.cancellation.is_cancelled());
    }

    #[tokio::test]
    async fn the_end_of_the_work_is_told_apart_from_the_deadline() {
        for finish in [true, false] {
            let (sender, mut responses) = channel(context(Some(Duration::from_millis(5))), 1);
            assert_eq!(responses.one().await.unwrap_err().kind(), Kind::Deadline);
            assert!(responses.next().await.is_none(), "the deadline was the last word");
            assert!(!responses.is_released());
            let mut released = std::pin::pin!(responses.released());
            let early = tokio::time::timeout(Duration::from_millis(5), released.as_mut()).await;
            assert!(early.is_err(), "the work still holds its sender");
            if finish {
                sender.finish(Ok(Some(response())));
            } else {
                drop(sender);
            }
            released.await;
        }
    }

    #[tokio::test]
    async fn a_cancelled_call_can_be_waited_for() {
        let context = context(None);
        let (sender, mut responses) = channel(Arc::clone(&context), 1);
        responses.cancel();
        assert!(context.cancellation.is_cancelled() && !responses.is_released());
        sender.finish(Err(Error::cancelled("stopped")));
        responses.released().await;
        assert_eq!(responses.one().await.unwrap_err().kind(), Kind::Cancelled);
    }
}
