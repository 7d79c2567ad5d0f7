//! The metrics of access rules.

use super::register::{Registrar, counter, gauge};
use prometheus::{IntCounter, IntGauge};

pub struct AccessMetrics {
    pub generation: IntGauge,
    pub stale: IntGauge,
    pub refused_credentials: IntCounter,
}

impl AccessMetrics {
    pub(super) fn new(registrar: &Registrar) -> Self {
        AccessMetrics {
            generation: gauge(
                registrar,
                "hostler_access_generation",
                "Changes of the access rules that were applied since the start; 0 without rules.",
            ),
            stale: gauge(
                registrar,
                "hostler_access_stale",
                "1 if the files of access rules cannot be used, so that earlier ones are in force.",
            ),
            refused_credentials: counter(
                registrar,
                "hostler_access_refused_credentials_total",
                "Keys and tokens that were not accepted.",
            ),
        }
    }
}
