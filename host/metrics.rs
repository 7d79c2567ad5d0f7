//! Every metric of the host, in one place, for Prometheus.
//!
//! Labels are names from the policy, never from a request; what is unknown counts as `_unknown`.

mod count;
mod families;
mod jobs;
mod pipelines;
mod reload;

use crate::output;
pub use count::Count;
pub use families::{Change, Definition, Families, Family, FamilyKind, Refusal};
pub use jobs::JobMetrics;
pub use pipelines::PipelineMetrics;
use prometheus::proto::MetricFamily;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};
pub use reload::ReloadMetrics;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Seconds; a small model takes tens of microseconds, a large one seconds.
const LATENCY_BUCKETS: [f64; 16] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    10.0,
];

/// Seconds; a Rust plugin takes tenths, one in Python ten on an idle machine.
const COMPILE_BUCKETS: [f64; 9] = [0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0];

/// Requests of one run.
const BATCH_BUCKETS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

const INSTANCES: &str = "hostler_plugin_instances";

/// Label value for models that no policy knows.
pub const UNKNOWN: &str = "_unknown";

pub struct Metrics {
    registry: Registry,
    pub requests: IntCounterVec,
    pub request_duration: HistogramVec,
    pub errors: IntCounterVec,
    pub executor_workers: IntGaugeVec,
    pub executor_busy: IntGaugeVec,
    pub executor_inflight: IntGaugeVec,
    pub executor_queue_length: IntGaugeVec,
    pub executor_queue_capacity: IntGaugeVec,
    pub executor_queue_wait: HistogramVec,
    pub executor_timeouts: IntCounterVec,
    pub executor_overloaded: IntCounterVec,
    pub executor_overdue: IntCounterVec,
    pub executor_fallbacks: IntCounterVec,
    pub triton_connected: IntGaugeVec,
    pub executor_batch_size: HistogramVec,
    pub executor_batch_reruns: IntCounterVec,
    pub plugin_calls: IntCounterVec,
    pub plugin_traps: IntCounterVec,
    pub plugin_instantiate: Histogram,
    pub plugin_instances: IntGaugeVec,
    pub plugin_compiles: IntCounterVec,
    pub plugin_compile_seconds: Histogram,
    pub plugin_held_bytes: IntGaugeVec,
    pub plugin_state_bytes: IntGaugeVec,
    pub plugin_events: IntCounterVec,
    pub plugin_values: GaugeVec,
    pub plugin_http_calls: IntCounterVec,
    pub plugin_http_seconds: HistogramVec,
    pub plugin_http_in_flight: IntGaugeVec,
    pub reloads: IntCounterVec,
    pub reload: ReloadMetrics,
    pub policy_generation: IntGauge,
    pub policy_stale: IntGauge,
    pub rollout_share: Gauge,
    pub rollout_stage: IntGaugeVec,
    pub rollbacks: IntCounterVec,
    pub generation_requests: IntCounterVec,
    pub shadow_requests: IntCounterVec,
    pub shadow_differences: IntCounterVec,
    pub shadow_faults: IntCounterVec,
    pub shadow_dropped: IntCounterVec,
    pub guard_replays: IntCounterVec,
    pub connections: IntGauge,
    pub connections_max: IntGauge,
    pub connections_closed: IntCounterVec,
    pub connections_refused: IntCounter,
    pub accept_errors: IntCounter,
    pub buffered_bytes: IntGauge,
    pub transfers_aborted: IntCounterVec,
    pub jobs: JobMetrics,
    pub pipelines: PipelineMetrics,
    plugins: families::Plugins,
    uptime: Gauge,
    started: std::time::Instant,
}

impl Metrics {
    pub fn new() -> Self {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            register(&registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            register(&registry, IntGaugeVec::new(Opts::new(name, help), labels))
        };
        let gauge = |name: &str, help: &str| register(&registry, IntGauge::new(name, help));
        let histogram = |name: &str, help: &str, labels: &[&str]| {
            let options = HistogramOpts::new(name, help).buckets(LATENCY_BUCKETS.to_vec());
            register(&registry, HistogramVec::new(options, labels))
        };
        let build_info: GaugeVec = register(
            &registry,
            GaugeVec::new(Opts::new("hostler_build_info", "1, with the build in its labels."), &["version"]),
        );
        build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
        let instantiate =
            HistogramOpts::new("hostler_plugin_instantiate_seconds", "Time to make a plugin instance.")
                .buckets(LATENCY_BUCKETS.to_vec());
        for queue in [output::log(), output::stdout()] {
            register(&registry, Ok(queue.dropped().clone()));
        }
        let compile = HistogramOpts::new("hostler_plugin_compile_seconds", "Time to compile a plugin.")
            .buckets(COMPILE_BUCKETS.to_vec());
        let executor = ["executor"];
        Metrics {
            requests: counter(
                "hostler_requests_total",
                "Requests answered, by model, version and HTTP status code.",
                &["model", "version", "code"],
            ),
            request_duration: histogram(
                "hostler_request_duration_seconds",
                "Time from the decoded request to its answer.",
                &["model", "version"],
            ),
            errors: counter("hostler_errors_total", "Requests that failed, by kind of error.", &["kind"]),
            executor_workers: gauges("hostler_executor_workers", "Workers of an executor.", &executor),
            executor_busy: gauges("hostler_executor_busy", "Workers that run a call now.", &executor),
            executor_inflight: gauges(
                "hostler_executor_inflight",
                "Calls admitted and not ended: queued or running.",
                &executor,
            ),
            executor_queue_length: gauges(
                "hostler_executor_queue_length",
                "Admissions that wait for a worker.",
                &executor,
            ),
            executor_queue_capacity: gauges(
                "hostler_executor_queue_capacity",
                "Admissions that may wait for a worker.",
                &executor,
            ),
            executor_queue_wait: histogram(
                "hostler_executor_queue_wait_seconds",
                "Time from admission to a worker.",
                &executor,
            ),
            executor_timeouts: counter(
                "hostler_executor_timeouts_total",
                "Calls that ended by their deadline.",
                &executor,
            ),
            executor_overloaded: counter(
                "hostler_executor_overloaded_total",
                "Calls refused because the queue was full.",
                &executor,
            ),
            executor_overdue: counter(
                "hostler_executor_overdue_total",
                "Calls that held a worker for more than 10 ms past their deadline.",
                &executor,
            ),
            executor_fallbacks: counter(
                "hostler_executor_fallbacks_total",
                "Calls that went to the inner executor because the plugin of a custom one failed.",
                &executor,
            ),
            triton_connected: gauges(
                "hostler_triton_connected",
                "1 while the remote of a triton executor is there.",
                &executor,
            ),
            executor_batch_size: register(
                &registry,
                HistogramVec::new(
                    HistogramOpts::new(
                        "hostler_executor_batch_size",
                        "Requests of one run, of models with max_batch_size.",
                    )
                    .buckets(BATCH_BUCKETS.to_vec()),
                    &executor,
                ),
            ),
            executor_batch_reruns: counter(
                "hostler_executor_batch_reruns_total",
                "Batches whose run failed and whose requests were run again, each alone.",
                &executor,
            ),
            plugin_calls: counter("hostler_plugin_calls_total", "Calls into a plugin.", &["plugin"]),
            plugin_traps: counter(
                "hostler_plugin_traps_total",
                "Plugin instances discarded after a trap, an overrun or a cancelled wait.",
                &["plugin"],
            ),
            plugin_instantiate: register(&registry, Histogram::with_opts(instantiate)),
            plugin_instances: gauges(INSTANCES, "Plugin instances alive.", &["plugin"]),
            plugin_compiles: counter(
                "hostler_plugin_compiles_total",
                "Plugins loaded: compiled, cached, rejected, abandoned or failed.",
                &["outcome"],
            ),
            plugin_compile_seconds: register(&registry, Histogram::with_opts(compile)),
            plugin_held_bytes: gauges(
                "hostler_plugin_held_bytes",
                "Bytes of tensors and results that a plugin's instances hold in the host.",
                &["plugin"],
            ),
            plugin_state_bytes: gauges(
                "hostler_plugin_state_bytes",
                "Bytes that a plugin remembers in its state.",
                &["plugin"],
            ),
            plugin_events: counter(
                "hostler_plugin_events_total",
                "What plugins count themselves.",
                &["plugin", "name"],
            ),
            plugin_values: register(
                &registry,
                GaugeVec::new(
                    Opts::new("hostler_plugin_value", "What plugins measure themselves."),
                    &["plugin", "name"],
                ),
            ),
            plugin_http_calls: counter(
                "hostler_plugin_http_calls_total",
                "Calls of plugins to HTTP servers: answered, or the kind of error.",
                &["plugin", "outcome"],
            ),
            plugin_http_seconds: histogram(
                "hostler_plugin_http_seconds",
                "Time from a plugin's call to an HTTP server to the end of the answer.",
                &["plugin"],
            ),
            plugin_http_in_flight: gauges(
                "hostler_plugin_http_in_flight",
                "Calls of plugins to HTTP servers under way.",
                &["plugin"],
            ),
            reloads: counter("hostler_reloads_total", "Reloads, by outcome.", &["outcome"]),
            reload: ReloadMetrics::new(&registry),
            policy_generation: gauge("hostler_policy_generation", "The number of the running policy."),
            policy_stale: gauge(
                "hostler_policy_stale",
                "1 while the files hold something that was refused and an older policy serves.",
            ),
            rollout_share: register(
                &registry,
                Gauge::new("hostler_rollout_share", "Percent of the requests that a candidate gets."),
            ),
            rollout_stage: gauges(
                "hostler_rollout_stage",
                "1 for the stage of a rollout: shadow, canary or watch.",
                &["stage"],
            ),
            rollbacks: counter("hostler_rollbacks_total", "Rollbacks, by who asked.", &["by"]),
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
            connections: gauge("hostler_http_connections", "Open connections of all listeners."),
            connections_max: gauge(
                "hostler_connections_max",
                "Connections that the public listeners may have open together.",
            ),
            connections_closed: counter(
                "hostler_connections_closed_total",
                "Connections that the host closed while their clients had them open, by reason.",
                &["reason"],
            ),
            connections_refused: register(
                &registry,
                IntCounter::new(
                    "hostler_connections_refused_total",
                    "Connections refused unread because all were in use.",
                ),
            ),
            accept_errors: register(
                &registry,
                IntCounter::new(
                    "hostler_accept_errors_total",
                    "Errors of accept, such as too many open files.",
                ),
            ),
            buffered_bytes: gauge(
                "hostler_buffered_bytes",
                "Bytes of requests and answers that the host holds for its clients.",
            ),
            transfers_aborted: counter(
                "hostler_transfers_aborted_total",
                "Requests and answers that were given up because their clients are slow, by reason.",
                &["direction", "reason"],
            ),
            jobs: JobMetrics::new(&registry),
            pipelines: PipelineMetrics::new(&registry),
            plugins: families::Plugins::default(),
            uptime: register(
                &registry,
                Gauge::new("hostler_uptime_seconds", "Seconds since the process started."),
            ),
            started: std::time::Instant::now(),
            registry,
        }
    }

    /// What a generation of this plugin measures itself.
    pub fn families(&self, plugin: &Arc<str>) -> Families {
        self.plugins.families(plugin)
    }

    /// The text exposition format, without what belongs to executors and plugins that are not served any more.
    pub fn render(&self, served: &ExportedModels<'_>) -> String {
        self.uptime.set(self.started.elapsed().as_secs_f64());
        let mut families = self.registry.gather();
        families.iter_mut().for_each(|family| served.keep(family));
        families.retain(|family| !family.get_metric().is_empty());
        families.extend(families::collect(served.plugins.iter().copied()));
        TextEncoder::new()
            .encode_to_string(&families)
            .expect("invariant: names and labels were checked when registered")
    }
}

/// What the policies have that serve now. What an earlier one had is not shown, and goes on where it was if it comes
/// back.
#[derive(Default)]
pub struct ExportedModels<'a> {
    pub executors: BTreeSet<&'a str>,
    /// The first of two of one name is the one that counts.
    pub plugins: Vec<&'a Families>,
}

impl ExportedModels<'_> {
    fn keep(&self, family: &mut MetricFamily) {
        let instances = family.name() == INSTANCES;
        family.mut_metric().retain(|metric| {
            // As long as there are any.
            (instances && metric.get_gauge().get_value() > 0.0)
                || metric.get_label().iter().all(|label| match label.name() {
                    "executor" => self.executors.contains(label.value()),
                    "plugin" => self.plugins.iter().any(|plugin| &**plugin.plugin() == label.value()),
                    _ => true,
                })
        });
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}

fn register<C: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    collector: prometheus::Result<C>,
) -> C {
    let collector = collector.expect("invariant: metric names are constants");
    registry.register(Box::new(collector.clone())).expect("invariant: each metric is registered once");
    collector
}
