//! The plain JSON form of a prediction: an object of input name to nested arrays, and back.

use super::encode::encode_tensor;
use super::json::{JsonLimits, decode_tensor};
use super::metadata::{Metadata, check_inputs};
use super::tensor::Tensor;
use super::{JsonText, Payload};
use crate::error::{Error, Result};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// Tensors from `data`: an object of input names, or the value alone where there is one input.
pub fn decode_inputs(data: &JsonText, metadata: &Metadata, limits: JsonLimits) -> Result<Vec<Tensor>> {
    let text = data.as_str();
    let inputs = match (text.trim_start().starts_with('{'), metadata.inputs.as_slice()) {
        (true, _) => {
            let entries: Entries = serde_json::from_str(text)
                .map_err(|error| Error::invalid(format!("data: {error}")).field("data"))?;
            entries
                .0
                .into_iter()
                .map(|(name, value)| decode_tensor(metadata.input(&name)?, value.get(), None, limits))
                .collect::<Result<Vec<_>>>()?
        }
        (false, [only]) => vec![decode_tensor(only, text, None, limits)?],
        (false, specs) => {
            let names: Vec<String> = specs.iter().map(|spec| format!("\"{}\": …", spec.name)).collect();
            let wanted = names.join(", ");
            return Err(Error::invalid(format!(
                "the model has {} inputs, so data must be an object of them: {{{wanted}}}",
                specs.len()
            ))
            .field("data"));
        }
    };
    check_inputs(metadata, &inputs)?;
    Ok(inputs)
}

/// How an answer is asked for that JSON cannot carry.
const AS_BYTES: &str = "ask for it as bytes: over gRPC, or POST /v2/models/<model>/infer with the parameter \"binary_data\": true";

/// The `result` of an answer. A payload of bytes has no JSON form.
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
                "the answer is {content_type}, which JSON cannot carry; ask with POST /predict/<model>"
            )));
        }
    }
    Ok(())
}

/// An object's entries as they are, in their order, duplicates included.
struct Entries<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> serde::Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of inputs")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Entries<'de>, A::Error> {
                let mut entries = Vec::new();
                while let Some((key, value)) = map.next_entry::<Name<'de>, &RawValue>()? {
                    entries.push((key.0, value));
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(Collect)
    }
}

/// Borrowed unless the key has escapes.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
