//! The metrics of reloads and of the policy that is live.

use super::register::{Registrar, counter, counters, gauge};
use prometheus::{IntCounter, IntCounterVec, IntGauge};

pub struct ReloadMetrics {
    /// By outcome.
    pub outcomes: IntCounterVec,
    pub building: IntGauge,
    pub retries: IntCounter,
    pub panics: IntCounter,
    /// The generation of the live policy.
    pub generation: IntGauge,
    pub stale: IntGauge,
}

impl ReloadMetrics {
    pub(super) fn new(registrar: &Registrar) -> Self {
        ReloadMetrics {
            outcomes: counters(registrar, "hostler_reloads_total", "Reloads, by outcome.", &["outcome"]),
            building: gauge(registrar, "hostler_reload_building", "1 while a policy is read or loaded."),
            retries: counter(
                registrar,
                "hostler_reload_retries_total",
                "Reloads tried again because what went wrong may pass.",
            ),
            panics: counter(
                registrar,
                "hostler_reload_panics_total",
                "Panics of the host while it reloaded.",
            ),
            generation: gauge(registrar, "hostler_policy_generation", "The number of the running policy."),
            stale: gauge(
                registrar,
                "hostler_policy_stale",
                "1 while the files hold something that was refused and an older policy serves.",
            ),
        }
    }
}
