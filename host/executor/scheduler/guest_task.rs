//! A guest that may wait, as a task that a worker polls.
//!
//! Most guests do little more than call one model. Such a guest runs where its call runs: the
//! worker polls it, runs the call that it makes, and polls it to its end, without waking another
//! thread. A guest that waits for anything else releases the worker, so no worker is held by a
//! guest that waits for another worker. [`Phase`] is the state machine;
//! `docs/decisions/guest-tasks.md` has the reasons and what was measured.

use super::in_flight::{InFlight, InFlightGuard};
use super::phase::{Action, Event, Phase, Resume};
use crate::error::{Error, Result};
use crate::executor::batching::rows;
use crate::executor::call::{Call, Submit};
use crate::executor::callable::Callable;
use crate::executor::runs::Runs;
use crate::executor::sink::{Sink, end_call};
use crate::executor::streaming_calls::StreamingCalls;
use crate::lock::LockUnpoisoned;
use crate::plugin::with_ticks;
use crate::predict::{CallContext, Makers, Response, Responses, Service, Tensor};
use smallvec::smallvec;
use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::LocalKey;
use std::time::Instant;
use tokio::runtime::Handle;

/// How long a guest of another executor may compute on a worker, in ticks of a millisecond of its
/// own computing. Time during which its thread was interrupted does not count.
const INLINE_TICKS: u32 = 5;

/// A finished answer that was not sent yet: the slots are freed first.
pub(in crate::executor) struct Completion {
    pub sink: Sink,
    pub last: Result<Option<Response>>,
}

impl Completion {
    pub fn send(self) {
        self.sink.finish(self.last);
    }
}

pub(in crate::executor) type GuestFuture = Pin<Box<dyn Future<Output = Completion> + Send>>;

/// What a guest may do on the worker that polls it.
#[derive(Clone, Copy)]
pub(in crate::executor) enum RunMode {
    /// A guest of another executor: one call, and little computation.
    OneCall,
    /// A guest of this executor: the worker is its own until it waits.
    OwnWorker,
    /// A request of a pipeline: it runs the steps that it would otherwise only wait for.
    PipelineSteps,
}

/// A queue of workers that takes woken guest tasks.
pub(in crate::executor) trait RunQueue: Send + Sync {
    fn requeue(&self, task: GuestTask);
}

/// Where a guest task is while it waits.
pub(in crate::executor) struct ParkTarget {
    /// Runs its timers, and the task itself once it is detached.
    pub runtime: Handle,
    /// `None` if it is detached as soon as it waits.
    pub requeue: Option<Requeue>,
}

/// How a woken guest task returns to the workers of its own executor.
pub(in crate::executor) struct Requeue {
    pub queue: Arc<dyn RunQueue>,
    /// Counts the tasks that wait.
    pub parked: Arc<InFlight>,
}

impl From<Handle> for ParkTarget {
    fn from(runtime: Handle) -> Self {
        ParkTarget { runtime, requeue: None }
    }
}

/// A guest that may wait, before and between its turns on workers.
pub struct GuestTask {
    pub(in crate::executor) context: Arc<CallContext>,
    lease: Arc<WorkerLease>,
    mode: RunMode,
    future: GuestFuture,
    park_target: ParkTarget,
    /// Present from when it starts to wait until it is polled again.
    parked_guard: Option<InFlightGuard>,
}

impl GuestTask {
    pub(in crate::executor) fn new(
        context: Arc<CallContext>,
        lease: Arc<WorkerLease>,
        mode: RunMode,
        future: GuestFuture,
        park_target: ParkTarget,
    ) -> Self {
        GuestTask { context, lease, mode, future, park_target, parked_guard: None }
    }

    /// Returns true if it has waited since it was last polled.
    pub(super) fn was_parked(&self) -> bool {
        self.parked_guard.is_some()
    }

    /// Returns true if it only makes calls, and so may start without a worker.
    pub(super) fn is_of_a_pipeline(&self) -> bool {
        matches!(self.mode, RunMode::PipelineSteps)
    }

    /// Returns the runtime on which it can wait, and continue if no worker takes it.
    pub(super) fn park_runtime(&self) -> Handle {
        self.park_target.runtime.clone()
    }

    fn resume(&self) -> Resume {
        if self.park_target.requeue.is_some() { Resume::OnWorkers } else { Resume::Detached }
    }

    /// Counts it among the tasks that wait, if its executor counts them.
    pub(super) fn count_parked(&mut self) {
        if let (Some(requeue), None) = (&self.park_target.requeue, &self.parked_guard) {
            self.parked_guard = requeue.parked.take(smallvec![Arc::clone(&self.context)]).ok();
        }
    }

    /// Releases the worker after a poll that returned pending.
    fn suspend(mut self) {
        self.count_parked();
        let lease = Arc::clone(&self.lease);
        let mut state = lease.lock();
        match state.on(Event::Suspended, self.resume()) {
            Action::Park => state.parked = Some(self),
            action => {
                drop(state);
                if action == Action::Requeue { self.requeue() } else { self.continue_detached() }
            }
        }
    }

    /// Puts it back into the queue of its workers.
    fn requeue(self) {
        match &self.park_target.requeue {
            Some(requeue) => Arc::clone(&requeue.queue).requeue(self),
            None => self.continue_detached(),
        }
    }

    /// Runs it without a worker, because none takes it from the queue.
    pub(in crate::executor) fn detach(self) {
        self.lease.lock().on(Event::Unserved, self.resume());
        self.continue_detached();
    }

    fn continue_detached(mut self) {
        self.count_parked();
        let GuestTask { future, park_target, parked_guard, .. } = self;
        park_target.runtime.spawn(async move {
            let completion = future.await;
            drop(parked_guard);
            completion.send();
        });
    }

    /// Polls it on a worker of this executor until it completes or waits, and runs the calls that
    /// it may make here. `failed` is called with each error that counts for this executor, and
    /// `ran` with the rows of each call.
    pub(super) fn run(
        mut self,
        executor: &Arc<str>,
        runtime: &Handle,
        failed: impl Fn(&Error),
        ran: impl Fn(usize),
    ) -> PollOutcome {
        let park_runtime = self.park_runtime();
        // Its timers belong to the runtime on which it waits.
        let _timers = park_runtime.enter();
        // A task that runs no longer counts as parked.
        self.parked_guard = None;
        let resume = self.resume();
        {
            let mut state = self.lease.lock();
            state.on(Event::Dispatched, resume);
            state.calls_left = match self.mode {
                RunMode::OneCall => 1,
                RunMode::OwnWorker | RunMode::PipelineSteps => u32::MAX,
            };
        }
        let waker = Waker::from(Arc::clone(&self.lease));
        let polled = loop {
            let polled = self.poll(executor, &waker);
            if polled.is_ready() {
                self.lease.lock().on(Event::Returned, resume);
                break polled;
            }
            let Some(request) = self.lease.take_request(resume) else { break polled };
            match request {
                GuestRequest::Run(call) => {
                    ran(rows(&call.inputs));
                    let outcome = runtime.block_on(call.run());
                    if let (Err(error), RunMode::OneCall | RunMode::PipelineSteps) = (&outcome, self.mode) {
                        failed(error);
                    }
                    self.lease.call_returned(resume, |state| state.outcome = Some(outcome));
                }
                GuestRequest::Start(target, call) => {
                    let started = start(&*target, call, executor, runtime);
                    self.lease.call_returned(resume, |state| state.started = Some(started));
                }
            }
        };
        self.lease.lock().calls_left = 0;
        match polled {
            Poll::Ready(completion) => {
                if let (Err(error), RunMode::OwnWorker) = (&completion.last, self.mode) {
                    failed(error);
                }
                PollOutcome::Completed(completion)
            }
            Poll::Pending => PollOutcome::Pending(self),
        }
    }

    fn poll(&mut self, executor: &Arc<str>, waker: &Waker) -> Poll<Completion> {
        let current = (Arc::clone(executor), Arc::clone(&self.lease));
        let mut poll = || self.future.as_mut().poll(&mut Context::from_waker(waker));
        with(&CURRENT_GUEST, current, || match self.mode {
            RunMode::OneCall => with_ticks(INLINE_TICKS, poll),
            RunMode::OwnWorker | RunMode::PipelineSteps => poll(),
        })
    }
}

/// The end of a guest task's turn on a worker.
#[expect(clippy::large_enum_variant, reason = "moved once, where a box would be an allocation for each call")]
pub(super) enum PollOutcome {
    Completed(Completion),
    Pending(GuestTask),
}

impl PollOutcome {
    /// Sends the answer, or lets the task wait. Called after the worker's slot was freed.
    pub fn settle(self) {
        match self {
            PollOutcome::Completed(completion) => completion.send(),
            PollOutcome::Pending(task) => task.suspend(),
        }
    }
}

/// Starts a call for the guest of a worker, and does immediately on this thread what can be done
/// for it.
fn start(target: &dyn Submit, call: Call, executor: &Arc<str>, runtime: &Handle) -> Result<Responses> {
    let callable = Arc::clone(&call.callable);
    let event_loops = callable.streaming_model().map(StreamingCalls::guards);
    let current = (Arc::clone(executor), runtime.clone());
    let started = with(&CURRENT_WORKER, current, || target.submit(call));
    if let Some(event_loops) = event_loops {
        event_loops.poll_inline();
    }
    started
}

/// A call that the guest's worker runs.
pub(in crate::executor) struct InlineCall {
    pub context: Arc<CallContext>,
    pub callable: Arc<dyn Callable>,
    pub inputs: Vec<Tensor>,
    /// Counts its run.
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
        let outputs = outputs.map_err(|error| makers.explain(error));
        if let Some(span) = self.context.trace.span() {
            let executor = self.context.trace.executor().map(|name| ("hostler.executor", name.into()));
            span.part("run", began, began.elapsed(), executor.into_iter().collect());
            end_call(&self.context, outputs.as_ref().err());
        }
        let outputs = outputs?;
        if let Some(runs) = &self.runs {
            runs.record(Service { infer: began.elapsed(), rows, ..Service::default() });
        }
        Ok(outputs)
    }
}

/// What the worker does for the guest between two polls.
enum GuestRequest {
    Run(InlineCall),
    Start(Arc<dyn Submit>, Call),
}

/// The right of a guest task to run calls on the worker that polls it, and the task's waker.
#[derive(Default)]
pub struct WorkerLease(Mutex<LeaseState>);

#[derive(Default)]
struct LeaseState {
    phase: Phase,
    /// How many calls the worker would still run in this turn.
    calls_left: u32,
    request: Option<GuestRequest>,
    /// The context of the call that the worker runs.
    running: Option<Arc<CallContext>>,
    /// Whether its waker was called while its call ran: something may want to stop the guest.
    woken_in_call: bool,
    /// The task while it is parked.
    parked: Option<GuestTask>,
    outcome: Option<Result<Option<Vec<Tensor>>>>,
    started: Option<Result<Responses>>,
}

impl LeaseState {
    fn on(&mut self, event: Event, resume: Resume) -> Action {
        let next = self.phase.on(event, resume);
        debug_assert!(next.is_some(), "{event:?} in {:?}", self.phase);
        let (phase, action) = next.unwrap_or((self.phase, Action::Nothing));
        self.phase = phase;
        action
    }
}

impl WorkerLease {
    fn lock(&self) -> MutexGuard<'_, LeaseState> {
        self.0.lock_unpoisoned()
    }

    /// Returns true if a call can run on this thread now. If not, it is queued like any other.
    pub(in crate::executor) fn is_held(&self) -> bool {
        self.lock().calls_left > 0
    }

    /// Returns true if the worker is the guest's own until it waits.
    fn owns_worker(&self) -> bool {
        self.lock().calls_left > 1
    }

    fn take_request(&self, resume: Resume) -> Option<GuestRequest> {
        let mut state = self.lock();
        let request = state.request.take()?;
        state.on(Event::CallRequested, resume);
        Some(request)
    }

    fn call_returned(&self, resume: Resume, set: impl FnOnce(&mut LeaseState)) {
        let mut state = self.lock();
        state.running = None;
        set(&mut state);
        state.on(Event::CallReturned, resume);
    }

    /// Lets the worker start a call of a model that may wait, and advance it. Only while the guest
    /// owns its worker.
    pub(in crate::executor) async fn start(&self, target: Arc<dyn Submit>, call: Call) -> Result<Responses> {
        {
            let mut state = self.lock();
            // The result of an earlier call that the guest did not wait for.
            state.started = None;
            state.request = Some(GuestRequest::Start(target, call));
        }
        poll_fn(|_| self.lock().started.take().map_or(Poll::Pending, Poll::Ready)).await
    }

    /// Lets the worker run a call. Only while the lease is held.
    pub(in crate::executor) async fn run(&self, call: InlineCall) -> Result<Option<Vec<Tensor>>> {
        {
            let mut state = self.lock();
            state.calls_left = state.calls_left.saturating_sub(1);
            state.running = Some(Arc::clone(&call.context));
            // The result of an earlier call that the guest did not wait for.
            (state.woken_in_call, state.outcome) = (false, None);
            state.request = Some(GuestRequest::Run(call));
        }
        let mut yielded = false;
        poll_fn(|cx| {
            let mut state = self.lock();
            if !yielded && std::mem::take(&mut state.woken_in_call) {
                yielded = true;
                drop(state);
                // Code that would stop the guest is polled first; if it does not, the next poll
                // returns the outcome.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            state.outcome.take().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

impl Wake for WorkerLease {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    /// While its call runs, the wake-up that matters is that of the guest's deadline, which is also
    /// the call's. A client that disconnects stops the call directly, and what the guest started
    /// before can wait until the call returns.
    fn wake_by_ref(self: &Arc<Self>) {
        let (action, parked, running) = {
            let mut state = self.lock();
            state.woken_in_call = true;
            // A wake-up does not depend on `Resume`: only tasks that continue on workers are
            // parked.
            let action = state.on(Event::Woken, Resume::OnWorkers);
            (action, state.parked.take(), state.running.clone())
        };
        if let (Action::Requeue, Some(task)) = (action, parked) {
            task.requeue();
        }
        if let Some(running) = running {
            // Notices that the deadline has passed, and stops the call.
            let _ = running.check();
        }
    }
}

thread_local! {
    /// While a guest is polled on a worker: the executor of that worker, and the guest's right to
    /// run calls there.
    static CURRENT_GUEST: RefCell<Option<(Arc<str>, Arc<WorkerLease>)>> = const { RefCell::new(None) };

    /// While a worker starts a call for its guest: its executor, and its runtime.
    static CURRENT_WORKER: RefCell<Option<(Arc<str>, Handle)>> = const { RefCell::new(None) };
}

/// Sets the value while `work` runs.
fn with<T, R>(key: &'static LocalKey<RefCell<Option<T>>>, value: T, work: impl FnOnce() -> R) -> R {
    struct Restore<T: 'static>(&'static LocalKey<RefCell<Option<T>>>, Option<T>);
    impl<T> Drop for Restore<T> {
        fn drop(&mut self) {
            self.0.replace(self.1.take());
        }
    }
    let _restore = Restore(key, key.replace(Some(value)));
    work()
}

/// Returns the lease of the calling guest, if this thread is a worker of this executor and the
/// lease is held.
pub(in crate::executor) fn inline_lease(executor: &str) -> Option<Arc<WorkerLease>> {
    find_lease(|name| name == executor, WorkerLease::is_held)
}

/// Returns the lease of the calling guest, if it owns the worker that polls it. The worker must be
/// one of this executor unless `any` is true.
pub(in crate::executor) fn owned_worker(executor: &str, any: bool) -> Option<Arc<WorkerLease>> {
    find_lease(|name| any || name == executor, WorkerLease::owns_worker)
}

fn find_lease(
    is_right: impl Fn(&str) -> bool,
    can: impl Fn(&WorkerLease) -> bool,
) -> Option<Arc<WorkerLease>> {
    CURRENT_GUEST.with_borrow(|current| {
        let (_, lease) = current.as_ref().filter(|(name, lease)| is_right(name) && can(lease))?;
        Some(Arc::clone(lease))
    })
}

/// Returns the runtime of this worker thread, if it is one of this executor and starts a call for
/// its guest.
pub(super) fn current_worker(executor: &str) -> Option<Handle> {
    CURRENT_WORKER.with_borrow(|current| {
        let (_, runtime) = current.as_ref().filter(|(name, _)| **name == *executor)?;
        Some(runtime.clone())
    })
}
