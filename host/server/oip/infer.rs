//! An inference as HTTP and gRPC both mean it: they decode into its request and encode its responses. What a
//! request may ask is decided here, once; bytes are the protocols' business.

use crate::error::{Error, Result};
use crate::policy::Route;
use crate::predict::{self, Metadata, Parameter, Parameters, Payload, Response, Responses, Shape, Tensor};
use crate::router::{Ask, Journey};
use std::sync::Arc;
use std::time::Duration;

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
    journey: &mut Journey,
    route: &Arc<Route>,
    request: InferRequest,
) -> Result<InferResponse> {
    if route.is_streaming() {
        return Err(Error::unsupported(format!(
            "model \"{}\" gives any number of responses to a request; ask for it on a stream (ModelStreamInfer over gRPC, \
             generate_stream over HTTP)",
            route.name
        )));
    }
    let Prepared { ask, input, frame } = prepare(route, request)?;
    let response = journey.predict(route, ask, input).await?;
    frame.response(response)
}

/// Begins a model that gives any number of responses; one that answers once gives one.
pub(in crate::server) fn stream(
    journey: Journey,
    route: &Arc<Route>,
    request: InferRequest,
) -> Result<InferStream, (Journey, Error)> {
    let begun = prepare(route, request)
        .and_then(|Prepared { ask, input, frame }| Ok((journey.stream(route, ask, input)?, frame)));
    match begun {
        Ok((responses, frame)) => Ok(InferStream { journey, responses, frame, error: None }),
        Err(error) => Err((journey, error)),
    }
}

/// The responses to one request. Dropping it cancels the work.
pub(in crate::server) struct InferStream {
    journey: Journey,
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
        let response = self.journey.next(&self.frame.route, &mut self.responses).await?;
        let response = response.and_then(|response| self.frame.response(response));
        self.error = response.as_ref().err().cloned();
        Some(response)
    }

    pub fn journey(&self) -> &Journey {
        &self.journey
    }

    /// Accounts for the stream as a whole; `status_of` is the protocol's word for how it ended.
    pub fn end(self, status_of: impl FnOnce(Option<&Error>) -> u16) {
        let status = status_of(self.error.as_ref());
        self.journey.end(status, self.error.as_ref());
    }
}

struct Prepared {
    ask: Ask,
    input: Payload,
    frame: Frame,
}

/// What every response to a request has in common.
struct Frame {
    route: Arc<Route>,
    id: Option<String>,
    outputs: Vec<RequestedOutput>,
}

/// Holds a request against what its model takes and gives.
fn prepare(route: &Arc<Route>, request: InferRequest) -> Result<Prepared> {
    let metadata = route.metadata();
    predict::check_inputs(metadata, &request.inputs)?;
    check_outputs(metadata, &request.outputs)?;
    Ok(Prepared {
        ask: ask(request.parameters)?,
        input: Payload::Tensors(request.inputs),
        frame: Frame { route: Arc::clone(route), id: request.id, outputs: request.outputs },
    })
}

fn check_outputs(metadata: &Metadata, wanted: &[RequestedOutput]) -> Result<()> {
    for RequestedOutput { name, .. } in wanted {
        if !metadata.outputs.iter().any(|spec| *spec.name == **name) {
            let hint = crate::error::did_you_mean(name, metadata.outputs.iter().map(|spec| &*spec.name));
            return Err(Error::invalid(format!("no output \"{name}\"{hint}")).field(&**name));
        }
    }
    Ok(())
}

/// `timeout` (microseconds) is the protocol's own; the rest is for the plugin.
fn ask(mut parameters: Parameters) -> Result<Ask> {
    let mut timeout = None;
    if let Some(place) = parameters.iter().position(|(name, _)| name == "timeout") {
        let (_, value) = parameters.remove(place);
        let us = match value {
            Parameter::Integer(us) => u64::try_from(us).ok().filter(|us| *us > 0),
            _ => None,
        };
        timeout = Some(Duration::from_micros(us.ok_or_else(|| {
            Error::invalid(format!(
                "parameter \"timeout\" is {value:?}; it is a number of microseconds, at least 1"
            ))
            .field("parameters.timeout")
        })?));
    }
    Ok(Ask { parameters, timeout })
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
                if !self.outputs.is_empty() {
                    tensors.retain(|tensor| self.outputs.iter().any(|output| output.name == tensor.name()));
                }
                Ok(tensors)
            }
            Payload::Json(text) => one(text.as_bytes()),
            Payload::Bytes { data, .. } => one(&data),
        }
    }
}
