//! The plain JSON form of a prediction: an object of input names to nested arrays, and the reverse.

use super::budget::MemoryBudget;
use super::encode::encode_tensor;
use super::json::decode_tensor;
use super::metadata::{Metadata, check_inputs, refuse_duplicate};
use super::payload::{JsonText, Payload};
use super::tensor::Tensor;
use super::walk::each_field;
use crate::error::{Error, Result};

/// Decodes `data`: an object of inputs by name, or only the value if the model has one input or
/// requires only one.
pub fn decode_inputs(data: &JsonText, metadata: &Metadata, budget: &mut MemoryBudget) -> Result<Vec<Tensor>> {
    let text = data.as_str();
    let inputs = match (text.trim_start().starts_with('{'), metadata.only_input()) {
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
        (false, Some(only)) => vec![decode_tensor(only, text, None, budget)?],
        (false, None) => return Err(unnamed(metadata)),
    };
    check_inputs(metadata, &inputs)?;
    Ok(inputs)
}

/// Returns the error for a value without a name, for a model that takes several.
fn unnamed(metadata: &Metadata) -> Error {
    let count = |optional| metadata.inputs.iter().filter(|spec| spec.optional == optional).count();
    let (required, optional) = (count(false), count(true));
    // The required ones, which the caller must send; those with defaults can be many.
    let shown = metadata.inputs.iter().filter(|spec| spec.optional == (required == 0));
    let names: Vec<String> =
        shown.clone().take(NAMES_SHOWN).map(|spec| format!("\"{}\": …", spec.name)).collect();
    let more = if shown.count() > NAMES_SHOWN { ", …" } else { "" };
    let has = match (required, optional) {
        (required, 0) => format!("{required} inputs"),
        (0, optional) => format!("no required input and {optional} optional ones"),
        (required, optional) => format!("{required} required inputs and {optional} optional ones"),
    };
    let message = format!(
        "the model has {has}, so data must be an object with their names: {{{}{more}}}",
        names.join(", ")
    );
    Error::invalid(message).field("data")
}

/// The most names that an error lists.
const NAMES_SHOWN: usize = 16;

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
