//! Statistics of models in the form of Triton's ModelStatistics, for both protocols.

use crate::executor::RunsOfSize;
use crate::policy::Route;
use crate::policy::statistics::Total;
use crate::predict::Service;
use serde::Serialize;
use serde_json::{Map, Value};
use std::time::Duration;

#[derive(Serialize)]
pub(in crate::server) struct ModelStatistics {
    pub name: String,
    pub version: String,
    /// When the last request ended, in milliseconds since 1970; 0 if there was none.
    pub last_inference: u64,
    /// Rows of successful requests; for a model without batching, successful requests.
    pub inference_count: u64,
    /// Runs of the model.
    pub execution_count: u64,
    pub inference_stats: InferStatistics,
    pub batch_stats: Vec<BatchStatistics>,
    /// Not measured.
    pub memory_usage: Vec<Value>,
    /// Not measured.
    pub response_stats: Map<String, Value>,
}

/// Totals of requests.
#[derive(Serialize)]
pub(in crate::server) struct InferStatistics {
    pub success: DurationTotal,
    pub fail: DurationTotal,
    pub queue: DurationTotal,
    pub compute_input: DurationTotal,
    pub compute_infer: DurationTotal,
    pub compute_output: DurationTotal,
    /// Always 0, because there is no cache.
    pub cache_hit: DurationTotal,
    pub cache_miss: DurationTotal,
}

/// Totals of the runs with `batch_size` rows.
#[derive(Serialize)]
pub(in crate::server) struct BatchStatistics {
    pub batch_size: u64,
    pub compute_input: DurationTotal,
    pub compute_infer: DurationTotal,
    pub compute_output: DurationTotal,
}

/// A count, and the total of the durations in nanoseconds.
#[derive(Clone, Copy, Default, Serialize)]
pub(in crate::server) struct DurationTotal {
    pub count: u64,
    pub ns: u64,
}

impl DurationTotal {
    fn new(count: u64, time: Duration) -> Self {
        DurationTotal { count, ns: time.as_nanos() as u64 }
    }
}

impl From<Total> for DurationTotal {
    fn from(total: Total) -> Self {
        DurationTotal::new(total.count, total.time)
    }
}

pub(in crate::server) fn statistics(route: &Route) -> ModelStatistics {
    let totals = route.statistics.totals();
    let Service { input, infer, output, rows, release: _ } = totals.service;
    let answered = |time| DurationTotal::new(totals.success.count, time);
    ModelStatistics {
        name: route.name.name.to_string(),
        version: route.name.version.to_string(),
        last_inference: totals.last_ms,
        inference_count: rows as u64,
        execution_count: route.statistics.runs.count(),
        inference_stats: InferStatistics {
            success: totals.success.into(),
            fail: totals.fail.into(),
            queue: answered(totals.queue),
            compute_input: answered(input),
            compute_infer: answered(infer),
            compute_output: answered(output),
            cache_hit: DurationTotal::default(),
            cache_miss: DurationTotal::default(),
        },
        batch_stats: route.statistics.runs.by_rows().into_iter().map(batch).collect(),
        memory_usage: Vec::new(),
        response_stats: Map::new(),
    }
}

fn batch(runs: RunsOfSize) -> BatchStatistics {
    let RunsOfSize { count, service } = runs;
    BatchStatistics {
        batch_size: service.rows as u64,
        compute_input: DurationTotal::new(count, service.input),
        compute_infer: DurationTotal::new(count, service.infer),
        compute_output: DurationTotal::new(count, service.output),
    }
}
