//! Encodes a response as a message.

use crate::predict::{Parameter, Tensor};
use crate::proto::inference::infer_parameter::ParameterChoice;
use crate::proto::inference::model_infer_response::InferOutputTensor;
use crate::proto::inference::{InferParameter, ModelInferResponse};
use crate::server::oip::request::InferResponse;
use bytes::Bytes;

/// Returns the message of a response without its contents, and the contents, one for each output.
pub(super) fn encode(response: InferResponse) -> (ModelInferResponse, Vec<Bytes>) {
    let contents = response.outputs.iter().map(|tensor| tensor.data().clone()).collect();
    let output = |tensor: &Tensor| InferOutputTensor {
        name: tensor.name().into(),
        datatype: tensor.datatype().as_str().into(),
        shape: tensor.shape().to_vec(),
        ..Default::default()
    };
    let head = ModelInferResponse {
        model_name: response.route.name.name.to_string(),
        model_version: response.route.name.version.to_string(),
        id: response.id.unwrap_or_default(),
        parameters: response.parameters.into_iter().map(|(name, value)| (name, parameter(value))).collect(),
        outputs: response.outputs.iter().map(output).collect(),
        raw_output_contents: Vec::new(),
    };
    (head, contents)
}

pub(super) fn parameter(value: Parameter) -> InferParameter {
    let choice = match value {
        Parameter::Boolean(value) => ParameterChoice::BoolParam(value),
        Parameter::Integer(value) => ParameterChoice::Int64Param(value),
        Parameter::Number(value) => ParameterChoice::DoubleParam(value),
        Parameter::Text(value) => ParameterChoice::StringParam(value),
    };
    InferParameter { parameter_choice: Some(choice) }
}
