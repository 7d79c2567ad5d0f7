//! Metrics that a plugin counts itself: the interface `metrics`.

use super::bindings::{metrics, types};
use super::store_data::StoreData;
use crate::error::{Error, Kind};
use crate::metrics::{Change, Definition, Families, Family, FamilyKind, Metrics, Refusal};
use prometheus::{GaugeVec, IntCounter, IntCounterVec};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wasmtime::component::Resource;

/// Names of one plugin; each is a time series.
const NAMES_MAX: usize = 64;

pub struct PluginMetrics {
    plugin: Arc<str>,
    events: IntCounterVec,
    values: GaugeVec,
    known: Mutex<KnownFamily>,
    families: Families,
}

/// Prepared series: no look-up by label when a guest counts.
#[derive(Default)]
struct KnownFamily {
    events: HashMap<String, IntCounter>,
    values: HashMap<String, prometheus::Gauge>,
}

impl PluginMetrics {
    pub fn new(plugin: Arc<str>, metrics: &Metrics) -> Self {
        let (events, values) = (metrics.plugin_events.clone(), metrics.plugin_values.clone());
        let families = metrics.families(&plugin);
        PluginMetrics { plugin, events, values, known: Mutex::default(), families }
    }

    /// The metrics that the plugin has defined.
    pub fn families(&self) -> &Families {
        &self.families
    }

    fn known(&self) -> MutexGuard<'_, KnownFamily> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, name: String, by: u64) -> wasmtime::Result<()> {
        let mut known = self.known();
        if let Some(counter) = known.events.get(&name) {
            counter.inc_by(by);
            return Ok(());
        }
        check(&name, &known)?;
        let counter = self.events.with_label_values(&[&*self.plugin, name.as_str()]);
        counter.inc_by(by);
        known.events.insert(name, counter);
        Ok(())
    }

    fn set(&self, name: String, value: f64) -> wasmtime::Result<()> {
        let mut known = self.known();
        if let Some(gauge) = known.values.get(&name) {
            gauge.set(value);
            return Ok(());
        }
        check(&name, &known)?;
        let gauge = self.values.with_label_values(&[&*self.plugin, name.as_str()]);
        gauge.set(value);
        known.values.insert(name, gauge);
        Ok(())
    }
}

fn check(name: &str, known: &KnownFamily) -> wasmtime::Result<()> {
    let good = (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !good {
        let shown: String = name.chars().take(80).collect();
        wasmtime::bail!("counted under {shown:?}; the name of a metric has 1 to 64 letters, digits and '_'");
    }
    if known.events.len() + known.values.len() >= NAMES_MAX {
        wasmtime::bail!("counted under more than {NAMES_MAX} names, at last \"{name}\"");
    }
    Ok(())
}

impl metrics::Host for StoreData {
    fn count(&mut self, name: String, by: u64) -> wasmtime::Result<()> {
        self.spec.metrics.count(name, by)
    }

    fn set(&mut self, name: String, value: f64) -> wasmtime::Result<()> {
        self.spec.metrics.set(name, value)
    }
}

/// The handles of a guest.
pub struct Counter(Arc<Family>);
pub struct Gauge(Arc<Family>);
pub struct Histogram(Arc<Family>);

type Trappable<T> = wasmtime::Result<T>;
type Lowered<T> = Result<T, types::Error>;

fn error(refusal: Refusal) -> Error {
    match refusal {
        Refusal::TooMuch(message) => Error::new(Kind::TooLarge, message),
        Refusal::Wrong(message) => Error::failed(message),
    }
}

impl StoreData {
    fn create<T: Send + 'static>(
        &mut self,
        name: &str,
        definition: Definition,
        handle: impl FnOnce(Arc<Family>) -> T,
    ) -> Trappable<Lowered<Resource<T>>> {
        Ok(match self.spec.metrics.families.define(name, definition) {
            Ok(family) => Ok(self.handles.table().push(handle(family))?),
            Err(refusal) => Err(self.hand(error(refusal))),
        })
    }
}

impl StoreData {
    fn change(&mut self, family: &Family, values: Vec<String>, change: Change) -> Trappable<Lowered<()>> {
        let changed = self.spec.metrics.families.change(family, values, change);
        Ok(changed.map_err(|refusal| self.hand(error(refusal))))
    }
}

impl metrics::HostCounter for StoreData {
    fn create(
        &mut self,
        name: String,
        help: String,
        labels: Vec<String>,
    ) -> Trappable<Lowered<Resource<Counter>>> {
        let definition = Definition { kind: FamilyKind::Counter, help, labels, buckets: Vec::new() };
        StoreData::create(self, &name, definition, Counter)
    }

    fn add(&mut self, counter: Resource<Counter>, values: Vec<String>, by: f64) -> Trappable<Lowered<()>> {
        let family = Arc::clone(&self.handles.other(&counter)?.0);
        self.change(&family, values, Change::Add(by))
    }

    fn drop(&mut self, counter: Resource<Counter>) -> Trappable<()> {
        self.handles.table().delete(counter)?;
        Ok(())
    }
}

impl metrics::HostGauge for StoreData {
    fn create(
        &mut self,
        name: String,
        help: String,
        labels: Vec<String>,
    ) -> Trappable<Lowered<Resource<Gauge>>> {
        let definition = Definition { kind: FamilyKind::Gauge, help, labels, buckets: Vec::new() };
        StoreData::create(self, &name, definition, Gauge)
    }

    fn set(&mut self, gauge: Resource<Gauge>, values: Vec<String>, value: f64) -> Trappable<Lowered<()>> {
        let family = Arc::clone(&self.handles.other(&gauge)?.0);
        self.change(&family, values, Change::Set(value))
    }

    fn add(&mut self, gauge: Resource<Gauge>, values: Vec<String>, by: f64) -> Trappable<Lowered<()>> {
        let family = Arc::clone(&self.handles.other(&gauge)?.0);
        self.change(&family, values, Change::Add(by))
    }

    fn drop(&mut self, gauge: Resource<Gauge>) -> Trappable<()> {
        self.handles.table().delete(gauge)?;
        Ok(())
    }
}

impl metrics::HostHistogram for StoreData {
    fn create(
        &mut self,
        name: String,
        help: String,
        labels: Vec<String>,
        buckets: Vec<f64>,
    ) -> Trappable<Lowered<Resource<Histogram>>> {
        let definition = Definition { kind: FamilyKind::Histogram, help, labels, buckets };
        StoreData::create(self, &name, definition, Histogram)
    }

    fn observe(
        &mut self,
        histogram: Resource<Histogram>,
        values: Vec<String>,
        value: f64,
    ) -> Trappable<Lowered<()>> {
        let family = Arc::clone(&self.handles.other(&histogram)?.0);
        self.change(&family, values, Change::Observe(value))
    }

    fn drop(&mut self, histogram: Resource<Histogram>) -> Trappable<()> {
        self.handles.table().delete(histogram)?;
        Ok(())
    }
}
