//! Makes the table of tenants of a plan.

use crate::metrics::{Metrics, OTHER_TENANTS};
use crate::policy::plan::TenantsPlan;
use crate::tenants::{TenantEntry, TenantLimits, TenantTable};
use std::sync::Arc;

pub(super) fn table(plan: &TenantsPlan, metrics: &Metrics) -> TenantTable {
    let entry = |label: &str, name: Option<&Arc<str>>, limits: &TenantLimits| TenantEntry {
        name: name.cloned(),
        limits: Arc::new(limits.clone()),
        metrics: Arc::new(metrics.tenant(label)),
    };
    let named = plan
        .named
        .iter()
        .map(|(name, tenant)| (entry(name, Some(name), &tenant.limits), tenant.callers.clone()));
    TenantTable::new(named.collect(), entry(OTHER_TENANTS, None, &plan.others))
}
