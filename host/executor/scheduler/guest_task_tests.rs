//! Tests guest tasks in random interleavings: real workers, real wakers on other threads, calls on
//! the guest's worker, spurious wake-ups, refusals. Every task must return exactly once, and be
//! polled by one thread at a time.

use super::guest_task::{Completion, GuestTask, InlineCall, ParkTarget, Requeue, RunMode, WorkerLease};
use super::in_flight::InFlight;
use super::worker_pool::{PoolConfig, WorkerPool};
use crate::error::Result;
use crate::executor::call::Precedence;
use crate::executor::callable::{BoxFuture, CallProfile, Callable};
use crate::executor::sink::Sink;
use crate::metrics::Metrics;
use crate::predict::{CallContext, Metadata, Tensor};
use std::any::Any;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

const ROUNDS: u64 = 40;
const TASKS: usize = 60;
const STEPS_MAX: usize = 6;

/// A task that is not done after this long was lost.
const PATIENCE: Duration = Duration::from_secs(60);

/// Wakers of guests, for occasional spurious wake-ups.
type Wakers = Arc<Mutex<Vec<Waker>>>;

/// A model whose calls wake guests while they run.
struct Waking(Wakers);

impl Callable for Waking {
    fn metadata(&self) -> &Metadata {
        static METADATA: Metadata = Metadata { inputs: Vec::new(), outputs: Vec::new(), streaming: false };
        &METADATA
    }

    fn profile(&self) -> CallProfile {
        CallProfile::Blocking
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn call<'a>(
        &'a self,
        _: &'a Arc<CallContext>,
        _: Vec<Tensor>,
        _: &'a mut Sink,
    ) -> BoxFuture<'a, Result<Option<Vec<Tensor>>>> {
        wake_some(&self.0);
        Box::pin(async { Ok(Some(Vec::new())) })
    }
}

fn wake_some(wakers: &Wakers) {
    let chosen: Vec<Waker> = {
        let wakers = wakers.lock().unwrap();
        (0..wakers.len().min(3)).map(|_| wakers[fastrand::usize(..wakers.len())].clone()).collect()
    };
    chosen.iter().for_each(Waker::wake_by_ref);
}

/// What a guest does next.
#[derive(Clone, Copy)]
enum Step {
    /// Wakes itself and returns pending.
    Yield,
    /// Waits for another thread.
    Wait,
    /// Lets its worker run a call, if it may.
    Call,
    /// Leaves its waker where others use it for spurious wake-ups.
    LeaveWaker,
}

fn steps() -> Vec<Step> {
    let one = |_| match fastrand::u8(..4) {
        0 => Step::Yield,
        1 => Step::Wait,
        2 => Step::Call,
        _ => Step::LeaveWaker,
    };
    (0..fastrand::usize(..=STEPS_MAX)).map(one).collect()
}

/// Fails if two threads poll at the same time, or if it is polled after its end.
struct Exclusive<F> {
    future: Pin<Box<F>>,
    polled: AtomicBool,
}

impl<F: Future> Future for Exclusive<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        assert!(!self.polled.swap(true, Ordering::SeqCst), "polled twice at once, or after its end");
        let polled = self.future.as_mut().poll(cx);
        self.polled.store(polled.is_ready(), Ordering::SeqCst);
        polled
    }
}

struct World {
    pool: Arc<WorkerPool>,
    parked: Arc<InFlight>,
    runtime: tokio::runtime::Handle,
    wakers: Wakers,
    waits: Sender<oneshot::Sender<()>>,
    done: Sender<usize>,
}

impl World {
    fn task(&self, number: usize) -> GuestTask {
        let id = number.to_string();
        let context = Arc::new(CallContext::new(id.as_str().into(), "m".into(), "1".into(), None));
        let lease = Arc::<WorkerLease>::default();
        let (wakers, waits, done) = (Arc::clone(&self.wakers), self.waits.clone(), self.done.clone());
        let (steps, of_call, of_lease) = (steps(), Arc::clone(&context), Arc::clone(&lease));
        let body = async move {
            let (context, lease) = (of_call, of_lease);
            for step in steps {
                match step {
                    Step::Yield => yield_once().await,
                    Step::Wait => {
                        let (sender, receiver) = oneshot::channel();
                        waits.send(sender).unwrap();
                        receiver.await.unwrap();
                    }
                    Step::Call if lease.is_held() => {
                        let callable = Arc::new(Waking(Arc::clone(&wakers)));
                        let call = InlineCall {
                            context: Arc::clone(&context),
                            callable,
                            inputs: Vec::new(),
                            runs: None,
                        };
                        assert_eq!(lease.run(call).await.unwrap(), Some(Vec::new()));
                    }
                    Step::Call => {}
                    Step::LeaveWaker => {
                        std::future::poll_fn(|cx| {
                            wakers.lock().unwrap().push(cx.waker().clone());
                            Poll::Ready(())
                        })
                        .await;
                    }
                }
            }
            done.send(number).unwrap();
            Completion { sink: Sink::shared(&context, Instant::now()), last: Ok(None) }
        };
        let future = Exclusive { future: Box::pin(body), polled: AtomicBool::new(false) };
        let back = Requeue { queue: Arc::clone(&self.pool) as _, parked: Arc::clone(&self.parked) };
        let (mode, requeue) = match fastrand::u8(..3) {
            0 => (RunMode::OneCall, None),
            1 => (RunMode::PipelineSteps, None),
            _ => (RunMode::OwnWorker, Some(back)),
        };
        let park_target = ParkTarget { runtime: self.runtime.clone(), requeue };
        GuestTask::new(context, lease, mode, Box::pin(future), park_target)
    }
}

async fn yield_once() {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Ends waits in random order, with spurious wake-ups in between.
fn end_waits(waits: &Receiver<oneshot::Sender<()>>, wakers: &Wakers) {
    let mut open = Vec::new();
    while let Ok(wait) = waits.recv() {
        open.push(wait);
        open.extend(waits.try_iter());
        fastrand::shuffle(&mut open);
        for wait in open.drain(..) {
            wake_some(wakers);
            let _ = wait.send(());
        }
    }
}

#[test]
fn every_task_returns_once_whatever_wakes_it() {
    let metrics = Metrics::new();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    for round in 0..ROUNDS {
        fastrand::seed(round);
        let config = PoolConfig { workers: fastrand::usize(1..=3), queue: fastrand::usize(1..=TASKS) };
        let pool = Arc::new(WorkerPool::start("random", config, runtime.handle(), &metrics).unwrap());
        let (waits, ended) = channel();
        let (done, finished) = channel();
        let wakers = Wakers::default();
        let world = World {
            pool: Arc::clone(&pool),
            parked: Arc::default(),
            runtime: runtime.handle().clone(),
            wakers: Arc::clone(&wakers),
            waits,
            done,
        };
        let waker = std::thread::spawn(move || {
            fastrand::seed(round);
            end_waits(&ended, &wakers);
        });
        for number in 0..TASKS {
            let precedence = match fastrand::bool() {
                true => Precedence::New,
                false => Precedence::Started(Instant::now()),
            };
            if let Err(refused) = pool.submit_guest(precedence, world.task(number)) {
                refused.detach();
            }
        }
        let mut returned = [false; TASKS];
        for _ in 0..TASKS {
            let number = finished.recv_timeout(PATIENCE).unwrap_or_else(|_| {
                let missing: Vec<_> = (0..TASKS).filter(|number| !returned[*number]).collect();
                panic!("round {round}: {missing:?} never returned")
            });
            assert!(
                !std::mem::replace(&mut returned[number], true),
                "round {round}: {number} returned twice"
            );
        }
        drop(world);
        waker.join().unwrap();
        // What the last tasks held is released after their last message.
        while pool.status().inflight > 0 {
            std::thread::yield_now();
        }
    }
}
