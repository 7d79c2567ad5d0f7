//! The plugin spec: what the manifest grants a plugin, and what all its instances share.

use super::log_tail::LogTail;
use super::memory::PluginMemory;
use super::outbound::Outbound;
use super::plugin_metrics::PluginMetrics;
use super::plugin_state::PluginState;
use super::retained::PluginRetained;
use super::source_lines::SourceLines;
use crate::config::PluginLimits;
use crate::config::outbound::OutboundLimits;
use crate::error::Result;
use crate::metrics::{Metrics, SeriesGuard};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A plugin's name, limits, configuration and assets from the manifest, its state and its metrics.
/// Shared by all its instances.
pub struct PluginSpec {
    pub name: Arc<str>,
    pub limits: PluginLimits,
    pub config: BTreeMap<String, String>,
    pub assets: BTreeMap<String, bytes::Bytes>,
    pub(super) state: Arc<PluginState>,
    pub(super) metrics: Arc<PluginMetrics>,
    pub(super) held: Arc<PluginRetained>,
    pub(super) memory: PluginMemory,
    pub(super) log_tail: Arc<LogTail>,
    /// The lines of the source, for backtraces.
    pub(super) source_lines: SourceLines,
    /// The client for the servers that the plugin may call; `None` if it may call none.
    pub(super) outbound: Option<Outbound>,
    /// Instances have the spec, so it outlives all that they count.
    _series: SeriesGuard,
}

impl PluginSpec {
    /// Creates a spec without configuration and assets. All plugins of the same name share `state`
    /// and `log_tail`.
    /// `series` keeps the series of the plugin.
    pub(super) fn new(
        limits: PluginLimits,
        state: Arc<PluginState>,
        log_tail: Arc<LogTail>,
        metrics: &Metrics,
        series: SeriesGuard,
    ) -> Self {
        let name = Arc::clone(log_tail.plugin());
        let label = [&*name];
        let held = metrics.plugins.held_bytes.with_label_values(&label);
        let held = PluginRetained::new(Arc::clone(&name), &limits, held);
        let total = metrics.plugins.memory_bytes.with_label_values(&label);
        let largest = metrics.plugins.memory_largest_bytes.with_label_values(&label);
        let memory = PluginMemory::new(total, largest);
        let metrics = Arc::new(PluginMetrics::new(Arc::clone(&name), metrics, series.clone()));
        let (config, assets) = Default::default();
        PluginSpec {
            name,
            limits,
            config,
            assets,
            state,
            metrics,
            held,
            memory,
            log_tail,
            source_lines: SourceLines::default(),
            outbound: None,
            _series: series,
        }
    }

    /// Allows the plugin to call servers. Its connections run on `runtime`. `ca` contains
    /// certificates in PEM, trusted in addition to those that this machine trusts.
    pub fn allow_http(
        &mut self,
        limits: OutboundLimits,
        ca: Option<&[u8]>,
        runtime: tokio::runtime::Handle,
        metrics: &Metrics,
    ) -> Result<()> {
        let plugin = Arc::clone(&self.name);
        self.outbound = Some(Outbound::new(plugin, limits, ca, runtime, metrics)?);
        Ok(())
    }

    /// Returns the metrics that the plugin records.
    pub fn metrics(&self) -> Arc<PluginMetrics> {
        Arc::clone(&self.metrics)
    }
}
