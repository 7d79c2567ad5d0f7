//! The roles that a component can have. The host calls these functions one at a time in each
//! instance. None may wait for another call of the same plugin. A call that passes its deadline is
//! stopped immediately.

use crate::{Callable, Error, ModelMetadata, Payload, Request, Tensor};

/// Turns what an application sends into a model's inputs, and the model's outputs into an answer.
///
/// Each call may run in an instance of its own. Use statics only as a cache, and pass data from
/// `preprocess` to `postprocess` with [`Request::set_note`].
pub trait Transformer {
    /// Returns the inputs and outputs that callers of the Open Inference Protocol should see.
    /// `None`, the default, if they are those of the model itself. Called once, at load.
    fn metadata() -> Option<ModelMetadata> {
        None
    }

    /// Called once for each request.
    fn preprocess(request: &Request, input: Payload) -> Result<Vec<Tensor>, Error>;

    /// Called once for each response of the model.
    fn postprocess(request: &Request, outputs: Vec<Tensor>) -> Result<Payload, Error>;
}

/// A plugin that is itself a model.
pub trait Model {
    /// Called once, at load.
    fn metadata() -> ModelMetadata;

    /// Called once for each request, with inputs that match the metadata.
    fn predict(request: &Request, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, Error>;
}

/// Lists the inputs that a request may omit, for a [`Model`]. Without it, `predict` always receives
/// all inputs.
///
/// ```
/// use hostler_plugin::{Datatype, Error, Model, ModelMetadata, OptionalInputs, Request, Tensor,
/// tensor};
///
/// struct Sum;
///
/// impl OptionalInputs for Sum {
///     fn names() -> Vec<String> {
///         vec!["b".into()]
///     }
/// }
///
/// impl Model for Sum {
///     fn metadata() -> ModelMetadata {
///         let spec = |name| tensor::spec(name, Datatype::Fp32, &[-1]);
///         ModelMetadata { inputs: vec![spec("a"), spec("b")], outputs: vec![spec("y")] }
///     }
///
///     fn predict(_: &Request, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, Error> {
///         let mut y = tensor::named(&inputs, "a")?.to_f32()?;
///         if let Ok(b) = tensor::named(&inputs, "b") {
///             y.iter_mut().zip(b.to_f32()?).for_each(|(y, b)| *y += b);
///         }
///         Ok(vec![tensor::fp32("y", &[y.len() as i64], &y)?])
///     }
/// }
///
/// hostler_plugin::export!(Sum: model, optional_inputs);
/// ```
pub trait OptionalInputs {
    /// Returns names of inputs in the model's metadata. Called once, at load.
    fn names() -> Vec<String>;
}

/// Decides how a model is called, for example again, twice concurrently, from a cache, or another
/// model instead.
///
/// Each request has an instance of its own while it runs, so waiting blocks no other request. Keep
/// data that requests share in [`state`](crate::state); use statics only as a cache.
///
/// A hedge makes a second call if the first takes long:
///
/// ```
/// use hostler_plugin::{Callable, Error, Executor, Request, Tensor, wait_any};
/// use std::time::Duration;
///
/// struct Hedge;
///
/// impl Executor for Hedge {
///     fn submit(
///         _: &Request,
///         inputs: Vec<Tensor>,
///         model: &Callable,
///     ) -> Result<Vec<Tensor>, Error> {
///         let first = model.start(&inputs)?;
///         if wait_any(&[&first], Some(Duration::from_millis(20))).is_some() {
///             return first.wait();
///         }
///         let second = model.start(&inputs)?;
///         match wait_any(&[&first, &second], None) {
///             Some(0) => first.wait(), // `second` is dropped, which cancels it
///             _ => second.wait(),
///         }
///     }
/// }
///
/// // A test: the first call takes a second, the other one no time.
/// use hostler_plugin::testing::{Host, Reply};
///
/// let mut calls = 0;
/// let host = Host::new().replies("slow", move |_| {
///     calls += 1;
///     Reply::new(Ok(vec![])).after(Duration::from_secs(if calls == 1 { 1 } else { 0 }))
/// });
/// Hedge::submit(&host.request(), vec![], &host.callable("slow")).unwrap();
/// assert_eq!(host.time(), Duration::from_millis(20));
/// ```
pub trait Executor {
    /// Called once for each request. `model` must not be used after the call.
    fn submit(request: &Request, inputs: Vec<Tensor>, model: &Callable) -> Result<Vec<Tensor>, Error>;

    /// Called once for each batch: returns an outcome for each request, in their order. If it
    /// returns the error `unsupported`, as the default does, the host calls `submit` for each
    /// request.
    fn submit_batch(
        requests: &[Request],
        inputs: Vec<Vec<Tensor>>,
        model: &Callable,
    ) -> Result<Vec<Result<Vec<Tensor>, Error>>, Error> {
        let _ = (requests, inputs, model);
        Err(Error::unsupported("this executor does not implement submit_batch"))
    }
}
