//! Metrics for the operator. [`count`] and [`set`] need no declaration; an invalid name and the
//! 65th name trap. [`Counter`], [`Gauge`] and [`Histogram`] have a help text and labels, and
//! exceeding a limit is an error.
//!
//! Metrics belong to the plugin: creating one that exists returns the same metric, also in a later
//! instance and after a swap. Creating one costs little; a reused instance may keep it in a
//! `OnceLock`.
//!
//! ```
//! use hostler_plugin::{Error, metrics};
//!
//! fn counted(country: &str, seconds: f64) -> Result<(), Error> {
//!     metrics::Counter::new("rows", "Rows that were scored.", &["country"])?.add(&[country], 1.0)?;
//!     metrics::Histogram::new("wait_seconds", "Time until the answer.", &[], &[0.01, 0.1, 1.0])?.observe(&[], seconds)
//! }
//! ```

use crate::Error;
use crate::bindings::metrics;

/// Adds to `hostler_plugin_events_total{plugin, name}`. A name has 1 to 64 letters, digits and `_`;
/// any other name traps, as does the 65th name of [`count`] and [`set`] together.
pub fn count(name: &str, by: u64) {
    metrics::count(name, by);
}

/// Sets `hostler_plugin_value{plugin, name}`. Names are those of [`count`].
pub fn set(name: &str, value: f64) {
    metrics::set(name, value);
}

/// A value that only increases: `hostler_plugin_counter_<name>_total{plugin, …}`.
#[derive(Debug)]
pub struct Counter(metrics::Counter);

/// A value that can increase and decrease: `hostler_plugin_gauge_<name>{plugin, …}`.
#[derive(Debug)]
pub struct Gauge(metrics::Gauge);

/// A distribution of values: `hostler_plugin_histogram_<name>_bucket{plugin, le, …}`, `…_sum` and
/// `…_count`.
#[derive(Debug)]
pub struct Histogram(metrics::Histogram);

impl Counter {
    /// Creates the metric, or returns the existing one. `help` has 1 to 256 bytes. `labels` are
    /// names of at most 8 labels.
    ///
    /// The error is `failed` for an invalid name or definition, or if the metric exists with
    /// another definition, and `too-large` if a limit is exceeded.
    pub fn new(name: &str, help: &str, labels: &[&str]) -> Result<Self, Error> {
        metrics::Counter::create(name, help, &owned(labels)).map(Counter)
    }

    /// Adds a number that is not negative. `values` are the values of the labels, in their order,
    /// of at most 128 bytes each.
    ///
    /// The error is `failed` for a number that is negative or not finite or the wrong number of
    /// values, and `too-large` for a value that is too long or the 1,001st time series of the
    /// plugin.
    pub fn add(&self, values: &[&str], by: f64) -> Result<(), Error> {
        self.0.add(&owned(values), by)
    }
}

impl Gauge {
    /// Creates the metric, or returns the existing one. `help` has 1 to 256 bytes. `labels` are
    /// names of at most 8 labels.
    ///
    /// The error is `failed` for an invalid name or definition, or if the metric exists with
    /// another definition, and `too-large` if a limit is exceeded.
    pub fn new(name: &str, help: &str, labels: &[&str]) -> Result<Self, Error> {
        metrics::Gauge::create(name, help, &owned(labels)).map(Gauge)
    }

    /// Sets the value. Errors are those of [`add`](Self::add).
    pub fn set(&self, values: &[&str], value: f64) -> Result<(), Error> {
        self.0.set(&owned(values), value)
    }

    /// Adds a number, which may be negative. The error is `failed` for a number that is not finite
    /// or the wrong number of label values, and `too-large` as in [`Counter::add`].
    pub fn add(&self, values: &[&str], by: f64) -> Result<(), Error> {
        self.0.add(&owned(values), by)
    }
}

impl Histogram {
    /// Creates the metric, or returns the existing one. `help` has 1 to 256 bytes. `labels` are
    /// names of at most 8 labels; `buckets` are at most 32 upper bounds in ascending order.
    ///
    /// The error is `failed` for an invalid name or definition, or if the metric exists with
    /// another definition, and `too-large` if a limit is exceeded.
    pub fn new(name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> Result<Self, Error> {
        metrics::Histogram::create(name, help, &owned(labels), buckets).map(Histogram)
    }

    /// Adds an observation. Errors are those of [`Gauge::add`].
    pub fn observe(&self, values: &[&str], value: f64) -> Result<(), Error> {
        self.0.observe(&owned(values), value)
    }
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}
