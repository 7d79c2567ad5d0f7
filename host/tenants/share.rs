//! The tenant of a call, with its weight.

use super::metrics::Refused;
use super::tenant::Tenant;
use std::num::NonZeroU32;
use std::sync::Arc;

/// On whose account a call is made. Calls of the host itself, and all calls where callers are not
/// told apart, are of no tenant, and share one lane of weight 1.
#[derive(Clone)]
pub struct TenantShare {
    tenant: Option<Arc<Tenant>>,
    pub weight: NonZeroU32,
}

impl Default for TenantShare {
    fn default() -> Self {
        TenantShare { tenant: None, weight: NonZeroU32::MIN }
    }
}

impl TenantShare {
    pub fn new(tenant: Arc<Tenant>, weight: NonZeroU32) -> Self {
        TenantShare { tenant: Some(tenant), weight }
    }

    /// Returns what tells tenants apart.
    pub fn key(&self) -> Option<Arc<str>> {
        self.tenant.as_ref().map(|tenant| Arc::clone(tenant.name()))
    }

    pub fn name(&self) -> Option<&str> {
        self.tenant.as_ref().map(|tenant| &**tenant.name())
    }

    /// Counts a refusal of the tenant for this reason.
    pub fn count(&self, why: Refused) {
        if let Some(tenant) = &self.tenant {
            tenant.count(why);
        }
    }
}
