//! Sends spans to a collector over OTLP.

mod encode;
mod exporter;
mod target;

pub use exporter::Exporter;
