//! Runs the request of a case, and compares the answer with what is expected.

use super::case::{CaseRequest, Expected, ExpectedError, WrittenTensor};
use super::difference::{difference, short};
use crate::cancel::Cancel;
use crate::error::{Error, Result, did_you_mean};
use crate::executor::{Call, Precedence};
use crate::policy::content::PolicyContent;
use crate::policy::route::Route;
use crate::policy::route_input;
use crate::predict::{
    self, CallContext, Datatype, JsonText, MemoryBudget, Parameters, Payload, Response, ShapeSpec, StepLog,
    Tensor, TensorSpec,
};
use bytes::Bytes;
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The most responses of one request.
const RESPONSES_MAX: usize = 10_000;

/// Characters of an unexpected text that a difference shows.
const SHOWN: usize = 200;

/// How a request of a case runs.
pub struct CaseOptions<'a> {
    pub parameters: &'a Map<String, Value>,
    pub timeout: Duration,
    /// Stops the request as if its client had disconnected.
    pub cancel: &'a Cancel,
    /// Logs the steps of a pipeline.
    pub steps: Option<Arc<StepLog>>,
}

impl Route {
    /// Like `responses`, without their timings.
    pub async fn answer(
        &self,
        policy: &Arc<PolicyContent>,
        request: &CaseRequest,
        options: CaseOptions<'_>,
    ) -> Result<Vec<Payload>> {
        let responses = self.responses(policy, request, options).await?;
        Ok(responses.into_iter().map(|response| response.payload).collect())
    }

    /// Runs one request on the calling thread, and outside of any queue if the executor can.
    /// Returns its one response, or all of a model with 0..n responses. `policy` is the one that
    /// the route belongs to.
    pub async fn responses(
        &self,
        policy: &Arc<PolicyContent>,
        request: &CaseRequest,
        options: CaseOptions<'_>,
    ) -> Result<Vec<Response>> {
        let (name, version) = (Arc::clone(&self.name.name), Arc::clone(&self.name.version));
        let deadline = Some(Instant::now() + options.timeout);
        let mut context = CallContext::new("sample".into(), name, version, deadline);
        context.parameters = parameters(options.parameters)?;
        context.models = Some(Arc::clone(policy) as _);
        context.steps = options.steps.map(|steps| steps as _);
        let context = Arc::new(context);
        let stopped = Arc::clone(&context);
        let _registered = options.cancel.on_cancel(move || stopped.cancellation.cancel());
        let call = Call {
            context,
            input: self.case_input(request)?.from_caller(),
            transformer: self.transformer.clone(),
            callable: Arc::clone(&self.callable),
            runs: None,
            batching: None,
            precedence: Precedence::New,
        };
        if !self.is_streaming() {
            return Ok(vec![self.executor.run_alone(call).await?]);
        }
        let mut responses = self.executor.submit(call)?;
        let mut all = Vec::new();
        while let Some(response) = responses.next().await.transpose()? {
            if all.len() >= RESPONSES_MAX {
                return Err(Error::too_large(format!("it has more than {RESPONSES_MAX} responses")));
            }
            all.push(response);
        }
        Ok(all)
    }

    fn case_input(&self, request: &CaseRequest) -> Result<Payload> {
        let mut budget = MemoryBudget::unlimited();
        match request {
            CaseRequest::Data(data) => {
                let text = JsonText::from_checked(Bytes::from(String::from(data.get())));
                route_input::json_input(self, text, &mut budget)
            }
            CaseRequest::Body { content_type, data } => match &*route_input::media_type(content_type) {
                "application/json" => {
                    let text = JsonText::parse(data.clone())
                        .map_err(|error| Error::invalid(format!("the body is not JSON: {error}")))?;
                    route_input::json_input(self, text, &mut budget)
                }
                _ => route_input::body_input(self, content_type.clone(), data.clone()),
            },
            CaseRequest::Inputs(inputs) => {
                let tensors = inputs.iter().map(tensor).collect::<Result<Vec<Tensor>>>()?;
                route_input::stored_input(self, Payload::Tensors(tensors), &mut budget)
            }
        }
    }

    /// Returns the answer in JSON: a result, or a list of them for a model with 0..n responses.
    pub fn result_of(&self, payloads: &[Payload]) -> Result<Vec<u8>> {
        let mut json = Vec::new();
        if !self.is_streaming() {
            payloads.iter().try_for_each(|payload| predict::encode_result(payload, &mut json))?;
            return Ok(json);
        }
        json.push(b'[');
        for (index, payload) in payloads.iter().enumerate() {
            if index > 0 {
                json.push(b',');
            }
            predict::encode_result(payload, &mut json)?;
        }
        json.push(b']');
        Ok(json)
    }
}

fn parameters(written: &Map<String, Value>) -> Result<Parameters> {
    written.iter().map(|(name, value)| Ok((name.clone(), predict::parameter(name, value)?))).collect()
}

/// Creates a tensor of a request.
fn tensor(written: &WrittenTensor) -> Result<Tensor> {
    let WrittenTensor { name, datatype, shape, data } = written;
    let parsed = Datatype::parse(datatype).ok_or_else(|| {
        let hint = did_you_mean(datatype, Datatype::ALL.map(Datatype::as_str));
        Error::invalid(format!("input \"{name}\": no datatype \"{datatype}\"{hint}")).field(name.as_str())
    })?;
    let spec = TensorSpec {
        name: name.as_str().into(),
        datatype: parsed,
        shape: ShapeSpec::Ranked(shape.iter().copied().collect()),
        optional: false,
    };
    predict::decode_tensor(&spec, &data.to_string(), Some(shape), &mut MemoryBudget::unlimited())
}

/// Returns what differs from the expectation; `None` if the answer is right.
pub fn judge(
    route: &Route,
    expected: &Expected,
    answer: &Result<Vec<Payload>>,
    tolerance: f64,
) -> Option<String> {
    let payloads = match (expected, answer) {
        (Expected::Error(wanted), Err(error)) => return judge_error(wanted, error),
        (Expected::Error(_), Ok(payloads)) => {
            let got = route.result_of(payloads).unwrap_or_else(|_| b"bytes".to_vec());
            return Some(format!("expected an error, got {}", short(&String::from_utf8_lossy(&got), SHOWN)));
        }
        (_, Err(error)) => return Some(error.clone().for_author().to_string()),
        (_, Ok(payloads)) => payloads,
    };
    match expected {
        Expected::Result(wanted) => {
            let json = match route.result_of(payloads) {
                Ok(json) => json,
                Err(error) => return Some(error.to_string()),
            };
            // A transformer may answer with JSON that has numbers beyond FP64, or is nested deeply.
            match serde_json::from_slice(&json) {
                Ok(got) => difference(wanted, &got, tolerance, String::new()),
                Err(error) => Some(format!("the result cannot be compared: {error}")),
            }
        }
        Expected::Body { content_type, data } => {
            let body = |payload: &Payload| match payload {
                Payload::Bytes { content_type, data } => Some((content_type.clone(), data.clone())),
                Payload::Json(text) => Some(("application/json".to_owned(), text.as_bytes().clone())),
                Payload::Tensors(_) => None,
            };
            let [payload] = &payloads[..] else {
                return Some(format!("expected one body, got {} responses", payloads.len()));
            };
            let Some((got_type, got)) = body(payload) else {
                return Some("expected a body, got tensors; use expect_outputs".to_owned());
            };
            if let Some(wanted) = content_type.as_ref().filter(|wanted| **wanted != got_type) {
                return Some(format!("content_type: expected \"{wanted}\", got \"{got_type}\""));
            }
            differing_bytes(data, &got)
        }
        Expected::Outputs(wanted) => {
            let [Payload::Tensors(tensors)] = &payloads[..] else {
                return Some("expected outputs, got JSON or bytes; use expect or expect_body".to_owned());
            };
            let got = match tensors.iter().map(written).collect::<Result<Vec<WrittenTensor>>>() {
                Ok(got) => got,
                Err(error) => return Some(format!("the outputs cannot be compared: {error}")),
            };
            wanted.iter().find_map(|wanted| judge_output(wanted, &got, tolerance))
        }
        Expected::Error(_) => None,
    }
}

fn judge_error(wanted: &ExpectedError, error: &Error) -> Option<String> {
    let ExpectedError { kind, field, message } = wanted;
    let got = error.kind().as_str();
    if let Some(kind) = kind.as_ref().filter(|kind| kind.replace('-', "_") != got) {
        return Some(format!("error kind: expected {kind}, got {got}: {error}"));
    }
    if let Some(field) = field.as_ref().filter(|field| error.field_name() != Some(field.as_str())) {
        let got = error.field_name().unwrap_or("none");
        return Some(format!("error field: expected \"{field}\", got \"{got}\": {error}"));
    }
    let message = message.as_ref().filter(|part| !error.message().contains(part.as_str()));
    message.map(|part| format!("error message: expected a part \"{part}\", got \"{}\"", error.message()))
}

fn judge_output(wanted: &WrittenTensor, got: &[WrittenTensor], tolerance: f64) -> Option<String> {
    let name = &wanted.name;
    let Some(got) = got.iter().find(|got| got.name == *name) else {
        return Some(format!("output \"{name}\": expected, and not returned"));
    };
    if (&got.datatype, &got.shape) != (&wanted.datatype, &wanted.shape) {
        let form =
            |tensor: &WrittenTensor| format!("{}{}", tensor.datatype, predict::format_shape(&tensor.shape));
        return Some(format!("output \"{name}\": expected {}, got {}", form(wanted), form(got)));
    }
    difference(&wanted.data, &got.data, tolerance, format!(" of output \"{name}\""))
}

/// Returns a tensor as a case writes it.
///
/// # Errors
/// `unsupported` if JSON cannot represent it: it has NaN, or bytes that are not text.
fn written(tensor: &Tensor) -> Result<WrittenTensor> {
    let mut json = Vec::new();
    predict::encode_tensor(tensor, true, &mut json)?;
    Ok(WrittenTensor {
        name: tensor.name().to_owned(),
        datatype: tensor.datatype().as_str().to_owned(),
        shape: tensor.shape().to_vec(),
        data: serde_json::from_slice(&json).expect("invariant: encoded tensors are JSON"),
    })
}

fn differing_bytes(wanted: &[u8], got: &[u8]) -> Option<String> {
    if wanted == got {
        return None;
    }
    let at = wanted.iter().zip(got).position(|(a, b)| a != b).unwrap_or(wanted.len().min(got.len()));
    let texts = (std::str::from_utf8(wanted), std::str::from_utf8(got));
    Some(match texts {
        (Ok(wanted), Ok(got)) => {
            format!(
                "body: expected \"{}\", got \"{}\" (byte {at} differs)",
                short(wanted, SHOWN),
                short(got, SHOWN)
            )
        }
        _ => format!(
            "body: expected {} bytes, got {} bytes; they differ from byte {at} on",
            wanted.len(),
            got.len()
        ),
    })
}
