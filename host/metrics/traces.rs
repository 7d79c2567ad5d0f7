//! The metrics of traces.

use super::register::{Registrar, counter};
use crate::traces::TraceMetrics;

pub(super) fn traces(registrar: &Registrar) -> TraceMetrics {
    let counter = |name: &str, help: &str| counter(registrar, name, help);
    TraceMetrics {
        exported: counter("hostler_trace_spans_exported_total", "Spans that a collector has accepted."),
        dropped: counter(
            "hostler_trace_spans_dropped_total",
            "Spans that were not exported: the queue was full, or the collector refused them.",
        ),
        failed_exports: counter(
            "hostler_trace_exports_failed_total",
            "Attempts to export spans that failed.",
        ),
    }
}
