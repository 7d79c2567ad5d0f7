//! The types of a prediction: tensors, payloads, the context of a call, and its responses.
//!
//! Nothing here knows a protocol, an executor or a plugin; they all share these types.

mod allocation;
mod budget;
mod call_state;
mod cancellation;
mod context;
mod datatype;
mod decimal;
mod elements;
mod encode;
mod json;
mod makers;
mod metadata;
mod origin;
mod parameter;
mod payload;
mod plain;
mod raw;
mod response;
mod response_channel;
mod responses;
mod rows;
mod scalar;
mod sender;
mod shape;
mod shape_spec;
mod steps;
mod tensor;
mod unread;
pub mod walk;

pub use allocation::Allocation;
pub use budget::MemoryBudget;
pub use call_state::CallState;
pub use cancellation::{Cancellation, OnCancel};
pub use context::{CallContext, Models, Outputs, Target};
pub use datatype::Datatype;
pub use encode::encode_tensor;
pub use json::decode_tensor;
pub use makers::{Makers, explain_check};
pub use metadata::{Announced, Metadata, TensorSpec, check_inputs, check_outputs, refuse_duplicate};
pub use origin::Origin;
pub use parameter::{Parameter, Parameters, parameter};
pub use payload::{JsonText, Payload};
pub use plain::{decode_inputs, encode_result};
pub use raw::{filled_shape, raw_input};
pub use response::{Response, Service};
pub use responses::{BatchResponses, Release, Responses, channel};
pub use scalar::{Scalar, charge_parameter, parameters, parameters_bytes};
pub use sender::Sender;
pub use shape::{MAX_RANK, Shape, element_count, format_shape};
pub use shape_spec::ShapeSpec;
pub use steps::{StepLog, StepRecord};
pub use tensor::{Tensor, append_element};
pub use unread::Budget;
