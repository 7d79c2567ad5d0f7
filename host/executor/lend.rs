//! A worker lent to a guest that may wait: of a custom executor, on a worker of its inner executor, or of a plugin
//! that calls models, on a worker of its own executor.
//!
//! Most guests do little more than call their model. Such a guest runs where its call will run: the worker
//! polls it, runs the call that it makes, and polls it to its end, with no thread to wake in between. A guest
//! that waits for anything else goes home, to threads that are for waiting, and frees the worker: so no worker
//! is ever held by a guest that waits for another one.

use super::places::Places;
use super::shared::SharedCallable;
use super::{Call, Callable, Executor, Runs, Sink};
use crate::error::Result;
use crate::plugin::with_ticks;
use crate::predict::{Context, Response, Responses, Service, Tensor};
use smallvec::smallvec;
use std::cell::RefCell;
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
}

/// Where guests that wait are.
#[derive(Clone)]
pub(super) struct Home {
    pub runtime: tokio::runtime::Handle,
    /// Where those that wait are counted, if nobody else does.
    pub places: Option<Arc<Places>>,
}

impl From<tokio::runtime::Handle> for Home {
    fn from(runtime: tokio::runtime::Handle) -> Self {
        Home { runtime, places: None }
    }
}

/// Work that wants a worker to begin on.
pub struct Lent {
    pub(super) context: Arc<Context>,
    pub(super) lease: Arc<Lease>,
    pub(super) terms: Terms,
    pub(super) work: Work,
    /// Where it goes on once it waits.
    pub(super) home: Home,
}

impl Lent {
    /// Runs on threads where it may wait.
    pub(super) fn go_home(self) {
        let Lent { context, work, home, .. } = self;
        let place = home.places.as_ref().and_then(|places| places.take(smallvec![context]).ok());
        home.runtime.spawn(async move {
            let answer = work.await;
            drop(place);
            answer.give();
        });
    }

    /// Polls the work on a worker of this executor until it has its answer or waits, with the calls that it may
    /// make here. `ran` learns how each of them ended.
    pub(super) fn begin(
        mut self,
        executor: &Arc<str>,
        runtime: &tokio::runtime::Handle,
        ran: impl Fn(&Result<Option<Vec<Tensor>>>),
    ) -> Begun {
        let home = self.home.runtime.clone();
        // Its timers are those of its home.
        let _home = home.enter();
        self.lease.lock().calls_left = match self.terms {
            Terms::OneCall => 1,
            Terms::Turn => u32::MAX,
        };
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
                    ran(&outcome);
                    self.lease.ended(outcome);
                }
                Asked::Begin(target, call) => self.lease.begun(begin(&*target, call, executor, runtime)),
            }
        };
        self.lease.lock().calls_left = 0;
        match polled {
            Poll::Ready(answer) => Begun::Answered(answer),
            Poll::Pending => Begun::Waits(self),
        }
    }

    fn poll(&mut self, executor: &Arc<str>, waker: &Waker) -> Poll<Answer> {
        struct Restore(Option<Held>);
        impl Drop for Restore {
            fn drop(&mut self) {
                HELD.replace(self.0.take());
            }
        }
        let _restore = Restore(HELD.replace(Some((Arc::clone(executor), Arc::clone(&self.lease)))));
        let mut poll = || self.work.as_mut().poll(&mut Task::from_waker(waker));
        match self.terms {
            Terms::OneCall => with_ticks(TICKS, poll),
            Terms::Turn => poll(),
        }
    }
}

/// The executor whose worker it is, and the right to run calls there.
type Held = (Arc<str>, Arc<Lease>);

thread_local! {
    /// What the guest has that is polled on this thread, if it is polled on a worker.
    static HELD: RefCell<Option<Held>> = const { RefCell::new(None) };
}

/// The right to run a call on this thread, if it is a worker of this executor and the calling guest has it.
pub(super) fn held(executor: &str) -> Option<Arc<Lease>> {
    HELD.with_borrow(|held| {
        let (_, lease) = held.as_ref().filter(|(name, _)| **name == *executor)?;
        lease.is_held().then(|| Arc::clone(lease))
    })
}

/// The worker that polls the calling guest, if that has its turn there, and the worker is one of this executor unless
/// `any` will do.
pub(super) fn held_turn(executor: &str, any: bool) -> Option<Arc<Lease>> {
    HELD.with_borrow(|held| {
        let (_, lease) = held.as_ref().filter(|(name, _)| any || **name == *executor)?;
        lease.has_turn().then(|| Arc::clone(lease))
    })
}

/// How far work has come on a worker.
#[expect(clippy::large_enum_variant, reason = "moved once, where a box would be an allocation for each call")]
pub(super) enum Begun {
    Answered(Answer),
    Waits(Lent),
}

impl Begun {
    /// Gives the answer, or goes on where work may wait.
    pub fn go_on(self) {
        match self {
            Begun::Answered(answer) => answer.give(),
            Begun::Waits(lent) => lent.go_home(),
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
    outcome: Option<Result<Option<Vec<Tensor>>>>,
    begun: Option<Result<Responses>>,
}

/// What the worker shall do between two polls of the guest.
enum Asked {
    Run(LentCall),
    Begin(Arc<dyn Executor>, Call),
}

thread_local! {
    /// While the worker that this thread is begins a call for its guest: its executor, and its runtime.
    static BEGINS: RefCell<Option<(Arc<str>, tokio::runtime::Handle)>> = const { RefCell::new(None) };
}

/// Begins a call for the guest of a worker, and does here what there is to do for it at once.
fn begin(
    target: &dyn Executor,
    call: Call,
    executor: &Arc<str>,
    runtime: &tokio::runtime::Handle,
) -> Result<Responses> {
    struct Restore(Option<(Arc<str>, tokio::runtime::Handle)>);
    impl Drop for Restore {
        fn drop(&mut self) {
            BEGINS.replace(self.0.take());
        }
    }
    let callable = Arc::clone(&call.callable);
    let helms = callable.shared().map(SharedCallable::helms);
    let begun = {
        let _restore = Restore(BEGINS.replace(Some((Arc::clone(executor), runtime.clone()))));
        target.submit(call)
    };
    if let Some(helms) = helms {
        helms.turn();
    }
    begun
}

/// The runtime of the worker that this thread is, if it is one of this executor and begins a call for its guest.
pub(super) fn begins(executor: &str) -> Option<tokio::runtime::Handle> {
    BEGINS.with_borrow(|begins| {
        let (_, runtime) = begins.as_ref().filter(|(name, _)| **name == *executor)?;
        Some(runtime.clone())
    })
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
        self.context.check()?;
        let mut sink = Sink::shared(&self.context);
        let began = Instant::now();
        let rows = self.runs.as_ref().map_or(1, |runs| runs.rows(&self.inputs));
        let outputs = self.callable.call(&self.context, self.inputs, &mut sink).await?;
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
    fn has_turn(&self) -> bool {
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
        let running = {
            let mut state = self.lock();
            state.woken = true;
            state.running.clone()
        };
        if let Some(running) = running {
            // Notices that the time is over, and stops the call.
            let _ = running.check();
        }
    }
}
