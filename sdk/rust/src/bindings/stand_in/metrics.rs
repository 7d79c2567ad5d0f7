//! The interface `metrics`.

use super::types::Error;
use crate::testing::{Change, Definition, MetricKind, with_host};

pub fn count(name: &str, by: u64) {
    with_host("metrics", |host| host.metrics.count(name, by));
}

pub fn set(name: &str, value: f64) {
    with_host("metrics", |host| host.metrics.set(name, value));
}

fn create(
    name: &str,
    kind: MetricKind,
    help: &str,
    labels: &[String],
    buckets: &[f64],
) -> Result<String, Error> {
    let definition =
        Definition { kind, help: help.into(), labels: labels.to_vec(), buckets: buckets.to_vec() };
    with_host("metrics", |host| host.metrics.define(name, definition))?;
    Ok(name.into())
}

fn change(name: &str, values: &[String], change: Change) -> Result<(), Error> {
    with_host("metrics", |host| host.metrics.change(name, values, change))
}

#[derive(Debug)]
pub struct Counter(String);

#[derive(Debug)]
pub struct Gauge(String);

#[derive(Debug)]
pub struct Histogram(String);

impl Counter {
    pub fn create(name: &str, help: &str, labels: &[String]) -> Result<Counter, Error> {
        create(name, MetricKind::Counter, help, labels, &[]).map(Counter)
    }

    pub fn add(&self, values: &[String], by: f64) -> Result<(), Error> {
        change(&self.0, values, Change::Add(by))
    }
}

impl Gauge {
    pub fn create(name: &str, help: &str, labels: &[String]) -> Result<Gauge, Error> {
        create(name, MetricKind::Gauge, help, labels, &[]).map(Gauge)
    }

    pub fn set(&self, values: &[String], value: f64) -> Result<(), Error> {
        change(&self.0, values, Change::Set(value))
    }

    pub fn add(&self, values: &[String], by: f64) -> Result<(), Error> {
        change(&self.0, values, Change::Add(by))
    }
}

impl Histogram {
    pub fn create(name: &str, help: &str, labels: &[String], buckets: &[f64]) -> Result<Histogram, Error> {
        create(name, MetricKind::Histogram, help, labels, buckets).map(Histogram)
    }

    pub fn observe(&self, values: &[String], value: f64) -> Result<(), Error> {
        change(&self.0, values, Change::Observe(value))
    }
}
