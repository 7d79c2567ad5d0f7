//! All metrics of the host, for Prometheus, with a struct for each subsystem.
//!
//! Label values are names from the policy, never from a request. Unknown names count as `_unknown`.

mod connections;
mod count;
mod definition;
mod executors;
mod exported;
mod families;
mod family;
mod jobs;
mod pipelines;
mod plugins;
mod register;
mod reload;
mod requests;
mod rollouts;
mod transfers;

pub use connections::ConnectionMetrics;
pub use count::Count;
pub use definition::{Definition, FamilyKind, Refusal};
pub use executors::ExecutorMetrics;
pub use exported::ExportedModels;
pub use families::Families;
pub use family::{Change, Family};
pub use jobs::JobMetrics;
pub use pipelines::PipelineMetrics;
pub use plugins::PluginHostMetrics;
pub use reload::ReloadMetrics;
pub use requests::RequestMetrics;
pub use rollouts::RolloutMetrics;
pub use transfers::TransferMetrics;

use crate::output;
use prometheus::{Gauge, Registry, TextEncoder};
use std::sync::Arc;
use std::time::Instant;

/// The label value for models that no policy knows.
pub const UNKNOWN: &str = "_unknown";

pub struct Metrics {
    registry: Registry,
    pub requests: RequestMetrics,
    pub executors: ExecutorMetrics,
    pub plugins: PluginHostMetrics,
    pub reload: ReloadMetrics,
    pub rollout: RolloutMetrics,
    pub connections: ConnectionMetrics,
    pub transfers: TransferMetrics,
    pub jobs: JobMetrics,
    pub pipelines: PipelineMetrics,
    plugin_families: families::Plugins,
    uptime: Gauge,
    started: Instant,
}

impl Metrics {
    pub fn new() -> Self {
        let registry = Registry::new();
        let (name, help) = ("hostler_build_info", "1, with the build in its labels.");
        let build_info = register::float_gauges(&registry, name, help, &["version"]);
        build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
        for queue in [output::log(), output::stdout()] {
            register::register(&registry, Ok(queue.dropped().clone()));
        }
        Metrics {
            requests: RequestMetrics::new(&registry),
            executors: ExecutorMetrics::new(&registry),
            plugins: PluginHostMetrics::new(&registry),
            reload: ReloadMetrics::new(&registry),
            rollout: RolloutMetrics::new(&registry),
            connections: ConnectionMetrics::new(&registry),
            transfers: TransferMetrics::new(&registry),
            jobs: JobMetrics::new(&registry),
            pipelines: PipelineMetrics::new(&registry),
            plugin_families: families::Plugins::default(),
            uptime: register::float_gauge(
                &registry,
                "hostler_uptime_seconds",
                "Seconds since the process started.",
            ),
            started: Instant::now(),
            registry,
        }
    }

    /// Returns the metrics of a new generation of this plugin.
    pub fn families(&self, plugin: &Arc<str>) -> Families {
        self.plugin_families.families(plugin)
    }

    /// Renders the text exposition format, without executors and plugins that no policy serves any
    /// more.
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

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}
