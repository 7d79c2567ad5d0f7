//! The metrics of requests, whichever protocol they use.

use super::register::{LATENCY_BUCKETS, Registrar, counters, histograms};
use prometheus::{HistogramVec, IntCounterVec};

/// The label value for models that no policy knows.
pub const UNKNOWN: &str = "_unknown";

pub struct RequestMetrics {
    /// By model, version and HTTP status code.
    pub answered: IntCounterVec,
    /// By model and version.
    pub duration: HistogramVec,
    /// By kind of error.
    pub errors: IntCounterVec,
}

impl RequestMetrics {
    pub(super) fn new(registrar: &Registrar) -> Self {
        RequestMetrics {
            answered: counters(
                registrar,
                "hostler_requests_total",
                "Requests answered, by model, version and HTTP status code.",
                &["model", "version", "code"],
            ),
            duration: histograms(
                registrar,
                "hostler_request_duration_seconds",
                "Time from the decoded request to its answer.",
                &["model", "version"],
                &LATENCY_BUCKETS,
            ),
            errors: counters(
                registrar,
                "hostler_errors_total",
                "Requests that failed, by kind of error.",
                &["kind"],
            ),
        }
    }
}
