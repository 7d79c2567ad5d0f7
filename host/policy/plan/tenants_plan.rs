//! The tenants that a policy knows.

use crate::tenants::{Rate, TenantLimits};
use std::collections::BTreeMap;
use std::sync::Arc;

/// `[tenants]`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TenantsPlan {
    pub named: BTreeMap<Arc<str>, TenantPlan>,
    /// For every other tenant.
    pub others: TenantLimits,
}

#[derive(Clone, Debug, PartialEq)]
pub struct TenantPlan {
    /// The names of its callers.
    pub callers: Vec<Arc<str>>,
    pub limits: TenantLimits,
}

/// Returns limits as attributes with their values.
pub(in crate::policy) fn described(limits: &TenantLimits) -> Vec<(&'static str, String)> {
    let TenantLimits { weight, requests, rows, max_in_flight, max_in_flight_bytes } = limits;
    let mut entries = vec![("weight", weight.to_string())];
    for (rate, per_s, burst) in
        [(requests, "requests_per_s", "burst_requests"), (rows, "rows_per_s", "burst_rows")]
    {
        if let Some(rate) = rate {
            let Rate { per_s: number, burst: most } = rate;
            entries.extend([(per_s, number.to_string()), (burst, most.to_string())]);
        }
    }
    entries.extend(max_in_flight.map(|max| ("max_in_flight", max.to_string())));
    entries.extend(max_in_flight_bytes.map(|bytes| ("max_in_flight_mb", (bytes >> 20).to_string())));
    entries
}
