//! The interface `hostler:concurrent/sinks`.

use super::types::{Error, Tensor};
use crate::testing::{SinkData, Wait};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The destination of the responses to a request.
#[derive(Debug)]
pub struct Sink(pub(crate) Arc<Mutex<SinkData>>);

impl Sink {
    /// Sends one response. Waits while the client is slow to read. Fails if the request has ended,
    /// and with `unsupported` for a second response of a model that has exactly one.
    pub async fn send(&self, outputs: Vec<Tensor>) -> Result<(), Error> {
        Wait::of(Duration::ZERO).await?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).send(outputs)
    }
}
