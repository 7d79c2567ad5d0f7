//! Responses that have arrived and wait to be read: who pays for them, and how much.

use super::{Payload, Tensor};
use crate::error::Result;

/// Who pays for responses that nobody has read yet.
pub trait Budget: Send + Sync {
    /// Counts bytes, or says why they are too many.
    fn charge(&self, bytes: usize) -> Result<()>;

    /// The bytes are not held any more.
    fn release(&self, bytes: usize);
}

impl Payload {
    /// The memory that it keeps alive.
    pub fn bytes_kept(&self) -> usize {
        match self {
            Payload::Tensors(tensors) => Tensor::bytes_kept(tensors),
            Payload::Json(text) => text.as_bytes().len(),
            Payload::Bytes { data, .. } => data.len(),
        }
    }
}
