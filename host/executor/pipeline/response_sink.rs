//! Where a run of a pipeline sends its responses: to the client, or to the step of an outer
//! pipeline.

use crate::error::{Error, Result};
use crate::executor::callable::BoxFuture;
use crate::executor::sink::Sink;
use crate::predict::Tensor;

/// Receives all responses of a run but the last one, which the run returns.
pub(super) trait ResponseSink: Send {
    fn send(&mut self, outputs: Vec<Tensor>) -> BoxFuture<'_, Result<()>>;

    /// Returns true if a response or an error can be sent while detached steps continue.
    fn answers_early(&self) -> bool;

    /// Sends an error now, while detached steps continue.
    fn fail(&mut self, error: &Error);

    /// Sends the last response now, while detached steps continue.
    fn answer(&mut self, outputs: Vec<Tensor>) -> BoxFuture<'_, ()>;
}

impl ResponseSink for Sink {
    fn send(&mut self, outputs: Vec<Tensor>) -> BoxFuture<'_, Result<()>> {
        Box::pin(Sink::send(self, outputs))
    }

    fn answers_early(&self) -> bool {
        true
    }

    fn fail(&mut self, error: &Error) {
        Sink::fail(self, error);
    }

    fn answer(&mut self, outputs: Vec<Tensor>) -> BoxFuture<'_, ()> {
        Box::pin(Sink::answer(self, Ok(outputs)))
    }
}

/// The sink of a nested pipeline, which responds once.
pub(super) struct SingleResponse;

impl ResponseSink for SingleResponse {
    fn send(&mut self, _: Vec<Tensor>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Err(Error::failed("a step with exactly one response returned several")) })
    }

    fn answers_early(&self) -> bool {
        false
    }

    fn fail(&mut self, _: &Error) {}

    fn answer(&mut self, _: Vec<Tensor>) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}
