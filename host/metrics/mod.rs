//! All metrics of the host, for Prometheus, with a struct for each subsystem.
//!
//! Label values are names from the policy, never from a request. Unknown names count as `_unknown`.

mod access;
mod connections;
mod count;
mod definition;
mod executors;
mod exported;
mod families;
mod family;
mod jobs;
mod latency;
mod pipelines;
mod plugins;
mod register;
mod reload;
mod requests;
mod rollouts;
mod series;
mod tenants;
mod tls;
mod traces;
mod transfers;
mod vector;

pub use access::AccessMetrics;
pub use connections::ConnectionMetrics;
pub use count::Count;
pub use definition::{Definition, FamilyKind, Refusal};
pub use executors::ExecutorMetrics;
pub use exported::ExportedModels;
pub use families::Families;
pub use family::{Change, Family};
pub use jobs::JobMetrics;
pub use latency::{LatencyTotals, latency_totals};
pub use pipelines::PipelineMetrics;
pub use plugins::PluginHostMetrics;
pub use reload::ReloadMetrics;
pub use requests::{RequestMetrics, UNKNOWN};
pub use rollouts::RolloutMetrics;
pub use series::{SeriesGuard, SeriesOf};
pub use tenants::OTHER as OTHER_TENANTS;
pub use tls::TlsMetrics;
pub use transfers::TransferMetrics;

use self::register::Registrar;
use self::series::Series;
use crate::output;
use crate::tenants::TenantMetrics;
use crate::traces::TraceMetrics;
use prometheus::{Gauge, Registry, TextEncoder};
use std::sync::Arc;
use std::time::Instant;

pub struct Metrics {
    registry: Registry,
    series: Arc<Series>,
    pub requests: RequestMetrics,
    pub executors: ExecutorMetrics,
    pub plugins: PluginHostMetrics,
    pub reload: ReloadMetrics,
    pub rollout: RolloutMetrics,
    pub access: AccessMetrics,
    pub connections: ConnectionMetrics,
    pub tls: TlsMetrics,
    pub transfers: TransferMetrics,
    pub jobs: JobMetrics,
    pub pipelines: PipelineMetrics,
    tenants: tenants::TenantsMetrics,
    pub traces: TraceMetrics,
    plugin_families: families::Plugins,
    uptime: Gauge,
    started: Instant,
}

impl Metrics {
    pub fn new() -> Self {
        let registrar = Registrar::default();
        let (name, help) = ("hostler_build_info", "1, with the build in its labels.");
        let build_info = register::float_gauges(&registrar, name, help, &["version"]);
        build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
        for queue in [output::log(), output::stdout()] {
            register::register(&registrar, Ok(queue.dropped().clone()));
        }
        let requests = RequestMetrics::new(&registrar);
        let executors = ExecutorMetrics::new(&registrar);
        let plugins = PluginHostMetrics::new(&registrar);
        let reload = ReloadMetrics::new(&registrar);
        let rollout = RolloutMetrics::new(&registrar);
        let access = AccessMetrics::new(&registrar);
        let connections = ConnectionMetrics::new(&registrar);
        let tls = TlsMetrics::new(&registrar);
        let transfers = TransferMetrics::new(&registrar);
        let jobs = JobMetrics::new(&registrar);
        let pipelines = PipelineMetrics::new(&registrar);
        let tenants = tenants::TenantsMetrics::new(&registrar);
        let traces = traces::traces(&registrar);
        let uptime =
            register::float_gauge(&registrar, "hostler_uptime_seconds", "Seconds since the process started.");
        // Everything that has labels is registered now.
        let (registry, series) = Series::new(registrar);
        Metrics {
            requests,
            executors,
            plugins,
            reload,
            rollout,
            access,
            connections,
            tls,
            transfers,
            jobs,
            pipelines,
            tenants,
            traces,
            plugin_families: families::Plugins::default(),
            uptime,
            started: Instant::now(),
            registry,
            series,
        }
    }

    /// Keeps the series of a model, an executor, a plugin or a step. Hold the guard from before the
    /// first look-up of such a series until after the last change of it.
    pub fn hold(&self, of: SeriesOf) -> SeriesGuard {
        self.series.hold(of)
    }

    /// Removes the series of what no policy has any more. Called after a policy was freed.
    pub fn remove_unused(&self) {
        self.series.sweep();
    }

    /// Returns the series of a tenant, which stay for as long as the result.
    pub fn tenant(&self, name: &str) -> TenantMetrics {
        self.tenants.of(name, self.hold(SeriesOf::Tenant(name.into())))
    }

    /// Returns the metrics of a new generation of this plugin.
    pub fn families(&self, plugin: &Arc<str>) -> Families {
        self.plugin_families.families(plugin)
    }

    /// Renders the text exposition format, without executors and plugins that no policy serves any
    /// more.
    pub fn render(&self, served: &ExportedModels<'_>) -> String {
        self.remove_unused();
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
