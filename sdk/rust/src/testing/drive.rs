//! Calls of plugins with the checks that a host makes before and after them.

use super::check::{check_inputs, check_outputs};
use super::clock::block_on;
use super::data::with_host;
use super::sink::sink;
use crate::concurrent::StreamingModel;
use crate::{Error, Model, ModelMetadata, OptionalInputs, Payload, Request, Tensor, Transformer, json};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex};

/// Calls a model as a host does: checks the inputs against its metadata, calls `predict`, and
/// checks what it returned. Calls to models that `predict` makes belong to `request`.
///
/// The error is `invalid-input` for inputs that do not fit, that of `predict`, or `failed` for
/// outputs that the metadata do not declare. See the [module](super) for an example.
pub fn predict<T: Model>(request: &Request, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, Error> {
    predict_with::<T>(request, &[], inputs)
}

/// Like [`predict`], for a model whose [`OptionalInputs`] may be missing. Panics if they name an
/// input that the metadata do not have; a host refuses to load such a plugin.
pub fn predict_optional<T: Model + OptionalInputs>(
    request: &Request,
    inputs: Vec<Tensor>,
) -> Result<Vec<Tensor>, Error> {
    let (names, metadata) = (T::names(), T::metadata());
    if let Some(name) = names.iter().find(|name| metadata.inputs.iter().all(|spec| spec.name != **name)) {
        panic!("optional-inputs names \"{name}\", which the metadata do not have");
    }
    predict_with::<T>(request, &names, inputs)
}

fn predict_with<T: Model>(
    request: &Request,
    optional: &[String],
    inputs: Vec<Tensor>,
) -> Result<Vec<Tensor>, Error> {
    let metadata = T::metadata();
    check_inputs(&metadata.inputs, optional, &inputs)?;
    let outputs = within(request, || T::predict(request, inputs))?;
    check_outputs(&metadata.outputs, &outputs)?;
    Ok(outputs)
}

/// Runs a request through a transformer and a model as a host does: `preprocess`, the model,
/// `postprocess`. `metadata` are those of the model, and `model` answers for it.
///
/// Tensors of a client are checked against the transformer's own metadata, if it has some,
/// otherwise against the model's. What `preprocess` returns must fit the model; if not, the error
/// is `failed`. A JSON answer must be one JSON value.
///
/// ```
/// use hostler_plugin::testing::{Host, transform};
/// use hostler_plugin::{Datatype, Error, ModelMetadata, Payload, Request, Tensor, Transformer};
/// use hostler_plugin::{json, tensor};
///
/// /// Lets clients send a plain number.
/// struct Number;
///
/// impl Transformer for Number {
///     fn preprocess(_: &Request, input: Payload) -> Result<Vec<Tensor>, Error> {
///         let Payload::Json(text) = input else { return Err(Error::unsupported("send JSON")) };
///         let Ok(json::Value::Number(x)) = json::parse(&text) else {
///             return Err(Error::invalid_input("expected a number"));
///         };
///         Ok(vec![tensor::fp32("x", &[1], &[x as f32])?])
///     }
///
///     fn postprocess(_: &Request, outputs: Vec<Tensor>) -> Result<Payload, Error> {
///         let y = tensor::named(&outputs, "y")?.to_f32()?;
///         Ok(Payload::Json(format!("{:.1}", y[0])))
///     }
/// }
///
/// let host = Host::new();
/// let spec = |name| tensor::spec(name, Datatype::Fp32, &[-1]);
/// let metadata = ModelMetadata { inputs: vec![spec("x")], outputs: vec![spec("y")] };
/// let same = |inputs: &[Tensor]| Ok(vec![inputs[0].renamed("y")]);
/// let answer = transform::<Number>(&host.request(), Payload::Json("41".into()), &metadata, same);
/// assert!(matches!(answer, Ok(Payload::Json(text)) if text == "41.0"));
/// ```
pub fn transform<T: Transformer>(
    request: &Request,
    input: Payload,
    metadata: &ModelMetadata,
    model: impl FnOnce(&[Tensor]) -> Result<Vec<Tensor>, Error>,
) -> Result<Payload, Error> {
    let own = T::metadata();
    let shown = own.as_ref().unwrap_or(metadata);
    if let Payload::Tensors(tensors) = &input {
        check_inputs(&shown.inputs, &[], tensors)?;
    }
    let inputs = within(request, || T::preprocess(request, input))?;
    check_inputs(&metadata.inputs, &[], &inputs)
        .map_err(|error| Error::failed(format!("preprocess: {}", error.message)))?;
    let outputs = model(&inputs)?.into_iter().map(Tensor::of_a_model).collect();
    let answer = within(request, || T::postprocess(request, outputs))?;
    match &answer {
        Payload::Json(text) => {
            if let Err(json::NotJson { at }) = json::parse(text) {
                return Err(Error::failed(format!(
                    "postprocess returned what is not one JSON value: the error is at byte {at} of {text}"
                )));
            }
        }
        Payload::Tensors(outputs) => check_outputs(&shown.outputs, outputs)?,
        Payload::Bytes(_) => {}
    }
    Ok(answer)
}

/// What a request to a streaming model led to.
#[derive(Debug)]
pub struct Streamed {
    /// The responses that were sent, each with its tensors, also those before an error.
    pub responses: Vec<Vec<Tensor>>,
    /// What `execute` returned, or the error of a check.
    pub outcome: Result<(), Error>,
}

/// Runs one request of a streaming model to its end, as a host does: checks the inputs and each
/// response against the metadata, and that a model with `streaming: false` has sent exactly one.
/// `initialize` and `finalize` are not called.
///
/// ```
/// use hostler_plugin::concurrent::{Sink, StreamingMetadata, StreamingModel, sleep};
/// use hostler_plugin::testing::{Host, execute};
/// use hostler_plugin::{Datatype, Error, ErrorKind, Request, Tensor, tensor};
/// use std::time::Duration;
///
/// struct Count;
///
/// impl StreamingModel for Count {
///     fn metadata() -> StreamingMetadata {
///         let outputs = vec![tensor::spec("n", Datatype::Int32, &[1])];
///         StreamingMetadata { inputs: Vec::new(), outputs, streaming: true }
///     }
///
///     async fn execute(_: Request, _: Vec<Tensor>, responses: Sink) -> Result<(), Error> {
///         for n in 0..3 {
///             sleep(Duration::from_millis(10)).await?;
///             responses.send(vec![tensor::int32("n", &[1], &[n])?]).await?;
///         }
///         Ok(())
///     }
/// }
///
/// let host = Host::new();
/// let request = host.request().with_timeout(Duration::from_millis(25));
/// let streamed = execute::<Count>(request, vec![]);
/// assert_eq!(streamed.responses.len(), 2);
/// assert_eq!(streamed.outcome.unwrap_err().kind, ErrorKind::Deadline);
/// ```
pub fn execute<T: StreamingModel>(request: Request, inputs: Vec<Tensor>) -> Streamed {
    block_on(stream::<T>(request, inputs))
}

/// Like [`execute`], as a future, for several requests in one instance:
/// `block_on(both(stream::<T>(a, x), stream::<T>(b, y)))`.
pub async fn stream<T: StreamingModel>(request: Request, inputs: Vec<Tensor>) -> Streamed {
    let metadata = T::metadata();
    if let Err(error) = check_inputs(&metadata.inputs, &[], &inputs) {
        return Streamed { responses: Vec::new(), outcome: Err(error) };
    }
    let (sink, sent) = sink(metadata.streaming);
    let handle = Request(Arc::clone(&request.0));
    let mut work = pin!(T::execute(request, inputs, sink));
    let outcome = poll_fn(|task| within(&handle, || work.as_mut().poll(task))).await;
    sent.end();
    let responses = sent.responses();
    let checked = responses.iter().try_for_each(|outputs| check_outputs(&metadata.outputs, outputs));
    let single = match (metadata.streaming, responses.len()) {
        (false, 0) => Err(Error::failed("execute returned without a response; the model has exactly one")),
        _ => Ok(()),
    };
    Streamed { responses, outcome: outcome.and(checked).and(single) }
}

/// Makes `request` the current one while a function runs.
fn within<R>(request: &Request, run: impl FnOnce() -> R) -> R {
    let replace = |request: Option<Arc<Mutex<_>>>| {
        with_host("a request", |host| std::mem::replace(&mut host.request, request))
    };
    let before = replace(Some(Arc::clone(&request.0)));
    let result = run();
    replace(before);
    result
}
