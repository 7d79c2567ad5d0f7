//! What is counted for a tenant.

use prometheus::{IntCounter, IntGauge};

/// Why a request of a tenant is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    Requests,
    Rows,
    InFlight,
    Bytes,
    /// It waited in a full queue, of which its tenant had more than its share.
    Evicted,
    /// Its tenant holds its share of slots.
    Share,
}

impl Refused {
    pub const ALL: [Refused; 6] = [
        Refused::Requests,
        Refused::Rows,
        Refused::InFlight,
        Refused::Bytes,
        Refused::Evicted,
        Refused::Share,
    ];

    /// Returns the label of metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Refused::Requests => "requests",
            Refused::Rows => "rows",
            Refused::InFlight => "in_flight",
            Refused::Bytes => "bytes",
            Refused::Evicted => "evicted",
            Refused::Share => "share",
        }
    }
}

/// The series of one tenant, or of all that the manifest does not name.
pub struct TenantMetrics {
    pub requests: IntCounter,
    pub rows: IntCounter,
    pub in_flight: IntGauge,
    pub bytes: IntGauge,
    /// Indexed by `Refused`.
    pub refused: [IntCounter; Refused::ALL.len()],
    /// Keeps the series.
    pub held: Box<dyn Send + Sync>,
}

impl TenantMetrics {
    pub(super) fn refused(&self, why: Refused) {
        self.refused[why as usize].inc();
    }
}
