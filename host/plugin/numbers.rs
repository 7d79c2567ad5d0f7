//! Metrics that a plugin counts itself: the interface `metrics`.

use super::bindings::metrics;
use super::state::State;
use crate::metrics::Metrics;
use prometheus::{Gauge, GaugeVec, IntCounter, IntCounterVec};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Names of one plugin; each is a time series.
const NAMES_MAX: usize = 64;

pub struct Numbers {
    plugin: Arc<str>,
    events: IntCounterVec,
    values: GaugeVec,
    known: Mutex<Known>,
}

/// Prepared series: no look-up by label when a guest counts.
#[derive(Default)]
struct Known {
    events: HashMap<String, IntCounter>,
    values: HashMap<String, Gauge>,
}

impl Numbers {
    pub fn new(plugin: Arc<str>, metrics: &Metrics) -> Self {
        let (events, values) = (metrics.plugin_events.clone(), metrics.plugin_values.clone());
        Numbers { plugin, events, values, known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
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

fn check(name: &str, known: &Known) -> wasmtime::Result<()> {
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

impl metrics::Host for State {
    fn count(&mut self, name: String, by: u64) -> wasmtime::Result<()> {
        self.grant.numbers.count(name, by)
    }

    fn set(&mut self, name: String, value: f64) -> wasmtime::Result<()> {
        self.grant.numbers.set(name, value)
    }
}
