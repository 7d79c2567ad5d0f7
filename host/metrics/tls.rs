//! The metrics of TLS.

use super::register::{Registrar, counters, gauges};
use prometheus::{IntCounterVec, IntGaugeVec};

pub struct TlsMetrics {
    /// By listener and outcome.
    pub handshakes: IntCounterVec,
    /// By listener and outcome.
    pub reloads: IntCounterVec,
    /// By listener.
    pub expiry: IntGaugeVec,
}

impl TlsMetrics {
    pub(super) fn new(registrar: &Registrar) -> Self {
        TlsMetrics {
            handshakes: counters(
                registrar,
                "hostler_tls_handshakes_total",
                "TLS handshakes, by listener and outcome: completed, failed, late, or plain for a client without TLS.",
                &["listener", "outcome"],
            ),
            reloads: counters(
                registrar,
                "hostler_tls_reloads_total",
                "Changes of the files of certificates and keys, by listener and outcome: applied or rejected.",
                &["listener", "outcome"],
            ),
            expiry: gauges(
                registrar,
                "hostler_tls_certificate_expiry_timestamp_seconds",
                "When the certificate of a listener expires, in seconds since 1970.",
                &["listener"],
            ),
        }
    }
}
