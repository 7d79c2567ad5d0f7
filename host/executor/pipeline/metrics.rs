//! Metrics of the steps of a pipeline: how long they take, and how they end.

use crate::error::{Kind, Result};
use crate::metrics::{Metrics, SeriesGuard, SeriesOf};
use prometheus::Histogram;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepOutcome {
    Ok,
    Error,
    Skipped,
    Cancelled,
    /// Its outputs are those of an earlier attempt at the same job.
    Reused,
}

impl StepOutcome {
    /// The outcomes of steps that were decided in this request; `Reused` has no metrics of a step.
    pub const ALL: [StepOutcome; 4] =
        [StepOutcome::Ok, StepOutcome::Error, StepOutcome::Skipped, StepOutcome::Cancelled];

    pub(super) fn of<T>(ended: &Result<T>) -> Self {
        match ended {
            Ok(_) => StepOutcome::Ok,
            Err(error) if error.kind() == Kind::Cancelled => StepOutcome::Cancelled,
            Err(_) => StepOutcome::Error,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            StepOutcome::Ok => "ok",
            StepOutcome::Error => "error",
            StepOutcome::Skipped => "skipped",
            StepOutcome::Cancelled => "cancelled",
            StepOutcome::Reused => "reused",
        }
    }
}

/// The time series of one step.
pub struct StepMetrics {
    outcomes: [Histogram; 4],
    queue: Histogram,
    _series: SeriesGuard,
}

impl StepMetrics {
    pub fn new(metrics: &Metrics, pipeline: &str, step: &str) -> Self {
        let series = metrics.hold(SeriesOf::Step { pipeline: pipeline.into(), step: step.into() });
        let outcomes = StepOutcome::ALL
            .map(|outcome| metrics.pipelines.step.with_label_values(&[pipeline, step, outcome.as_str()]));
        let queue = metrics.pipelines.queue.with_label_values(&[pipeline, step]);
        StepMetrics { outcomes, queue, _series: series }
    }

    pub(super) fn record(&self, outcome: StepOutcome, time: Duration, queue: Duration) {
        let Some(histogram) = self.outcomes.get(outcome as usize) else { return };
        histogram.observe(time.as_secs_f64());
        if outcome != StepOutcome::Skipped {
            self.queue.observe(queue.as_secs_f64());
        }
    }

    /// Returns how often the step had this outcome, and the sum of the times in seconds.
    pub fn total(&self, outcome: StepOutcome) -> (u64, f64) {
        let histogram = self.outcomes.get(outcome as usize);
        histogram.map_or((0, 0.0), |histogram| (histogram.get_sample_count(), histogram.get_sample_sum()))
    }

    /// Returns the sum of the times in seconds for which runs waited to begin.
    pub fn queued(&self) -> f64 {
        self.queue.get_sample_sum()
    }
}
