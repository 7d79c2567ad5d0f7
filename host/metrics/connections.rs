//! The metrics of connections with clients.

use super::register::{Registrar, counter, counters, gauge};
use prometheus::{IntCounter, IntCounterVec, IntGauge};

pub struct ConnectionMetrics {
    pub open: IntGauge,
    pub max: IntGauge,
    /// By reason.
    pub closed: IntCounterVec,
    pub refused: IntCounter,
    pub accept_errors: IntCounter,
}

impl ConnectionMetrics {
    pub(super) fn new(registrar: &Registrar) -> Self {
        ConnectionMetrics {
            open: gauge(registrar, "hostler_http_connections", "Open connections of all listeners."),
            max: gauge(
                registrar,
                "hostler_connections_max",
                "Connections that the public listeners may have open together.",
            ),
            closed: counters(
                registrar,
                "hostler_connections_closed_total",
                "Connections that the host closed while their clients had them open, by reason.",
                &["reason"],
            ),
            refused: counter(
                registrar,
                "hostler_connections_refused_total",
                "Connections refused unread because all were in use.",
            ),
            accept_errors: counter(
                registrar,
                "hostler_accept_errors_total",
                "Errors of accept, such as too many open files.",
            ),
        }
    }
}
