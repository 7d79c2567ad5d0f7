//! What a thread that is a worker does for a guest right now: whose worker it is, and what the guest may do there.

use super::guest_task::WorkerLease;
use std::cell::RefCell;
use std::sync::Arc;
use std::thread::LocalKey;
use tokio::runtime::Handle;

thread_local! {
    /// While a guest is polled on a worker: the executor whose worker it is, and the guest's right to run calls there.
    static CURRENT_GUEST: RefCell<Option<(Arc<str>, Arc<WorkerLease>)>> = const { RefCell::new(None) };

    /// While a worker begins a call for its guest: its executor, and its runtime.
    static CURRENT_WORKER: RefCell<Option<(Arc<str>, Handle)>> = const { RefCell::new(None) };
}

/// Polls a guest on a worker of this executor.
pub(super) fn poll_as_guest<R>(executor: &Arc<str>, lease: &Arc<WorkerLease>, poll: impl FnOnce() -> R) -> R {
    with(&CURRENT_GUEST, (Arc::clone(executor), Arc::clone(lease)), poll)
}

/// Begins a call for the guest of a worker of this executor.
pub(super) fn begin_for_guest<R>(executor: &Arc<str>, runtime: &Handle, begin: impl FnOnce() -> R) -> R {
    with(&CURRENT_WORKER, (Arc::clone(executor), runtime.clone()), begin)
}

/// Sets the value for as long as the work goes on.
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

/// The right to run a call on this thread, if it is a worker of this executor and the calling guest has it.
pub(super) fn inline_lease(executor: &str) -> Option<Arc<WorkerLease>> {
    find_lease(|name| name == executor, WorkerLease::is_held)
}

/// The worker that polls the calling guest, if that has its turn there, and the worker is one of this executor unless
/// `any` will do.
pub(super) fn owned_worker(executor: &str, any: bool) -> Option<Arc<WorkerLease>> {
    find_lease(|name| any || name == executor, WorkerLease::owns_worker)
}

fn find_lease(
    is_right: impl Fn(&str) -> bool,
    can: impl Fn(&WorkerLease) -> bool,
) -> Option<Arc<WorkerLease>> {
    CURRENT_GUEST.with_borrow(|held| {
        let (_, lease) = held.as_ref().filter(|(name, lease)| is_right(name) && can(lease))?;
        Some(Arc::clone(lease))
    })
}

/// The runtime of the worker that this thread is, if it is one of this executor and begins a call for its guest.
pub(super) fn current_worker(executor: &str) -> Option<Handle> {
    CURRENT_WORKER.with_borrow(|begins| {
        let (_, runtime) = begins.as_ref().filter(|(name, _)| **name == *executor)?;
        Some(runtime.clone())
    })
}
