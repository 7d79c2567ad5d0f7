//! Metrics that a plugin records itself, through the interface `metrics`.

use crate::lock::LockUnpoisoned;
use crate::metrics::{Families, Metrics, SeriesGuard, SeriesOf};
use prometheus::{GaugeVec, IntCounter, IntCounterVec};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// Maximum names of one plugin; each is a time series.
const NAMES_MAX: usize = 64;

pub struct PluginMetrics {
    plugin: Arc<str>,
    events: IntCounterVec,
    values: GaugeVec,
    known: Mutex<SeriesCache>,
    families: Families,
    series: SeriesGuard,
}

/// Prepared series, so that guests can count without a lookup by label.
#[derive(Default)]
struct SeriesCache {
    events: HashMap<String, (IntCounter, SeriesGuard)>,
    values: HashMap<String, (prometheus::Gauge, SeriesGuard)>,
}

impl PluginMetrics {
    /// `series` keeps the series of the plugin.
    pub fn new(plugin: Arc<str>, metrics: &Metrics, series: SeriesGuard) -> Self {
        let (events, values) = (metrics.plugins.events.clone(), metrics.plugins.values.clone());
        let families = metrics.families(&plugin);
        PluginMetrics { plugin, events, values, known: Mutex::default(), families, series }
    }

    /// Returns the metrics that the plugin has defined.
    pub fn families(&self) -> &Families {
        &self.families
    }

    fn known(&self) -> MutexGuard<'_, SeriesCache> {
        self.known.lock_unpoisoned()
    }

    /// Keeps the series of this name for as long as this generation of the plugin.
    fn hold(&self, name: &str) -> SeriesGuard {
        self.series.hold(SeriesOf::PluginValue { plugin: Arc::clone(&self.plugin), name: name.into() })
    }

    pub(super) fn count(&self, name: String, by: u64) -> wasmtime::Result<()> {
        let mut known = self.known();
        if let Some((counter, _)) = known.events.get(&name) {
            counter.inc_by(by);
            return Ok(());
        }
        check(&name, &known)?;
        let series = self.hold(&name);
        let counter = self.events.with_label_values(&[&*self.plugin, name.as_str()]);
        counter.inc_by(by);
        known.events.insert(name, (counter, series));
        Ok(())
    }

    pub(super) fn set(&self, name: String, value: f64) -> wasmtime::Result<()> {
        let mut known = self.known();
        if let Some((gauge, _)) = known.values.get(&name) {
            gauge.set(value);
            return Ok(());
        }
        check(&name, &known)?;
        let series = self.hold(&name);
        let gauge = self.values.with_label_values(&[&*self.plugin, name.as_str()]);
        gauge.set(value);
        known.values.insert(name, (gauge, series));
        Ok(())
    }
}

fn check(name: &str, known: &SeriesCache) -> wasmtime::Result<()> {
    let good = (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !good {
        let shown: String = name.chars().take(80).collect();
        wasmtime::bail!("metric {shown:?}: a name has 1 to 64 letters, digits and '_'");
    }
    if known.events.len() + known.values.len() >= NAMES_MAX {
        wasmtime::bail!("metric \"{name}\": a plugin has at most {NAMES_MAX} names of metrics");
    }
    Ok(())
}
