//! The metrics of requests and answers while they are transferred.

use super::register::{Registrar, counters, gauge};
use prometheus::{IntCounterVec, IntGauge};

pub struct TransferMetrics {
    pub buffered_bytes: IntGauge,
    /// By direction and reason.
    pub aborted: IntCounterVec,
}

impl TransferMetrics {
    pub(super) fn new(registrar: &Registrar) -> Self {
        TransferMetrics {
            buffered_bytes: gauge(
                registrar,
                "hostler_buffered_bytes",
                "Bytes of requests and answers that the host holds for its clients.",
            ),
            aborted: counters(
                registrar,
                "hostler_transfers_aborted_total",
                "Requests and answers that were given up because their clients are slow, by reason.",
                &["direction", "reason"],
            ),
        }
    }
}
