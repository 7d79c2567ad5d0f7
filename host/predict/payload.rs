//! Payloads: what an application sends and receives.

use super::origin::Origin;
use super::tensor::Tensor;
use bytes::Bytes;

/// The input of a call, or its answer.
#[derive(Clone, Debug)]
pub enum Payload {
    Json(JsonText),
    Bytes { content_type: String, data: Bytes },
    Tensors(Vec<Tensor>),
}

impl Payload {
    /// Returns the approximate size as JSON, in bytes.
    pub fn json_bytes(&self) -> usize {
        match self {
            Payload::Json(text) => text.as_bytes().len(),
            Payload::Bytes { .. } => 0,
            // A number has some ten digits instead of four bytes.
            Payload::Tensors(tensors) => tensors.iter().map(|tensor| 3 * tensor.data().len()).sum(),
        }
    }

    /// Returns the bytes of memory that the payload keeps alive.
    pub fn bytes_kept(&self) -> usize {
        match self {
            Payload::Tensors(tensors) => Tensor::bytes_kept(tensors),
            Payload::Json(text) => text.as_bytes().len(),
            Payload::Bytes { data, .. } => data.len(),
        }
    }

    /// Marks the tensors as made by the caller.
    pub fn from_caller(self) -> Self {
        match self {
            Payload::Tensors(tensors) => {
                let callers = |tensor: Tensor| tensor.made_by(Origin::Caller);
                Payload::Tensors(tensors.into_iter().map(callers).collect())
            }
            other => other,
        }
    }
}

/// The text of exactly one JSON value, accepted by a parser.
#[derive(Clone, Debug)]
pub struct JsonText(Bytes);

impl JsonText {
    /// Checks that `data` is one JSON value that a strict parser accepts (`NaN` is not JSON).
    pub fn parse(data: Bytes) -> Result<Self, serde_json::Error> {
        serde_json::from_slice::<&serde_json::value::RawValue>(&data)?;
        Ok(JsonText(data))
    }

    /// For a part of a larger document that was already parsed.
    pub fn from_checked(data: Bytes) -> Self {
        debug_assert!(serde_json::from_slice::<&serde_json::value::RawValue>(&data).is_ok());
        JsonText(data)
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("invariant: a JSON parser accepted this text")
    }

    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}
