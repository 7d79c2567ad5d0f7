//! How calls of a model may share runs.

use crate::predict::Tensor;
use std::time::Duration;

/// How calls of a model may share runs of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batching {
    /// Rows of one run, at least 2. A call that has more runs alone.
    pub max_size: usize,
    /// How long a call may wait for others. Zero: only those that wait anyway are put together.
    pub max_delay: Duration,
}

/// The rows of a model's inputs, as its first tensor has them.
pub(super) fn rows(inputs: &[Tensor]) -> usize {
    inputs.first().and_then(Tensor::rows).unwrap_or(1).max(1)
}
