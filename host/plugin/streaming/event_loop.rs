//! Who runs the event loop of an instance: its own thread, or for a moment a worker that brings it a call.
//!
//! A worker whose guest calls a model here would wake the instance's thread and be woken by it in turn, which costs
//! more than most such calls. So it polls the event loop itself until there is nothing left to do at once. Whoever
//! polls it does what all have brought. What comes while no worker is here wakes the instance's thread, as ever.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context as Task, Poll, Wake, Waker};

/// Polls of an event loop by a worker before its thread goes on: others bring calls, too.
const INLINE_POLLS_MAX: usize = 16;

type LoopFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// An event loop that ends with `T`, and whose turn it is.
pub(super) struct EventLoop<T> {
    state: Mutex<State<T>>,
    waker: Arc<LoopWaker>,
    /// Its timers are those of its thread.
    runtime: tokio::runtime::Handle,
}

enum State<T> {
    Idle(LoopFuture<T>),
    /// Somebody polls it.
    Polled,
    Finished(Option<T>),
}

/// What wakes the event loop.
#[derive(Default)]
struct LoopWaker {
    thread: Mutex<Option<Waker>>,
    /// Workers that bring calls. The last to leave looks whether something is left to do.
    guards: AtomicUsize,
    woken: AtomicBool,
}

impl LoopWaker {
    fn thread(&self) -> MutexGuard<'_, Option<Waker>> {
        self.thread.lock().expect("invariant: no panic under the lock")
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
    /// Made on the thread of the instance.
    pub fn new(work: impl Future<Output = T> + Send + 'static) -> Arc<Self> {
        let (state, wakes) = (Mutex::new(State::Idle(Box::pin(work))), Arc::default());
        Arc::new(EventLoop { state, waker: wakes, runtime: tokio::runtime::Handle::current() })
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().expect("invariant: no panic under the lock")
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

    /// Runs the event loop on this thread, the instance's own, to its end.
    pub async fn run(&self) -> T {
        let waker = Waker::from(Arc::clone(&self.waker));
        std::future::poll_fn(|task| {
            self.waker.thread().get_or_insert_with(|| task.waker().clone()).clone_from(task.waker());
            let mut work = {
                let mut state = self.lock();
                match std::mem::replace(&mut *state, State::Polled) {
                    State::Idle(work) => work,
                    State::Polled => {
                        // Under the lock, so that whoever has it sees this before it is free.
                        self.waker.woken.store(true, Ordering::SeqCst);
                        return Poll::Pending;
                    }
                    State::Finished(outcome) => {
                        return Poll::Ready(outcome.expect("invariant: an event loop ends once"));
                    }
                }
            };
            self.waker.woken.store(false, Ordering::SeqCst);
            let polled = work.as_mut().poll(&mut Task::from_waker(&waker));
            *self.lock() = match polled {
                Poll::Ready(_) => State::Finished(None),
                Poll::Pending => State::Idle(work),
            };
            polled
        })
        .await
    }

    /// Taken by a worker before it brings a call.
    pub fn guard(self: Arc<Self>) -> EventLoopGuard<T> {
        self.waker.guards.fetch_add(1, Ordering::SeqCst);
        EventLoopGuard(self)
    }

    /// Polls the event loop for as long as there is something to do at once. False if somebody else does.
    fn poll_inline(&self) -> bool {
        let Some(mut work) = self.take() else { return false };
        let waker = Waker::from(Arc::clone(&self.waker));
        let _timers = self.runtime.enter();
        for _ in 0..INLINE_POLLS_MAX {
            if !self.waker.woken.swap(false, Ordering::SeqCst) {
                break;
            }
            if let Poll::Ready(outcome) = work.as_mut().poll(&mut Task::from_waker(&waker)) {
                *self.lock() = State::Finished(Some(outcome));
                self.waker.woken.store(true, Ordering::SeqCst);
                return true;
            }
        }
        *self.lock() = State::Idle(work);
        true
    }
}

/// A worker that brings a call: the instance's thread is not woken for it while this is there.
pub struct EventLoopGuard<T: Send + 'static>(Arc<EventLoop<T>>);

impl<T: Send + 'static> EventLoopGuard<T> {
    /// Does what there is to do at once. If somebody else does, the call is seen to by them.
    pub fn turn(self) {
        self.0.poll_inline();
    }
}

impl<T: Send + 'static> Drop for EventLoopGuard<T> {
    fn drop(&mut self) {
        let wakes = &self.0.waker;
        if wakes.guards.fetch_sub(1, Ordering::SeqCst) == 1 && wakes.woken.load(Ordering::SeqCst) {
            wakes.wake_thread();
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

    /// Calls with and without a helm, of several threads at once, while the event loop's own thread runs as well.
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
                        guard.turn();
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
