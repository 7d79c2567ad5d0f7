//! One response of a call, with its timings.

use super::payload::Payload;
use super::tensor::Tensor;
use crate::error::{Error, Result};
use std::time::Duration;

/// One response, with its timings.
#[derive(Debug)]
pub struct Response {
    pub payload: Payload,
    pub queue_wait: Duration,
    pub service: Service,
}

/// The time that a worker spent on a call, from its first step to this response. The parts follow
/// each other without a gap. In a run that several calls share, the parts include the steps of the
/// other calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct Service {
    /// Preprocessing.
    pub input: Duration,
    /// The model.
    pub infer: Duration,
    /// Postprocessing.
    pub output: Duration,
    /// Freeing the instance of the transformer that postprocessed. Measured in the last response,
    /// and not part of the total.
    pub release: Duration,
    /// Rows in the model's run; 1 if the model runs one call at a time.
    pub rows: usize,
}

impl Service {
    pub fn total(&self) -> Duration {
        self.input + self.infer + self.output
    }
}

impl std::ops::AddAssign for Service {
    fn add_assign(&mut self, other: Service) {
        self.input += other.input;
        self.infer += other.infer;
        self.output += other.output;
        self.rows += other.rows;
    }
}

impl Response {
    /// Returns the tensors that a model without a transformer answers with.
    pub fn tensors(self) -> Result<Vec<Tensor>> {
        match self.payload {
            Payload::Tensors(tensors) => Ok(tensors),
            _ => Err(Error::failed("the model returned something other than tensors")),
        }
    }
}
