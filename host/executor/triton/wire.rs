//! Converts tensors and parameters to messages of the Open Inference Protocol, and back. Tensor
//! contents are sent raw, never as typed fields.

use crate::error::{Error, Result};
use crate::predict::{Allocation, CallContext, Datatype, Origin, Parameter, Parameters, Shape, Tensor};
use crate::proto::inference::infer_parameter::ParameterChoice;
use crate::proto::inference::model_infer_request::InferInputTensor;
use crate::proto::inference::{InferParameter, ModelInferRequest, ModelInferResponse};
use std::collections::BTreeMap;

/// Parameters about the encoding of the request that the host received. They are not passed on: the
/// remote receives raw contents over gRPC.
const ENCODING_PARAMETERS: [&str; 2] = ["binary_data_output", "binary_data_size"];

/// The prefix of keys that Triton reserves.
const RESERVED: &str = "triton_";

/// The request parameter that asks for a marker at the end of a stream, and the response parameter
/// that is this marker.
const ENABLE_FINAL_RESPONSE: &str = "triton_enable_empty_final_response";
const FINAL_RESPONSE: &str = "triton_final_response";

pub(super) fn request(
    model: &str,
    version: &str,
    context: &CallContext,
    inputs: Vec<Tensor>,
) -> ModelInferRequest {
    let raw_input_contents = inputs.iter().map(|tensor| tensor.data().clone()).collect();
    let input = |tensor: &Tensor| InferInputTensor {
        name: tensor.name().to_owned(),
        datatype: tensor.datatype().as_str().to_owned(),
        shape: tensor.shape().to_vec(),
        ..InferInputTensor::default()
    };
    ModelInferRequest {
        model_name: model.to_owned(),
        model_version: version.to_owned(),
        id: context.id.to_string(),
        parameters: parameters(&context.parameters),
        inputs: inputs.iter().map(input).collect(),
        outputs: Vec::new(),
        raw_input_contents,
    }
}

/// Asks the remote to mark the end of the responses.
pub(super) fn request_final_marker(request: &mut ModelInferRequest) {
    request.parameters.insert(ENABLE_FINAL_RESPONSE.to_owned(), choice(ParameterChoice::BoolParam(true)));
}

/// Returns whether the response is marked as the last one, and whether it has no outputs.
pub(super) fn final_marker(response: &ModelInferResponse) -> (bool, bool) {
    let marker =
        response.parameters.get(FINAL_RESPONSE).and_then(|parameter| parameter.parameter_choice.as_ref());
    (matches!(marker, Some(ParameterChoice::BoolParam(true))), response.outputs.is_empty())
}

fn parameters(parameters: &Parameters) -> BTreeMap<String, InferParameter> {
    let own = |name: &str| !name.starts_with(RESERVED) && !ENCODING_PARAMETERS.contains(&name);
    let passed_on = parameters.iter().filter(|(name, _)| own(name));
    passed_on
        .map(|(name, value)| {
            let value = match value {
                Parameter::Boolean(value) => ParameterChoice::BoolParam(*value),
                Parameter::Integer(value) => ParameterChoice::Int64Param(*value),
                Parameter::Number(value) => ParameterChoice::DoubleParam(*value),
                Parameter::Text(value) => ParameterChoice::StringParam(value.clone()),
            };
            (name.clone(), choice(value))
        })
        .collect()
}

fn choice(value: ParameterChoice) -> InferParameter {
    InferParameter { parameter_choice: Some(value) }
}

/// Returns the outputs of a response. Their data are slices of the received message.
pub(super) fn outputs(response: ModelInferResponse) -> Result<Vec<Tensor>> {
    let (named, raw) = (response.outputs.len(), response.raw_output_contents.len());
    if named != raw {
        return Err(Error::failed(format!(
            "the response has {named} outputs and raw contents for {raw}; the host supports raw contents only"
        )));
    }
    let message = Allocation::spanning(&response.raw_output_contents);
    let tensors = response.outputs.into_iter().zip(response.raw_output_contents);
    tensors
        .map(|(output, data)| {
            let datatype = Datatype::parse(&output.datatype).ok_or_else(|| {
                Error::failed(format!(
                    "output \"{}\" has the datatype {}, which is not supported",
                    output.name, output.datatype
                ))
            })?;
            let shape = Shape::from_vec(output.shape);
            // A tensor that is not consistent is the remote's fault, not the caller's.
            Tensor::new(output.name, datatype, shape, data)
                .map(|tensor| tensor.made_by(Origin::Model))
                .map(|tensor| match message {
                    Some(message) => tensor.part_of(message),
                    None => tensor,
                })
                .map_err(|error| Error::failed(format!("invalid response: {}", error.message())))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::proto::inference::model_infer_response::InferOutputTensor;
    use bytes::Bytes;
    use smallvec::smallvec;

    #[test]
    fn a_request_shares_the_bytes_of_its_tensors_and_keeps_their_order() {
        let mut context = CallContext::new("id-7".into(), "m".into(), "1".into(), None);
        context.parameters = vec![
            ("priority".into(), Parameter::Integer(2)),
            ("triton_enable_empty_final_response".into(), Parameter::Boolean(true)),
            ("binary_data_output".into(), Parameter::Boolean(true)),
        ];
        let tensor = Tensor::new("x", Datatype::Int16, smallvec![2], Bytes::from(vec![1, 0, 2, 0])).unwrap();
        let request = request("far", "3", &context, vec![tensor.clone()]);
        assert_eq!((&*request.model_name, &*request.model_version, &*request.id), ("far", "3", "id-7"));
        assert_eq!(request.parameters.keys().collect::<Vec<_>>(), ["priority"]);
        assert_eq!(request.inputs[0].datatype, "INT16");
        assert_eq!(request.raw_input_contents[0].as_ptr(), tensor.data().as_ptr());
    }

    #[test]
    fn an_answer_that_does_not_fit_is_the_remotes_fault() {
        let output = |datatype: &str, shape: &[i64]| InferOutputTensor {
            name: "y".into(),
            datatype: datatype.into(),
            shape: shape.to_vec(),
            ..InferOutputTensor::default()
        };
        let answer = |output, raw: Vec<Bytes>| ModelInferResponse {
            outputs: vec![output],
            raw_output_contents: raw,
            ..ModelInferResponse::default()
        };
        let four = Bytes::from_static(&[0; 4]);
        assert_eq!(outputs(answer(output("FP32", &[1]), vec![four.clone()])).unwrap()[0].shape(), [1]);
        for (output, raw) in [
            (output("FP32", &[2]), vec![four.clone()]),
            (output("FP99", &[1]), vec![four.clone()]),
            (output("FP32", &[-1]), vec![four]),
            (output("FP32", &[1]), Vec::new()),
        ] {
            assert_eq!(outputs(answer(output, raw)).unwrap_err().kind(), Kind::Failed);
        }
    }
}
