//! What a prediction is made of: tensors, payloads, the context of a call, its responses.
//!
//! Nothing here knows a protocol, an executor or a plugin; all of them meet in these types.

mod budget;
mod context;
mod decimal;
mod elements;
mod encode;
mod json;
mod metadata;
mod origin;
mod plain;
mod responses;
mod rows;
mod scalar;
mod steps;
mod target;
mod tensor;
mod unread;
pub mod walk;

pub use budget::MemoryBudget;
pub use context::{CallContext, Cancellation, OnCancel, Parameter, Parameters, parameter};
pub use encode::encode_tensor;
pub use json::decode_tensor;
pub use metadata::{Announced, Metadata, TensorSpec, check_inputs, check_outputs, fits, refuse_duplicate};
pub use origin::{Makers, Origin, explain_check};
pub use plain::{decode_inputs, encode_result};
pub use responses::{BatchResponses, Release, Response, Responses, Sender, Service, channel};
pub use scalar::{Scalar, charge_parameter, parameters, parameters_bytes};
pub use steps::{StepLog, StepRecord};
pub use target::{Models, Outputs, Target};
pub use tensor::{
    Allocation, Datatype, MAX_RANK, Shape, Tensor, append_element, element_count, format_shape,
};
pub use unread::Budget;

use bytes::Bytes;

/// What an application sent, or what it shall get.
#[derive(Clone, Debug)]
pub enum Payload {
    Json(JsonText),
    Bytes { content_type: String, data: Bytes },
    Tensors(Vec<Tensor>),
}

impl Payload {
    /// Bytes of it as JSON, roughly.
    pub fn json_bytes(&self) -> usize {
        match self {
            Payload::Json(text) => text.as_bytes().len(),
            Payload::Bytes { .. } => 0,
            // A number has some ten digits in place of four bytes.
            Payload::Tensors(tensors) => tensors.iter().map(|tensor| 3 * tensor.data().len()).sum(),
        }
    }

    /// Says that it came with the request.
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

/// The text of exactly one JSON value. Made only from what a parser has accepted.
#[derive(Clone, Debug)]
pub struct JsonText(Bytes);

impl JsonText {
    /// Checks that `data` is one JSON value that a strict reader accepts (`NaN` is not JSON).
    pub fn parse(data: Bytes) -> Result<Self, serde_json::Error> {
        serde_json::from_slice::<&serde_json::value::RawValue>(&data)?;
        Ok(JsonText(data))
    }

    /// For a part of a larger document that was parsed already.
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
