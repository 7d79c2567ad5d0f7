//! The roles that a component can have. The host calls these functions one at a time; none may wait
//! for another call of the same plugin. A call that passes its deadline is stopped where it is.

use crate::bindings;
use crate::{Error, ModelMetadata, Payload, Request, Tensor};

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
