//! The calls in flight in one instance, by key and by guest task, and which of them is to blame if
//! the instance is lost. Shared by the store, its host calls and the thread that runs the instance.

use super::active_call::ActiveCall;
use crate::error::Error;
use crate::lock::LockUnpoisoned;
use crate::plugin::bindings::types;
use crate::plugin::host_errors::HostErrors;
use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use wasmtime::component::GuestTaskId;

/// The key of calls that the host itself makes, such as `ready`; no request has it.
pub const HOST: u32 = 0;

/// The most requests that a log line lists.
const IDS_MAX: usize = 8;

pub struct CallRegistry {
    started: Instant,
    /// The last turn of the instance's event loop, in microseconds since `started`.
    turn_us: AtomicU64,
    /// Epoch ticks that the guest has computed through since that turn.
    ticks: AtomicU32,
    inner: Mutex<Inner>,
    waker: Arc<DriverWaker>,
    /// Separate from `exhausted`, so that each event wakes only the tasks that wait for it.
    inserted: Notify,
    exhausted: Notify,
    /// Whether the instance holds too much and must end with its calls.
    over_limit: AtomicBool,
}

#[derive(Default)]
struct Inner {
    calls: HashMap<u32, Arc<ActiveCall>>,
    tasks: HashMap<GuestTaskId, u32>,
    /// Calls whose guest went on after the call had ended. They stay until the instance is dropped.
    abandoned: HashMap<u32, Arc<ActiveCall>>,
    served: u64,
    blamed_call: Option<u32>,
    /// Errors that were returned to the guest where its call is not known.
    host_errors: HostErrors,
}

impl Inner {
    /// Forgets which call a task works for, unless a later call has it: wasmtime gives the number
    /// of a task that has ended to another one, which may start before the end is recorded here.
    fn forget_task(&mut self, task: GuestTaskId, key: u32) {
        if self.tasks.get(&task) == Some(&key) {
            self.tasks.remove(&task);
        }
    }
}

impl CallRegistry {
    pub fn new() -> Arc<Self> {
        let (inner, waker, inserted, exhausted, over_limit) = Default::default();
        Arc::new(CallRegistry {
            started: Instant::now(),
            turn_us: AtomicU64::new(0),
            ticks: AtomicU32::new(0),
            inner,
            waker,
            inserted,
            exhausted,
            over_limit,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock_unpoisoned()
    }

    /// Adds a call. Its handles and its guest task are identified by `key`.
    pub fn insert(&self, key: u32, task: GuestTaskId, call: ActiveCall) -> Arc<ActiveCall> {
        let call = Arc::new(call);
        let mut inner = self.lock();
        inner.calls.insert(key, Arc::clone(&call));
        inner.tasks.insert(task, key);
        drop(inner);
        self.inserted.notify_waiters();
        call
    }

    /// Records which guest task works for a call of the host.
    pub fn assign_task(&self, task: GuestTaskId, key: u32) {
        self.lock().tasks.insert(task, key);
    }

    /// Removes the task of a call of the host that has ended.
    pub fn remove_task(&self, task: GuestTaskId) {
        self.lock().forget_task(task, HOST);
    }

    pub fn remove(&self, key: u32, task: GuestTaskId, clean: bool) {
        let mut inner = self.lock();
        let call = inner.calls.remove(&key);
        if clean {
            inner.forget_task(task, key);
            inner.served += 1;
        } else if let Some(call) = call {
            inner.abandoned.insert(key, call);
        }
        drop(inner);
        if !clean {
            self.exhausted.notify_waiters();
        }
    }

    pub fn by_key(&self, key: u32) -> CallerState {
        let inner = self.lock();
        match (inner.calls.get(&key), inner.abandoned.get(&key)) {
            (Some(call), _) => CallerState::Active(Arc::clone(call)),
            (None, Some(call)) => CallerState::Abandoned(Arc::clone(call)),
            (None, None) => CallerState::Unknown,
        }
    }

    /// Converts an error for the guest, and remembers it for any call.
    pub fn record_error(&self, error: Error) -> types::Error {
        self.lock().host_errors.record(error)
    }

    /// Converts the error with which the guest has ended a call.
    pub fn returned(&self, call: &ActiveCall, error: types::Error) -> Error {
        call.recorded_error(&error).unwrap_or_else(|| self.lock().host_errors.returned(error, call.plugin()))
    }

    /// Returns the call that the first known task of a call stack works for.
    pub fn by_task(&self, stack: impl IntoIterator<Item = GuestTaskId>) -> CallerState {
        let inner = self.lock();
        let key = stack.into_iter().find_map(|task| inner.tasks.get(&task)).copied();
        drop(inner);
        key.map_or(CallerState::Unknown, |key| self.by_key(key))
    }

    /// Whether the host itself made the call that this call stack works for.
    pub fn is_host_call(&self, stack: &[GuestTaskId]) -> bool {
        let inner = self.lock();
        stack.iter().find_map(|task| inner.tasks.get(task)) == Some(&HOST)
    }

    /// Returns the ids of the requests in flight, for a log line that may belong to any of them.
    /// `None` if there are none.
    pub fn requests(&self) -> Option<String> {
        let inner = self.lock();
        if inner.calls.is_empty() {
            return None;
        }
        let mut keys: Vec<_> = inner.calls.keys().copied().collect();
        keys.sort_unstable();
        let ids: Vec<_> = keys.iter().take(IDS_MAX).map(|key| &*inner.calls[key].context.id).collect();
        let more = keys.len() - ids.len();
        let shown = ids.join(", ");
        Some(if more > 0 { format!("{shown} and {more} more") } else { shown })
    }

    /// Records which call made the instance unusable. The first record counts.
    pub fn blame(&self, stack: impl IntoIterator<Item = GuestTaskId>) {
        let mut inner = self.lock();
        if inner.blamed_call.is_none() {
            inner.blamed_call = stack.into_iter().find_map(|task| inner.tasks.get(&task)).copied();
        }
    }

    /// Records that no request made the instance unusable.
    pub fn blame_host(&self) {
        self.lock().blamed_call.get_or_insert(HOST);
    }

    /// Tells all calls to end with `reason`, and returns the ids of their requests.
    pub fn stop_all(&self, reason: &Error) -> Vec<String> {
        let calls: Vec<_> = self.lock().calls.values().cloned().collect();
        calls.iter().for_each(|call| call.stop(reason.clone()));
        calls.iter().map(|call| call.context.id.to_string()).collect()
    }

    /// Removes all calls after the instance was lost; `true` marks the call at fault.
    pub fn take_all(&self) -> Vec<(bool, Arc<ActiveCall>)> {
        let mut inner = self.lock();
        let culprit = inner.blamed_call;
        inner.tasks.clear();
        inner.calls.drain().map(|(key, call)| (Some(key) == culprit, call)).collect()
    }

    /// Logs what the guest wrote on behalf of the call at fault, and returns what it last wrote to
    /// stderr. `None` if no request is at fault.
    pub fn end_log_of_blamed(&self) -> Option<String> {
        let key = self.blamed().filter(|key| *key != HOST)?;
        Some(self.by_key(key).call()?.end_log())
    }

    pub fn blamed(&self) -> Option<u32> {
        self.lock().blamed_call
    }

    /// Returns how many calls the guest has completed.
    pub fn served(&self) -> u64 {
        self.lock().served
    }

    pub fn is_empty(&self) -> bool {
        self.lock().calls.is_empty()
    }

    /// Records that the instance holds too much and must not start another call.
    pub fn set_over_limit(&self) {
        self.over_limit.store(true, Ordering::Relaxed);
        self.exhausted.notify_waiters();
    }

    /// Returns once this many abandoned calls have accumulated or the instance holds too much, and
    /// says which.
    pub async fn until_exhausted(&self, abandoned: usize) -> &'static str {
        let over_limit = || self.over_limit.load(Ordering::Relaxed);
        until(&self.exhausted, || over_limit() || self.lock().abandoned.len() >= abandoned).await;
        if over_limit() { "it retains too much memory (held_mb)" } else { "it has too many abandoned calls" }
    }

    /// Polls `future` on the instance's event loop, but only after it was woken: the loop turns
    /// several times for one call. Records each turn.
    pub async fn driven<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let waker = Waker::from(Arc::clone(&self.waker));
        self.waker.woken.store(true, Ordering::Release);
        std::future::poll_fn(|cx| {
            self.mark_turn();
            self.waker.set_driver(cx.waker());
            match self.waker.woken.swap(false, Ordering::AcqRel) {
                true => future.as_mut().poll(&mut Context::from_waker(&waker)),
                false => Poll::Pending,
            }
        })
        .await
    }

    /// Returns at the next turn of the event loop, when the guest has run what was just started.
    /// Only for futures that [`driven`](Self::driven) polls.
    pub async fn next_turn(&self) {
        let mut waited = false;
        std::future::poll_fn(|_| {
            if std::mem::replace(&mut waited, true) {
                return Poll::Ready(());
            }
            // No wake-up is needed: what was just started keeps the loop going.
            self.waker.woken.store(true, Ordering::Release);
            Poll::Pending
        })
        .await;
    }

    fn mark_turn(&self) {
        self.turn_us.store(self.started.elapsed().as_micros() as u64, Ordering::Relaxed);
        self.ticks.store(0, Ordering::Relaxed);
    }

    /// Counts a tick, and returns how many ticks the guest has computed without a turn of the event
    /// loop. Time in which its thread did not run does not count; on a busy machine that can be
    /// long.
    pub fn tick(&self) -> u32 {
        self.ticks.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Returns when the event loop has not turned for `turn` although it was woken.
    pub async fn stuck(&self, turn: Duration) {
        loop {
            until(&self.inserted, || !self.is_empty()).await;
            tokio::time::sleep(turn).await;
            let called = self.turn_us.load(Ordering::Relaxed);
            self.waker.wake_driver();
            tokio::time::sleep(turn).await;
            if self.turn_us.load(Ordering::Relaxed) == called && !self.is_empty() {
                return;
            }
        }
    }
}

/// Wakes the host's part of an event loop, and the loop with it.
#[derive(Default)]
struct DriverWaker {
    woken: AtomicBool,
    driver: Mutex<Option<Waker>>,
}

impl DriverWaker {
    fn driver(&self) -> MutexGuard<'_, Option<Waker>> {
        self.driver.lock_unpoisoned()
    }

    /// Sets the waker of the task or thread that polls the event loop.
    fn set_driver(&self, waker: &Waker) {
        let mut driver = self.driver();
        if driver.as_ref().is_none_or(|driver| !driver.will_wake(waker)) {
            *driver = Some(waker.clone());
        }
    }

    fn wake_driver(&self) {
        if let Some(driver) = &*self.driver() {
            driver.wake_by_ref();
        }
    }
}

impl Wake for DriverWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.wake_driver();
    }
}

/// Returns once `wanted` holds. It is checked again at each notification.
async fn until(notices: &Notify, wanted: impl Fn() -> bool) {
    loop {
        let mut noticed = pin!(notices.notified());
        noticed.as_mut().enable();
        if wanted() {
            return;
        }
        noticed.await;
    }
}

/// The call on whose behalf a guest called the host.
pub enum CallerState {
    Active(Arc<ActiveCall>),
    /// The call was abandoned: its guest must not continue.
    Abandoned(Arc<ActiveCall>),
    Unknown,
}

impl CallerState {
    pub fn call(self) -> Option<Arc<ActiveCall>> {
        match self {
            CallerState::Active(call) | CallerState::Abandoned(call) => Some(call),
            CallerState::Unknown => None,
        }
    }
}
