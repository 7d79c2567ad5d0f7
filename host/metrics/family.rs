//! One metric of a plugin, with its time series.

use super::definition::{Definition, FamilyKind, Noted, Refusal, wrong};
use crate::lock::ReadWriteUnpoisoned;
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{
    Counter, CounterVec, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, Opts, Result as Outcome,
};
use std::collections::HashMap;
use std::sync::RwLock;

/// Time series of one plugin, over all of its metrics. A histogram counts as one.
pub(super) const SERIES_MAX: usize = 1000;

const VALUE_BYTES_MAX: usize = 128;

/// A metric of a plugin, with its time series.
pub struct Family {
    name: String,
    definition: Definition,
    vector: Vector,
    series: RwLock<HashMap<Vec<String>, Series>>,
}

enum Vector {
    Counter(CounterVec),
    Gauge(GaugeVec),
    Histogram(HistogramVec),
}

#[derive(Clone)]
enum Series {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
}

/// A change of a value.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    Add(f64),
    Set(f64),
    Observe(f64),
}

impl Family {
    pub(super) fn new(plugin: &str, name: &str, definition: Definition) -> Outcome<Self> {
        let exported = definition.kind.exported(name);
        let labels: Vec<&str> = definition.labels.iter().map(String::as_str).collect();
        let opts = Opts::new(exported, definition.help.clone()).const_label("plugin", plugin);
        let vector = match definition.kind {
            FamilyKind::Counter => Vector::Counter(CounterVec::new(opts, &labels)?),
            FamilyKind::Gauge => Vector::Gauge(GaugeVec::new(opts, &labels)?),
            FamilyKind::Histogram => {
                let opts = HistogramOpts::from(opts).buckets(definition.buckets.clone());
                Vector::Histogram(HistogramVec::new(opts, &labels)?)
            }
        };
        Ok(Family { name: name.to_owned(), definition, vector, series: RwLock::default() })
    }

    /// Changes the value of the series with these label values, in the order of the labels. A new
    /// series is created only if `has_room` returns true.
    pub(super) fn change(
        &self,
        values: Vec<String>,
        change: Change,
        has_room: impl FnOnce() -> bool,
    ) -> Noted<()> {
        let what = || format!("metric \"{}\"", self.name);
        let (Change::Add(value) | Change::Set(value) | Change::Observe(value)) = change;
        if !value.is_finite() {
            return wrong(format!("{}: {value} is not a finite number", what()));
        }
        match (self.series(values, has_room)?, change) {
            (Series::Counter(_), Change::Add(by)) if by < 0.0 => {
                wrong(format!("{}: a counter only grows, but {by} was added", what()))
            }
            (Series::Counter(counter), Change::Add(by)) => {
                counter.inc_by(by);
                Ok(())
            }
            (Series::Gauge(gauge), Change::Add(by)) => {
                gauge.add(by);
                Ok(())
            }
            (Series::Gauge(gauge), Change::Set(value)) => {
                gauge.set(value);
                Ok(())
            }
            (Series::Histogram(histogram), Change::Observe(value)) => {
                histogram.observe(value);
                Ok(())
            }
            _ => wrong(format!("{} is a {}", what(), self.definition.kind.as_str())),
        }
    }

    fn series(&self, values: Vec<String>, has_room: impl FnOnce() -> bool) -> Noted<Series> {
        if let Some(series) = self.series.read_unpoisoned().get(&values) {
            return Ok(series.clone());
        }
        let what = format!("metric \"{}\"", self.name);
        let labels = &self.definition.labels;
        if values.len() != labels.len() {
            let (wanted, given) = (labels.len(), values.len());
            return wrong(format!("{what} has {wanted} labels ({}), not {given}", labels.join(", ")));
        }
        if let Some((label, value)) =
            labels.iter().zip(&values).find(|(_, value)| value.len() > VALUE_BYTES_MAX)
        {
            let length = value.len();
            return Err(Refusal::TooMuch(format!(
                "{what}: the value of \"{label}\" has {length} bytes; at most {VALUE_BYTES_MAX} are allowed"
            )));
        }
        // Concurrent calls may each find room, so the limit can be exceeded by a few.
        if !has_room() {
            return Err(Refusal::TooMuch(format!(
                "{what}: the plugin already has {SERIES_MAX} time series over all its metrics, the maximum"
            )));
        }
        let texts: Vec<&str> = values.iter().map(String::as_str).collect();
        let made = match &self.vector {
            Vector::Counter(vector) => vector.get_metric_with_label_values(&texts).map(Series::Counter),
            Vector::Gauge(vector) => vector.get_metric_with_label_values(&texts).map(Series::Gauge),
            Vector::Histogram(vector) => vector.get_metric_with_label_values(&texts).map(Series::Histogram),
        };
        let series = made.map_err(|error| Refusal::Wrong(format!("{what}: {error}")))?;
        self.series.write_unpoisoned().insert(values, series.clone());
        Ok(series)
    }

    pub(super) fn definition(&self) -> &Definition {
        &self.definition
    }

    pub(super) fn len(&self) -> usize {
        self.series.read_unpoisoned().len()
    }

    pub(super) fn collect(&self) -> Vec<MetricFamily> {
        match &self.vector {
            Vector::Counter(vector) => vector.collect(),
            Vector::Gauge(vector) => vector.collect(),
            Vector::Histogram(vector) => vector.collect(),
        }
    }
}
