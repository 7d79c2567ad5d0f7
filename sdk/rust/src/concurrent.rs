//! The role `streaming-model`, and the functions that its plugins wait with. All requests share one
//! instance and one thread: nothing runs in parallel, and a request that computes without a pause
//! blocks all others.
//!
//! A wait fails with `cancelled` or `deadline` if the client has disconnected, the call was
//! cancelled or its deadline has passed. Return the error with `?`. If a request continues instead,
//! none of its waits returns again after a grace period.

use crate::bindings::concurrent_http;
use crate::bindings::streaming_model::{clock, models};
use crate::{Error, Request, Tensor, http};
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

pub use crate::bindings::streaming_model::StreamingMetadata;
pub use crate::bindings::streaming_model::sinks::Sink;

/// A model whose requests run concurrently in one long-lived instance. Each has 0..n responses, or
/// exactly one.
///
/// Statics live as long as the instance: across requests, until the instance traps, computes for
/// too long or is replaced.
#[allow(async_fn_in_trait, reason = "a component has one thread")]
pub trait StreamingModel {
    /// Called once, at load, after `initialize`.
    fn metadata() -> StreamingMetadata;

    /// Called once for each instance. An error means that the plugin cannot be used.
    async fn initialize() -> Result<(), Error> {
        Ok(())
    }

    /// Called for each request, with inputs that match the metadata, while earlier ones may still
    /// wait. The responses end when it returns, with the error if it returns one.
    async fn execute(request: Request, inputs: Vec<Tensor>, responses: Sink) -> Result<(), Error>;

    /// Returns whether the model can serve requests now.
    fn ready() -> bool {
        true
    }

    /// Called once for each instance that ends normally, after its last request.
    async fn finalize() {}
}

/// Waits for `time`, to the microsecond. Fails early with `deadline` or `cancelled` if the request
/// that it belongs to has ended.
pub async fn sleep(time: Duration) -> Result<(), Error> {
    clock::sleep(micros(time)).await
}

/// Sends an HTTP request and waits for the whole response, with any status. Fails early if the
/// request that it belongs to has ended. Other errors are those of [`http::fetch`].
pub async fn fetch(request: http::Request) -> Result<http::Response, Error> {
    concurrent_http::fetch(request).await
}

/// A model that can be called, for the request that got it.
#[derive(Debug)]
pub struct Callable(models::Callable);

/// A call in flight. Dropping it cancels the call.
#[derive(Debug)]
pub struct Invocation(models::Invocation);

/// Returns the model as the policy of the current request has it. Without a version, returns the
/// only version or the one that the routing rule chooses for this request. The error is `not-found`
/// if the policy has no such model, and `unsupported` outside of a request.
pub fn model(model: &str, version: Option<&str>) -> Result<Callable, Error> {
    models::get(model, version).map(Callable)
}

impl Callable {
    /// Returns the name of the model.
    pub fn model(&self) -> String {
        self.0.model()
    }

    /// Returns the version of the model.
    pub fn version(&self) -> String {
        self.0.version()
    }

    /// Returns whether the model has 0..n responses instead of exactly one.
    pub fn is_streaming(&self) -> bool {
        self.0.streaming()
    }

    /// Calls the model and waits for its one response, at most for `timeout` and until the deadline
    /// of the request.
    ///
    /// The error is that of the model, or `overloaded` if the call was not admitted, `deadline`,
    /// `cancelled`, `invalid-input` for inputs that do not fit, and `unsupported` if the model has
    /// 0..n responses. The inputs remain yours; their bytes are not copied.
    pub async fn call(&self, inputs: &[Tensor], timeout: Option<Duration>) -> Result<Vec<Tensor>, Error> {
        self.0.call(inputs.iter().collect(), timeout.map(micros)).await
    }

    /// Starts a call and returns immediately. An error, such as `overloaded`, means that the call
    /// was not admitted.
    pub fn start(&self, inputs: &[Tensor], timeout: Option<Duration>) -> Result<Invocation, Error> {
        self.0.start(&inputs.iter().collect::<Vec<_>>(), timeout.map(micros)).map(Invocation)
    }
}

impl Invocation {
    /// Waits for the next response. `None` after the last response and after an error.
    pub async fn next(&self) -> Option<Result<Vec<Tensor>, Error>> {
        self.0.next().await
    }
}

/// Runs two futures concurrently until both are done.
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

/// Runs futures concurrently until all are done, and returns their results in the same order.
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
