//! Batching: how calls of a model may share runs. The scheduler decides which calls do.

use crate::predict::{Metadata, Payload, Tensor};
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

/// Returns the rows of a request, as far as they are known before preprocess: 1 if a plugin makes
/// the model's inputs, or if these are not made of rows.
pub fn request_rows(metadata: &Metadata, has_transformer: bool, input: &Payload) -> usize {
    match input {
        Payload::Tensors(inputs) if !has_transformer && are_rows(metadata) => rows(inputs),
        _ => 1,
    }
}

fn are_rows(metadata: &Metadata) -> bool {
    metadata.inputs.first().is_some_and(|spec| spec.shape.has_free_rows())
}

/// Returns the rows of a model's inputs: those of the first tensor, at least 1.
pub(super) fn rows(inputs: &[Tensor]) -> usize {
    inputs.first().and_then(Tensor::rows).unwrap_or(1).max(1)
}
