//! The role `streaming-model`, and what its plugins wait with. All its requests share one instance and one
//! thread: nothing runs in parallel, and one that computes without a pause keeps all others waiting.
//!
//! A wait that fails with `cancelled` or `deadline` says that nobody wants the answer any more. Pass the error
//! on with `?`: a request that goes on regardless is left where it is at its next wait.

use crate::bindings::concurrent_http;
use crate::bindings::streaming_model::{self, clock, models};
use crate::{Error, Request, Tensor, http};
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
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
    clock::sleep(micros(time)).await
}

/// Asks an HTTP server and waits for its whole answer, whatever its status. Fails early when nobody waits any more
/// for the request that it is called for.
pub async fn fetch(request: http::Request) -> Result<http::Response, Error> {
    concurrent_http::fetch(request).await
}

/// A model that can be called, for the request that it was asked for.
#[derive(Debug)]
pub struct Callable(models::Callable);

/// A call under way. Dropping it cancels the call.
#[derive(Debug)]
pub struct Invocation(models::Invocation);

/// The model as the policy of the current request has it; without a version the only one, or what the routing rule
/// gives this request.
pub fn model(model: &str, version: Option<&str>) -> Result<Callable, Error> {
    models::get(model, version).map(Callable)
}

impl Callable {
    pub fn model(&self) -> String {
        self.0.model()
    }

    pub fn version(&self) -> String {
        self.0.version()
    }

    /// Whether it has 0..n responses, not exactly one.
    pub fn is_streaming(&self) -> bool {
        self.0.streaming()
    }

    /// Calls and waits for the one response, at most until the deadline of the request.
    pub async fn call(&self, inputs: &[Tensor], timeout: Option<Duration>) -> Result<Vec<Tensor>, Error> {
        self.0.call(inputs.iter().collect(), timeout.map(micros)).await
    }

    /// Begins a call and goes on. An error such as `overloaded` says that it was not admitted.
    pub fn start(&self, inputs: &[Tensor], timeout: Option<Duration>) -> Result<Invocation, Error> {
        self.0.start(&inputs.iter().collect::<Vec<_>>(), timeout.map(micros)).map(Invocation)
    }
}

impl Invocation {
    /// The next response; none after the last one and after an error.
    pub async fn next(&self) -> Option<Result<Vec<Tensor>, Error>> {
        self.0.next().await
    }
}

/// Waits for two things at once, until both are done.
pub async fn both<A, B>(a: impl Future<Output = A>, b: impl Future<Output = B>) -> (A, B) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut left, mut right) = (None, None);
    poll_fn(move |task| {
        if left.is_none()
            && let Poll::Ready(done) = a.as_mut().poll(task)
        {
            left = Some(done);
        }
        if right.is_none()
            && let Poll::Ready(done) = b.as_mut().poll(task)
        {
            right = Some(done);
        }
        match (left.take(), right.take()) {
            (Some(left), Some(right)) => Poll::Ready((left, right)),
            (one, other) => {
                (left, right) = (one, other);
                Poll::Pending
            }
        }
    })
    .await
}

/// Waits for all of them at once, until the last one is done; what they give, in their order.
pub async fn all<T>(futures: impl IntoIterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut waiting: Vec<_> = futures.into_iter().map(|future| (Box::pin(future), None)).collect();
    poll_fn(move |task| {
        for (future, done) in waiting.iter_mut().filter(|(_, done)| done.is_none()) {
            if let Poll::Ready(value) = future.as_mut().poll(task) {
                *done = Some(value);
            }
        }
        if waiting.iter().any(|(_, done)| done.is_none()) {
            return Poll::Pending;
        }
        Poll::Ready(waiting.iter_mut().filter_map(|(_, done)| done.take()).collect())
    })
    .await
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
