//! A list of admitted work that waits for capacity, the oldest first. New work must not overtake
//! it.

use crate::lock::LockUnpoisoned;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Mutex, MutexGuard};
use std::task::{Poll, Waker};
use std::time::Instant;

/// When the request began, and a number that distinguishes requests of the same instant.
type Key = (Instant, u64);

#[derive(Default)]
pub struct WaitList {
    /// The number of waiters. A thread that frees capacity reads it without the lock.
    len: AtomicUsize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    next: u64,
    waiting: BTreeMap<Key, Option<Waker>>,
}

/// An entry in the list, removed when dropped.
struct Waiting<'a> {
    list: &'a WaitList,
    key: Key,
}

impl WaitList {
    /// Returns true if nobody waits, so that new work may go first.
    pub fn is_empty(&self) -> bool {
        self.len.load(Ordering::Acquire) == 0
    }

    /// Waits until `attempt` returns a value. Only the oldest waiter tries, each time that `freed`
    /// is called.
    pub async fn wait<T>(&self, since: Instant, mut attempt: impl FnMut() -> Option<T>) -> T {
        if self.is_empty()
            && let Some(found) = attempt()
        {
            return found;
        }
        let waiting = self.enter(since);
        poll_fn(|context| {
            let mut inner = self.lock();
            if let Some(waker) = inner.waiting.get_mut(&waiting.key) {
                *waker = Some(context.waker().clone());
            }
            let is_first = inner.waiting.first_key_value().is_some_and(|(key, _)| *key == waiting.key);
            drop(inner);
            // After the waker is stored: capacity that is freed from now on wakes this task again.
            match is_first.then(&mut attempt).flatten() {
                Some(found) => Poll::Ready(found),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Wakes the oldest waiter. Must be called after capacity was freed.
    pub fn freed(&self) {
        // A waiter enters the list before it looks for capacity, and capacity is freed before the
        // list is read, so one of the two sees the other.
        fence(Ordering::SeqCst);
        if self.is_empty() {
            return;
        }
        let waker = {
            let mut inner = self.lock();
            inner.waiting.first_entry().and_then(|mut first| first.get_mut().take())
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn enter(&self, since: Instant) -> Waiting<'_> {
        let mut inner = self.lock();
        let key = (since, inner.next);
        inner.next += 1;
        inner.waiting.insert(key, None);
        self.len.store(inner.waiting.len(), Ordering::Release);
        fence(Ordering::SeqCst);
        Waiting { list: self, key }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock_unpoisoned()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut inner = self.list.lock();
        inner.waiting.remove(&self.key);
        self.list.len.store(inner.waiting.len(), Ordering::Release);
        drop(inner);
        // There may be more capacity than this waiter used, or it left without using any.
        self.list.freed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    #[tokio::test]
    async fn the_oldest_goes_first_and_who_leaves_holds_nobody_up() {
        let (list, free) = (Arc::new(WaitList::default()), Arc::new(AtomicUsize::new(0)));
        let take = |free: Arc<AtomicUsize>| {
            move || free.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |free| free.checked_sub(1)).ok()
        };
        let (ages, mut order) = tokio::sync::mpsc::unbounded_channel();
        let now = Instant::now();
        let tasks: Vec<_> = [3, 1, 2]
            .into_iter()
            .map(|age| {
                let (list, ages, take) = (Arc::clone(&list), ages.clone(), take(Arc::clone(&free)));
                tokio::spawn(async move {
                    list.wait(now + Duration::from_secs(age), take).await;
                    ages.send(age).unwrap();
                })
            })
            .collect();
        while list.len.load(Ordering::SeqCst) < 3 {
            tokio::task::yield_now().await;
        }
        tasks[2].abort();
        while list.len.load(Ordering::SeqCst) == 3 {
            tokio::task::yield_now().await;
        }
        for expected in [1, 3] {
            free.fetch_add(1, Ordering::SeqCst);
            list.freed();
            assert_eq!(order.recv().await, Some(expected));
        }
        assert!(list.is_empty());
    }
}
