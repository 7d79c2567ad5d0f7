//! Threads for work that takes long for large bodies: decoding, encoding and compressing them.
//!
//! The threads that serve connections do not wait for this work, and it has a lower priority. There
//! are as many threads as cores, so at most that many bodies are processed at once; others wait in
//! order of arrival.

use crate::config;
use crate::lock::LockUnpoisoned;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use tokio::sync::oneshot;

/// Bodies up to this size are processed on the calling thread: waking another one would take
/// longer.
pub const INLINE_BYTES_MAX: usize = 256 << 10;

/// Below the threads that serve connections and above those that load models, like the workers.
const NICE: i32 = 5;

type Job = Box<dyn FnOnce() + Send>;

struct Pool {
    jobs: Mutex<VecDeque<Job>>,
    ready: Condvar,
}

/// Runs `work`, on another thread if it is for more than `INLINE_BYTES_MAX` bytes. Work that was
/// cancelled before its turn is dropped.
pub async fn run<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
    if bytes <= INLINE_BYTES_MAX {
        return work();
    }
    match pool() {
        Some(pool) => Box::pin(pool.run(work)).await,
        None => work(),
    }
}

impl Pool {
    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, receiver) = oneshot::channel();
        self.push(Box::new(move || {
            if !sender.is_closed() {
                // If the caller has left, the result is dropped here and not on a thread that
                // serves connections.
                let _ = sender.send(work());
            }
        }));
        receiver.await.expect("invariant: work on bodies does not panic")
    }
}

/// `None` if no thread can be started: the work then runs on the calling thread.
fn pool() -> Option<&'static Pool> {
    static POOL: OnceLock<Option<&'static Pool>> = OnceLock::new();
    *POOL.get_or_init(Pool::start)
}

impl Pool {
    /// Starts the threads, which live as long as the process.
    fn start() -> Option<&'static Self> {
        let pool: &'static Pool = Box::leak(Box::new(Pool { jobs: Mutex::default(), ready: Condvar::new() }));
        let started = (0..config::cores()).filter(|index| {
            let thread = std::thread::Builder::new().name(format!("body-{index}"));
            thread.spawn(|| pool.work()).is_ok()
        });
        match started.count() {
            0 => {
                tracing::warn!("threads for large bodies not started: large bodies delay other connections");
                None
            }
            _ => Some(pool),
        }
    }

    fn push(&self, job: Job) {
        self.jobs.lock_unpoisoned().push_back(job);
        self.ready.notify_one();
    }

    fn work(&self) {
        config::lower_priority(NICE);
        loop {
            let job = {
                let mut jobs = self.jobs.lock_unpoisoned();
                loop {
                    match jobs.pop_front() {
                        Some(job) => break job,
                        None => jobs = self.ready.wait(jobs).unwrap_or_else(PoisonError::into_inner),
                    }
                }
            };
            // The caller notices the panic, because its receiver is dropped.
            let _ = catch_unwind(AssertUnwindSafe(job));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::pin::Pin;
    use std::sync::mpsc;
    use std::task::Poll;

    const LARGE: usize = INLINE_BYTES_MAX + 1;

    fn thread_name() -> String {
        std::thread::current().name().unwrap_or_default().to_owned()
    }

    /// Polls once, so that the work is queued.
    async fn begin<T>(work: &mut Pin<Box<impl Future<Output = T>>>) {
        let is_pending = poll_fn(|context| Poll::Ready(work.as_mut().poll(context).is_pending())).await;
        assert!(is_pending);
    }

    #[tokio::test]
    async fn large_bodies_are_worked_on_elsewhere() {
        assert_eq!(run(INLINE_BYTES_MAX, thread_name).await, thread_name());
        assert!(run(LARGE, thread_name).await.starts_with("body-"));
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_is_not_begun() {
        // All threads are busy until their gate opens.
        let (busy, entered) = mpsc::channel();
        let mut gates: Vec<_> = (0..config::cores())
            .map(|_| {
                let ((open, gate), busy) = (mpsc::channel::<()>(), busy.clone());
                let work = Box::pin(run(LARGE, move || {
                    busy.send(()).unwrap();
                    let _ = gate.recv();
                }));
                (open, work)
            })
            .collect();
        for (_, work) in &mut gates {
            begin(work).await;
            entered.recv().unwrap();
        }
        let (began, seen) = mpsc::channel();
        let left = began.clone();
        let mut left = Box::pin(run(LARGE, move || left.send("left").unwrap()));
        begin(&mut left).await;
        drop(left);
        let mut stayed = Box::pin(run(LARGE, move || began.send("stayed").unwrap()));
        begin(&mut stayed).await;
        for (open, work) in gates {
            drop(open);
            work.await;
        }
        stayed.await;
        assert_eq!(seen.try_iter().collect::<Vec<_>>(), ["stayed"]);
    }
}
