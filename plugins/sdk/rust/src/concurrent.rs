//! The role `streaming-model`, and what its plugins wait with. All its requests share one instance and one
//! thread: nothing runs in parallel, and one that computes without a pause keeps all others waiting.
//!
//! A wait that fails with `cancelled` or `deadline` says that nobody wants the answer any more. Pass the error
//! on with `?`: a request that goes on regardless is left where it is at its next wait.

use crate::bindings::streaming_model::{self, clock};
use crate::{Error, Request, Tensor};
use std::time::Duration;

pub use crate::bindings::streaming_model::StreamingMetadata;
pub use crate::bindings::streaming_model::sinks::Sink;

/// Is a model whose requests wait side by side in one long-lived instance, each with 0..n responses or with
/// exactly one.
///
/// Statics live as long as the instance does: through many requests, until it traps, computes for too long or
/// is replaced.
#[allow(async_fn_in_trait, reason = "a component has one thread")]
pub trait StreamingModel {
    /// Called once, at load, after `initialize`.
    fn metadata() -> StreamingMetadata;

    /// Called once for each instance. An error means that the plugin cannot be used.
    async fn initialize() -> Result<(), Error> {
        Ok(())
    }

    /// Called for each request, with inputs that fit the metadata, while earlier ones may still wait.
    /// Returning ends the responses, with the error if there is one.
    async fn execute(request: Request, inputs: Vec<Tensor>, responses: Sink) -> Result<(), Error>;

    /// Whether requests make sense now.
    fn ready() -> bool {
        true
    }

    /// Called once for each instance that ends in order, after its last request.
    async fn finalize() {}
}

impl<T: StreamingModel> streaming_model::Guest for T {
    async fn initialize() -> Result<(), Error> {
        T::initialize().await
    }

    fn metadata() -> StreamingMetadata {
        T::metadata()
    }

    async fn execute(request: Request, inputs: Vec<Tensor>, responses: Sink) -> Result<(), Error> {
        T::execute(request, inputs, responses).await
    }

    fn ready() -> bool {
        T::ready()
    }

    async fn finalize() {
        T::finalize().await;
    }
}

/// Waits for that long. Fails early when nobody waits any more for the request that it is called for.
pub async fn sleep(time: Duration) -> Result<(), Error> {
    clock::sleep(u64::try_from(time.as_micros()).unwrap_or(u64::MAX)).await
}
