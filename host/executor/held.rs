//! What a thread that is a worker does for a guest right now: whose worker it is, and what the guest may do there.

use super::lend::Lease;
use std::cell::RefCell;
use std::sync::Arc;
use std::thread::LocalKey;
use tokio::runtime::Handle;

thread_local! {
    /// While a guest is polled on a worker: the executor whose worker it is, and the guest's right to run calls there.
    static HELD: RefCell<Option<(Arc<str>, Arc<Lease>)>> = const { RefCell::new(None) };

    /// While a worker begins a call for its guest: its executor, and its runtime.
    static BEGINS: RefCell<Option<(Arc<str>, Handle)>> = const { RefCell::new(None) };
}

/// Polls a guest on a worker of this executor.
pub(super) fn by_guest<R>(executor: &Arc<str>, lease: &Arc<Lease>, poll: impl FnOnce() -> R) -> R {
    with(&HELD, (Arc::clone(executor), Arc::clone(lease)), poll)
}

/// Begins a call for the guest of a worker of this executor.
pub(super) fn for_guest<R>(executor: &Arc<str>, runtime: &Handle, begin: impl FnOnce() -> R) -> R {
    with(&BEGINS, (Arc::clone(executor), runtime.clone()), begin)
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
pub(super) fn lease(executor: &str) -> Option<Arc<Lease>> {
    lease_if(|name| name == executor, Lease::is_held)
}

/// The worker that polls the calling guest, if that has its turn there, and the worker is one of this executor unless
/// `any` will do.
pub(super) fn turn(executor: &str, any: bool) -> Option<Arc<Lease>> {
    lease_if(|name| any || name == executor, Lease::has_turn)
}

fn lease_if(is_right: impl Fn(&str) -> bool, can: impl Fn(&Lease) -> bool) -> Option<Arc<Lease>> {
    HELD.with_borrow(|held| {
        let (_, lease) = held.as_ref().filter(|(name, lease)| is_right(name) && can(lease))?;
        Some(Arc::clone(lease))
    })
}

/// The runtime of the worker that this thread is, if it is one of this executor and begins a call for its guest.
pub(super) fn begins(executor: &str) -> Option<Handle> {
    BEGINS.with_borrow(|begins| {
        let (_, runtime) = begins.as_ref().filter(|(name, _)| **name == *executor)?;
        Some(runtime.clone())
    })
}
