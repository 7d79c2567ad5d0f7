//! Requests of pipelines that wait to begin. Tenants take turns, and within a tenant requests go by
//! priority and age.

use crate::error::{Error, Kind};
use crate::executor::batching::request_rows;
use crate::executor::call::Call;
use crate::predict::{CallContext, Priority, Sender};
use crate::tenants::{FairQueue, Lane, Refused};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// One admission: a request, or a batch of requests.
pub(super) struct Admitted {
    pub calls: Vec<(Call, Sender)>,
    pub at: Instant,
}

impl Admitted {
    fn context(&self) -> Option<&Arc<CallContext>> {
        self.calls.first().map(|(call, _)| &call.context)
    }

    fn rows(&self) -> usize {
        let rows = |(call, _): &(Call, Sender)| {
            request_rows(call.callable.metadata(), call.transformer.is_some(), &call.input)
        };
        self.calls.iter().map(rows).sum()
    }

    fn priority(&self) -> Priority {
        self.context().map_or_else(Priority::default, |context| context.priority)
    }

    /// Returns the place among the requests of its tenant: earlier ones come first.
    fn rank(&self) -> Instant {
        self.context().map_or(self.at, |context| context.priority.rank(self.at))
    }

    /// Tells the callers that they have lost their place.
    pub fn evict(self) {
        if let Some(context) = self.context() {
            context.tenant.count(Refused::Evicted);
        }
        for (call, sender) in self.calls {
            call.context.cancellation.evict();
            sender.finish(Err(call.context.stopped().unwrap_or_else(|| Error::overloaded("evicted"))));
        }
    }
}

#[derive(Default)]
struct TenantRequests(VecDeque<Admitted>);

impl Lane for TenantRequests {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[derive(Default)]
pub(super) struct AdmissionQueue {
    tenants: FairQueue<Option<Arc<str>>, TenantRequests>,
}

impl AdmissionQueue {
    pub fn len(&self) -> usize {
        self.tenants.lanes().map(|(_, tenant)| tenant.0.len()).sum()
    }

    /// Returns how many calls wait.
    pub fn calls(&self) -> usize {
        let admissions = self.tenants.lanes().flat_map(|(_, tenant)| &tenant.0);
        admissions.map(|admitted| admitted.calls.len()).sum()
    }

    pub fn push(&mut self, admitted: Admitted) {
        let own = self.enter(&admitted);
        self.push_to(own, admitted);
    }

    fn enter(&mut self, admitted: &Admitted) -> usize {
        let tenant = admitted.context().map(|context| context.tenant.clone()).unwrap_or_default();
        self.tenants.enter(&tenant.key(), tenant.weight)
    }

    fn push_to(&mut self, own: usize, admitted: Admitted) {
        let requests = &mut self.tenants.lane_mut(own).0;
        let rank = admitted.rank();
        // Nearly always the last place.
        let behind = requests.iter().rev().take_while(|other| other.rank() > rank).count();
        requests.insert(requests.len() - behind, admitted);
    }

    /// Makes room in a full queue: the tenant that has most for its weight loses the request that
    /// would begin last. Returns the new one in `Err` if that is refused.
    pub fn evict_for(&mut self, admitted: Admitted) -> Result<Admitted, Admitted> {
        let own = self.enter(&admitted);
        let last = |tenant: &TenantRequests| tenant.0.back().map(Admitted::priority);
        let most = self.tenants.giving_way(own, admitted.priority(), |tenant| tenant.0.len(), last);
        match most.and_then(|most| self.tenants.lane_mut(most).0.pop_back()) {
            None => Err(admitted),
            Some(evicted) => {
                self.push_to(own, admitted);
                Ok(evicted)
            }
        }
    }

    /// Takes the request that begins next.
    pub fn pop(&mut self) -> Option<Admitted> {
        let first = *self.tenants.order().first()?;
        let admitted = self.tenants.lane_mut(first).0.pop_front()?;
        self.tenants.charge(first, admitted.rows());
        Some(admitted)
    }

    /// Counts a request that begins at once.
    pub fn charge(&mut self, admitted: &Admitted) {
        let own = self.enter(admitted);
        self.tenants.charge(own, admitted.rows());
    }

    /// Forgets which tenant is ahead: nothing waits or runs.
    pub fn reset(&mut self) {
        self.tenants.reset();
    }

    /// Removes and returns admissions whose calls are all cancelled or expired.
    pub fn forget_abandoned(&mut self) -> Vec<Admitted> {
        let is_wanted =
            |admitted: &Admitted| admitted.calls.iter().any(|(call, _)| call.context.stopped().is_none());
        let mut abandoned = Vec::new();
        for tenant in self.tenants.lanes_mut() {
            let (wanted, unwanted) = std::mem::take(&mut tenant.0).into_iter().partition(is_wanted);
            tenant.0 = wanted;
            abandoned.extend::<VecDeque<Admitted>>(unwanted);
        }
        abandoned
    }
}

/// Returns the number of calls whose deadline has passed.
pub(super) fn expired(abandoned: &[Admitted]) -> u64 {
    let contexts = abandoned.iter().flat_map(|admitted| &admitted.calls).map(|(call, _)| &call.context);
    let is_late =
        |context: &&Arc<CallContext>| context.stopped().is_some_and(|why| why.kind() == Kind::Deadline);
    contexts.filter(is_late).count() as u64
}
