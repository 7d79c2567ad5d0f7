//! Batching: how calls of a model may share runs. The scheduler decides which calls do.

use crate::predict::Tensor;
use std::time::Duration;

/// How calls of a model may share its runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batching {
    /// The maximum rows of one run, at least 2. A call with more rows runs alone.
    pub max_size: usize,
    /// How long a call may wait for others to share its run. Zero: only calls that wait for a
    /// worker anyway are batched.
    pub max_delay: Duration,
}

/// Returns the rows of a model's inputs: those of the first tensor, at least 1.
pub(super) fn rows(inputs: &[Tensor]) -> usize {
    inputs.first().and_then(Tensor::rows).unwrap_or(1).max(1)
}
