//! The roles that a component can have. The host calls these functions one at a time in each instance;
//! none may wait for another call of the same plugin. A call that passes its deadline is stopped where
//! it is.

use crate::bindings::{self, executor::callables};
use crate::{Callable, Error, ModelMetadata, Payload, Request, Tensor};

/// Turns what an application sends into a model's inputs, and its outputs into an answer.
///
/// Each call may run in an instance of its own: statics are a cache at most, and what `postprocess`
/// must know of `preprocess` goes through [`Request::set_note`].
pub trait Transformer {
    /// Called once, at load: what callers of the Open Inference Protocol should see.
    /// None, the default, if that is what the model itself takes and gives.
    fn metadata() -> Option<ModelMetadata> {
        None
    }

    /// Called once for each request.
    fn preprocess(request: &Request, input: Payload) -> Result<Vec<Tensor>, Error>;

    /// Called once for each response of the model.
    fn postprocess(request: &Request, outputs: Vec<Tensor>) -> Result<Payload, Error>;
}

/// Is a model itself.
pub trait Model {
    /// Called once, at load.
    fn metadata() -> ModelMetadata;

    /// Called once for each request, with inputs that fit the metadata.
    fn predict(request: &Request, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, Error>;
}

/// Beside [`Model`]: the inputs that a request may leave out. Without it `predict` always gets all of them.
///
/// ```
/// use hostler_plugin::{Datatype, Error, Model, ModelMetadata, OptionalInputs, Request, Tensor, tensor};
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
    /// Called once, at load: names of inputs in the model's metadata.
    fn names() -> Vec<String>;
}

/// Decides how a model is called: again, twice at once, from a cache, another one instead.
///
/// Each request has an instance for itself while it is here, so waiting stops nobody else. What must be
/// known across requests belongs into [`state`](crate::state): statics are a cache at most.
///
/// A hedge, a second call when the first takes long:
///
/// ```
/// use hostler_plugin::{Callable, Error, Executor, Request, Tensor, wait_any};
/// use std::time::Duration;
///
/// struct Hedge;
///
/// impl Executor for Hedge {
///     fn submit(_: &Request, inputs: Vec<Tensor>, model: &Callable) -> Result<Vec<Tensor>, Error> {
///         let first = model.start(&inputs)?;
///         if wait_any(&[&first], Some(Duration::from_millis(20))).is_some() {
///             return first.wait();
///         }
///         let second = model.start(&inputs)?;
///         match wait_any(&[&first, &second], None) {
///             Some(0) => first.wait(), // and `second` is dropped, which cancels it
///             _ => second.wait(),
///         }
///     }
/// }
/// ```
pub trait Executor {
    /// Called once for each request. `model` is of no use after it.
    fn submit(request: &Request, inputs: Vec<Tensor>, model: &Callable) -> Result<Vec<Tensor>, Error>;

    /// Called once for each batch that waits together: an outcome for each request, in their order. The
    /// error `unsupported`, the default, makes the host call `submit` for each.
    fn submit_batch(
        requests: &[Request],
        inputs: Vec<Vec<Tensor>>,
        model: &Callable,
    ) -> Result<Vec<Result<Vec<Tensor>, Error>>, Error> {
        let _ = (requests, inputs, model);
        Err(Error::unsupported("batches are called one by one"))
    }
}

impl<T: Transformer> bindings::transformer::Guest for T {
    fn metadata() -> Option<ModelMetadata> {
        T::metadata()
    }

    fn preprocess(request: Request, input: Payload) -> Result<Vec<Tensor>, Error> {
        T::preprocess(&request, input)
    }

    fn postprocess(request: Request, outputs: Vec<Tensor>) -> Result<Payload, Error> {
        T::postprocess(&request, outputs)
    }
}

impl<T: Model> bindings::model::Guest for T {
    fn metadata() -> ModelMetadata {
        T::metadata()
    }

    fn predict(request: Request, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, Error> {
        T::predict(&request, inputs)
    }
}

impl<T: OptionalInputs> bindings::optional_inputs::Guest for T {
    fn names() -> Vec<String> {
        T::names()
    }
}

impl<T: Executor> bindings::executor::Guest for T {
    fn submit(
        request: Request,
        inputs: Vec<Tensor>,
        model: callables::Callable,
    ) -> Result<Vec<Tensor>, Error> {
        T::submit(&request, inputs, &Callable::new(model))
    }

    fn submit_batch(
        requests: Vec<Request>,
        inputs: Vec<Vec<Tensor>>,
        model: callables::Callable,
    ) -> Result<Vec<Result<Vec<Tensor>, Error>>, Error> {
        T::submit_batch(&requests, inputs, &Callable::new(model))
    }
}
