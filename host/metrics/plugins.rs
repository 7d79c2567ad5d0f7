//! The host's metrics of plugins. The metrics that plugins define themselves are in `families`.

use super::register::{LATENCY_BUCKETS, Registrar, counters, float_gauges, gauges, histogram, histograms};
use prometheus::{GaugeVec, Histogram, HistogramVec, IntCounterVec, IntGaugeVec};

/// Seconds: a Rust plugin takes tenths of a second, a Python plugin ten seconds on an idle machine.
const COMPILE_BUCKETS: [f64; 9] = [0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0];

pub(super) const INSTANCES: &str = "hostler_plugin_instances";

pub struct PluginHostMetrics {
    pub calls: IntCounterVec,
    pub traps: IntCounterVec,
    pub instantiate: Histogram,
    pub instances: IntGaugeVec,
    /// By outcome.
    pub compiles: IntCounterVec,
    pub compile_seconds: Histogram,
    pub held_bytes: IntGaugeVec,
    /// Linear memory of all instances.
    pub memory_bytes: IntGaugeVec,
    /// The most linear memory that one instance has had.
    pub memory_largest_bytes: IntGaugeVec,
    pub state_bytes: IntGaugeVec,
    /// By plugin and the name that the plugin chooses.
    pub events: IntCounterVec,
    /// By plugin and the name that the plugin chooses.
    pub values: GaugeVec,
    /// By plugin and outcome.
    pub http_calls: IntCounterVec,
    pub http_seconds: HistogramVec,
    pub http_in_flight: IntGaugeVec,
}

impl PluginHostMetrics {
    pub(super) fn new(registrar: &Registrar) -> Self {
        let counter = |name: &str, help: &str, labels: &[&str]| counters(registrar, name, help, labels);
        let gauge = |name: &str, help: &str| gauges(registrar, name, help, &["plugin"]);
        PluginHostMetrics {
            calls: counter("hostler_plugin_calls_total", "Calls into a plugin.", &["plugin"]),
            traps: counter(
                "hostler_plugin_traps_total",
                "Plugin instances discarded after a trap, an overrun or a cancelled wait.",
                &["plugin"],
            ),
            instantiate: histogram(
                registrar,
                "hostler_plugin_instantiate_seconds",
                "Time to make a plugin instance.",
                &LATENCY_BUCKETS,
            ),
            instances: gauge(INSTANCES, "Plugin instances alive."),
            compiles: counter(
                "hostler_plugin_compiles_total",
                "Plugins loaded: compiled, cached, rejected, abandoned or failed.",
                &["outcome"],
            ),
            compile_seconds: histogram(
                registrar,
                "hostler_plugin_compile_seconds",
                "Time to compile a plugin.",
                &COMPILE_BUCKETS,
            ),
            held_bytes: gauge(
                "hostler_plugin_held_bytes",
                "Bytes of tensors and results that a plugin's instances hold in the host.",
            ),
            memory_bytes: gauge(
                "hostler_plugin_memory_bytes",
                "Linear memory of a plugin's instances that are alive.",
            ),
            memory_largest_bytes: gauge(
                "hostler_plugin_memory_largest_bytes",
                "The most linear memory that one instance of a plugin has had.",
            ),
            state_bytes: gauge("hostler_plugin_state_bytes", "Bytes that a plugin remembers in its state."),
            events: counter(
                "hostler_plugin_events_total",
                "What plugins count themselves.",
                &["plugin", "name"],
            ),
            values: float_gauges(
                registrar,
                "hostler_plugin_value",
                "What plugins measure themselves.",
                &["plugin", "name"],
            ),
            http_calls: counter(
                "hostler_plugin_http_calls_total",
                "Calls of plugins to HTTP servers: answered, or the kind of error.",
                &["plugin", "outcome"],
            ),
            http_seconds: histograms(
                registrar,
                "hostler_plugin_http_seconds",
                "Time from a plugin's call to an HTTP server to the end of the answer.",
                &["plugin"],
                &LATENCY_BUCKETS,
            ),
            http_in_flight: gauge(
                "hostler_plugin_http_in_flight",
                "Calls of plugins to HTTP servers under way.",
            ),
        }
    }
}
