//! Calling models: wait for an answer, start several calls and take the first, read one response after the other,
//! cancel by dropping. All of it in blocking style: only this request waits. For plugins in the role
//! `streaming-model` there is `concurrent` instead.

use crate::bindings::executor::callables;
use crate::{Error, Tensor};
use std::time::Duration;

/// A model that can be called, on the executor that it has there. Of no use after the call of the plugin
/// that it was given to.
#[derive(Debug)]
pub struct Callable(callables::Callable);

/// A call under way. Dropping it cancels the call, and frees its place on the executor.
#[derive(Debug)]
pub struct Invocation(callables::Invocation);

impl Callable {
    pub(crate) fn new(callable: callables::Callable) -> Self {
        Callable(callable)
    }

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
    pub fn call(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Error> {
        self.0.call(&borrowed(inputs))
    }

    /// The same, for that long at most; then the error is `deadline`.
    pub fn call_within(&self, inputs: &[Tensor], timeout: Duration) -> Result<Vec<Tensor>, Error> {
        self.0.call_within(&borrowed(inputs), micros(timeout))
    }

    /// Starts a call and goes on. An error such as `overloaded` says that it was not admitted.
    pub fn start(&self, inputs: &[Tensor]) -> Result<Invocation, Error> {
        self.0.start(&borrowed(inputs)).map(Invocation)
    }

    /// The same; all responses come within that time, or an error does.
    pub fn start_within(&self, inputs: &[Tensor], timeout: Duration) -> Result<Invocation, Error> {
        self.0.start_within(&borrowed(inputs), micros(timeout)).map(Invocation)
    }
}

impl Invocation {
    /// How the call ended; none while it is under way and after this was asked once.
    pub fn outcome(&self) -> Option<Result<Vec<Tensor>, Error>> {
        self.0.outcome()
    }

    /// The responses of the call, each waited for; none after the last one and after an error.
    pub fn responses(&self) -> impl Iterator<Item = Result<Vec<Tensor>, Error>> {
        std::iter::from_fn(|| self.0.next())
    }

    /// Waits for the end of the call, at most until the deadline of the request.
    pub fn wait(self) -> Result<Vec<Tensor>, Error> {
        wait_any(&[&self], None);
        self.outcome().unwrap_or_else(|| Err(Error::failed("the outcome of this call was taken before")))
    }
}

/// Waits until one of them has a response or has ended and gives its place in the list; none after `timeout`. An empty list
/// needs a timeout: see [`sleep`].
pub fn wait_any(invocations: &[&Invocation], timeout: Option<Duration>) -> Option<usize> {
    let invocations: Vec<_> = invocations.iter().map(|invocation| &invocation.0).collect();
    callables::wait_any(&invocations, timeout.map(micros)).map(|index| index as usize)
}

/// Waits for that long. The request's deadline ends it as it ends everything.
pub fn sleep(time: Duration) {
    wait_any(&[], Some(time));
}

/// Answers the request now, and goes on: what is done after this keeps nobody waiting, has the same
/// deadline, and what it returns is forgotten. For the role `executor`, and not for `submit_batch`.
pub fn answer(outputs: &[Tensor]) -> Result<(), Error> {
    callables::answer(&borrowed(outputs))
}

fn borrowed(tensors: &[Tensor]) -> Vec<&Tensor> {
    tensors.iter().collect()
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
