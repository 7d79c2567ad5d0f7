//! Slots for calls in flight, which also hold the contexts of these calls. If an executor has one
//! slot for each worker, a call gets a slot immediately or is refused; without a limit, slots only
//! count.
//!
//! A batch takes one slot. What it runs beside that takes extra slots if they are free, so there
//! are never more calls in flight than slots.

use super::metrics::{OVERDUE_AFTER, PoolMetrics};
use crate::error::{Error, Result};
use crate::executor::status::Status;
use crate::lock::LockUnpoisoned;
use crate::predict::CallContext;
use crate::wait_list::WaitList;
use prometheus::IntCounter;
use slab::Slab;
use smallvec::{SmallVec, smallvec};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

/// The calls of one admission; empty for an extra slot within an admitted batch.
pub(in crate::executor) type CallContexts = SmallVec<[Arc<CallContext>; 1]>;

#[derive(Default)]
pub(in crate::executor) struct InFlight {
    taken: Mutex<Slab<CallContexts>>,
    limit: Option<InFlightLimit>,
    /// Started work that waits for a slot.
    waiting: WaitList,
}

struct InFlightLimit {
    executor: Arc<str>,
    workers: usize,
    overloaded: IntCounter,
    overdue: IntCounter,
}

/// One of the slots, which is freed on drop.
pub(in crate::executor) struct InFlightGuard {
    in_flight: Arc<InFlight>,
    key: usize,
}

impl InFlight {
    /// Returns as many slots as the executor has workers.
    pub fn bounded(executor: Arc<str>, workers: usize, metrics: &PoolMetrics) -> Arc<Self> {
        let (overloaded, overdue) = (metrics.overloaded.clone(), metrics.overdue.clone());
        let limit = Some(InFlightLimit { executor, workers, overloaded, overdue });
        Arc::new(InFlight { taken: Mutex::default(), limit, waiting: WaitList::default() })
    }

    /// Takes a slot for an admission, or fails with Overloaded.
    pub fn take(self: &Arc<Self>, calls: CallContexts) -> Result<InFlightGuard> {
        let refused = match &self.limit {
            // Started work takes precedence over new work.
            Some(limit) if !self.waiting.is_empty() => Err(limit),
            _ => self.try_take(calls),
        };
        refused.map_err(|limit| {
            limit.overloaded.inc();
            Error::overloaded(format!(
                "executor \"{}\": at capacity: {} calls in flight; raise `workers`",
                limit.executor, limit.workers
            ))
        })
    }

    /// Takes a slot for a call of work that started at `since`. Waits until one is free.
    pub async fn take_started(self: &Arc<Self>, call: Arc<CallContext>, since: Instant) -> InFlightGuard {
        let attempt = || self.try_take(smallvec![Arc::clone(&call)]).ok();
        self.waiting.wait(since, attempt).await
    }

    /// Takes an extra slot within an admitted batch, if one is free.
    pub fn take_extra(self: &Arc<Self>) -> Option<InFlightGuard> {
        // Started work waits for this slot.
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

    /// Returns how many slots are taken.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Returns how many calls are in them.
    pub fn in_flight(&self) -> usize {
        self.lock().iter().map(|(_, calls)| calls.len()).sum()
    }

    /// Returns the status of an executor without a queue.
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

    /// Returns the ids of the calls.
    pub fn running(&self) -> Vec<String> {
        let taken = self.lock();
        taken.iter().flat_map(|(_, calls)| calls).map(|context| context.id.to_string()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Slab<CallContexts>> {
        self.taken.lock_unpoisoned()
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
        assert!(
            refused.message().contains("executor \"remote\": at capacity: 2 calls in flight"),
            "{refused}"
        );
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
