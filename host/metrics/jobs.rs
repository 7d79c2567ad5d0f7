//! The metrics of jobs.

use super::register::{Registrar, counter, counters, gauge, gauges, histogram};
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

/// Seconds: jobs take from milliseconds to hours.
const JOB_BUCKETS: [f64; 15] =
    [0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 21600.0];

pub struct JobMetrics {
    /// Jobs in the store, by state.
    pub kept: IntGaugeVec,
    /// Whether the store is open.
    pub store_up: IntGauge,
    pub damaged_records: IntCounter,
    /// Bytes that count against `store_mb`.
    pub store_bytes: IntGauge,
    pub ended: IntCounterVec,
    pub attempts: IntCounterVec,
    pub overdue: IntGauge,
    pub refusals: IntCounter,
    pub retries: IntCounter,
    pub interruptions: IntCounter,
    pub retries_exhausted: IntCounter,
    pub steps_reused: IntCounter,
    pub queue_wait: Histogram,
    pub duration: Histogram,
    /// Attempts to call webhooks, by outcome.
    pub webhook_attempts: IntCounterVec,
    /// Webhooks whose delivery has ended, by outcome.
    pub webhook_deliveries: IntCounterVec,
    pub webhooks_pending: IntGauge,
    pub webhook_seconds: Histogram,
}

impl JobMetrics {
    pub(super) fn new(registrar: &Registrar) -> Self {
        let counter = |name: &str, help: &str| counter(registrar, name, help);
        let histogram = |name: &str, help: &str| histogram(registrar, name, help, &JOB_BUCKETS);
        let counters = |name: &str, help: &str, label: &str| counters(registrar, name, help, &[label]);
        JobMetrics {
            kept: gauges(registrar, "hostler_jobs", "Jobs in the store, by state.", &["state"]),
            store_up: gauge(
                registrar,
                "hostler_job_store_up",
                "1 while the store of jobs is open, 0 while submissions are refused.",
            ),
            damaged_records: counter(
                "hostler_job_store_damaged_records_total",
                "Records of jobs that could not be read when the store was opened.",
            ),
            store_bytes: gauge(
                registrar,
                "hostler_job_store_bytes",
                "Bytes of inputs, results and records of jobs in the store.",
            ),
            ended: counters("hostler_jobs_total", "Jobs that have ended, by their final state.", "state"),
            attempts: counters("hostler_job_attempts_total", "Attempts that were made.", "outcome"),
            overdue: gauge(
                registrar,
                "hostler_job_attempts_overdue",
                "Attempts that were timed out or cancelled and still hold their worker.",
            ),
            refusals: counter(
                "hostler_job_refusals_total",
                "Attempts that were not admitted and will be made later.",
            ),
            retries: counter("hostler_job_retries_total", "Attempts after one that timed out."),
            interruptions: counter(
                "hostler_job_interruptions_total",
                "Attempts that had not ended when their host did.",
            ),
            retries_exhausted: counter(
                "hostler_job_retries_exhausted_total",
                "Jobs that were retried until no attempt was left.",
            ),
            steps_reused: counter(
                "hostler_job_steps_reused_total",
                "Steps of pipelines that did not run, because an earlier attempt at their job had run them.",
            ),
            queue_wait: histogram(
                "hostler_job_queue_wait_seconds",
                "Time from submission to the first attempt.",
            ),
            duration: histogram("hostler_job_duration_seconds", "Time from submission to the end."),
            webhook_attempts: counters(
                "hostler_webhook_attempts_total",
                "Attempts to call webhooks, by outcome.",
                "outcome",
            ),
            webhook_deliveries: counters(
                "hostler_webhook_deliveries_total",
                "Webhooks that were delivered or given up.",
                "outcome",
            ),
            webhooks_pending: gauge(
                registrar,
                "hostler_webhooks_pending",
                "Webhooks of ended jobs that are not delivered yet.",
            ),
            webhook_seconds: histogram(
                "hostler_webhook_duration_seconds",
                "Duration of attempts to call webhooks.",
            ),
        }
    }
}
