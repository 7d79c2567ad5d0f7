//! `ModelInferRequest` as it is parsed here: typed contents stay bytes of the message, like raw
//! ones, until the datatype of their tensor is known.

use crate::predict::Tensor;
use crate::proto::growth::{Field, Shape};
use crate::proto::inference::InferParameter;
use crate::proto::inference::model_infer_request::InferRequestedOutputTensor;
use crate::proto::{INFER_PARAMETERS_ENTRY, growth, wire};
use crate::server::oip::request::RequestedOutput;
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
    /// One `InferTensorContents` for each occurrence of the field. Together they are the contents.
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

/// Includes the tensor, because it is made while the input still exists.
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
    size: size_of::<InferRequestedOutputTensor>() + size_of::<RequestedOutput>(),
    fields: &[(1, Field::Text), (2, Field::Map(INFER_PARAMETERS_ENTRY))],
};

/// Building a message up to this length takes less memory than a request may use, whatever it
/// contains, even if `max_body_mb` is 1.
const UNCOUNTED_BYTES_MAX: usize = 8 << 10;

/// Returns the bytes that building this message takes, if they are at most `max`.
pub(super) fn growth(message: &[u8], max: usize) -> Result<usize, growth::TooMuch> {
    if message.len() <= UNCOUNTED_BYTES_MAX {
        return Ok(0);
    }
    growth::of(&REQUEST, message, max)
}

/// The names in a message. Of a field that was sent more than once, the last one counts.
#[derive(Default)]
pub(super) struct Names<'a> {
    pub model: &'a str,
    pub version: &'a str,
    pub id: &'a str,
    /// The bytes of all fields except for raw contents, which are not built.
    pub built_bytes: usize,
}

impl<'a> Names<'a> {
    /// Scans a message. `None` if it has more than `fields_max` fields or is malformed. A small
    /// message is not scanned, and its names are empty.
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
