//! A worker lent to a guest that may wait: of a custom executor, on a worker of its inner executor, or of a plugin
//! that calls models, on a worker of its own executor.
//!
//! Most guests do little more than call their model. Such a guest runs where its call will run: the worker
//! polls it, runs the call that it makes, and polls it to its end, with no thread to wake in between. A guest
//! that waits for anything else frees the worker: so no worker is ever held by a guest that waits for another one.
//! One of another executor goes home, to threads that are for waiting; one of this executor comes back to the queue of
//! its workers once it is woken.

use super::held;
use super::places::{Place, Places};
use super::pool::WorkerPool;
use super::shared::SharedCallable;
use super::{Call, Callable, Executor, Runs, Sink};
use crate::error::{Error, Result};
use crate::plugin::with_ticks;
use crate::predict::{Context, Makers, Response, Responses, Service, Tensor};
use smallvec::smallvec;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context as Task, Poll, Wake, Waker};
use std::time::Instant;

/// For how long a guest of another executor may compute on a lent worker, in milliseconds. One whose thread was
/// interrupted by others is not sent home for that.
const TICKS: u32 = 5;

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

/// What a guest may do on a worker that it is lent.
#[derive(Clone, Copy)]
pub(super) enum Terms {
    /// A guest of another executor: one call, and little computing.
    OneCall,
    /// It has its turn like any call here: the worker is its own until it waits.
    Turn,
    /// A pipeline: it runs those of its steps here that it waits for alone.
    Steps,
}

/// Where guests that wait are.
pub(super) struct Home {
    /// Its timers are theirs, and its threads if they do not come back to a queue.
    pub runtime: tokio::runtime::Handle,
    pub back: Option<Back>,
}

/// The way back of guests that have their turns on the workers of their own executor.
pub(super) struct Back {
    pub pool: Arc<WorkerPool>,
    /// Where those that wait are counted.
    pub waiting: Arc<Places>,
}

impl From<tokio::runtime::Handle> for Home {
    fn from(runtime: tokio::runtime::Handle) -> Self {
        Home { runtime, back: None }
    }
}

/// Work that wants a worker, to begin on or to go on.
pub struct Lent {
    pub(super) context: Arc<Context>,
    lease: Arc<Lease>,
    terms: Terms,
    work: Work,
    /// Where it goes on once it waits.
    home: Home,
    /// Of work that waits, or has waited and is to go on.
    place: Option<Place>,
}

impl Lent {
    pub(super) fn new(
        context: Arc<Context>,
        lease: Arc<Lease>,
        terms: Terms,
        work: Work,
        home: Home,
    ) -> Self {
        Lent { context, lease, terms, work, home, place: None }
    }

    /// Whether it has waited since it began.
    pub(super) fn has_waited(&self) -> bool {
        self.place.is_some()
    }

    /// Whether it only makes calls, and so may begin where it goes on.
    pub(super) fn is_of_a_pipeline(&self) -> bool {
        matches!(self.terms, Terms::Steps)
    }

    /// Where it can wait, and go on if no worker comes.
    pub(super) fn threads(&self) -> tokio::runtime::Handle {
        self.home.runtime.clone()
    }

    /// Counts it among those that wait, if its home does.
    pub(super) fn take_place(&mut self) {
        if let (Some(back), None) = (&self.home.back, &self.place) {
            self.place = back.waiting.take(smallvec![Arc::clone(&self.context)]).ok();
        }
    }

    /// Frees the worker, until it is woken.
    fn wait(mut self) {
        if self.home.back.is_none() {
            return self.go_home();
        }
        self.take_place();
        let lease = Arc::clone(&self.lease);
        let mut state = lease.lock();
        if state.notified {
            drop(state);
            self.come_back();
        } else {
            state.waits = Some(self);
        }
    }

    /// Goes on with its next turn on a worker.
    fn come_back(self) {
        match &self.home.back {
            Some(back) => Arc::clone(&back.pool).resume(self),
            None => self.go_home(),
        }
    }

    /// Runs on threads where it may wait.
    pub(super) fn go_home(mut self) {
        self.take_place();
        let Lent { work, home, place, .. } = self;
        home.runtime.spawn(async move {
            let answer = work.await;
            drop(place);
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
    ) -> Begun {
        let home = self.home.runtime.clone();
        // Its timers are those of its home.
        let _home = home.enter();
        // Whoever sees it run need not see it wait.
        self.place = None;
        {
            let mut state = self.lease.lock();
            state.notified = false;
            state.calls_left = match self.terms {
                Terms::OneCall => 1,
                Terms::Turn | Terms::Steps => u32::MAX,
            };
        }
        let waker = Waker::from(Arc::clone(&self.lease));
        let polled = loop {
            let polled = self.poll(executor, &waker);
            if polled.is_ready() {
                break polled;
            }
            let Some(asked) = self.lease.lock().asked.take() else { break polled };
            match asked {
                Asked::Run(call) => {
                    let outcome = runtime.block_on(call.run());
                    if let (Err(error), Terms::OneCall | Terms::Steps) = (&outcome, self.terms) {
                        failed(error);
                    }
                    self.lease.ended(outcome);
                }
                Asked::Begin(target, call) => self.lease.begun(begin(&*target, call, executor, runtime)),
            }
        };
        self.lease.lock().calls_left = 0;
        match polled {
            Poll::Ready(answer) => {
                if let (Err(error), Terms::Turn) = (&answer.last, self.terms) {
                    failed(error);
                }
                Begun::Answered(answer)
            }
            Poll::Pending => Begun::Waits(self),
        }
    }

    fn poll(&mut self, executor: &Arc<str>, waker: &Waker) -> Poll<Answer> {
        let mut poll = || self.work.as_mut().poll(&mut Task::from_waker(waker));
        held::by_guest(executor, &self.lease, || match self.terms {
            Terms::OneCall => with_ticks(TICKS, poll),
            Terms::Turn | Terms::Steps => poll(),
        })
    }
}

/// How far work has come on a worker.
#[expect(clippy::large_enum_variant, reason = "moved once, where a box would be an allocation for each call")]
pub(super) enum Begun {
    Answered(Answer),
    Waits(Lent),
}

impl Begun {
    /// Gives the answer, or lets the work wait.
    pub fn go_on(self) {
        match self {
            Begun::Answered(answer) => answer.give(),
            Begun::Waits(lent) => lent.wait(),
        }
    }
}

/// The right to run calls on the worker that polls the guest.
#[derive(Default)]
pub struct Lease(Mutex<State>);

#[derive(Default)]
struct State {
    /// Calls that the worker which polls the guest would run for it.
    calls_left: u32,
    asked: Option<Asked>,
    /// Of the call that runs now.
    running: Option<Arc<Context>>,
    /// The guest was woken while its call ran: it is to be stopped.
    woken: bool,
    /// The guest was woken since its turn began.
    notified: bool,
    /// The guest, while it waits for its next turn.
    waits: Option<Lent>,
    outcome: Option<Result<Option<Vec<Tensor>>>>,
    begun: Option<Result<Responses>>,
}

/// What the worker shall do between two polls of the guest.
enum Asked {
    Run(LentCall),
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
    let helms = callable.shared().map(SharedCallable::helms);
    let begun = held::for_guest(executor, runtime, || target.submit(call));
    if let Some(helms) = helms {
        helms.turn();
    }
    begun
}

/// A call that the worker shall run.
pub(super) struct LentCall {
    pub context: Arc<Context>,
    pub callable: Arc<dyn Callable>,
    pub inputs: Vec<Tensor>,
    /// Where it is counted.
    pub runs: Option<Arc<Runs>>,
}

impl LentCall {
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

impl Lease {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("invariant: no panic under the lock")
    }

    /// Whether a call can run on this thread now; if not, it waits for its turn like any other.
    pub fn is_held(&self) -> bool {
        self.lock().calls_left > 0
    }

    /// Whether the worker is the guest's own until it waits.
    pub fn has_turn(&self) -> bool {
        self.lock().calls_left > 1
    }

    /// Has the worker begin a call to a model that may wait, and help it along. Only while the guest has its turn.
    pub(super) async fn begin(&self, executor: Arc<dyn Executor>, call: Call) -> Result<Responses> {
        {
            let mut state = self.lock();
            // What is left of a call that the guest did not wait for.
            state.begun = None;
            state.asked = Some(Asked::Begin(executor, call));
        }
        poll_fn(|_| self.lock().begun.take().map_or(Poll::Pending, Poll::Ready)).await
    }

    fn begun(&self, begun: Result<Responses>) {
        self.lock().begun = Some(begun);
    }

    /// Has the worker run a call. Only while the lease is held.
    pub(super) async fn run(&self, call: LentCall) -> Result<Option<Vec<Tensor>>> {
        {
            let mut state = self.lock();
            state.calls_left = state.calls_left.saturating_sub(1);
            state.running = Some(Arc::clone(&call.context));
            // What is left of a call that the guest did not wait for.
            (state.woken, state.outcome) = (false, None);
            state.asked = Some(Asked::Run(call));
        }
        let mut asked = false;
        poll_fn(|task| {
            let mut state = self.lock();
            if !asked && std::mem::take(&mut state.woken) {
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

impl Wake for Lease {
    /// While its call runs, a guest waits for the end of its time, which is the call's too. Its caller's leaving stops
    /// the call by itself, and what it has started before concerns it later.
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let (waits, running) = {
            let mut state = self.lock();
            (state.woken, state.notified) = (true, true);
            (state.waits.take(), state.running.clone())
        };
        if let Some(waits) = waits {
            waits.come_back();
        }
        if let Some(running) = running {
            // Notices that the time is over, and stops the call.
            let _ = running.check();
        }
    }
}
