//! One policy for poisoned locks: a panic of one request under a lock must not make every later
//! request panic. Code keeps the data under a lock consistent at every call that could panic, and
//! the next thread continues with it. `clippy.toml` refuses `lock`, `read` and `write` elsewhere.

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub trait LockUnpoisoned<T: ?Sized> {
    /// Locks, whether or not a thread has panicked under the lock.
    fn lock_unpoisoned(&self) -> MutexGuard<'_, T>;
}

impl<T: ?Sized> LockUnpoisoned<T> for Mutex<T> {
    #[expect(clippy::disallowed_methods, reason = "the place that handles poisoning")]
    fn lock_unpoisoned(&self) -> MutexGuard<'_, T> {
        self.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub trait ReadWriteUnpoisoned<T: ?Sized> {
    /// Locks for reading, whether or not a thread has panicked under the lock.
    fn read_unpoisoned(&self) -> RwLockReadGuard<'_, T>;

    /// Locks for writing, whether or not a thread has panicked under the lock.
    fn write_unpoisoned(&self) -> RwLockWriteGuard<'_, T>;
}

impl<T: ?Sized> ReadWriteUnpoisoned<T> for RwLock<T> {
    #[expect(clippy::disallowed_methods, reason = "the place that handles poisoning")]
    fn read_unpoisoned(&self) -> RwLockReadGuard<'_, T> {
        self.read().unwrap_or_else(PoisonError::into_inner)
    }

    #[expect(clippy::disallowed_methods, reason = "the place that handles poisoning")]
    fn write_unpoisoned(&self) -> RwLockWriteGuard<'_, T> {
        self.write().unwrap_or_else(PoisonError::into_inner)
    }
}
