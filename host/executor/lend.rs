//! A worker lent to a guest: work of a custom executor that begins on a worker of its inner executor.
//!
//! Most guests do little more than call their model. Such a guest runs where its call will run: the worker
//! polls it, runs the one call that it makes, and polls it to its end, with no thread to wake in between. A
//! guest that waits for anything else goes home, to the threads of its own executor, and frees the worker.

use super::{Callable, Sink};
use crate::error::Result;
use crate::plugin::with_shared_thread;
use crate::predict::{Context, Response, Tensor};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context as Task, Poll, Wake, Waker};

/// An answer that is ready, and not given yet: first its slots are freed.
pub struct Answer {
    pub(super) sink: Sink,
    pub(super) last: Result<Option<Response>>,
}

impl Answer {
    pub(super) fn give(self) {
        self.sink.finish(self.last);
    }
}

pub(super) type Work = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// Work that wants a worker to begin on.
pub struct Lent {
    pub(super) context: Arc<Context>,
    pub(super) lease: Arc<Lease>,
    pub(super) work: Work,
    /// Where it goes on once it waits.
    pub(super) home: tokio::runtime::Handle,
}

impl Lent {
    /// Runs on its executor's own threads.
    pub(super) fn go_home(self) {
        let Lent { work, home, .. } = self;
        home.spawn(async move { work.await.give() });
    }

    /// Polls the work on this thread until it has its answer or waits, with the one call that it may make
    /// here. `ran` learns how that call ended.
    pub(super) fn begin(
        mut self,
        runtime: &tokio::runtime::Handle,
        ran: impl FnOnce(&Result<Option<Vec<Tensor>>>),
    ) -> Begun {
        self.lease.lock().held = true;
        let waker = Waker::from(Arc::clone(&self.lease));
        let mut polled = self.poll(&waker);
        if polled.is_pending()
            && let Some(call) = self.lease.take_call()
        {
            let outcome = runtime.block_on(call.run());
            ran(&outcome);
            self.lease.ended(outcome);
            polled = self.poll(&waker);
        }
        self.lease.lock().held = false;
        match polled {
            Poll::Ready(answer) => Begun::Answered(answer),
            Poll::Pending => Begun::Waits(self),
        }
    }

    fn poll(&mut self, waker: &Waker) -> Poll<Answer> {
        let _home = self.home.enter();
        with_shared_thread(|| self.work.as_mut().poll(&mut Task::from_waker(waker)))
    }
}

/// How far work has come on a worker.
pub(super) enum Begun {
    Answered(Answer),
    Waits(Lent),
}

/// The right to run one call on the worker that polls the guest.
#[derive(Default)]
pub struct Lease(Mutex<State>);

#[derive(Default)]
struct State {
    /// The guest is being polled on a worker, which would run a call of its.
    held: bool,
    call: Option<LentCall>,
    /// Of the call that runs now.
    running: Option<Arc<Context>>,
    /// The guest was woken while its call ran: it is to be stopped.
    woken: bool,
    outcome: Option<Result<Option<Vec<Tensor>>>>,
}

/// A call that the worker shall run.
struct LentCall {
    context: Arc<Context>,
    callable: Arc<dyn Callable>,
    inputs: Vec<Tensor>,
}

impl LentCall {
    async fn run(self) -> Result<Option<Vec<Tensor>>> {
        self.context.check()?;
        let mut sink = Sink::shared(&self.context);
        self.callable.call(&self.context, self.inputs, &mut sink).await
    }
}

impl Lease {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("invariant: no panic under the lock")
    }

    /// Whether a call can run on this thread now. Once: a second call waits for its turn like any other.
    pub fn is_held(&self) -> bool {
        self.lock().held
    }

    /// Has the worker run a call. Only while the lease is held.
    pub(super) async fn run(
        &self,
        context: Arc<Context>,
        callable: Arc<dyn Callable>,
        inputs: Vec<Tensor>,
    ) -> Result<Option<Vec<Tensor>>> {
        {
            let mut state = self.lock();
            state.held = false;
            state.running = Some(Arc::clone(&context));
            state.call = Some(LentCall { context, callable, inputs });
        }
        poll_fn(|task| {
            let mut state = self.lock();
            if std::mem::take(&mut state.woken) {
                drop(state);
                // Whoever stops the guest is asked first; if nobody does, the outcome is there next time.
                task.waker().wake_by_ref();
                return Poll::Pending;
            }
            state.outcome.take().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    fn take_call(&self) -> Option<LentCall> {
        self.lock().call.take()
    }

    fn ended(&self, outcome: Result<Option<Vec<Tensor>>>) {
        let mut state = self.lock();
        state.running = None;
        state.outcome = Some(outcome);
    }
}

impl Wake for Lease {
    /// While its call runs, a guest waits for nothing else but its deadline and its caller's leaving.
    fn wake(self: Arc<Self>) {
        let mut state = self.lock();
        let Some(running) = state.running.take() else { return };
        state.woken = true;
        drop(state);
        if running.check().is_ok() {
            running.cancellation.cancel();
        }
    }
}
