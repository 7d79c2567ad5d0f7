//! On whose behalf a request is made.

use crate::access::{Requester, Verb};
use smallvec::{SmallVec, smallvec};
use std::sync::Arc;

/// On whose behalf a request is made, and what it does.
pub struct Authority {
    pub requester: Requester,
    pub verb: Verb,
    /// The tenant of work that was admitted earlier; `None` for a request, whose requester has one.
    admitted: Option<Arc<str>>,
}

impl Authority {
    /// The host's own requests, such as the attempts of jobs, which were checked when they were
    /// submitted.
    pub fn host() -> Self {
        Authority::new(Requester::unrestricted(), Verb::Predict)
    }

    pub fn new(requester: Requester, verb: Verb) -> Self {
        Authority { requester, verb, admitted: None }
    }

    /// The host's work on what a tenant has submitted. It has the tenant's share of executors, and
    /// does not count against its rates again. An empty name is no tenant.
    pub fn work_of(tenant: &Arc<str>) -> Self {
        Authority { admitted: Some(Arc::clone(tenant)), ..Authority::host() }
    }

    /// Whether the limits of the tenant have admitted it earlier.
    pub(super) fn is_admitted(&self) -> bool {
        self.admitted.is_some()
    }

    /// Returns the names by which the tenant may be known.
    pub(super) fn tenant_names(&self) -> SmallVec<[Arc<str>; 2]> {
        match &self.admitted {
            Some(tenant) if tenant.is_empty() => SmallVec::new(),
            Some(tenant) => smallvec![Arc::clone(tenant)],
            None => self.requester.tenant_names(),
        }
    }
}
