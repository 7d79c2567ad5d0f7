//! Runs of one route's model: how many, of how many rows, and how long their parts took.
//!
//! Written by workers, a few relaxed increments a run. Whose requests these were is counted in `policy`.

use super::batching::{self, Batching};
use crate::metrics::Count;
use crate::predict::{Service, Tensor};
use std::time::Duration;

/// Counts up. A run that several routes share is its first request's.
pub struct Runs {
    batching: bool,
    count: Count,
    /// From one row on. Runs of more rows than may be put together are counted without their size.
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
    /// Its parts are sums over all of them; `rows` are those of one.
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

    /// Those of which there were any, the smallest first.
    pub fn by_rows(&self) -> Vec<RunsOfSize> {
        let of_size = |(index, sized): (usize, &OfSize)| {
            let (input, infer, output) = (sized.input.time(), sized.infer.time(), sized.output.time());
            let service = Service { input, infer, output, rows: index + 1 };
            RunsOfSize { count: sized.count.get(), service }
        };
        self.by_rows.iter().enumerate().map(of_size).filter(|runs| runs.count > 0).collect()
    }

    /// The rows of a call with these inputs, as they count here.
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

    /// For a run that was recorded before its outputs were postprocessed.
    pub(super) fn record_output(&self, rows: usize, output: Duration) {
        if let Some(sized) = self.sized(rows) {
            sized.output.add_time(output);
        }
    }

    fn sized(&self, rows: usize) -> Option<&OfSize> {
        self.by_rows.get(rows.checked_sub(1)?)
    }
}
