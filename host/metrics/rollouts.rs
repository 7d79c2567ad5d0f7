//! The metrics of rollouts: their stages, guards and shadow requests.

use super::register::{Registrar, counters, float_gauge, gauges};
use prometheus::{Gauge, IntCounterVec, IntGaugeVec};

pub struct RolloutMetrics {
    pub share: Gauge,
    pub stage: IntGaugeVec,
    pub rollbacks: IntCounterVec,
    /// By side of the rollout and outcome.
    pub generation_requests: IntCounterVec,
    pub shadow_requests: IntCounterVec,
    pub shadow_differences: IntCounterVec,
    pub shadow_faults: IntCounterVec,
    pub shadow_dropped: IntCounterVec,
    /// By outcome.
    pub guard_replays: IntCounterVec,
}

impl RolloutMetrics {
    pub(super) fn new(registrar: &Registrar) -> Self {
        let counter = |name: &str, help: &str, labels: &[&str]| counters(registrar, name, help, labels);
        RolloutMetrics {
            share: float_gauge(
                registrar,
                "hostler_rollout_share",
                "Percent of the requests that a candidate gets.",
            ),
            stage: gauges(
                registrar,
                "hostler_rollout_stage",
                "1 for the stage of a rollout: shadow, canary or watch.",
                &["stage"],
            ),
            rollbacks: rollbacks(registrar),
            generation_requests: counter(
                "hostler_generation_requests_total",
                "Calls of routes that a rollout judges: by side and outcome.",
                &["generation", "outcome"],
            ),
            shadow_requests: counter("hostler_shadow_requests_total", "Copies of requests compared.", &[]),
            shadow_differences: counter(
                "hostler_shadow_differences_total",
                "Copies whose answer was another one.",
                &[],
            ),
            shadow_faults: counter("hostler_shadow_faults_total", "Copies that failed.", &[]),
            shadow_dropped: counter("hostler_shadow_dropped_total", "Copies not run: busy.", &[]),
            guard_replays: counter(
                "hostler_guard_replays_total",
                "Failed requests that the version before was asked again.",
                &["outcome"],
            ),
        }
    }
}

/// Both series are there from the start, so that an alert sees the first rollback as an increase.
fn rollbacks(registrar: &Registrar) -> IntCounterVec {
    let rollbacks = counters(registrar, "hostler_rollbacks_total", "Rollbacks, by who asked.", &["by"]);
    for by in ["admin", "guard"] {
        rollbacks.with_label_values(&[by]);
    }
    rollbacks
}
