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
/// the model's inputs, or if these are not made of rows. Where inputs have different numbers of
/// rows, the largest one counts.
pub fn request_rows(metadata: &Metadata, has_transformer: bool, input: &Payload) -> usize {
    let Payload::Tensors(inputs) = input else { return 1 };
    if has_transformer {
        return 1;
    }
    let has_rows = |tensor: &Tensor| {
        let spec = metadata.inputs.iter().find(|spec| *spec.name == *tensor.name());
        spec.is_some_and(|spec| spec.shape.has_free_rows())
    };
    // Rows without elements are no work, and there can be any number of them.
    let rows = |tensor: &Tensor| if tensor.data().is_empty() { 1 } else { tensor.rows().unwrap_or(1) };
    inputs.iter().filter(|tensor| has_rows(tensor)).map(rows).max().unwrap_or(1).max(1)
}

/// Returns the rows of a model's inputs: those of the first tensor, at least 1.
pub(super) fn rows(inputs: &[Tensor]) -> usize {
    inputs.first().and_then(Tensor::rows).unwrap_or(1).max(1)
}
