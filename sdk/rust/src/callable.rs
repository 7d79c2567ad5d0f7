//! Calls to models: wait for an answer, start several calls and take the first, read one response
//! after the other, cancel by dropping. All functions are blocking; only the current request waits.
//! Plugins in the role `streaming-model` use [`concurrent`](crate::concurrent) instead.
//!
//! ```
//! use hostler_plugin::{Error, Tensor, models, wait_any};
//! use std::time::Duration;
//!
//! /// Asks two models at once, and takes the answer that arrives first.
//! fn faster(inputs: &[Tensor]) -> Result<Vec<Tensor>, Error> {
//!     let a = models::get("a", None)?.start(inputs)?;
//!     let b = models::get("b", None)?.start(inputs)?;
//!     match wait_any(&[&a, &b], Some(Duration::from_millis(100))) {
//!         Some(0) => a.wait(), // `b` is dropped, which cancels it
//!         Some(_) => b.wait(),
//!         None => Err(Error::failed("neither model answered within 100 ms")),
//!     }
//! }
//!
//! # use hostler_plugin::testing::{Host, Reply};
//! # let host = Host::new()
//! #     .replies("a", |_| Reply::new(Ok(vec![])).after(Duration::from_millis(30)))
//! #     .replies("b", |_| Reply::new(Ok(vec![])).after(Duration::from_millis(10)));
//! faster(&[]).unwrap();
//! # assert_eq!(host.time(), Duration::from_millis(10));
//! ```

use crate::bindings::executor::callables;
use crate::{Error, Tensor};
use std::time::Duration;

/// A model that can be called, on its own executor. Must not be used after the call of the plugin
/// that received it.
#[derive(Debug)]
pub struct Callable(callables::Callable);

/// A call in flight. Dropping it cancels the call, and its executor can take another one.
#[derive(Debug)]
pub struct Invocation(callables::Invocation);

impl Callable {
    pub(crate) fn new(callable: callables::Callable) -> Self {
        Callable(callable)
    }

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

    /// Calls the model and waits for its one response, at most until the deadline of the request.
    ///
    /// The error is that of the model, or `overloaded` if the call was not admitted, `deadline`,
    /// `cancelled`, `invalid-input` for inputs that do not fit, and `unsupported` if the model has
    /// 0..n responses. The inputs remain yours; their bytes are not copied.
    pub fn call(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Error> {
        self.0.call(&borrowed(inputs))
    }

    /// Like [`call`](Self::call), but waits for at most `timeout`; after that the error is
    /// `deadline`.
    pub fn call_within(&self, inputs: &[Tensor], timeout: Duration) -> Result<Vec<Tensor>, Error> {
        self.0.call_within(&borrowed(inputs), micros(timeout))
    }

    /// Starts a call and returns immediately. An error, such as `overloaded`, means that the call
    /// was not admitted.
    pub fn start(&self, inputs: &[Tensor]) -> Result<Invocation, Error> {
        self.0.start(&borrowed(inputs)).map(Invocation)
    }

    /// Like [`start`](Self::start), but fails unless all responses arrive within `timeout`.
    pub fn start_within(&self, inputs: &[Tensor], timeout: Duration) -> Result<Invocation, Error> {
        self.0.start_within(&borrowed(inputs), micros(timeout)).map(Invocation)
    }
}

impl Invocation {
    /// Returns the outcome of the call, once. `None` while it is in flight, and afterwards.
    pub fn outcome(&self) -> Option<Result<Vec<Tensor>, Error>> {
        self.0.outcome()
    }

    /// Returns the responses of the call. The iterator waits for each; it ends after the last one
    /// and after an error.
    pub fn responses(&self) -> impl Iterator<Item = Result<Vec<Tensor>, Error>> {
        std::iter::from_fn(|| self.0.next())
    }

    /// Waits for the end of the call, at most until the deadline of the request.
    pub fn wait(self) -> Result<Vec<Tensor>, Error> {
        wait_any(&[&self], None);
        self.outcome().unwrap_or_else(|| Err(Error::failed("the outcome of this call was already taken")))
    }
}

/// Waits until an invocation has a response or has ended, and returns its index in the list. `None`
/// after `timeout`. An empty list needs a timeout: see [`sleep`].
pub fn wait_any(invocations: &[&Invocation], timeout: Option<Duration>) -> Option<usize> {
    let invocations: Vec<_> = invocations.iter().map(|invocation| &invocation.0).collect();
    callables::wait_any(&invocations, timeout.map(micros)).map(|index| index as usize)
}

/// Waits for `time`, at most until the deadline of the request.
pub fn sleep(time: Duration) {
    wait_any(&[], Some(time));
}

/// Answers the request now and continues. The client does not wait for the work that follows; this
/// work has the same deadline, and the result of `submit` is ignored. Only for the role `executor`,
/// and not in `submit_batch`.
pub fn answer(outputs: &[Tensor]) -> Result<(), Error> {
    callables::answer(&borrowed(outputs))
}

fn borrowed(tensors: &[Tensor]) -> Vec<&Tensor> {
    tensors.iter().collect()
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
