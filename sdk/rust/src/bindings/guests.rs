//! Connects the traits of this crate with those that the bindings of a component export.

use super::executor::callables;
use crate::concurrent::{Sink, StreamingMetadata, StreamingModel};
use crate::faults::{enter, entered, noted};
use crate::{Callable, Error, Executor, Model, ModelMetadata, OptionalInputs};
use crate::{Payload, Request, Tensor, Transformer};

impl<T: Transformer> super::transformer::Guest for T {
    fn metadata() -> Option<ModelMetadata> {
        enter("metadata");
        T::metadata()
    }

    fn preprocess(request: Request, input: Payload) -> Result<Vec<Tensor>, Error> {
        enter("preprocess");
        noted("preprocess", T::preprocess(&request, input))
    }

    fn postprocess(request: Request, outputs: Vec<Tensor>) -> Result<Payload, Error> {
        enter("postprocess");
        noted("postprocess", T::postprocess(&request, outputs))
    }
}

impl<T: Model> super::model::Guest for T {
    fn metadata() -> ModelMetadata {
        enter("metadata");
        T::metadata()
    }

    fn predict(request: Request, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, Error> {
        enter("predict");
        noted("predict", T::predict(&request, inputs))
    }
}

impl<T: OptionalInputs> super::optional_inputs::Guest for T {
    fn names() -> Vec<String> {
        enter("names");
        T::names()
    }
}

impl<T: Executor> super::executor::Guest for T {
    fn submit(
        request: Request,
        inputs: Vec<Tensor>,
        model: callables::Callable,
    ) -> Result<Vec<Tensor>, Error> {
        enter("submit");
        noted("submit", T::submit(&request, inputs, &Callable::new(model)))
    }

    fn submit_batch(
        requests: Vec<Request>,
        inputs: Vec<Vec<Tensor>>,
        model: callables::Callable,
    ) -> Result<Vec<Result<Vec<Tensor>, Error>>, Error> {
        enter("submit_batch");
        noted("submit_batch", T::submit_batch(&requests, inputs, &Callable::new(model)))
    }
}

impl<T: StreamingModel> super::streaming_model::Guest for T {
    async fn initialize() -> Result<(), Error> {
        noted("initialize", entered("initialize", T::initialize()).await)
    }

    fn metadata() -> StreamingMetadata {
        enter("metadata");
        T::metadata()
    }

    async fn execute(request: Request, inputs: Vec<Tensor>, responses: Sink) -> Result<(), Error> {
        noted("execute", entered("execute", T::execute(request, inputs, responses)).await)
    }

    fn ready() -> bool {
        enter("ready");
        T::ready()
    }

    async fn finalize() {
        entered("finalize", T::finalize()).await;
    }
}
