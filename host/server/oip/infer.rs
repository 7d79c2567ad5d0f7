//! An inference as HTTP and gRPC both mean it: they decode into its request and encode its responses. What a
//! request may ask is decided here, once; bytes are the protocols' business.

use super::classification;
use crate::error::{Error, Kind, Result};
use crate::policy::Route;
use crate::predict::{
    self, Metadata, Parameter, Parameters, Payload, Response, Responses, Shape, Tensor, element_count,
};
use crate::router::{CallOptions, RequestScope};
use std::sync::Arc;
use std::time::Duration;

/// Set on a request: where its responses end is marked, by a response of its own if need be.
pub(in crate::server) const ENABLE_EMPTY_FINAL: &str = "triton_enable_empty_final_response";

pub(in crate::server) struct InferRequest {
    /// Comes back in the answer.
    pub id: Option<String>,
    /// As sent, the protocol's own included.
    pub parameters: Parameters,
    pub inputs: Vec<Tensor>,
    /// All if there are none.
    pub outputs: Vec<RequestedOutput>,
}

pub(in crate::server) struct RequestedOutput {
    pub name: String,
    pub parameters: Parameters,
}

pub(in crate::server) struct InferResponse {
    pub route: Arc<Route>,
    pub id: Option<String>,
    pub parameters: Parameters,
    pub outputs: Vec<Tensor>,
}

/// Runs a model that answers once.
pub(in crate::server) async fn infer(
    scope: &mut RequestScope,
    route: &Arc<Route>,
    request: InferRequest,
) -> Result<InferResponse> {
    if route.is_streaming() {
        return Err(Error::unsupported(format!(
            "model \"{}\" gives any number of responses to a request; ask for it on a stream (ModelStreamInfer over gRPC, \
             generate_stream over HTTP): infer doesn't support models with decoupled transaction policy",
            route.name
        )));
    }
    let Prepared { options, input, frame } = prepare(route, request)?;
    let response = scope.predict(route, options, input).await?;
    frame.response(response)
}

/// Begins a model that gives any number of responses; one that answers once gives one.
#[expect(clippy::result_large_err, reason = "both sides hold the journey, and a box would cost every stream")]
pub(in crate::server) fn stream(
    mut scope: RequestScope,
    route: &Arc<Route>,
    request: InferRequest,
) -> Result<InferStream, (RequestScope, Error)> {
    let begun = prepare(route, request)
        .and_then(|Prepared { options, input, frame }| Ok((scope.stream(route, options, input)?, frame)));
    match begun {
        Ok((responses, frame)) => Ok(InferStream { scope, responses, frame, error: None }),
        Err(error) => Err((scope, error)),
    }
}

/// The responses to one request. Dropping it cancels the work.
pub(in crate::server) struct InferStream {
    scope: RequestScope,
    responses: Responses,
    frame: Frame,
    error: Option<Error>,
}

impl InferStream {
    /// None after the last, and after an error.
    pub async fn next(&mut self) -> Option<Result<InferResponse>> {
        if self.error.is_some() {
            return None;
        }
        let response = self.scope.next(&self.frame.route, &mut self.responses).await?;
        let response = response.and_then(|response| self.frame.response(response));
        self.error = response.as_ref().err().cloned();
        Some(response)
    }

    /// Ends the work, and leaves the account of it to the caller.
    pub fn into_scope(self) -> RequestScope {
        self.scope
    }

    pub fn scope(&self) -> &RequestScope {
        &self.scope
    }

    /// Accounts for the stream as a whole; `status_of` is the protocol's word for how it ended.
    pub fn end(self, status_of: impl FnOnce(Option<&Error>) -> u16) {
        let status = status_of(self.error.as_ref());
        self.scope.end(status, self.error.as_ref());
    }
}

/// Clients of this protocol look for how the message begins, to tell a wrong name from other faults.
pub(in crate::server) fn unknown_model(error: Error, version: Option<&str>) -> Error {
    match (error.kind(), version) {
        // Versions are numbers where those clients come from.
        (Kind::NotFound, Some(version)) if !version.bytes().all(|byte| byte.is_ascii_digit()) => {
            let shown: String = version.chars().take(64).collect();
            error.context(format_args!(
                "Request for unknown model: failed to get model version from specified version string '{shown}'"
            ))
        }
        (Kind::NotFound, _) => error.context("Request for unknown model"),
        _ => error,
    }
}

struct Prepared {
    options: CallOptions,
    input: Payload,
    frame: Frame,
}

/// What every response to a request has in common.
struct Frame {
    route: Arc<Route>,
    id: Option<String>,
    outputs: Vec<Wanted>,
}

/// A requested output that the model has.
struct Wanted {
    name: String,
    /// Of each row, the so many best instead of all.
    classes: Option<usize>,
    /// The model may leave it out.
    is_optional: bool,
}

/// Bytes of a request's id: each response of a stream repeats it.
const ID_BYTES_MAX: usize = 4 << 10;

/// Holds a request against what its model takes and gives.
fn prepare(route: &Arc<Route>, request: InferRequest) -> Result<Prepared> {
    if let Some(length) = request.id.as_ref().map(String::len).filter(|length| *length > ID_BYTES_MAX) {
        let message =
            format!("the request's id has {length} bytes; at most {ID_BYTES_MAX} are repeated in responses");
        return Err(Error::too_large(message).field("id"));
    }
    route.check_available()?;
    let metadata = route.metadata();
    predict::check_inputs(metadata, &request.inputs)
        .map_err(|error| missing(&route.name.name, metadata, &request.inputs, error))?;
    let mut options = call_options(request.parameters)?;
    // The outputs of a transformer are not those of its model.
    if !request.outputs.is_empty() && route.transformer.is_none() {
        options.outputs = Some(request.outputs.iter().map(|output| output.name.clone()).collect());
    }
    Ok(Prepared {
        options,
        input: Payload::Tensors(request.inputs),
        frame: Frame {
            route: Arc::clone(route),
            id: request.id,
            outputs: wanted(metadata, request.outputs)?,
        },
    })
}

/// Says of a missing input which others are missing too, in the words that the protocol's clients know.
fn missing(model: &str, metadata: &Metadata, inputs: &[Tensor], error: Error) -> Error {
    let given = |name: &str| inputs.iter().any(|tensor| tensor.name() == name);
    let required = metadata.inputs.iter().filter(|spec| !spec.optional);
    let absent: Vec<&str> = required.clone().map(|spec| &*spec.name).filter(|name| !given(name)).collect();
    if error.field_name().is_none_or(|field| !absent.contains(&field)) {
        return error;
    }
    let quoted = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
        format!("[{}]", names.join(","))
    };
    let got: Vec<&str> = inputs.iter().map(Tensor::name).collect();
    let expected = match (required.count(), metadata.inputs.len()) {
        (least, most) if least == most => format!("expected {most} inputs"),
        (least, most) => format!("expected number of inputs between {least} and {most}"),
    };
    let message = format!(
        "{}: {expected} but got {} inputs for model '{model}'. Got input(s) {}, but missing required input(s) {}. \
         Please provide all required input(s).",
        error.message(),
        got.len(),
        quoted(&got),
        quoted(&absent),
    );
    Error::invalid(message).field(absent[0])
}

fn wanted(metadata: &Metadata, outputs: Vec<RequestedOutput>) -> Result<Vec<Wanted>> {
    let mut all: Vec<Wanted> = Vec::with_capacity(outputs.len());
    for RequestedOutput { name, parameters } in outputs {
        let Some(spec) = metadata.outputs.iter().find(|spec| *spec.name == *name) else {
            let hint = crate::error::did_you_mean(&name, metadata.outputs.iter().map(|spec| &*spec.name));
            return Err(Error::invalid(format!("no output \"{name}\"{hint}")).field(name));
        };
        if all.iter().any(|earlier| earlier.name == name) {
            return Err(Error::invalid(format!(
                "Duplicate output name '{name}' is not allowed in a request"
            ))
            .field(name));
        }
        let mut classes = None;
        for (parameter, value) in &parameters {
            check_tensor_parameter(format_args!("output \"{name}\""), parameter)?;
            if parameter == "classification" {
                classes = classification::classes(spec, value)?;
            }
        }
        all.push(Wanted { name, classes, is_optional: spec.optional });
    }
    Ok(all)
}

/// The shape of `count` elements where the sender does not say: free dimensions are 1, but the last, which has
/// what is left.
pub(in crate::server) fn filled(spec: &[i64], count: usize) -> Option<Shape> {
    let mut shape: Shape = spec.iter().map(|&dimension| if dimension < 0 { 1 } else { dimension }).collect();
    let others = element_count(&shape).ok()?;
    if let Some(place) = spec.iter().rposition(|&dimension| dimension < 0) {
        shape[place] = i64::try_from(count.checked_div(others)?).ok()?;
    }
    (element_count(&shape).ok()? == count).then_some(shape)
}

/// Refuses what a tensor of a request or an answer cannot have: its bytes elsewhere than in the message.
pub(in crate::server) fn check_tensor_parameter(tensor: impl std::fmt::Display, name: &str) -> Result<()> {
    if !name.starts_with("shared_memory_") {
        return Ok(());
    }
    Err(Error::unsupported(format!(
        "{tensor}: shared memory is not supported; send and receive tensors in the message itself"
    ))
    .field(format!("parameters.{name}")))
}

/// `timeout` (microseconds) and a few more are the protocol's own; the rest is for the plugin.
fn call_options(mut parameters: Parameters) -> Result<CallOptions> {
    let mut timeout = None;
    let mut fault = None;
    parameters.retain(|(name, value)| {
        let taken = reserved(name, value, &mut timeout);
        fault = fault.take().or_else(|| taken.as_ref().err().cloned());
        matches!(taken, Ok(false))
    });
    fault.map_or(Ok(CallOptions { parameters, timeout, outputs: None }), Err)
}

/// Whether a parameter is the protocol's, and if so what it means here.
fn reserved(name: &str, value: &Parameter, timeout: &mut Option<Duration>) -> Result<bool> {
    let fault = |wanted: &str| {
        let message = format!("parameter \"{name}\" is {}; it is {wanted}", shown(value));
        Err(Error::invalid(message).field(format!("parameters.{name}")))
    };
    match (name, value) {
        // 0 is how callers say that they set none.
        ("timeout", Parameter::Integer(us)) if *us >= 0 => {
            *timeout = Some(Duration::from_micros(*us as u64)).filter(|timeout| !timeout.is_zero());
        }
        ("timeout", _) => return fault("a number of microseconds, at least 1, or 0 for none"),
        // Queues here are served in order.
        ("priority", Parameter::Integer(0..)) => {}
        ("priority", _) => return fault("a whole number, at least 0"),
        ("sequence_id", Parameter::Integer(0)) => {}
        ("sequence_start" | "sequence_end", Parameter::Boolean(false)) => {}
        ("sequence_id", Parameter::Text(id)) if id.is_empty() => {}
        ("sequence_id" | "sequence_start" | "sequence_end", _) => {
            return Err(Error::unsupported(format!(
                "parameter \"{name}\": sequences are not supported; each request stands for itself"
            ))
            .field(format!("parameters.{name}")));
        }
        // Only a stream over gRPC has a use for it.
        (ENABLE_EMPTY_FINAL, _) => {}
        (name, _) if name.starts_with("triton_") => {
            return Err(Error::invalid(format!(
                "parameter \"{name}\": parameter keys starting with 'triton_' are reserved for Triton usage. Only the \
                 following keys starting with 'triton_' are allowed: {ENABLE_EMPTY_FINAL}"
            ))
            .field(format!("parameters.{name}")));
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// As a message has it.
pub(super) fn shown(value: &Parameter) -> String {
    match value {
        Parameter::Boolean(value) => value.to_string(),
        Parameter::Integer(value) => value.to_string(),
        Parameter::Number(value) => format!("{value:?}"),
        Parameter::Text(value) => format!("{value:?}"),
    }
}

impl Frame {
    fn response(&self, response: Response) -> Result<InferResponse> {
        Ok(InferResponse {
            route: Arc::clone(&self.route),
            id: self.id.clone(),
            parameters: Parameters::new(),
            outputs: self.outputs(response.payload)?,
        })
    }

    /// A transformer that answers with JSON or bytes gives them as one BYTES output.
    fn outputs(&self, payload: Payload) -> Result<Vec<Tensor>> {
        let one = |element: &[u8]| {
            Tensor::from_elements("result", Shape::from_slice(&[1]), [element]).map(|tensor| vec![tensor])
        };
        match payload {
            Payload::Tensors(mut tensors) => {
                if self.outputs.is_empty() {
                    return Ok(tensors);
                }
                tensors.retain(|tensor| self.outputs.iter().any(|wanted| wanted.name == tensor.name()));
                for wanted in &self.outputs {
                    let tensor = tensors.iter_mut().find(|tensor| tensor.name() == wanted.name);
                    if tensor.is_none() && wanted.is_optional {
                        continue;
                    }
                    let tensor = tensor.ok_or_else(|| {
                        Error::failed(format!("the model gave no output \"{}\" this time", wanted.name))
                    })?;
                    if let Some(classes) = wanted.classes {
                        *tensor = classification::best(&self.route, tensor, classes)?;
                    }
                }
                Ok(tensors)
            }
            Payload::Json(text) => one(text.as_bytes()),
            Payload::Bytes { data, .. } => one(&data),
        }
    }
}
