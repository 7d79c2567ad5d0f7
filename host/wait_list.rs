//! Work that has begun and waits for a place, the oldest first; new work stands behind it.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Instant;

/// When the request began, and a number that tells two of one moment apart.
type Key = (Instant, u64);

#[derive(Default)]
pub struct WaitList {
    /// Those that wait; a thread that frees a place looks at it without the lock.
    len: AtomicUsize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    next: u64,
    waiting: BTreeMap<Key, Option<Waker>>,
}

/// A place in the list, until it is dropped.
struct Waiting<'a> {
    list: &'a WaitList,
    key: Key,
}

impl WaitList {
    /// Whether somebody waits, so that nothing new may go before.
    pub fn is_empty(&self) -> bool {
        self.len.load(Ordering::Acquire) == 0
    }

    /// Tries until there is something, in turn: only the oldest is tried, each time that `freed` is called.
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
            // After the waker is there: what is freed from now on wakes this again.
            match is_first.then(&mut attempt).flatten() {
                Some(found) => Poll::Ready(found),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// A place has become free.
    pub fn freed(&self) {
        // Whoever waits has entered the list before it looked for a place, and this was freed before the list is looked at.
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
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut inner = self.list.lock();
        inner.waiting.remove(&self.key);
        self.list.len.store(inner.waiting.len(), Ordering::Release);
        drop(inner);
        // There may be more free than this one has taken, or it left without.
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
