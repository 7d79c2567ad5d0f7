//! `ModelInferRequest` as it is read here: typed contents stay bytes of the message, as raw ones do, until it is known
//! what they shall become.

use crate::predict::Tensor;
use crate::proto::growth::{Field, Shape};
use crate::proto::inference::InferParameter;
use crate::proto::inference::model_infer_request::InferRequestedOutputTensor;
use crate::proto::{INFER_PARAMETERS_ENTRY, growth, wire};
use bytes::Bytes;
use std::collections::BTreeMap;

/// The same fields as in `inference.proto`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ModelInferRequest {
    #[prost(string, tag = "1")]
    pub model_name: String,
    #[prost(string, tag = "2")]
    pub model_version: String,
    #[prost(string, tag = "3")]
    pub id: String,
    #[prost(btree_map = "string, message", tag = "4")]
    pub parameters: BTreeMap<String, InferParameter>,
    #[prost(message, repeated, tag = "5")]
    pub inputs: Vec<InferInputTensor>,
    #[prost(message, repeated, tag = "6")]
    pub outputs: Vec<InferRequestedOutputTensor>,
    #[prost(bytes = "bytes", repeated, tag = "7")]
    pub raw_input_contents: Vec<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct InferInputTensor {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub datatype: String,
    #[prost(int64, repeated, tag = "3")]
    pub shape: Vec<i64>,
    #[prost(btree_map = "string, message", tag = "4")]
    pub parameters: BTreeMap<String, InferParameter>,
    /// An `InferTensorContents` for each time that the field was sent; all of them together are the contents.
    #[prost(bytes = "bytes", repeated, tag = "5")]
    pub contents: Vec<Bytes>,
}

static REQUEST: Shape = Shape {
    size: size_of::<ModelInferRequest>(),
    fields: &[
        (1, Field::Text),
        (2, Field::Text),
        (3, Field::Text),
        (4, Field::Map(INFER_PARAMETERS_ENTRY)),
        (5, Field::Many(&INPUT)),
        (6, Field::Many(&OUTPUT)),
        (7, Field::Slices),
    ],
};

/// Inputs become tensors while they are there.
static INPUT: Shape = Shape {
    size: size_of::<InferInputTensor>() + size_of::<Tensor>(),
    fields: &[
        (1, Field::Text),
        (2, Field::Text),
        (3, Field::Varints(8)),
        (4, Field::Map(INFER_PARAMETERS_ENTRY)),
        (5, Field::Slices),
    ],
};

static OUTPUT: Shape = Shape {
    size: size_of::<InferRequestedOutputTensor>() + size_of::<crate::server::oip::infer::RequestedOutput>(),
    fields: &[(1, Field::Text), (2, Field::Map(INFER_PARAMETERS_ENTRY))],
};

/// A message of at most this length takes less than a request may, whatever it holds, if `max_body_mb` is 1.
const UNCOUNTED_BYTES_MAX: usize = 8 << 10;

/// What building this message takes, if that is no more than `max`.
pub(super) fn growth(message: &[u8], max: usize) -> Result<usize, growth::TooMuch> {
    if message.len() <= UNCOUNTED_BYTES_MAX {
        return Ok(0);
    }
    growth::of(&REQUEST, message, max)
}

/// Texts that a message has beside its tensors. Of one that was sent more than once the last counts.
#[derive(Default)]
pub(super) struct Names<'a> {
    pub model: &'a str,
    pub version: &'a str,
    pub id: &'a str,
    /// Bytes of the fields that are built: all but raw contents.
    pub built_bytes: usize,
}

impl<'a> Names<'a> {
    /// None if there are more fields before the end than are worth a look, or if it is no message. A small message is
    /// not looked at.
    pub fn of(message: &'a [u8], fields_max: usize, is_large: bool) -> Option<Self> {
        let mut names = Names::default();
        if !is_large {
            return Some(names);
        }
        for (index, field) in wire::Fields::of(message).enumerate() {
            let (number, value) = field.ok().filter(|_| index < fields_max)?;
            let wire::Value::Bytes(content) = value else { continue };
            if number != RAW_INPUT_CONTENTS {
                names.built_bytes += content.len();
            }
            let name = match number {
                1 => &mut names.model,
                2 => &mut names.version,
                3 => &mut names.id,
                _ => continue,
            };
            *name = std::str::from_utf8(content).ok()?;
        }
        Some(names)
    }
}

const RAW_INPUT_CONTENTS: u32 = 7;
