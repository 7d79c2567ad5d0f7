//! The metrics of tenants. Tenants that the manifest does not name share the label `_other`.

use super::register::{Registrar, counters, gauges};
use super::series::SeriesGuard;
use crate::tenants::{Refused, TenantMetrics};
use prometheus::{IntCounterVec, IntGaugeVec};

/// The label of tenants without a table of their own.
pub const OTHER: &str = "_other";

pub struct TenantsMetrics {
    requests: IntCounterVec,
    rows: IntCounterVec,
    in_flight: IntGaugeVec,
    bytes: IntGaugeVec,
    refused: IntCounterVec,
}

impl TenantsMetrics {
    pub(super) fn new(registrar: &Registrar) -> Self {
        let label = ["tenant"];
        TenantsMetrics {
            requests: counters(
                registrar,
                "hostler_tenant_requests_total",
                "Requests of a tenant that its limits of requests admitted.",
                &label,
            ),
            rows: counters(
                registrar,
                "hostler_tenant_rows_total",
                "Rows of the inputs of a tenant that its limit of rows admitted.",
                &label,
            ),
            in_flight: gauges(
                registrar,
                "hostler_tenant_in_flight",
                "Requests of a tenant that have begun and not ended.",
                &label,
            ),
            bytes: gauges(
                registrar,
                "hostler_tenant_in_flight_bytes",
                "Bytes of request bodies that the host holds for a tenant.",
                &label,
            ),
            refused: counters(
                registrar,
                "hostler_tenant_refused_total",
                "Requests of a tenant that were refused, by the limit or share that was used up.",
                &["tenant", "reason"],
            ),
        }
    }

    /// Returns the series of a tenant, which stay for as long as the guard.
    pub(super) fn of(&self, tenant: &str, guard: SeriesGuard) -> TenantMetrics {
        let label = [tenant];
        TenantMetrics {
            requests: self.requests.with_label_values(&label),
            rows: self.rows.with_label_values(&label),
            in_flight: self.in_flight.with_label_values(&label),
            bytes: self.bytes.with_label_values(&label),
            refused: Refused::ALL.map(|why| self.refused.with_label_values(&[tenant, why.as_str()])),
            held: Box::new(guard),
        }
    }
}
