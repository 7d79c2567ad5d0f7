//! What reloads do beside their outcomes.

use super::register;
use prometheus::{IntCounter, IntGauge, Registry};

pub struct ReloadMetrics {
    pub building: IntGauge,
    pub retries: IntCounter,
    pub panics: IntCounter,
}

impl ReloadMetrics {
    pub fn new(registry: &Registry) -> Self {
        let counter = |name: &str, help: &str| register(registry, IntCounter::new(name, help));
        ReloadMetrics {
            building: register(
                registry,
                IntGauge::new("hostler_reload_building", "1 while a policy is read or loaded."),
            ),
            retries: counter(
                "hostler_reload_retries_total",
                "Reloads tried again because what went wrong may pass.",
            ),
            panics: counter("hostler_reload_panics_total", "Panics of the host while it reloaded."),
        }
    }
}
