//! The metrics of requests, whichever protocol they use.

use super::register::{LATENCY_BUCKETS, counters, histograms};
use prometheus::{HistogramVec, IntCounterVec, Registry};

pub struct RequestMetrics {
    /// By model, version and HTTP status code.
    pub answered: IntCounterVec,
    /// By model and version.
    pub duration: HistogramVec,
    /// By kind of error.
    pub errors: IntCounterVec,
}

impl RequestMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        RequestMetrics {
            answered: counters(
                registry,
                "hostler_requests_total",
                "Requests answered, by model, version and HTTP status code.",
                &["model", "version", "code"],
            ),
            duration: histograms(
                registry,
                "hostler_request_duration_seconds",
                "Time from the decoded request to its answer.",
                &["model", "version"],
                &LATENCY_BUCKETS,
            ),
            errors: counters(
                registry,
                "hostler_errors_total",
                "Requests that failed, by kind of error.",
                &["kind"],
            ),
        }
    }
}
