//! The clock of a host of a test. It moves when the plugin waits, and only then.

use super::data::{try_with_host, with_host};
use super::request::RequestData;
use crate::Error;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

#[derive(Default)]
pub(crate) struct Timers {
    /// The time since the host was created.
    pub now: Duration,
    waiting: Vec<(u64, Duration, Waker)>,
    created: u64,
}

impl Timers {
    fn set(&mut self, key: Option<u64>, at: Duration, waker: &Waker) -> u64 {
        let key = key.unwrap_or_else(|| {
            self.created += 1;
            self.created
        });
        self.remove(key);
        self.waiting.push((key, at, waker.clone()));
        key
    }

    fn remove(&mut self, key: u64) {
        self.waiting.retain(|(other, ..)| *other != key);
    }

    fn next(&self) -> Option<Duration> {
        self.waiting.iter().map(|(_, at, _)| *at).min()
    }

    /// Sets the clock, which never goes back, and returns the tasks whose time has come.
    pub fn move_to(&mut self, time: Duration) -> Vec<Waker> {
        self.now = self.now.max(time);
        let due = self.waiting.extract_if(.., |(_, at, _)| *at <= self.now);
        due.map(|(_, _, waker)| waker).collect()
    }
}

/// Returns the time since the host was created. Zero without a host.
pub(crate) fn current_time() -> Duration {
    try_with_host(|host| host.timers.now).unwrap_or_default()
}

pub(super) fn move_to(time: Duration) {
    let due = with_host("a wait", |host| host.timers.move_to(time));
    due.into_iter().for_each(Waker::wake);
}

/// Returns when the current request ends, with the error for what waits then.
pub(super) fn end_of_request() -> Option<(Duration, Error)> {
    let request = try_with_host(|host| host.request.clone()).flatten()?;
    end_of(&request)
}

fn end_of(request: &Mutex<RequestData>) -> Option<(Duration, Error)> {
    let request = request.lock().unwrap_or_else(PoisonError::into_inner);
    let deadline = request
        .deadline
        .map(|at| (at, Error::of(crate::ErrorKind::Deadline, "the deadline of the request has passed")));
    let cancelled = request
        .cancelled_at
        .map(|at| (at, Error::of(crate::ErrorKind::Cancelled, "the client has disconnected")));
    deadline.into_iter().chain(cancelled).min_by_key(|(at, _)| *at)
}

/// Returns when a blocking wait of at most `timeout` ends. `None` for never.
pub(crate) fn time_limit(timeout: Duration) -> Option<Duration> {
    let until = current_time().checked_add(timeout);
    let end = end_of_request().map(|(at, _)| at);
    until.into_iter().chain(end).min()
}

/// Moves the clock to a time, at most to the end of the current request.
pub(crate) fn sleep_until(time: Duration) {
    let end = end_of_request().map_or(Duration::MAX, |(at, _)| at);
    move_to(time.min(end));
}

/// Waits until the clock has reached a time. Fails when the request has ended that was current when
/// the wait began.
pub(crate) struct Wait {
    until: Duration,
    request: Option<Arc<Mutex<RequestData>>>,
    key: Option<u64>,
}

impl Wait {
    pub fn of(time: Duration) -> Wait {
        Wait::until(current_time().saturating_add(time))
    }

    pub fn until(until: Duration) -> Wait {
        let request = with_host("a wait", |host| host.request.clone());
        Wait { until, request, key: None }
    }
}

impl Future for Wait {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Self::Output> {
        let now = current_time();
        let mut until = self.until;
        if let Some((end, error)) = self.request.as_deref().and_then(end_of) {
            if end <= now {
                return Poll::Ready(Err(error));
            }
            until = until.min(end);
        }
        if self.until <= now {
            return Poll::Ready(Ok(()));
        }
        let key = self.key;
        self.key = Some(with_host("a wait", |host| host.timers.set(key, until, task.waker())));
        Poll::Pending
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            try_with_host(|host| host.timers.remove(key));
        }
    }
}

/// The waker of [`block_on`], which remembers that it was used.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs a future to its end on this thread. While it waits, the clock of the host goes to the time
/// at which the next wait ends, so nothing really waits.
///
/// ```
/// use hostler_plugin::concurrent::{both, sleep};
/// use hostler_plugin::testing::{Host, block_on};
/// use std::time::Duration;
///
/// let host = Host::new();
/// let hour = Duration::from_secs(3600);
/// block_on(both(sleep(hour), sleep(2 * hour)));
/// assert_eq!(host.time(), 2 * hour);
/// ```
///
/// # Panics
///
/// Panics if the future waits for something that cannot happen: nothing has woken it, and no host
/// call of it is waiting.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let woken = Arc::<Woken>::default();
    let waker = Waker::from(Arc::clone(&woken));
    let mut task = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut task) {
            return output;
        }
        if woken.0.swap(false, Ordering::Relaxed) {
            continue;
        }
        match try_with_host(|host| host.timers.next()).flatten() {
            Some(next) => move_to(next),
            None => panic!("the future waits, and no host call of it does: nothing can wake it"),
        }
    }
}
