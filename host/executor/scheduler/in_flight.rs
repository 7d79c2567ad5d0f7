//! Places for calls in flight, known by name. Where an executor has as many as workers, a place is taken at once or
//! not at all; elsewhere they are only counted.
//!
//! A batch takes one; what it runs beside that is lent from places that are free, so that calls in flight are
//! never more than there are places.

use super::metrics::{OVERDUE_AFTER, PoolMetrics};
use crate::error::{Error, Result};
use crate::executor::status::Status;
use crate::predict::CallContext;
use crate::wait_list::WaitList;
use prometheus::IntCounter;
use slab::Slab;
use smallvec::{SmallVec, smallvec};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The calls of one admission; one that is lent to a batch has none of its own.
pub(in crate::executor) type CallContexts = SmallVec<[Arc<CallContext>; 1]>;

#[derive(Default)]
pub(in crate::executor) struct InFlight {
    taken: Mutex<Slab<CallContexts>>,
    limit: Option<InFlightLimit>,
    /// Begun work that waits for a place.
    waiting: WaitList,
}

struct InFlightLimit {
    executor: Arc<str>,
    workers: usize,
    overloaded: IntCounter,
    overdue: IntCounter,
}

/// One of the places, for as long as it lives.
pub(in crate::executor) struct InFlightGuard {
    in_flight: Arc<InFlight>,
    key: usize,
}

impl InFlight {
    /// As many as the executor has workers.
    pub fn bounded(executor: Arc<str>, workers: usize, metrics: &PoolMetrics) -> Arc<Self> {
        let (overloaded, overdue) = (metrics.overloaded.clone(), metrics.overdue.clone());
        let limit = Some(InFlightLimit { executor, workers, overloaded, overdue });
        Arc::new(InFlight { taken: Mutex::default(), limit: limit, waiting: WaitList::default() })
    }

    /// A place for an admission, or Overloaded.
    pub fn take(self: &Arc<Self>, calls: CallContexts) -> Result<InFlightGuard> {
        let refused = match &self.limit {
            // What has begun goes before what is new.
            Some(limit) if !self.waiting.is_empty() => Err(limit),
            _ => self.try_take(calls),
        };
        refused.map_err(|limit| {
            limit.overloaded.inc();
            Error::overloaded(format!(
                "executor \"{}\": {} calls are in flight, which is as many as its workers",
                limit.executor, limit.workers
            ))
        })
    }

    /// A place for a call of work that has begun at `since`: it waits for one.
    pub async fn take_started(self: &Arc<Self>, call: Arc<CallContext>, since: Instant) -> InFlightGuard {
        let attempt = || self.try_take(smallvec![Arc::clone(&call)]).ok();
        self.waiting.wait(since, attempt).await
    }

    /// A place for a part of what has one already, if there is one to spare.
    pub fn take_extra(self: &Arc<Self>) -> Option<InFlightGuard> {
        // What has begun waits for it.
        if !self.waiting.is_empty() {
            return None;
        }
        self.try_take(CallContexts::new()).ok()
    }

    fn try_take(self: &Arc<Self>, calls: CallContexts) -> std::result::Result<InFlightGuard, &InFlightLimit> {
        let mut taken = self.lock();
        if let Some(limit) = self.limit.as_ref().filter(|limit| taken.len() >= limit.workers) {
            return Err(limit);
        }
        let key = taken.insert(calls);
        drop(taken);
        Ok(InFlightGuard { in_flight: Arc::clone(self), key })
    }

    /// Places that are taken.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Calls in them.
    pub fn in_flight(&self) -> usize {
        self.lock().iter().map(|(_, calls)| calls.len()).sum()
    }

    /// Of an executor without a queue.
    pub fn status(&self) -> Status {
        let taken = self.lock();
        Status {
            workers: self.limit.as_ref().map_or(0, |limit| limit.workers),
            busy: taken.len(),
            inflight: taken.iter().map(|(_, calls)| calls.len()).sum(),
            overdue: taken.iter().filter(|(_, calls)| are_overdue(calls)).count(),
            queue_length: 0,
            queue_capacity: 0,
        }
    }

    /// The ids of the calls.
    pub fn running(&self) -> Vec<String> {
        let taken = self.lock();
        taken.iter().flat_map(|(_, calls)| calls).map(|context| context.id.to_string()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Slab<CallContexts>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        let calls = self.in_flight.lock().remove(self.key);
        self.in_flight.waiting.freed();
        if let Some(limit) = self.in_flight.limit.as_ref().filter(|_| are_overdue(&calls)) {
            limit.overdue.inc();
        }
    }
}

fn are_overdue(calls: &[Arc<CallContext>]) -> bool {
    let now = Instant::now();
    let late = |context: &Arc<CallContext>| context.deadline.is_some_and(|at| now > at + OVERDUE_AFTER);
    !calls.is_empty() && calls.iter().all(late)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::metrics::Metrics;

    fn context() -> Arc<CallContext> {
        Arc::new(CallContext::new("id".into(), "m".into(), "1".into(), None))
    }

    #[test]
    fn places_are_taken_at_once_or_refused_and_come_back() {
        let metrics = PoolMetrics::new(&Metrics::new(), "remote");
        let in_flight = InFlight::bounded("remote".into(), 2, &metrics);
        let first = in_flight.take(smallvec![context(), context()]).unwrap();
        let extra = in_flight.take_extra().unwrap();
        assert!(in_flight.take_extra().is_none());
        let refused = in_flight.take(smallvec![context()]).err().unwrap();
        assert_eq!(refused.kind(), Kind::Overloaded);
        assert!(refused.message().contains("executor \"remote\": 2 calls"), "{refused}");
        assert_eq!((in_flight.status().busy, in_flight.status().inflight), (2, 2));
        drop(extra);
        drop(in_flight.take(smallvec![context()]).unwrap());
        drop(first);
        assert_eq!((in_flight.status().busy, metrics.overloaded.get()), (0, 1));
    }

    #[test]
    fn places_without_a_bound_are_only_counted() {
        let in_flight = Arc::<InFlight>::default();
        let taken: Vec<_> = (0..100).map(|_| in_flight.take(smallvec![context()]).unwrap()).collect();
        assert_eq!((in_flight.len(), in_flight.in_flight(), in_flight.running().len()), (100, 100, 100));
        drop(taken);
        assert_eq!(in_flight.len(), 0);
    }
}
