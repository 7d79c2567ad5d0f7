//! A flag that abandons the build of a policy.
//!
//! The caller of a build keeps a clone and sets it. The build checks the flag at each step. A step
//! that waits for something else (a compiler process, a library) registers a callback that ends the
//! wait. A flag that is set stays set.

use crate::error::{Error, Result};
use crate::lock::LockUnpoisoned;
use slab::Slab;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// Clones share the flag.
#[derive(Clone, Default)]
pub struct Cancel(Arc<Inner>);

#[derive(Default)]
struct Inner {
    cancelled: AtomicBool,
    callbacks: Mutex<Slab<Callback>>,
}

type Callback = Box<dyn FnOnce() + Send>;

impl Cancel {
    /// Sets the flag and runs the registered callbacks on this thread.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::SeqCst);
        let callbacks = std::mem::take(&mut *self.callbacks());
        callbacks.into_iter().for_each(|(_, callback)| callback());
    }

    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::SeqCst)
    }

    /// Returns an error of kind `Cancelled` if the flag is set.
    pub fn check(&self) -> Result<()> {
        match self.is_cancelled() {
            true => Err(Error::cancelled("the build of this policy was abandoned")),
            false => Ok(()),
        }
    }

    /// Runs `callback` when the flag is set; immediately if it is set already. Never starts it
    /// after the guard is dropped, but it may still be running then. It must not block.
    pub fn on_cancel(&self, callback: impl FnOnce() + Send + 'static) -> OnCancel<'_> {
        let mut callbacks = self.callbacks();
        // Checked with the lock held: `cancel` sets the flag before it takes the callbacks.
        if self.is_cancelled() {
            drop(callbacks);
            callback();
            return OnCancel { cancel: self, key: None };
        }
        let key = callbacks.insert(Box::new(callback));
        OnCancel { cancel: self, key: Some(key) }
    }

    fn callbacks(&self) -> std::sync::MutexGuard<'_, Slab<Callback>> {
        self.0.callbacks.lock_unpoisoned()
    }
}

/// A registered callback. Dropping the guard removes it.
pub struct OnCancel<'a> {
    cancel: &'a Cancel,
    key: Option<usize>,
}

impl Drop for OnCancel<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            let callback = self.cancel.callbacks().try_remove(key);
            drop(callback);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn callbacks_run_once_and_not_after_their_guard_is_dropped() {
        let (cancel, runs) = (Cancel::default(), Arc::new(AtomicUsize::new(0)));
        let count = || {
            let runs = Arc::clone(&runs);
            move || {
                runs.fetch_add(1, Ordering::SeqCst);
            }
        };
        drop(cancel.on_cancel(count()));
        let other = cancel.clone();
        let _kept = cancel.on_cancel(count());
        assert!(cancel.check().is_ok());
        other.cancel();
        other.cancel();
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        assert!(cancel.check().is_err());
        let _late = cancel.on_cancel(count());
        assert_eq!(runs.load(Ordering::SeqCst), 2, "at once where the flag is set already");
    }
}
