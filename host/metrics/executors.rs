//! The metrics of executors, labelled with the executor's name.

use super::register::{LATENCY_BUCKETS, Registrar, counters, float_gauges, gauges, histograms};
use prometheus::{GaugeVec, HistogramVec, IntCounterVec, IntGaugeVec};

/// Buckets for the number of requests in one run.
const BATCH_BUCKETS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

pub struct ExecutorMetrics {
    pub workers: IntGaugeVec,
    pub busy: IntGaugeVec,
    pub inflight: IntGaugeVec,
    pub queue_length: IntGaugeVec,
    pub queue_capacity: IntGaugeVec,
    pub saturation: GaugeVec,
    pub queue_wait: HistogramVec,
    pub timeouts: IntCounterVec,
    pub overloaded: IntCounterVec,
    pub overdue: IntCounterVec,
    pub fallbacks: IntCounterVec,
    pub triton_connected: IntGaugeVec,
    pub batch_size: HistogramVec,
    pub batch_reruns: IntCounterVec,
}

impl ExecutorMetrics {
    pub(super) fn new(registrar: &Registrar) -> Self {
        let executor = ["executor"];
        let counter = |name: &str, help: &str| counters(registrar, name, help, &executor);
        let gauge = |name: &str, help: &str| gauges(registrar, name, help, &executor);
        ExecutorMetrics {
            workers: gauge("hostler_executor_workers", "Workers of an executor."),
            busy: gauge("hostler_executor_busy", "Workers that run a call now."),
            inflight: gauge("hostler_executor_inflight", "Calls admitted and not ended: queued or running."),
            queue_length: gauge("hostler_executor_queue_length", "Admissions that wait for a worker."),
            queue_capacity: gauge(
                "hostler_executor_queue_capacity",
                "Admissions that may wait for a worker.",
            ),
            saturation: float_gauges(
                registrar,
                "hostler_executor_saturation",
                "Busy workers and queued admissions, over workers and queue capacity: 1 if new work is refused.",
                &executor,
            ),
            queue_wait: histograms(
                registrar,
                "hostler_executor_queue_wait_seconds",
                "Time from admission to a worker.",
                &executor,
                &LATENCY_BUCKETS,
            ),
            timeouts: counter("hostler_executor_timeouts_total", "Calls that ended by their deadline."),
            overloaded: counter(
                "hostler_executor_overloaded_total",
                "Calls refused because the queue was full.",
            ),
            overdue: counter(
                "hostler_executor_overdue_total",
                "Calls that held a worker for more than 10 ms past their deadline.",
            ),
            fallbacks: counter(
                "hostler_executor_fallbacks_total",
                "Calls that went to the inner executor because the plugin of a custom one failed.",
            ),
            triton_connected: gauge(
                "hostler_triton_connected",
                "1 while the remote of a triton executor is there.",
            ),
            batch_size: histograms(
                registrar,
                "hostler_executor_batch_size",
                "Requests of one run, of models with max_batch_size.",
                &executor,
                &BATCH_BUCKETS,
            ),
            batch_reruns: counter(
                "hostler_executor_batch_reruns_total",
                "Batches whose run failed and whose requests were run again, each alone.",
            ),
        }
    }
}
