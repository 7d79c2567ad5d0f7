//! Runs the event loop of an instance, either on the instance's own thread or, briefly, on a worker
//! that starts a call.
//!
//! A worker whose guest calls a streaming model would otherwise wake the instance's thread and be
//! woken by it in turn, which costs more than most such calls. The worker therefore polls the event
//! loop itself until nothing is ready. A poll serves all calls in the instance, not only the
//! worker's. What arrives while no worker holds a guard wakes the instance's thread.

use crate::lock::LockUnpoisoned;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};

/// Polls of an event loop by a worker before the instance's thread continues: others start calls as
/// well.
const INLINE_POLLS_MAX: usize = 16;

type LoopFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// An event loop that ends with a `T`, and its present state.
pub(super) struct EventLoop<T> {
    state: Mutex<State<T>>,
    waker: Arc<LoopWaker>,
    /// The runtime of the instance's thread, which has the timers of the event loop.
    runtime: tokio::runtime::Handle,
}

enum State<T> {
    Idle(LoopFuture<T>),
    /// A thread is polling it.
    Polled,
    Finished(Option<T>),
}

/// The waker of an event loop.
#[derive(Default)]
struct LoopWaker {
    thread: Mutex<Option<Waker>>,
    /// Guards of workers that start calls. The last one to be dropped checks whether work is left.
    guards: AtomicUsize,
    woken: AtomicBool,
}

impl LoopWaker {
    fn thread(&self) -> MutexGuard<'_, Option<Waker>> {
        self.thread.lock_unpoisoned()
    }

    fn wake_thread(&self) {
        if let Some(thread) = &*self.thread() {
            thread.wake_by_ref();
        }
    }
}

impl Wake for LoopWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        if self.guards.load(Ordering::SeqCst) == 0 {
            self.wake_thread();
        }
    }
}

impl<T: Send + 'static> EventLoop<T> {
    /// Must be called on the instance's thread.
    pub fn new(work: impl Future<Output = T> + Send + 'static) -> Arc<Self> {
        let (state, waker) = (Mutex::new(State::Idle(Box::pin(work))), Arc::default());
        Arc::new(EventLoop { state, waker, runtime: tokio::runtime::Handle::current() })
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock_unpoisoned()
    }

    fn take(&self) -> Option<LoopFuture<T>> {
        let mut state = self.lock();
        match std::mem::replace(&mut *state, State::Polled) {
            State::Idle(work) => Some(work),
            other => {
                *state = other;
                None
            }
        }
    }

    /// Runs the event loop to its end on the calling thread, which must be the instance's own.
    pub async fn run(&self) -> T {
        let waker = Waker::from(Arc::clone(&self.waker));
        std::future::poll_fn(|cx| {
            self.waker.thread().get_or_insert_with(|| cx.waker().clone()).clone_from(cx.waker());
            let mut work = {
                let mut state = self.lock();
                match std::mem::replace(&mut *state, State::Polled) {
                    State::Idle(work) => work,
                    State::Polled => {
                        // Set under the lock, so that the polling thread sees it before it puts the
                        // event loop back.
                        self.waker.woken.store(true, Ordering::SeqCst);
                        return Poll::Pending;
                    }
                    State::Finished(outcome) => {
                        return Poll::Ready(outcome.expect("invariant: an event loop ends once"));
                    }
                }
            };
            self.waker.woken.store(false, Ordering::SeqCst);
            let polled = work.as_mut().poll(&mut Context::from_waker(&waker));
            *self.lock() = match polled {
                Poll::Ready(_) => State::Finished(None),
                Poll::Pending => State::Idle(work),
            };
            polled
        })
        .await
    }

    /// Returns a guard, which a worker takes before it starts a call.
    pub fn guard(self: Arc<Self>) -> EventLoopGuard<T> {
        self.waker.guards.fetch_add(1, Ordering::SeqCst);
        EventLoopGuard(self)
    }

    /// Polls the event loop while there is ready work, at most `INLINE_POLLS_MAX` times. Returns
    /// `false` if another thread polls it or it has ended.
    fn poll_inline(&self) -> bool {
        let Some(mut work) = self.take() else { return false };
        let waker = Waker::from(Arc::clone(&self.waker));
        let _timers = self.runtime.enter();
        for _ in 0..INLINE_POLLS_MAX {
            if !self.waker.woken.swap(false, Ordering::SeqCst) {
                break;
            }
            if let Poll::Ready(outcome) = work.as_mut().poll(&mut Context::from_waker(&waker)) {
                *self.lock() = State::Finished(Some(outcome));
                self.waker.woken.store(true, Ordering::SeqCst);
                return true;
            }
        }
        *self.lock() = State::Idle(work);
        true
    }
}

/// A worker that starts a call. While a guard exists, the call does not wake the instance's thread.
pub struct EventLoopGuard<T: Send + 'static>(Arc<EventLoop<T>>);

impl<T: Send + 'static> EventLoopGuard<T> {
    /// Runs what is ready. If another thread is polling the event loop, that thread serves the
    /// call.
    pub fn poll_inline(self) {
        self.0.poll_inline();
    }
}

impl<T: Send + 'static> Drop for EventLoopGuard<T> {
    fn drop(&mut self) {
        let waker = &self.0.waker;
        if waker.guards.fetch_sub(1, Ordering::SeqCst) == 1 && waker.woken.load(Ordering::SeqCst) {
            waker.wake_thread();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::sync::{mpsc, oneshot};

    const BRINGERS: usize = 4;
    const CALLS: usize = 5_000;

    /// Calls with and without a guard, from several threads at once, while the event loop's own
    /// thread runs as well.
    #[test]
    fn no_call_is_forgotten_whoever_runs_the_event_loop() {
        let (calls, mut queue) = mpsc::unbounded_channel::<oneshot::Sender<()>>();
        let (announce, announced) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(async move {
                let event_loop = EventLoop::new(async move {
                    let mut served = 0;
                    while let Some(done) = queue.recv().await {
                        served += 1;
                        match served % 100 {
                            0 => tokio::time::sleep(Duration::from_micros(100)).await,
                            50 => tokio::task::yield_now().await,
                            _ => {}
                        }
                        done.send(()).unwrap();
                    }
                    served
                });
                announce.send(Arc::clone(&event_loop)).unwrap();
                event_loop.run().await
            })
        });
        let event_loop = announced.recv().unwrap();
        let bring = |bringer: usize| {
            let (calls, event_loop) = (calls.clone(), Arc::clone(&event_loop));
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
                for number in 0..CALLS {
                    let (done, mut waits) = oneshot::channel();
                    let guard =
                        (!(number + bringer).is_multiple_of(5)).then(|| Arc::clone(&event_loop).guard());
                    calls.send(done).unwrap();
                    if let Some(guard) = guard {
                        guard.poll_inline();
                    }
                    if waits.try_recv().is_err() {
                        let waits = async { tokio::time::timeout(Duration::from_secs(10), waits).await };
                        runtime.block_on(waits).expect("a forgotten call").unwrap();
                    }
                }
            })
        };
        let bringers: Vec<_> = (0..BRINGERS).map(bring).collect();
        bringers.into_iter().for_each(|bringer| bringer.join().unwrap());
        drop(calls);
        assert_eq!(thread.join().unwrap(), BRINGERS * CALLS);
        assert!(!event_loop.guard().0.poll_inline(), "it is over");
    }
}
