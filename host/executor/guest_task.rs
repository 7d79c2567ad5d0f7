//! A worker lent to a guest that may wait: of a custom executor, on a worker of its inner executor, or of a plugin
//! that calls models, on a worker of its own executor.
//!
//! Most guests do little more than call their model. Such a guest runs where its call will run: the worker
//! polls it, runs the call that it makes, and polls it to its end, with no thread to wake in between. A guest
//! that waits for anything else frees the worker: so no worker is ever held by a guest that waits for another one.
//! One of another executor goes home, to threads that are for waiting; one of this executor comes back to the queue of
//! its workers once it is woken.

use super::in_flight::{InFlight, InFlightGuard};
use super::streaming_model::SharedCallable;
use super::worker_context;
use super::worker_pool::WorkerPool;
use super::{Call, Callable, Executor, Runs, Sink};
use crate::error::{Error, Result};
use crate::plugin::with_ticks;
use crate::predict::{CallContext, Makers, Response, Responses, Service, Tensor};
use smallvec::smallvec;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context as Task, Poll, Wake, Waker};
use std::time::Instant;

/// For how long a guest of another executor may compute on a lent worker, in milliseconds. One whose thread was
/// interrupted by others is not sent home for that.
const INLINE_TICKS: u32 = 5;

/// An answer that is ready, and not given yet: first its slots are freed.
pub struct Completion {
    pub(super) sink: Sink,
    pub(super) last: Result<Option<Response>>,
}

impl Completion {
    pub(super) fn give(self) {
        self.sink.finish(self.last);
    }
}

pub(super) type GuestFuture = Pin<Box<dyn Future<Output = Completion> + Send>>;

/// What a guest may do on a worker that it is lent.
#[derive(Clone, Copy)]
pub(super) enum RunMode {
    /// A guest of another executor: one call, and little computing.
    OneCall,
    /// It has its turn like any call here: the worker is its own until it waits.
    OwnWorker,
    /// A pipeline: it runs those of its steps here that it waits for alone.
    PipelineSteps,
}

/// Where guests that wait are.
pub(super) struct ParkTarget {
    /// Its timers are theirs, and its threads if they do not come back to a queue.
    pub runtime: tokio::runtime::Handle,
    pub requeue: Option<Requeue>,
}

/// The way back of guests that have their turns on the workers of their own executor.
pub(super) struct Requeue {
    pub pool: Arc<WorkerPool>,
    /// Where those that wait are counted.
    pub waiting: Arc<InFlight>,
}

impl From<tokio::runtime::Handle> for ParkTarget {
    fn from(runtime: tokio::runtime::Handle) -> Self {
        ParkTarget { runtime, requeue: None }
    }
}

/// Work that wants a worker, to begin on or to go on.
pub struct GuestTask {
    pub(super) context: Arc<CallContext>,
    lease: Arc<WorkerLease>,
    mode: RunMode,
    work: GuestFuture,
    /// Where it goes on once it waits.
    park_target: ParkTarget,
    /// Of work that waits, or has waited and is to go on.
    parked_guard: Option<InFlightGuard>,
}

impl GuestTask {
    pub(super) fn new(
        context: Arc<CallContext>,
        lease: Arc<WorkerLease>,
        terms: RunMode,
        work: GuestFuture,
        park_target: ParkTarget,
    ) -> Self {
        GuestTask { context, lease, mode: terms, work, park_target, parked_guard: None }
    }

    /// Whether it has waited since it began.
    pub(super) fn was_parked(&self) -> bool {
        self.parked_guard.is_some()
    }

    /// Whether it only makes calls, and so may begin where it goes on.
    pub(super) fn is_of_a_pipeline(&self) -> bool {
        matches!(self.mode, RunMode::PipelineSteps)
    }

    /// Where it can wait, and go on if no worker comes.
    pub(super) fn park_runtime(&self) -> tokio::runtime::Handle {
        self.park_target.runtime.clone()
    }

    /// Counts it among those that wait, if its home does.
    pub(super) fn count_parked(&mut self) {
        if let (Some(requeue), None) = (&self.park_target.requeue, &self.parked_guard) {
            self.parked_guard = requeue.waiting.take(smallvec![Arc::clone(&self.context)]).ok();
        }
    }

    /// Frees the worker, until it is woken.
    fn park(mut self) {
        if self.park_target.requeue.is_none() {
            return self.detach();
        }
        self.count_parked();
        let lease = Arc::clone(&self.lease);
        let mut state = lease.lock();
        if state.woken_in_turn {
            drop(state);
            self.requeue();
        } else {
            state.parked = Some(self);
        }
    }

    /// Goes on with its next turn on a worker.
    fn requeue(self) {
        match &self.park_target.requeue {
            Some(requeue) => Arc::clone(&requeue.pool).requeue(self),
            None => self.detach(),
        }
    }

    /// Runs on threads where it may wait.
    pub(super) fn detach(mut self) {
        self.count_parked();
        let GuestTask { work, park_target, parked_guard: guard, .. } = self;
        park_target.runtime.spawn(async move {
            let answer = work.await;
            drop(guard);
            answer.give();
        });
    }

    /// Polls the work on a worker of this executor until it has its answer or waits, with the calls that it may
    /// make here. `failed` learns of each error that counts for this executor.
    pub(super) fn begin(
        mut self,
        executor: &Arc<str>,
        runtime: &tokio::runtime::Handle,
        failed: impl Fn(&Error),
    ) -> PollOutcome {
        let park_target = self.park_target.runtime.clone();
        // Its timers are those of its home.
        let _home = park_target.enter();
        // Whoever sees it run need not see it wait.
        self.parked_guard = None;
        {
            let mut state = self.lease.lock();
            state.woken_in_turn = false;
            state.calls_left = match self.mode {
                RunMode::OneCall => 1,
                RunMode::OwnWorker | RunMode::PipelineSteps => u32::MAX,
            };
        }
        let waker = Waker::from(Arc::clone(&self.lease));
        let polled = loop {
            let polled = self.poll(executor, &waker);
            if polled.is_ready() {
                break polled;
            }
            let Some(asked) = self.lease.lock().request.take() else { break polled };
            match asked {
                GuestRequest::Run(call) => {
                    let outcome = runtime.block_on(call.run());
                    if let (Err(error), RunMode::OneCall | RunMode::PipelineSteps) = (&outcome, self.mode) {
                        failed(error);
                    }
                    self.lease.ended(outcome);
                }
                GuestRequest::Begin(target, call) => {
                    self.lease.begun(begin(&*target, call, executor, runtime))
                }
            }
        };
        self.lease.lock().calls_left = 0;
        match polled {
            Poll::Ready(answer) => {
                if let (Err(error), RunMode::OwnWorker) = (&answer.last, self.mode) {
                    failed(error);
                }
                PollOutcome::Completed(answer)
            }
            Poll::Pending => PollOutcome::Pending(self),
        }
    }

    fn poll(&mut self, executor: &Arc<str>, waker: &Waker) -> Poll<Completion> {
        let mut poll = || self.work.as_mut().poll(&mut Task::from_waker(waker));
        worker_context::poll_as_guest(executor, &self.lease, || match self.mode {
            RunMode::OneCall => with_ticks(INLINE_TICKS, poll),
            RunMode::OwnWorker | RunMode::PipelineSteps => poll(),
        })
    }
}

/// How far work has come on a worker.
#[expect(clippy::large_enum_variant, reason = "moved once, where a box would be an allocation for each call")]
pub(super) enum PollOutcome {
    Completed(Completion),
    Pending(GuestTask),
}

impl PollOutcome {
    /// Gives the answer, or lets the work wait.
    pub fn settle(self) {
        match self {
            PollOutcome::Completed(answer) => answer.give(),
            PollOutcome::Pending(task) => task.park(),
        }
    }
}

/// The right to run calls on the worker that polls the guest.
#[derive(Default)]
pub struct WorkerLease(Mutex<LeaseState>);

#[derive(Default)]
struct LeaseState {
    /// Calls that the worker which polls the guest would run for it.
    calls_left: u32,
    request: Option<GuestRequest>,
    /// Of the call that runs now.
    running: Option<Arc<CallContext>>,
    /// The guest was woken while its call ran: it is to be stopped.
    woken_in_call: bool,
    /// The guest was woken since its turn began.
    woken_in_turn: bool,
    /// The guest, while it waits for its next turn.
    parked: Option<GuestTask>,
    outcome: Option<Result<Option<Vec<Tensor>>>>,
    begun: Option<Result<Responses>>,
}

/// What the worker shall do between two polls of the guest.
enum GuestRequest {
    Run(InlineCall),
    Begin(Arc<dyn Executor>, Call),
}

/// Begins a call for the guest of a worker, and does here what there is to do for it at once.
fn begin(
    target: &dyn Executor,
    call: Call,
    executor: &Arc<str>,
    runtime: &tokio::runtime::Handle,
) -> Result<Responses> {
    let callable = Arc::clone(&call.callable);
    let guards = callable.shared().map(SharedCallable::guards);
    let begun = worker_context::begin_for_guest(executor, runtime, || target.submit(call));
    if let Some(guards) = guards {
        guards.turn();
    }
    begun
}

/// A call that the worker shall run.
pub(super) struct InlineCall {
    pub context: Arc<CallContext>,
    pub callable: Arc<dyn Callable>,
    pub inputs: Vec<Tensor>,
    /// Where it is counted.
    pub runs: Option<Arc<Runs>>,
}

impl InlineCall {
    async fn run(self) -> Result<Option<Vec<Tensor>>> {
        let began = Instant::now();
        self.context.check_at(began)?;
        let mut sink = Sink::shared(&self.context, began);
        let rows = self.runs.as_ref().map_or(1, |runs| runs.rows(&self.inputs));
        let makers = Makers::of(&self.inputs);
        let outputs = self.callable.call(&self.context, self.inputs, &mut sink).await;
        let outputs = outputs.map_err(|error| makers.explain(error))?;
        if let Some(runs) = &self.runs {
            runs.record(Service { infer: began.elapsed(), rows, ..Service::default() });
        }
        Ok(outputs)
    }
}

impl WorkerLease {
    fn lock(&self) -> MutexGuard<'_, LeaseState> {
        self.0.lock().expect("invariant: no panic under the lock")
    }

    /// Whether a call can run on this thread now; if not, it waits for its turn like any other.
    pub fn is_held(&self) -> bool {
        self.lock().calls_left > 0
    }

    /// Whether the worker is the guest's own until it waits.
    pub fn owns_worker(&self) -> bool {
        self.lock().calls_left > 1
    }

    /// Has the worker begin a call to a model that may wait, and help it along. Only while the guest has its turn.
    pub(super) async fn begin(&self, executor: Arc<dyn Executor>, call: Call) -> Result<Responses> {
        {
            let mut state = self.lock();
            // What is left of a call that the guest did not wait for.
            state.begun = None;
            state.request = Some(GuestRequest::Begin(executor, call));
        }
        poll_fn(|_| self.lock().begun.take().map_or(Poll::Pending, Poll::Ready)).await
    }

    fn begun(&self, begun: Result<Responses>) {
        self.lock().begun = Some(begun);
    }

    /// Has the worker run a call. Only while the lease is held.
    pub(super) async fn run(&self, call: InlineCall) -> Result<Option<Vec<Tensor>>> {
        {
            let mut state = self.lock();
            state.calls_left = state.calls_left.saturating_sub(1);
            state.running = Some(Arc::clone(&call.context));
            // What is left of a call that the guest did not wait for.
            (state.woken_in_call, state.outcome) = (false, None);
            state.request = Some(GuestRequest::Run(call));
        }
        let mut asked = false;
        poll_fn(|task| {
            let mut state = self.lock();
            if !asked && std::mem::take(&mut state.woken_in_call) {
                asked = true;
                drop(state);
                // Whoever stops the guest is asked first; if nobody does, the outcome is there next time.
                task.waker().wake_by_ref();
                return Poll::Pending;
            }
            state.outcome.take().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    fn ended(&self, outcome: Result<Option<Vec<Tensor>>>) {
        let mut state = self.lock();
        state.running = None;
        state.outcome = Some(outcome);
    }
}

impl Wake for WorkerLease {
    /// While its call runs, a guest waits for the end of its time, which is the call's too. Its caller's leaving stops
    /// the call by itself, and what it has started before concerns it later.
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let (waits, running) = {
            let mut state = self.lock();
            (state.woken_in_call, state.woken_in_turn) = (true, true);
            (state.parked.take(), state.running.clone())
        };
        if let Some(waits) = waits {
            waits.requeue();
        }
        if let Some(running) = running {
            // Notices that the time is over, and stops the call.
            let _ = running.check();
        }
    }
}
