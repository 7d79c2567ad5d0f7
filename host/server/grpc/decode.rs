//! Decodes the message of an inference into the protocol's request.

use super::contents;
use super::message::ModelInferRequest;
use crate::error::{Error, Result};
use crate::predict::{MemoryBudget, Parameter, Parameters};
use crate::proto::inference::InferParameter;
use crate::proto::inference::infer_parameter::ParameterChoice;
use crate::server::oip::parameters::check_tensor_parameter;
use crate::server::oip::request::{InferRequest, RequestedOutput};
use std::collections::BTreeMap;
use std::time::Duration;

/// Decodes a message and charges its tensors.
pub(super) fn decode(message: ModelInferRequest, budget: &mut MemoryBudget) -> Result<InferRequest> {
    let mut request = InferRequest {
        id: Some(message.id).filter(|id| !id.is_empty()),
        parameters: parameters(message.parameters)?,
        inputs: Vec::new(),
        outputs: Vec::with_capacity(message.outputs.len()),
    };
    for input in &message.inputs {
        for name in input.parameters.keys() {
            check_tensor_parameter(format_args!("input \"{}\"", input.name), name)?;
        }
    }
    request.inputs =
        contents::decode(&message.model_name, message.inputs, message.raw_input_contents, budget)?;
    for output in message.outputs {
        let parameters = parameters(output.parameters)?;
        request.outputs.push(RequestedOutput { name: output.name, parameters });
    }
    Ok(request)
}

/// Bounds the parameter `timeout`, of which 0 means none, by the time from the start of the request
/// to the call's deadline.
pub(super) fn limit_timeout(parameters: &mut Parameters, limit: Duration) {
    // A deadline that has passed must not become 0.
    let us = i64::try_from(limit.as_micros()).unwrap_or(i64::MAX).max(1);
    match parameters.iter_mut().find(|(name, _)| name == "timeout") {
        Some((_, Parameter::Integer(timeout_us))) if *timeout_us == 0 || *timeout_us > us => *timeout_us = us,
        Some(_) => {}
        None => parameters.push(("timeout".into(), Parameter::Integer(us))),
    }
}

fn parameters(fields: BTreeMap<String, InferParameter>) -> Result<Parameters> {
    let one = |(name, parameter): (String, InferParameter)| {
        let value = match parameter.parameter_choice {
            Some(ParameterChoice::BoolParam(value)) => Parameter::Boolean(value),
            Some(ParameterChoice::Int64Param(value)) => Parameter::Integer(value),
            Some(ParameterChoice::StringParam(value)) => Parameter::Text(value),
            Some(ParameterChoice::DoubleParam(value)) => Parameter::Number(value),
            Some(ParameterChoice::Uint64Param(value)) => {
                Parameter::Integer(value.try_into().map_err(|_| {
                    let message =
                        format!("parameter \"{name}\" is {value}; at most {} is supported", i64::MAX);
                    Error::invalid(message).field(format!("parameters.{name}"))
                })?)
            }
            None => {
                let message = format!("parameter \"{name}\" has no value");
                return Err(Error::invalid(message).field(format!("parameters.{name}")));
            }
        };
        Ok((name, value))
    };
    fields.into_iter().map(one).collect()
}
