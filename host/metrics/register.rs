//! Makes and registers metrics. Names and labels are constants, so this cannot fail.

use super::vector::Vector;
use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};
use std::cell::RefCell;

/// Latency buckets in seconds: a small model takes tens of microseconds, a large one seconds.
pub(super) const LATENCY_BUCKETS: [f64; 16] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    10.0,
];

/// Where metrics are registered. Keeps those with labels, so that series of them can be removed.
#[derive(Default)]
pub(super) struct Registrar {
    pub registry: Registry,
    pub vectors: RefCell<Vec<Box<dyn Vector>>>,
}

pub(super) fn counter(registrar: &Registrar, name: &str, help: &str) -> IntCounter {
    register(registrar, IntCounter::new(name, help))
}

pub(super) fn counters(registrar: &Registrar, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    vector(registrar, IntCounterVec::new(Opts::new(name, help), labels))
}

pub(super) fn gauge(registrar: &Registrar, name: &str, help: &str) -> IntGauge {
    register(registrar, IntGauge::new(name, help))
}

pub(super) fn gauges(registrar: &Registrar, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    vector(registrar, IntGaugeVec::new(Opts::new(name, help), labels))
}

pub(super) fn float_gauge(registrar: &Registrar, name: &str, help: &str) -> Gauge {
    register(registrar, Gauge::new(name, help))
}

pub(super) fn float_gauges(registrar: &Registrar, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
    vector(registrar, GaugeVec::new(Opts::new(name, help), labels))
}

pub(super) fn histogram(registrar: &Registrar, name: &str, help: &str, buckets: &[f64]) -> Histogram {
    let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    register(registrar, Histogram::with_opts(options))
}

pub(super) fn histograms(
    registrar: &Registrar,
    name: &str,
    help: &str,
    labels: &[&str],
    buckets: &[f64],
) -> HistogramVec {
    let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    vector(registrar, HistogramVec::new(options, labels))
}

fn vector<C: Collector + Vector + Clone + 'static>(
    registrar: &Registrar,
    collector: prometheus::Result<C>,
) -> C {
    let collector = register(registrar, collector);
    registrar.vectors.borrow_mut().push(Box::new(collector.clone()));
    collector
}

pub(super) fn register<C: Collector + Clone + 'static>(
    registrar: &Registrar,
    collector: prometheus::Result<C>,
) -> C {
    let collector = collector.expect("invariant: metric names are constants");
    registrar
        .registry
        .register(Box::new(collector.clone()))
        .expect("invariant: each metric is registered once");
    collector
}
