//! The prepared metrics of one executor: serving a call needs no look-up by label.

use crate::metrics::{Metrics, SeriesGuard, SeriesOf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// A worker that is held for longer than this after its call's deadline counts as overdue. Guests
/// stop within this time, ONNX Runtime only at the next node of its graph.
pub(in crate::executor) const OVERDUE_AFTER: Duration = Duration::from_millis(10);

/// The prepared metrics of one executor.
pub(in crate::executor) struct PoolMetrics {
    pub queue_wait: prometheus::Histogram,
    pub timeouts: prometheus::IntCounter,
    pub overloaded: prometheus::IntCounter,
    pub overdue: prometheus::IntCounter,
    pub batches: BatchMetrics,
    /// Also keeps the gauges that are exported for the executor.
    _series: SeriesGuard,
}

impl PoolMetrics {
    pub fn new(metrics: &Metrics, executor: &str) -> Self {
        let series = metrics.hold(SeriesOf::Executor(executor.into()));
        let label = [executor];
        PoolMetrics {
            queue_wait: metrics.executors.queue_wait.with_label_values(&label),
            timeouts: metrics.executors.timeouts.with_label_values(&label),
            overloaded: metrics.executors.overloaded.with_label_values(&label),
            overdue: metrics.executors.overdue.with_label_values(&label),
            batches: BatchMetrics {
                size: metrics.executors.batch_size.with_label_values(&label),
                reruns: metrics.executors.batch_reruns.with_label_values(&label),
                warned: AtomicBool::new(false),
            },
            _series: series,
        }
    }
}

/// The batch metrics of one executor.
pub(in crate::executor) struct BatchMetrics {
    pub size: prometheus::Histogram,
    pub reruns: prometheus::IntCounter,
    /// Whether the operator was warned of a model that cannot run in batches; this happens once.
    pub warned: AtomicBool,
}
