//! Counters for the runs of one route's model: how many, of how many rows, and how long their parts
//! took.
//!
//! Workers update them with a few relaxed increments per run. The requests behind the runs are
//! counted in `policy`.

use super::batching::{self, Batching};
use crate::metrics::Count;
use crate::predict::{Service, Tensor};
use std::time::Duration;

/// Counters that only increase. A run that several routes share counts for the route of its first
/// request.
pub struct Runs {
    batching: bool,
    count: Count,
    /// By rows, starting with one row. Runs with more rows than a batch may have are only in
    /// `count`.
    by_rows: Box<[OfSize]>,
}

#[derive(Default)]
struct OfSize {
    count: Count,
    input: Count,
    infer: Count,
    output: Count,
}

/// Runs of the same number of rows.
#[derive(Clone, Copy, Debug)]
pub struct RunsOfSize {
    pub count: u64,
    /// The times are sums over all these runs; `rows` are those of one run.
    pub service: Service,
}

impl Runs {
    pub fn new(batching: Option<Batching>) -> Self {
        let rows_max = batching.map_or(1, |batching| batching.max_size);
        Runs {
            batching: batching.is_some(),
            count: Count::default(),
            by_rows: (0..rows_max).map(|_| OfSize::default()).collect(),
        }
    }

    pub fn count(&self) -> u64 {
        self.count.get()
    }

    /// Returns the counters of all sizes that occurred, the smallest first.
    pub fn by_rows(&self) -> Vec<RunsOfSize> {
        let of_size = |(index, sized): (usize, &OfSize)| {
            let (input, infer, output) = (sized.input.time(), sized.infer.time(), sized.output.time());
            let service = Service { input, infer, output, rows: index + 1, ..Service::default() };
            RunsOfSize { count: sized.count.get(), service }
        };
        self.by_rows.iter().enumerate().map(of_size).filter(|runs| runs.count > 0).collect()
    }

    /// Returns the rows to count for a call with these inputs; always 1 without batching.
    pub(super) fn rows(&self, inputs: &[Tensor]) -> usize {
        if self.batching { batching::rows(inputs) } else { 1 }
    }

    pub(super) fn record(&self, run: Service) {
        self.count.add(1);
        if let Some(sized) = self.sized(run.rows) {
            sized.count.add(1);
            sized.input.add_time(run.input);
            sized.infer.add_time(run.infer);
        }
        self.record_output(run.rows, run.output);
    }

    /// Adds the postprocess time of a run that was recorded before its outputs were postprocessed.
    pub(super) fn record_output(&self, rows: usize, output: Duration) {
        if let Some(sized) = self.sized(rows) {
            sized.output.add_time(output);
        }
    }

    fn sized(&self, rows: usize) -> Option<&OfSize> {
        self.by_rows.get(rows.checked_sub(1)?)
    }
}
