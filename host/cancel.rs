//! A flag that abandons the building of a policy.
//!
//! The caller of a build keeps a clone and sets it. The build checks it at each step, and a step that waits for
//! something else (a compiler process, a library) registers what ends its wait. Once set it stays set.

use crate::error::{Error, Result};
use slab::Slab;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Clones are the same flag.
#[derive(Clone, Default)]
pub struct Cancel(Arc<Inner>);

#[derive(Default)]
struct Inner {
    cancelled: AtomicBool,
    callbacks: Mutex<Slab<Callback>>,
}

type Callback = Box<dyn FnOnce() + Send>;

impl Cancel {
    /// Sets the flag and runs what is registered, on this thread.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::SeqCst);
        let callbacks = std::mem::take(&mut *self.callbacks());
        callbacks.into_iter().for_each(|(_, callback)| callback());
    }

    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::SeqCst)
    }

    /// An error of kind `cancelled` once the flag is set.
    pub fn check(&self) -> Result<()> {
        match self.is_cancelled() {
            true => Err(Error::cancelled("the build of this policy was abandoned")),
            false => Ok(()),
        }
    }

    /// Runs `callback` when the flag is set, at once if it is set already, and never after the guard is
    /// dropped (a call that has begun may still be running then). It must not block.
    pub fn on_cancel(&self, callback: impl FnOnce() + Send + 'static) -> OnCancel<'_> {
        let mut callbacks = self.callbacks();
        // Under the lock: `cancel` sets the flag before it takes the callbacks.
        if self.is_cancelled() {
            drop(callbacks);
            callback();
            return OnCancel { cancel: self, key: None };
        }
        let key = callbacks.insert(Box::new(callback));
        OnCancel { cancel: self, key: Some(key) }
    }

    fn callbacks(&self) -> std::sync::MutexGuard<'_, Slab<Callback>> {
        self.0.callbacks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A registered callback; dropping it takes the callback back.
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
