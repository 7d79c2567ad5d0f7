//! Tenants: who shares the host, how much each may use, and how what they share is divided.
//!
//! A request belongs to one tenant: the one that a trusted proxy names, or the caller by the access
//! rules. Rates and limits of a [`Tenant`] refuse a
//! request before its body is read. Inside the host,
//! [`FairQueue`] divides executors by weight.

mod fair_queue;
mod limits;
mod metrics;
mod name;
mod rate;
mod registry;
mod share;
mod slots;
mod table;
mod tenant;

pub use fair_queue::{FairQueue, Lane};
pub use limits::TenantLimits;
pub use metrics::{Refused, TenantMetrics};
pub use name::{NAME_HINT, check_name};
pub use rate::Rate;
pub use registry::{TenantAccount, TenantRegistry};
pub use share::TenantShare;
pub use slots::{SHARE_TIME, SharedSlots, TenantSlot};
pub use table::{TenantEntry, TenantTable};
pub use tenant::{Tenant, TenantGuard};

/// Returns the share of a tenant that counts into series of its own.
#[cfg(test)]
pub fn test_share(name: &str, weight: u32) -> TenantShare {
    let counter = || prometheus::IntCounter::new("c", "For a test.").unwrap();
    let gauge = || prometheus::IntGauge::new("g", "For a test.").unwrap();
    let metrics = TenantMetrics {
        requests: counter(),
        rows: counter(),
        in_flight: gauge(),
        bytes: gauge(),
        refused: Refused::ALL.map(|_| counter()),
        held: Box::new(()),
    };
    let tenant = std::sync::Arc::new(Tenant::new(name.into(), &std::sync::Arc::new(metrics)));
    TenantShare::new(tenant, std::num::NonZeroU32::new(weight).unwrap())
}
