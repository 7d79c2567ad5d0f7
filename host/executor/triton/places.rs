//! Places for calls in flight: as many as the executor has workers, taken at once or not at all.
//!
//! A batch takes one; what it runs beside that is lent from places that are free, so that calls in flight are
//! never more than there are places.

use super::super::Status;
use super::super::pool::OVERDUE_AFTER;
use crate::error::{Error, Result};
use crate::predict::Context;
use prometheus::IntCounter;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

pub(super) struct Places {
    executor: Arc<str>,
    capacity: usize,
    taken: Mutex<Taken>,
    overloaded: IntCounter,
    overdue: IntCounter,
}

#[derive(Default)]
struct Taken {
    next: u64,
    /// The calls of each place; one that is lent to a batch has none of its own.
    places: Vec<(u64, Vec<Arc<Context>>)>,
}

impl Taken {
    fn add(&mut self, contexts: Vec<Arc<Context>>) -> u64 {
        let key = self.next;
        self.next += 1;
        self.places.push((key, contexts));
        key
    }
}

/// One of the places, for as long as it lives.
pub(super) struct Place {
    places: Arc<Places>,
    key: u64,
}

impl Places {
    pub fn new(executor: Arc<str>, capacity: usize, overloaded: IntCounter, overdue: IntCounter) -> Self {
        Places { executor, capacity, taken: Mutex::default(), overloaded, overdue }
    }

    /// A place for an admission, or Overloaded.
    pub fn take(self: &Arc<Self>, contexts: Vec<Arc<Context>>) -> Result<Place> {
        self.try_take(contexts).ok_or_else(|| {
            self.overloaded.inc();
            Error::overloaded(format!(
                "executor \"{}\": {} calls are in flight, which is as many as its workers",
                self.executor, self.capacity
            ))
        })
    }

    /// A place for a part of what has one already, if there is one to spare.
    pub fn lend(self: &Arc<Self>) -> Option<Place> {
        self.try_take(Vec::new())
    }

    fn try_take(self: &Arc<Self>, contexts: Vec<Arc<Context>>) -> Option<Place> {
        let mut taken = self.lock();
        let key = (taken.places.len() < self.capacity).then(|| taken.add(contexts))?;
        drop(taken);
        Some(Place { places: Arc::clone(self), key })
    }

    pub fn status(&self) -> Status {
        let taken = self.lock();
        Status {
            workers: self.capacity,
            busy: taken.places.len(),
            inflight: taken.places.iter().map(|(_, contexts)| contexts.len()).sum(),
            overdue: taken.places.iter().filter(|(_, contexts)| are_overdue(contexts)).count(),
            queue_length: 0,
            queue_capacity: 0,
        }
    }

    pub fn running(&self) -> Vec<String> {
        let taken = self.lock();
        taken.places.iter().flat_map(|(_, contexts)| contexts).map(|context| context.id.to_string()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().expect("invariant: no panic under the lock")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        let Some(index) = taken.places.iter().position(|(key, _)| *key == self.key) else { return };
        let (_, contexts) = taken.places.swap_remove(index);
        drop(taken);
        if are_overdue(&contexts) {
            self.places.overdue.inc();
        }
    }
}

fn are_overdue(contexts: &[Arc<Context>]) -> bool {
    let now = Instant::now();
    let late = |context: &Arc<Context>| context.deadline.is_some_and(|at| now > at + OVERDUE_AFTER);
    !contexts.is_empty() && contexts.iter().all(late)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn places_are_taken_at_once_or_refused_and_come_back() {
        let counter = || IntCounter::new("c", "c").unwrap();
        let places = Arc::new(Places::new("remote".into(), 2, counter(), counter()));
        let context = || Arc::new(Context::new("id".into(), "m".into(), "1".into(), None));
        let first = places.take(vec![context(), context()]).unwrap();
        let lent = places.lend().unwrap();
        assert!(places.lend().is_none());
        let refused = places.take(vec![context()]).err().unwrap();
        assert_eq!(refused.kind(), Kind::Overloaded);
        assert!(refused.message().contains("executor \"remote\": 2 calls"), "{refused}");
        assert_eq!((places.status().busy, places.status().inflight), (2, 2));
        drop(lent);
        drop(places.take(vec![context()]).unwrap());
        drop(first);
        assert_eq!((places.status().busy, places.overloaded.get()), (0, 1));
    }
}
