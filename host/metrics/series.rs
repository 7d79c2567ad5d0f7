//! Time series of things that come and go with policies: models, executors, plugins and steps.
//!
//! Code that counts into such series holds a [`SeriesGuard`] for as long as it can.
//! [`Series::sweep`] removes the series of what nobody holds any more. If it comes back, it starts
//! at zero.

use super::register::Registrar;
use super::requests::UNKNOWN;
use super::vector::Vector;
use crate::lock::LockUnpoisoned;
use prometheus::proto::Metric;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// What series are labelled with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SeriesOf {
    Model {
        name: Arc<str>,
        version: Arc<str>,
    },
    Executor(Arc<str>),
    Tenant(Arc<str>),
    Plugin(Arc<str>),
    /// What a plugin counts or measures under a name of its own.
    PluginValue {
        plugin: Arc<str>,
        name: Arc<str>,
    },
    Step {
        pipeline: Arc<str>,
        step: Arc<str>,
    },
}

impl SeriesOf {
    /// Returns what a series belongs to; `None` if it stays for as long as the process.
    fn of(metric: &Metric) -> Option<Self> {
        let label = |name: &str| -> Option<Arc<str>> {
            metric.get_label().iter().find(|label| label.name() == name).map(|label| label.value().into())
        };
        if let Some(executor) = label("executor") {
            return Some(SeriesOf::Executor(executor));
        }
        if let Some(tenant) = label("tenant") {
            return Some(SeriesOf::Tenant(tenant));
        }
        if let Some(plugin) = label("plugin") {
            return Some(match label("name") {
                Some(name) => SeriesOf::PluginValue { plugin, name },
                None => SeriesOf::Plugin(plugin),
            });
        }
        if let Some(pipeline) = label("pipeline") {
            return Some(SeriesOf::Step { pipeline, step: label("step")? });
        }
        let (name, version) = (label("model")?, label("version")?);
        (*name != *UNKNOWN).then_some(SeriesOf::Model { name, version })
    }
}

/// All series with labels, and who counts into them.
pub(super) struct Series {
    vectors: Vec<Box<dyn Vector>>,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    guards: HashMap<SeriesOf, usize>,
    /// Whether a last guard was dropped since the last sweep.
    has_unused: bool,
}

impl Series {
    pub fn new(registrar: Registrar) -> (prometheus::Registry, Arc<Self>) {
        let Registrar { registry, vectors } = registrar;
        (registry, Arc::new(Series { vectors: vectors.into_inner(), held: Mutex::default() }))
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock_unpoisoned()
    }

    /// Keeps the series of `of`, which the caller may look up from now on.
    pub fn hold(self: &Arc<Self>, of: SeriesOf) -> SeriesGuard {
        *self.held().guards.entry(of.clone()).or_default() += 1;
        SeriesGuard { series: Arc::clone(self), of }
    }

    /// Removes the series that nobody holds. Cheap if there are none.
    pub fn sweep(&self) {
        // The lock keeps others from looking up a series that is being removed.
        let mut held = self.held();
        if !std::mem::take(&mut held.has_unused) {
            return;
        }
        let is_unused =
            |metric: &Metric| SeriesOf::of(metric).is_some_and(|of| !held.guards.contains_key(&of));
        for vector in &self.vectors {
            vector.remove_where(&is_unused);
        }
    }
}

/// Keeps the series of one thing while it is alive.
pub struct SeriesGuard {
    series: Arc<Series>,
    of: SeriesOf,
}

impl SeriesGuard {
    /// Keeps the series of another thing as well.
    pub fn hold(&self, of: SeriesOf) -> SeriesGuard {
        self.series.hold(of)
    }
}

impl Clone for SeriesGuard {
    fn clone(&self) -> Self {
        self.series.hold(self.of.clone())
    }
}

impl Drop for SeriesGuard {
    fn drop(&mut self) {
        let mut held = self.series.held();
        let Some(count) = held.guards.get_mut(&self.of) else { return };
        *count -= 1;
        if *count == 0 {
            held.guards.remove(&self.of);
            held.has_unused = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::register::counters;
    use super::*;
    use prometheus::core::Collector;

    fn model(name: &str) -> SeriesOf {
        SeriesOf::Model { name: name.into(), version: "1".into() }
    }

    #[test]
    fn series_stay_while_anything_counts_into_them() {
        let registrar = Registrar::default();
        let answered = counters(&registrar, "answered", "For a test.", &["model", "version", "code"]);
        let reloads = counters(&registrar, "reloads", "For a test.", &["outcome"]);
        let events = counters(&registrar, "events", "For a test.", &["plugin", "name"]);
        let (registry, series) = Series::new(registrar);
        let shown = || -> Vec<String> {
            let families = registry.gather();
            let metrics = families.iter().flat_map(prometheus::proto::MetricFamily::get_metric);
            metrics.map(|metric| metric.get_label()[0].value().to_owned()).collect()
        };
        answered.with_label_values(&[UNKNOWN, UNKNOWN, "404"]).inc();
        reloads.with_label_values(&["applied"]).inc();
        let (old, new) = (series.hold(model("m")), series.hold(model("m")));
        for code in ["200", "500"] {
            answered.with_label_values(&["m", "1", code]).inc();
        }
        let plugin = series.hold(SeriesOf::Plugin("p".into()));
        let value = series.hold(SeriesOf::PluginValue { plugin: "p".into(), name: "hits".into() });
        events.with_label_values(&["p", "hits"]).inc();
        drop(old);
        series.sweep();
        assert_eq!(shown().len(), 5);
        drop(value);
        let copy = new.clone();
        drop(new);
        series.sweep();
        assert_eq!(shown().len(), 4, "the plugin is there, and its value is not");
        drop((copy, plugin));
        // It is back before it was removed, and goes on.
        let back = series.hold(model("m"));
        series.sweep();
        assert_eq!(answered.with_label_values(&["m", "1", "200"]).get(), 1);
        drop(back);
        series.sweep();
        assert_eq!(shown().len(), 2, "unknown models and reloads stay");
        let _back = series.hold(model("m"));
        assert_eq!(answered.with_label_values(&["m", "1", "200"]).get(), 0);
    }

    #[test]
    fn threads_that_come_and_go_lose_no_count_while_they_hold_it() {
        let registrar = Registrar::default();
        let answered = counters(&registrar, "answered", "For a test.", &["model", "version"]);
        let (_, series) = Series::new(registrar);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for round in 0..500 {
                        let name = format!("m{}", round % 3);
                        let _held = series.hold(model(&name));
                        let counter = answered.with_label_values(&[name.as_str(), "1"]);
                        series.sweep();
                        counter.inc();
                        assert!(answered.with_label_values(&[name.as_str(), "1"]).get() >= 1);
                    }
                });
            }
        });
        series.sweep();
        assert_eq!(answered.collect()[0].get_metric().len(), 0);
    }
}
