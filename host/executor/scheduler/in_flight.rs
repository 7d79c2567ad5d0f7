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
use crate::tenants::{SHARE_TIME, SharedSlots, TenantShare, TenantSlot};
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
    shares: Arc<SharedSlots>,
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

impl InFlightLimit {
    fn refused(&self, why: &str) -> Error {
        self.overloaded.inc();
        Error::overloaded(format!("executor \"{}\": {why}", self.executor))
    }
}

/// One of the slots, which is freed on drop.
pub(in crate::executor) struct InFlightGuard {
    in_flight: Arc<InFlight>,
    key: usize,
    _share: Option<TenantSlot>,
}

impl InFlight {
    /// Returns as many slots as the executor has workers.
    pub fn bounded(executor: Arc<str>, workers: usize, metrics: &PoolMetrics) -> Arc<Self> {
        let (overloaded, overdue) = (metrics.overloaded.clone(), metrics.overdue.clone());
        let limit = Some(InFlightLimit { executor, workers, overloaded, overdue });
        let (taken, shares, waiting) = Default::default();
        Arc::new(InFlight { taken, shares, limit, waiting })
    }

    /// Takes a slot for an admission, or fails with Overloaded.
    pub fn take(self: &Arc<Self>, calls: CallContexts) -> Result<InFlightGuard> {
        let Some(limit) = &self.limit else { return Ok(self.insert(&mut self.lock(), calls, None)) };
        let mut taken = self.lock();
        let free = limit.workers.saturating_sub(taken.len());
        // Started work takes precedence over new work.
        if free > 0 && self.waiting.is_empty() {
            let tenant = calls.first().map(|call| call.tenant.clone()).unwrap_or_default();
            if let Some(slot) = self.shares.take(&tenant, limit.workers, free, Instant::now()) {
                return Ok(self.insert(&mut taken, calls, Some(slot)));
            }
            drop(taken);
            return Err(limit
                .refused(&format!(
                    "tenant \"{}\" has its share of {} calls in flight",
                    tenant.name().unwrap_or_default(),
                    limit.workers
                ))
                .retry_after(SHARE_TIME));
        }
        drop(taken);
        Err(limit.refused(&format!("at capacity: {} calls in flight; raise `workers`", limit.workers)))
    }

    /// Takes a slot for a call of work that started at `since`. Waits until one is free.
    pub async fn take_started(self: &Arc<Self>, call: Arc<CallContext>, since: Instant) -> InFlightGuard {
        let attempt = || self.take_free(smallvec![Arc::clone(&call)]);
        self.waiting.wait(since, attempt).await
    }

    /// Takes an extra slot within an admitted batch of this tenant, if one is free that its share
    /// allows.
    pub fn take_extra(self: &Arc<Self>, tenant: &TenantShare) -> Option<InFlightGuard> {
        // Started work waits for this slot.
        if !self.waiting.is_empty() {
            return None;
        }
        let mut taken = self.lock();
        let Some(limit) = &self.limit else {
            return Some(self.insert(&mut taken, CallContexts::new(), None));
        };
        let free = limit.workers.checked_sub(taken.len()).filter(|free| *free > 0)?;
        let share = self.shares.take_if_free(tenant, limit.workers, free, Instant::now())?;
        Some(self.insert(&mut taken, CallContexts::new(), Some(share)))
    }

    /// Takes a slot that is free, whatever the share of its tenant is.
    fn take_free(self: &Arc<Self>, calls: CallContexts) -> Option<InFlightGuard> {
        let mut taken = self.lock();
        if self.limit.as_ref().is_some_and(|limit| taken.len() >= limit.workers) {
            return None;
        }
        let first = calls.first().filter(|_| self.limit.is_some());
        let share = first.map(|call| self.shares.take_started(&call.tenant, Instant::now()));
        Some(self.insert(&mut taken, calls, share))
    }

    fn insert(
        self: &Arc<Self>,
        taken: &mut Slab<CallContexts>,
        calls: CallContexts,
        share: Option<TenantSlot>,
    ) -> InFlightGuard {
        let key = taken.insert(calls);
        InFlightGuard { in_flight: Arc::clone(self), key, _share: share }
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
        let extra = in_flight.take_extra(&TenantShare::default()).unwrap();
        assert!(in_flight.take_extra(&TenantShare::default()).is_none());
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
