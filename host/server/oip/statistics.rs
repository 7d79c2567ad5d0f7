//! What was asked of models, in the form of Triton's ModelStatistics, for both protocols.

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
    /// Milliseconds since 1970 of the last request; 0 if there was none.
    pub last_inference: u64,
    /// Rows of requests that had their answer; requests, where the model takes no batches.
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

/// Of requests.
#[derive(Serialize)]
pub(in crate::server) struct InferStatistics {
    pub success: Took,
    pub fail: Took,
    pub queue: Took,
    pub compute_input: Took,
    pub compute_infer: Took,
    pub compute_output: Took,
    /// There is no cache.
    pub cache_hit: Took,
    pub cache_miss: Took,
}

/// Of runs that had so many rows.
#[derive(Serialize)]
pub(in crate::server) struct BatchStatistics {
    pub batch_size: u64,
    pub compute_input: Took,
    pub compute_infer: Took,
    pub compute_output: Took,
}

/// How often, and the nanoseconds of all together.
#[derive(Clone, Copy, Default, Serialize)]
pub(in crate::server) struct Took {
    pub count: u64,
    pub ns: u64,
}

impl Took {
    fn new(count: u64, time: Duration) -> Self {
        Took { count, ns: time.as_nanos() as u64 }
    }
}

impl From<Total> for Took {
    fn from(total: Total) -> Self {
        Took::new(total.count, total.time)
    }
}

pub(in crate::server) fn statistics(route: &Route) -> ModelStatistics {
    let totals = route.statistics.totals();
    let Service { input, infer, output, rows } = totals.service;
    let answered = |time| Took::new(totals.success.count, time);
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
            cache_hit: Took::default(),
            cache_miss: Took::default(),
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
        compute_input: Took::new(count, service.input),
        compute_infer: Took::new(count, service.infer),
        compute_output: Took::new(count, service.output),
    }
}
