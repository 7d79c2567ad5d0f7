//! The way back: a bounded stream of 0..n responses from the work to whoever waits.
//!
//! Dropping the receiver cancels the work. A sender that is dropped without an end ends the stream with
//! an error, so that nobody waits for ever. The answer and the end of the work are two moments: at a deadline
//! the caller has its error at once, while the work may hold its worker for longer (`Responses::released`).

use super::Payload;
use super::context::CallContext;
use super::unread::Budget;
use crate::error::{Error, Result};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

/// One response, with what it cost.
#[derive(Debug)]
pub struct Response {
    pub payload: Payload,
    pub queue_wait: Duration,
    pub service: Service,
}

/// What a worker did for a call, from its first step to this response. The parts follow each other without a
/// gap; in a run that calls share, the steps of the others are in them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Service {
    /// Preprocess.
    pub input: Duration,
    /// The model.
    pub infer: Duration,
    /// Postprocess.
    pub output: Duration,
    /// Rows that the model was given; 1 where it is run one call at a time.
    pub rows: usize,
}

impl Service {
    pub fn total(&self) -> Duration {
        self.input + self.infer + self.output
    }
}

impl std::ops::AddAssign for Service {
    fn add_assign(&mut self, other: Service) {
        self.input += other.input;
        self.infer += other.infer;
        self.output += other.output;
        self.rows += other.rows;
    }
}

/// Makes both ends; at most `capacity` responses wait between them.
pub fn channel(context: Arc<CallContext>, capacity: usize) -> (Sender, Responses) {
    let shared = Arc::new(Shared { capacity: capacity.max(1), state: Mutex::default() });
    (Sender { shared: Arc::clone(&shared) }, Responses { shared, context })
}

struct Shared {
    capacity: usize,
    state: Mutex<State>,
}

/// `first` is used before `rest`: one response needs no further allocation.
#[derive(Default)]
struct State {
    first: Option<Result<Response>>,
    rest: VecDeque<Result<Response>>,
    /// Nothing more comes.
    ended: bool,
    /// The work let go of its sender, so nothing works on this call any more.
    released: bool,
    receiver_gone: bool,
    receiver: Option<Waker>,
    sender: Option<Waker>,
    budget: Option<Arc<dyn Budget>>,
}

/// What a response that waits keeps in memory.
fn bytes_of(item: &Result<Response>) -> usize {
    item.as_ref().map_or(0, |response| response.payload.bytes_kept())
}

impl State {
    fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }

    /// Where there is a budget and it does not suffice, the stream ends with that error instead.
    fn push(&mut self, mut item: Result<Response>) {
        if self.receiver_gone {
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

    fn pop(&mut self) -> Option<Result<Response>> {
        let item = self.first.take().or_else(|| self.rest.pop_front())?;
        if let Some(budget) = &self.budget {
            budget.release(bytes_of(&item));
        }
        Some(item)
    }
}

impl Shared {
    async fn released(&self) {
        poll_fn(|context| {
            let mut state = self.state.lock().expect("invariant: no panic under the lock");
            if state.released {
                return Poll::Ready(());
            }
            state.receiver = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Changes the state and then, outside the lock, wakes the receiver.
    fn update(&self, change: impl FnOnce(&mut State)) {
        let waker = {
            let mut state = self.state.lock().expect("invariant: no panic under the lock");
            change(&mut state);
            state.receiver.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The end that the work holds.
pub struct Sender {
    shared: Arc<Shared>,
}

impl Sender {
    /// Sends one response of several; waits while the receiver is behind. The last one goes to `finish`.
    pub async fn send(&mut self, response: Response) -> Result<()> {
        let mut response = Some(response);
        poll_fn(|context| {
            let mut state = self.shared.state.lock().expect("invariant: no panic under the lock");
            if state.receiver_gone || state.ended {
                return Poll::Ready(Err(Error::cancelled("the caller left in the middle of the stream")));
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

    /// Ends the stream with an error while the work still holds what it works with: dropping this says that it
    /// has let go.
    pub fn fail(&mut self, error: Error) {
        self.shared.update(|state| {
            if !state.ended {
                state.push(Err(error));
                state.ended = true;
            }
        });
    }

    /// Ends the stream: with its last response, with nothing more, or with an error.
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
        let released = self.shared.state.lock().is_ok_and(|state| state.released);
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

/// The end that the caller holds.
pub struct Responses {
    shared: Arc<Shared>,
    context: Arc<CallContext>,
}

/// What is left of a call whose responses nobody wants any more.
pub struct Release(Arc<Shared>);

impl Release {
    pub fn is_released(&self) -> bool {
        self.0.state.lock().expect("invariant: no panic under the lock").released
    }

    /// Returns once the work has let go of the call. Not to be polled while its responses are.
    pub async fn wait(self) {
        self.0.released().await;
    }
}

/// The callers' ends of a batch. When its caller leaves, the last call is cancelled first: what has not
/// started must not start because something before it has just made room.
pub struct BatchResponses(pub Vec<Responses>);

impl Drop for BatchResponses {
    fn drop(&mut self) {
        while self.0.pop().is_some() {}
    }
}

impl Responses {
    /// The next response; none after the last. At the deadline of the call this answers with an error
    /// and cancels the work, whatever the work does.
    pub async fn next(&mut self) -> Option<Result<Response>> {
        let Some(deadline) = self.context.deadline else {
            return self.receive().await;
        };
        match crate::task_timer::by(deadline, self.receive()).await {
            Some(item) => item,
            None => {
                self.context.cancellation.expire();
                self.shared.update(|state| state.ended = true);
                self.context.stopped().map(Err)
            }
        }
    }

    /// The single response of a unary call.
    pub async fn one(&mut self) -> Result<Response> {
        match self.next().await {
            Some(response) => response,
            None => Err(Error::failed("the model gave no response")),
        }
    }

    /// When the call has to be answered.
    pub fn deadline(&self) -> Option<Instant> {
        self.context.deadline
    }

    /// Whether the work has begun, or only waited for its turn.
    pub fn has_begun(&self) -> bool {
        self.context.has_begun()
    }

    /// Charges a budget for the responses that wait to be read here, those that are there already included.
    pub fn charge(&self, budget: Arc<dyn Budget>) {
        let mut state = self.shared.state.lock().expect("invariant: no panic under the lock");
        let (first, rest) = (state.first.take(), std::mem::take(&mut state.rest));
        let ended = state.ended;
        state.budget = Some(budget);
        for item in first.into_iter().chain(rest) {
            state.push(item);
        }
        state.ended |= ended;
    }

    /// Tells the work to stop, and keeps this end, so that `released` can be waited for.
    pub fn cancel(&self) {
        self.context.cancellation.cancel();
    }

    /// Whether the work has let go of this call: it holds no worker for it and never will.
    pub fn is_released(&self) -> bool {
        self.shared.state.lock().expect("invariant: no panic under the lock").released
    }

    /// Returns once the work has let go of this call, which may be long after its deadline: ONNX Runtime stops
    /// at the next node of its graph. Not to be polled beside `next`.
    pub async fn released(&self) {
        self.shared.released().await;
    }

    /// For those who want to know when the work has let go after this end is gone.
    pub fn release(&self) -> Release {
        Release(Arc::clone(&self.shared))
    }

    async fn receive(&self) -> Option<Result<Response>> {
        poll_fn(|context| {
            let mut state = self.shared.state.lock().expect("invariant: no panic under the lock");
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
            let mut state = self.shared.state.lock().expect("invariant: no panic under the lock");
            state.receiver_gone = true;
            // Others may keep the rest of the state for longer, to see when the work has let go.
            while state.pop().is_some() {}
            (state.ended, state.sender.take())
        };
        if !ended {
            self.context.cancellation.cancel();
        }
        if let Some(waker) = sender {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use std::sync::atomic::{AtomicUsize, Ordering};

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
                sender.finish(Ok(Some(response())))
            } else {
                drop(sender)
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
