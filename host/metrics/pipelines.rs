//! The metrics of pipelines.

use super::register::{Registrar, histograms};
use prometheus::HistogramVec;

/// Seconds: a step takes from microseconds to minutes.
const STEP_BUCKETS: [f64; 14] =
    [0.000_05, 0.000_2, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0, 60.0];

pub struct PipelineMetrics {
    /// By pipeline, step and outcome.
    pub step: HistogramVec,
    /// By pipeline and step.
    pub queue: HistogramVec,
}

impl PipelineMetrics {
    pub(super) fn new(registrar: &Registrar) -> Self {
        let histogram = |name: &str, help: &str, labels: &[&str]| {
            histograms(registrar, name, help, labels, &STEP_BUCKETS)
        };
        PipelineMetrics {
            step: histogram(
                "hostler_pipeline_step_seconds",
                "Time that the steps of a pipeline took, without the time in which they waited for a place.",
                &["pipeline", "step", "outcome"],
            ),
            queue: histogram(
                "hostler_pipeline_step_queue_seconds",
                "Time in which the steps of a pipeline waited for a place.",
                &["pipeline", "step"],
            ),
        }
    }
}
