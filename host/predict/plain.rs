//! The plain JSON form of a prediction: an object of input names to nested arrays, and the reverse.

use super::budget::MemoryBudget;
use super::encode::encode_tensor;
use super::json::decode_tensor;
use super::metadata::{Metadata, check_inputs, refuse_duplicate};
use super::payload::{JsonText, Payload};
use super::tensor::Tensor;
use super::walk::each_field;
use crate::error::{Error, Result};

/// Decodes `data`: an object of inputs by name, or only the value if the model has one input.
pub fn decode_inputs(data: &JsonText, metadata: &Metadata, budget: &mut MemoryBudget) -> Result<Vec<Tensor>> {
    let text = data.as_str();
    let inputs = match (text.trim_start().starts_with('{'), metadata.inputs.as_slice()) {
        (true, _) => {
            let mut inputs: Vec<Tensor> = Vec::with_capacity(metadata.inputs.len());
            let walked = each_field(text, |name, value| {
                let spec = metadata.input(&name)?;
                refuse_duplicate(&inputs, &name)?;
                inputs.push(decode_tensor(spec, value.get(), None, budget)?);
                Ok(())
            });
            let unreadable =
                |error: &serde_json::Error| Error::invalid(format!("data: {error}")).field("data");
            walked.map_err(|stopped| stopped.into_error(unreadable))?;
            inputs
        }
        (false, [only]) => vec![decode_tensor(only, text, None, budget)?],
        (false, specs) => {
            let names: Vec<String> = specs.iter().map(|spec| format!("\"{}\": …", spec.name)).collect();
            let wanted = names.join(", ");
            return Err(Error::invalid(format!(
                "the model has {} inputs, so data must be an object with their names: {{{wanted}}}",
                specs.len()
            ))
            .field("data"));
        }
    };
    check_inputs(metadata, &inputs)?;
    Ok(inputs)
}

/// How to request an answer that JSON cannot represent.
const AS_BYTES: &str = "request it as bytes: over gRPC, or with POST /v2/models/<model>/infer and the parameter \"binary_data\": true";

/// Appends the `result` of an answer. A payload of bytes has no JSON form.
pub fn encode_result(payload: &Payload, out: &mut Vec<u8>) -> Result<()> {
    match payload {
        Payload::Json(text) => out.extend_from_slice(text.as_bytes()),
        Payload::Tensors(tensors) => {
            out.push(b'{');
            for (index, tensor) in tensors.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                serde_json::to_writer(&mut *out, tensor.name()).expect("invariant: writing to memory");
                out.push(b':');
                encode_tensor(tensor, false, out)
                    .map_err(|error| Error::new(error.kind(), format!("{}; {AS_BYTES}", error.message())))?;
            }
            out.push(b'}');
        }
        Payload::Bytes { content_type, .. } => {
            return Err(Error::unsupported(format!(
                "the answer is {content_type}, which JSON cannot carry; use POST /predict/<model>"
            )));
        }
    }
    Ok(())
}
