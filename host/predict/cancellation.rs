//! Cancellation: tells the work of a call to stop.

use crate::lock::LockUnpoisoned;
use smallvec::SmallVec;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

const NOT_CANCELLED: u8 = 0;
const CALLER_LEFT: u8 = 1;
const EXPIRED: u8 = 2;
const EVICTED: u8 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CancelReason {
    CallerLeft,
    DeadlinePassed,
    Evicted,
}

/// Tells the work of a call to stop, because the caller left or because the deadline has passed.
pub struct Cancellation {
    state: AtomicU8,
    /// How many contexts this one still works for. Their cancellation counts down, and the last one
    /// cancels this.
    members_left: AtomicUsize,
    notify: Notify,
    hooks: Mutex<Hooks>,
}

impl Default for Cancellation {
    fn default() -> Self {
        Cancellation {
            state: AtomicU8::new(NOT_CANCELLED),
            members_left: AtomicUsize::new(1),
            notify: Notify::default(),
            hooks: Mutex::default(),
        }
    }
}

#[derive(Default)]
struct Hooks {
    next: u64,
    registered: SmallVec<[(u64, Hook); 1]>,
}

/// What to do on cancellation.
enum Hook {
    Cancel(Arc<dyn AsRef<Cancellation> + Send + Sync>),
    Run(Box<dyn FnOnce() + Send>),
}

impl Hook {
    fn run(self) {
        match self {
            Hook::Cancel(other) => (*other).as_ref().member_cancelled(),
            Hook::Run(hook) => hook(),
        }
    }
}

impl Cancellation {
    /// Cancellation of work for several calls: it takes place when all `members` are cancelled.
    pub(super) fn joint(members: usize) -> Self {
        Cancellation { members_left: AtomicUsize::new(members), ..Cancellation::default() }
    }

    /// Returns why this was cancelled; `None` if it was not.
    pub(super) fn reason(&self) -> Option<CancelReason> {
        match self.state.load(Ordering::Acquire) {
            NOT_CANCELLED => None,
            EXPIRED => Some(CancelReason::DeadlinePassed),
            EVICTED => Some(CancelReason::Evicted),
            _ => Some(CancelReason::CallerLeft),
        }
    }

    /// Cancels because the caller left. Only the first of `cancel` and `expire` counts.
    pub fn cancel(&self) {
        self.set(CALLER_LEFT);
    }

    /// Called when one of the members is cancelled.
    fn member_cancelled(&self) {
        if self.members_left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.cancel();
        }
    }

    /// Cancels because the deadline has passed.
    pub fn expire(&self) {
        self.set(EXPIRED);
    }

    /// Cancels because the call lost its place in a full queue.
    pub fn evict(&self) {
        self.set(EVICTED);
    }

    pub fn is_cancelled(&self) -> bool {
        self.state.load(Ordering::Acquire) != NOT_CANCELLED
    }

    /// Waits for the cancellation; returns immediately if it has taken place.
    pub async fn cancelled(&self) {
        let notified = self.notify.notified();
        tokio::pin!(notified);
        notified.as_mut().enable();
        if !self.is_cancelled() {
            notified.await;
        }
    }

    /// Runs `hook` on cancellation, on the thread that cancels; immediately if already cancelled.
    /// Dropping the guard removes the hook.
    pub fn on_cancel(&self, hook: impl FnOnce() + Send + 'static) -> OnCancel<'_> {
        self.register(Hook::Run(Box::new(hook)))
    }

    /// Cancels `other` on cancellation, as long as the guard lives. A joint context is cancelled
    /// with its last member.
    pub fn cancels<C>(&self, other: &Arc<C>) -> OnCancel<'_>
    where
        C: AsRef<Cancellation> + Send + Sync + 'static,
    {
        let other = Arc::clone(other);
        self.register(Hook::Cancel(other))
    }

    fn register(&self, hook: Hook) -> OnCancel<'_> {
        let mut hooks = self.hooks.lock_unpoisoned();
        if self.is_cancelled() {
            drop(hooks);
            hook.run();
            return OnCancel { cancellation: self, id: u64::MAX };
        }
        let id = hooks.next;
        hooks.next += 1;
        hooks.registered.push((id, hook));
        OnCancel { cancellation: self, id }
    }

    fn set(&self, state: u8) {
        let hooks = {
            let mut hooks = self.hooks.lock_unpoisoned();
            if self.state.compare_exchange(NOT_CANCELLED, state, Ordering::AcqRel, Ordering::Acquire).is_err()
            {
                return;
            }
            std::mem::take(&mut hooks.registered)
        };
        self.notify.notify_waiters();
        for (_, hook) in hooks {
            hook.run();
        }
    }
}

/// Keeps a hook registered.
#[must_use = "dropping the guard forgets the hook"]
pub struct OnCancel<'a> {
    cancellation: &'a Cancellation,
    id: u64,
}

impl Drop for OnCancel<'_> {
    fn drop(&mut self) {
        let mut hooks = self.cancellation.hooks.lock_unpoisoned();
        hooks.registered.retain(|(id, _)| *id != self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_run_once_unless_forgotten() {
        let cancellation = Cancellation::default();
        let runs = Arc::new(AtomicUsize::new(0));
        let count = |by: usize| {
            let runs = Arc::clone(&runs);
            move || {
                runs.fetch_add(by, Ordering::Relaxed);
            }
        };
        let kept = cancellation.on_cancel(count(1));
        drop(cancellation.on_cancel(count(10)));
        cancellation.expire();
        cancellation.cancel();
        let _late = cancellation.on_cancel(count(100));
        assert_eq!(runs.load(Ordering::Relaxed), 101);
        assert_eq!(cancellation.state.load(Ordering::Relaxed), EXPIRED, "the first reason stays");
        drop(kept);
    }

    #[tokio::test]
    async fn cancelled_wakes_those_who_wait_and_those_who_come_late() {
        let cancellation = Arc::new(Cancellation::default());
        let waiting = tokio::spawn({
            let cancellation = Arc::clone(&cancellation);
            async move { cancellation.cancelled().await }
        });
        tokio::task::yield_now().await;
        cancellation.cancel();
        waiting.await.unwrap();
        cancellation.cancelled().await;
    }
}
